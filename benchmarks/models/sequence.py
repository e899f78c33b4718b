"""SASRec and BERT4Rec against RecBole's: sequences learned in a second, and what they rank after as many seconds.

    python benchmarks/models/sequence.py --peer /path/to/recbole/bin/python [--seconds 40] [--out FILE]

The peer lives in an environment of its own: RecBole 1.2.1, torch of our version, numpy<2, pandas<2.3, scipy<1.14,
setuptools<81. Both learn MovieLens-100K from the same examples (each action with the 50 before it), with one thread,
batches, widths, layers, heads, rates, losses over all items and Adam alike, for the same time; both rank the last film
of everybody among all that they have not rated. ``windows`` is how dolmen learns when it is not held to that form: each
window once, all of its places at a time.

One run each, from one seed. Rates are what is compared: in seconds neither comes through a tenth or two of a pass over
the prefixes, and what it ranks then says little (popularity ranks better; ``factors.py`` has it, by the same protocol).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
import time
from dataclasses import replace
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dolmen import datasets, new_trainer
from dolmen.datasets.dataset import Dataset, Order, actions_table
from dolmen.embedding import Adam
from dolmen.evaluation import Candidates, LeaveOneOut, Ranks, rank_catalogue
from dolmen.features import Batch, Label, Schema, Side, Slot
from dolmen.models import retriever
from dolmen.provenance import command, machine, program
from dolmen.training import TrainConfig

LENGTH, BATCH, DIM, SEED = 50, 256, 64, 0
SCHEMA = Schema(
    Slot("user", dim=1 + DIM),
    Slot("item", dim=1 + DIM),
    Slot("history", dim=1 + DIM, table="item", many=True, ordered=True, of=Side.USER),
    Label("click"),
)
SASREC = {"n_layers": 2, "n_heads": 2, "hidden_size": DIM, "inner_size": DIM, "hidden_act": "relu"}
BERT = {**SASREC, "inner_size": 4 * DIM, "hidden_act": "gelu", "mask_ratio": 0.2, "ft_ratio": 0.5}
DROPOUT = {"hidden_dropout_prob": 0.2, "attn_dropout_prob": 0.2}
PEERS: dict[str, dict[str, Any]] = {"SASRec": {**SASREC, **DROPOUT}, "BERT4Rec": {**BERT, **DROPOUT}}
OURS: dict[str, tuple[str, dict[str, Any]]] = {
    "SASRec": ("sasrec", {"heads": 2, "dropout": 0.2}),
    "BERT4Rec": (
        "bert4rec",
        {"mask_rate": 0.2, "last_only_rate": 0.5, "dropout": 0.2, "attention_dropout": 0.2},
    ),
}


def films() -> Dataset:
    data = datasets.load("movielens-100k")
    rated = data.interactions
    actions = actions_table(rated["user"], rated["item"], rated["event_time"])
    return replace(data, interactions=actions, order=Order.LOG, rule=LeaveOneOut())


def ours(data: Dataset, model: str, form: str, seconds: float) -> dict[str, float]:
    name, options = OURS[model]
    if form == "windows":
        examples = Batch.concat(list(data.sequence_batches(4096, "train", max_len=LENGTH + 1, schema=SCHEMA)))
    else:
        examples = Batch.concat(list(data.batches(4096, "train", schema=SCHEMA)))
        examples = examples.take((examples.slot("history").lengths > 0).nonzero().squeeze(1))
        options = options | ({"only_last": True} if name == "sasrec" else {})
    batch = BATCH if form == "prefixes" else 32
    config = TrainConfig(evaluate_every=0, learning_rate=0.001, full_batch=1, gradient_norm_max=None, seed=SEED)
    trainer = new_trainer(SCHEMA, name, {"length": LENGTH, **options}, config, optimizer=Adam(learning_rate=0.001))
    catalogue = next(iter(data.batches(len(data), schema=SCHEMA))).slot("item").values.unique()
    trainer.embeddings.lookup_or_insert("item", catalogue, 0)
    learned, started = 0, time.perf_counter()
    generator = torch.Generator().manual_seed(SEED)
    for _ in cycle([None]):
        for rows in torch.split(torch.randperm(examples.size, generator=generator), batch):
            trainer.step(examples.take(rows))
            learned += len(rows)
            if time.perf_counter() - started >= seconds:
                break
        if time.perf_counter() - started >= seconds:
            break
    spent = time.perf_counter() - started
    able = retriever(trainer.model)
    able.eval()
    fids = trainer.embed.live("item")
    asked = Batch.concat(list(data.batches(256, "test", schema=SCHEMA)))
    with torch.no_grad():
        items, queries = trainer.embed.peek("item", fids), able.queries(asked)[:, 0]
    right, past = asked.slot("item"), asked.slot("history")
    ranking = rank_catalogue(
        lambda people: queries[people] @ items.T,
        replace(right, values=torch.searchsorted(fids, right.values)),
        len(fids),
        exclude=replace(past, values=torch.searchsorted(fids, past.values)),
    )
    return {**figures(ranking.ranks), "examples_per_second": learned / spent, "passes": learned / examples.size}


def figures(ranks: Ranks) -> dict[str, float]:
    return dict(ranks.figures((10,), ("ndcg", "hr")))


def peer(data: Dataset, model: str, python: Path, folder: Path, seconds: float) -> dict[str, float]:
    sequences = data.sequences()
    pasts = {
        str(user): [str(item) for item in items[:-1]]
        for user, items in zip(sequences["user"].to_pylist(), sequences["item"].to_pylist(), strict=True)
    }
    (folder / "films").mkdir(exist_ok=True)
    with (folder / "films" / "films.inter").open("w") as file:
        file.write("user_id:token\titem_id:token\ttimestamp:float\n")
        for user, items in zip(sequences["user"].to_pylist(), sequences["item"].to_pylist(), strict=True):
            file.writelines(f"{user}\t{item}\t{place}\n" for place, item in enumerate(items))  # our order, no ties
    told = {"model": model, "folder": str(folder), "length": LENGTH, "batch": BATCH, "seconds": seconds, "seed": SEED}
    told |= {"options": PEERS[model], "pasts": pasts}
    script = Path(__file__).with_name("recbole_peer.py").resolve()
    (folder / "told.json").write_text(json.dumps(told))
    done = subprocess.run(
        [python, script, folder / "told.json"], cwd=folder, capture_output=True, text=True, check=False
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    if not lines:
        raise SystemExit(f"the peer ended without a result:\n{done.stderr[-3000:]}")
    found = json.loads(lines[0].removeprefix("RESULT "))
    ranks = np.array(list(found["ranks"].values()), dtype=np.float64)
    return {
        **figures(Ranks(Candidates.FULL, ranks, np.arange(len(ranks) + 1))),
        "examples_per_second": found["examples"] / found["seconds"],
        "passes": found["examples"] / found["train_examples"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", type=Path, required=True, help="the Python of RecBole's environment")
    parser.add_argument("--seconds", type=float, default=40.0)
    parser.add_argument("--models", default="SASRec,BERT4Rec")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    data = films()
    result: dict[str, Any] = {
        "what": "sequence models against RecBole 1.2.1, one thread each, the same time of learning",
        "command": command(options, peer="PYTHON"),
        "program": program(),
        "machine": machine(),
        "data": "movielens-100k, every rating an action, leave-one-out",
        "seed": SEED,
        "length": LENGTH,
        "batch": BATCH,
        "seconds": options.seconds,
        "models": {},
    }
    for model in options.models.split(","):
        with tempfile.TemporaryDirectory() as folder:
            found = {"recbole": peer(data, model, options.peer, Path(folder), options.seconds)}
        for form in ("prefixes", "windows"):
            found[f"dolmen, {form}"] = ours(data, model, form, options.seconds)
        ratio = found["dolmen, prefixes"]["examples_per_second"] / found["recbole"]["examples_per_second"]
        result["models"][model] = {**found, "speed_over_recbole": ratio}
        for name, told in found.items():
            print(f"{model:9} {name:18} " + "  ".join(f"{key} {value:,.4g}" for key, value in told.items()), flush=True)
        print(f"{model:9} dolmen over recbole, same examples: {ratio:.2f} x", flush=True)
    if options.out is not None:
        options.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()

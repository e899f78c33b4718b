"""DIN beside torch-rechub's: examples learned a second on the same examples in the same order, and what they rank then.

    python benchmarks/models/ctr.py --peer PYTHON [--examples 200000] [--out FILE]

``--peer``: the Python of an environment with torch-rechub 0.9.0. Data: amazon-hin, one random item beside each action,
pasts of up to 50 items; item, brand and past are read. Vectors of 16, an activation unit of 36 and layers of 80 and 40
with Dice, batches of 512, one pass, one thread each, one after the other and twice (A B A B); the faster run counts.
The peer gets whole batches of tensors with ids numbered in advance; ours reads raw ids, and gives new ones their rows.
Ours has AdaGrad (0.05) on rows and Adam (0.001) on layers, the peer Adam (0.001) on all; one seed. So AUC is told to
show that both learn, not which ranks better.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dolmen import datasets, new_trainer
from dolmen.embedding import AdaGrad
from dolmen.evaluation import auc, gauc
from dolmen.features import Batch, Label, Schema, Side, Slot
from dolmen.models import scorer
from dolmen.provenance import command, machine, program
from dolmen.training import TrainConfig

WIDTH, LENGTH, BATCH, REPEATS, SEED = 16, 50, 512, 2, 0
HIDDEN, ATTENTION = (80, 40), (36,)
SCHEMA = Schema(
    Slot("user", dim=WIDTH + 1),
    Slot("item", dim=WIDTH + 1),
    Slot("brand", dim=WIDTH + 1, of=Side.ITEM),
    Slot("history", dim=WIDTH + 1, table="item", many=True, ordered=True, max_len=LENGTH, of=Side.USER),
    Label("click"),
)


def figures(scores: np.ndarray, test: Batch) -> dict[str, float]:
    labels = test.labels["click"].numpy()
    return {"auc": auc(scores, labels), "gauc": gauc(scores, labels, test.slot("user").values.numpy()).value}


def ours(train: Batch, order: torch.Tensor, test: Batch) -> dict[str, float]:
    options = {"history": ["history"], "others": ["brand"], "hidden": HIDDEN, "attention_hidden": ATTENTION}
    trainer = new_trainer(
        SCHEMA,
        "din",
        {**options, "product": False},
        TrainConfig(evaluate_every=0, seed=SEED),
        optimizer=AdaGrad(learning_rate=0.05),
    )
    started = time.perf_counter()
    for rows in torch.split(order, BATCH):
        trainer.step(train.take(rows))
    seconds = time.perf_counter() - started
    able = scorer(trainer.model)
    able.eval()
    with torch.no_grad():
        scores = [able.score(test.take(rows)) for rows in torch.split(torch.arange(test.size), 4096)]
    return {**figures(torch.cat(scores).numpy(), test), "examples_per_second": len(order) / seconds}


def numbered(batch: Batch, known: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Columns for the peer: ids by place among ``known``, from 1; 0 where there is none."""

    def places(slot: str, fids: np.ndarray) -> np.ndarray:
        return np.searchsorted(known[slot], fids) + 1

    columns = {"label": batch.labels["click"].numpy()}
    for slot in ("item", "brand"):
        column = batch.slot(slot)
        columns[slot] = np.zeros(batch.size, dtype=np.int64)
        columns[slot][column.lengths.numpy() > 0] = places(slot, column.values.numpy())
    past = batch.slot("history")
    lengths = past.lengths.numpy()
    columns["history"] = np.zeros((batch.size, LENGTH), dtype=np.int64)
    columns["history"][np.arange(LENGTH) < lengths[:, None]] = places("item", past.values.numpy())
    return columns


def peer(folder: Path, python: Path, known: dict[str, np.ndarray], test: Batch) -> dict[str, float]:
    told = {
        "folder": str(folder),
        "seed": SEED,
        "width": WIDTH,
        "batch": BATCH,
        "hidden": HIDDEN,
        "attention_hidden": ATTENTION,
        "items": len(known["item"]) + 1,
        "brands": len(known["brand"]) + 1,
    }
    (folder / "told.json").write_text(json.dumps(told))
    script = Path(__file__).with_name("rechub_peer.py").resolve()
    done = subprocess.run([python, script, folder / "told.json"], capture_output=True, text=True, check=False)
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    if not lines:
        raise SystemExit(f"the peer ended without a result:\n{done.stderr[-3000:]}")
    found = json.loads(lines[0].removeprefix("RESULT "))
    scores = np.load(folder / "scores.npy")
    return {**figures(scores, test), "examples_per_second": found["examples"] / found["seconds"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", type=Path, required=True)
    parser.add_argument("--examples", type=int, default=200_000)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    data = datasets.load("amazon-hin").with_negatives(1, seed=SEED)
    train, test = (Batch.concat(list(data.batches(4096, part, schema=SCHEMA))) for part in ("train", "test"))
    order = torch.randperm(train.size, generator=torch.Generator().manual_seed(SEED))[: options.examples]
    known = {
        slot: np.unique(np.concatenate([part.slot(name).values.numpy() for part in (train, test) for name in names]))
        for slot, names in {"item": ("item", "history"), "brand": ("brand",)}.items()
    }
    runs: dict[str, list[dict[str, float]]] = {"torch-rechub": [], "dolmen": []}
    with tempfile.TemporaryDirectory() as folder:
        np.savez(Path(folder) / "train.npz", order=order.numpy(), **numbered(train, known))
        np.savez(Path(folder) / "test.npz", **numbered(test, known))
        for _ in range(REPEATS):
            runs["torch-rechub"].append(peer(Path(folder), options.peer, known, test))
            runs["dolmen"].append(ours(train, order, test))
    best = {name: max(some, key=lambda one: one["examples_per_second"]) for name, some in runs.items()}
    ratio = best["dolmen"]["examples_per_second"] / best["torch-rechub"]["examples_per_second"]
    result: dict[str, Any] = {
        "what": "DIN beside torch-rechub 0.9.0, one thread each, the same examples in the same order, one pass",
        "command": command(options, peer="PYTHON"),
        "program": program(),
        "machine": machine(),
        "data": "amazon-hin, one random item beside each action",
        "seed": SEED,
        "examples": len(order),
        "batch": BATCH,
        "runs": runs,
        "speed_over_peer": ratio,
    }
    for name, told in best.items():
        print(f"{name:14} " + "  ".join(f"{key} {value:,.4g}" for key, value in told.items()), flush=True)
    print(f"dolmen over torch-rechub: {ratio:.2f} x", flush=True)
    if options.out is not None:
        options.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()

"""Two towers as matrix factorisation beside implicit's, and beside what only counts: what each recommends.

    python benchmarks/models/factors.py --peer /path/to/implicit/bin/python [--passes 8] [--seeds 2] [--out FILE]

MovieLens 100K, every rating an action; a person's last film tests, the one before validates, the rest trains. All films
that a person has not met are ranked, and Recall is whether the last one is among the best k. Vectors of 64 throughout.
The two towers are given nothing but ids, and no network. Their pass and implicit's weight of an action are those with
the best Recall@10 on the validation part. ``seconds`` of the towers are their processor's, all passes together.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from statistics import mean

import numpy as np
import torch
from sequence import films
from torch import Tensor

from dolmen import new_trainer
from dolmen.embedding import Adam
from dolmen.evaluation import catalogue_coverage as coverage
from dolmen.evaluation import (
    intra_list_diversity,
    item_knn,
    mean_popularity,
    novelty,
    popularity,
    popularity_lift,
    rank_catalogue,
    tail_share,
)
from dolmen.features import Batch, Jagged, Label, Schema, Side, Slot, encode_array
from dolmen.models import retriever
from dolmen.provenance import command, machine, program
from dolmen.training import TrainConfig, Trainer

DIM, BATCH, KS, TOP = 64, 512, (10, 50), 10
MATRIX = {"query_slots": ("user",), "item_slots": ("item",), "hidden": (), "dim": DIM, "hide_slot": None}
SCHEMA = Schema(
    Slot("user", dim=1 + DIM),
    Slot("item", dim=1 + DIM),
    Slot("history", dim=1 + DIM, table="item", many=True, ordered=True, of=Side.USER),
    Label("click"),
)


class Films:
    """The data; places in the catalogue stand for films."""

    def __init__(self) -> None:
        data = films()
        fids = torch.from_numpy(encode_array(SCHEMA.slot_number("item"), data.items["id"].combine_chunks()))
        self.catalogue = Batch(size=len(fids), slots={"item": Jagged.single(fids)})
        self._order = fids.argsort()
        self.parts = {
            split: Batch.concat(list(data.batches(4096, split, schema=SCHEMA)))
            for split in ("train", "validation", "test")
        }
        train = self.parts["train"]
        self.people = torch.unique(train.slot("user").values, return_inverse=True)[1]
        self.items = self.places(train.slot("item").values)

    def places(self, fids: Tensor) -> Tensor:
        known = self.catalogue.slot("item").values[self._order]
        return self._order[torch.searchsorted(known, fids)]

    def past(self, part: str) -> Jagged:
        column = self.parts[part].slot("history")
        return Jagged(self.places(column.values), column.offsets)

    def judged(self, score: Callable[[Tensor], Tensor], part: str) -> dict[str, float]:
        """Recall, and what the best ten are like."""
        past, size = self.past(part), self.catalogue.size
        right = Jagged.single(self.places(self.parts[part].slot("item").values))
        found = rank_catalogue(score, right, size, exclude=past, top_count=TOP)
        counts = torch.bincount(self.items, minlength=size).numpy()
        by_people = np.zeros((size, int(self.people.max()) + 1), dtype=np.float32)
        by_people[self.items.numpy(), self.people.numpy()] = 1
        return {
            **found.ranks.figures(KS, ("recall",)),
            **found.ranks.figures((10,), ("ndcg",)),
            "coverage@10": coverage(found.top, size),
            "novelty@10": novelty(found.top, counts),
            "diversity@10": intra_list_diversity(found.top, by_people),
            "mean_popularity@10": mean_popularity(found.top, counts),
            "popularity_lift@10": popularity_lift(found.top, table_of(past), counts),
            "tail_share@10": tail_share(found.top, counts),
        }


def table_of(lists: Jagged) -> np.ndarray:
    """The lists as rows of one width, filled up with -1."""
    lengths = lists.lengths.numpy()
    table = np.full((len(lengths), int(lengths.max())), -1, dtype=np.int64)
    table[np.arange(table.shape[1]) < lengths[:, None]] = lists.values.numpy()
    return table


def towers(data: Films, passes: int, seed: int) -> dict[str, float]:
    """The pass that validates best, tested."""
    train = data.parts["train"]
    config = TrainConfig(evaluate_every=0, seed=seed, full_batch=1)
    options = {**MATRIX, "content_weight": 0.0}
    trainer = new_trainer(SCHEMA, "two_tower", options, config, optimizer=Adam(learning_rate=0.001))
    trainer.embeddings.lookup_or_insert("item", data.catalogue.slot("item").values, 0)
    random, started, seconds = np.random.default_rng(seed), time.process_time(), 0.0
    best: tuple[float, dict[str, float]] = (-1.0, {})
    for number in range(1, passes + 1):
        started = time.process_time()
        for rows in torch.split(torch.from_numpy(random.permutation(train.size)), BATCH):
            trainer.step(train.take(rows))
        seconds += time.process_time() - started
        validated = data.judged(scores_of(trainer, data, "validation"), "validation")["full_recall@10"]
        if validated > best[0]:
            best = (validated, {**data.judged(scores_of(trainer, data, "test"), "test"), "pass": number})
    return {**best[1], "seconds": seconds}


def scores_of(trainer: Trainer, data: Films, part: str) -> Callable[[Tensor], Tensor]:
    model = retriever(trainer.model)
    model.eval()
    with trainer.parameters().computing():
        queries, items = model.queries(data.parts[part])[:, 0], model.items(data.catalogue)
    return lambda asked: queries[asked] @ items.T


def peer(data: Films, python: str, seed: int) -> dict[str, float]:
    """The weight that validates best, tested."""
    told: dict[str, dict[str, np.ndarray]] = {}
    for part in ("validation", "test"):
        past = data.past(part)
        with tempfile.TemporaryDirectory() as folder:
            given, found = Path(folder) / "in.npz", Path(folder) / "out.npz"
            columns = {"values": past.values.numpy(), "offsets": past.offsets.numpy()}
            columns |= {"people": data.people.numpy(), "items": data.items.numpy()}
            np.savez(given, item_count=data.catalogue.size, **columns)
            script = Path(__file__).with_name("implicit_peer.py")
            subprocess.run([python, str(script), str(given), str(found), str(DIM), str(seed)], check=True)
            told[part] = dict(np.load(found))

    def judged(weight: str, part: str) -> dict[str, float]:
        scores = torch.from_numpy(told[part][weight])
        return data.judged(lambda asked: scores[asked], part)

    best = max(told["validation"], key=lambda weight: judged(weight, "validation")["full_recall@10"])
    return {**judged(best, "test"), "weight": float(best)}


def main() -> None:
    """Measure all, print, and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peer", required=True)
    parser.add_argument("--passes", type=int, default=8)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    data = Films()
    size, past = data.catalogue.size, data.past("test")
    counted = {
        "popularity": popularity(data.items, size),
        "item-knn": item_knn(data.people, data.items, size),
    }
    found: dict[str, list[dict[str, float]]] = {
        name: [data.judged(lambda asked, score=score: score(past.take(asked)), "test")]
        for name, score in counted.items()
    }
    seeds = range(arguments.seeds)
    found["implicit-als"] = [peer(data, arguments.peer, seed) for seed in seeds]
    found["two-tower"] = [towers(data, arguments.passes, seed) for seed in seeds]
    recalls = {name: mean(one["full_recall@10"] for one in runs) for name, runs in found.items()}
    told = {
        "command": command(arguments, peer="PYTHON"),
        "program": program(),
        "machine": machine() | {"numpy": version("numpy")},
        "peer": "implicit 0.7.3",
        "data": "movielens-100k",
        "seeds": list(seeds),
        "people": past.size,
        "two_tower_over_als_recall@10": recalls["two-tower"] / recalls["implicit-als"],
        "methods": found,
    }
    text = json.dumps(told, indent=1) + "\n"
    print(text)
    if arguments.out is not None:
        arguments.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()

"""How the studies of the next item read their data, train an arm in pieces and judge it: alike for all models."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dolmen import datasets
from dolmen.datasets.dataset import Dataset, Order, actions_table
from dolmen.embedding import Adam
from dolmen.evaluation import LeaveOneOut, Split, draw_negatives, rank_catalogue, sampled_ranks
from dolmen.features import Batch, Jagged, Label, Schema, Side, Slot, encode_array
from dolmen.models import retriever
from dolmen.seeds import generator
from dolmen.studies.results import Cell
from dolmen.studies.study import Setting
from dolmen.training import TrainConfig, Trainer, load_snapshot, new_trainer

__all__ = ["BEAUTY", "FIGURES", "FILMS", "GAMES", "PROTOCOL", "Arm", "Counted", "run_arm", "run_counts"]

FILMS: Final = "movielens-100k"
BEAUTY: Final = "bert4rec-beauty"
GAMES: Final = "sasrec-video-games"

_METRICS: Final = ("hr", "ndcg")
_LOOKS: Final = 8  # at the validation part within a budget: enough to see a curve flatten

FIGURES: Final = {
    "sampled_ndcg@10": "NDCG@10 of the last action among itself and 100 items drawn by popularity, as in the paper",
    "sampled_hr@10": "HR@10 of the same",
    "full_ndcg@10": "NDCG@10 of the last action among all items that the person has not met",
    "full_hr@10": "HR@10 of the same",
    "passes": "passes over the training part when the judged parameters were taken",
    "validation_half": "full NDCG@10 on the validation part after half of the budget",
    "validation_end": "the same at its end",
    "examples_per_cpu_second": "sequences learned by one thread, by its own clock",
}

PROTOCOL: Final = (
    "Every action counts, ratings of any height. A person's last action tests, the one before validates, the rest "
    "trains; the validated action is part of the past when the last one is asked for. On the Amazon sets 2,000 people "
    "validate, the same for all arms; of all others the action before the last trains, too, as the authors' code puts "
    "it back for the final model.",
    "Sampled figures: 100 items that the person never met, drawn once for all arms in proportion to how often they "
    "occur in the data. Full figures: all items but those of the past. Everybody is judged.",
    "Windows of 50 actions (200 on films), a tenth apart (half), as in the authors' code. Every item has a row from "
    "the start, as their vocabulary has it.",
    "Vectors of 64 and a bias an item; Adam (0.001, warm-up, then half a cosine down to a tenth) on rows and layers, "
    "weight decay 0.01 on layers, batches of 64 windows (16 on films). All arms have the same passes over the data; "
    "of eight looks at the validation part the best parameters are judged.",
)

_WIDTH: Final = 64
_READ_BATCH: Final = 4096
_JUDGED_BATCH: Final = 1024
_SAMPLED: Final = 100
_PAIRS_BATCH: Final = 512


@final
@dataclass(frozen=True, kw_only=True)
class _Case:
    """How a data set is cut: ``stride`` from one window's end to the next, ``validating`` as in ``LeaveOneOut``."""

    length: int
    stride: int
    batch: int
    validating: int | None = None


_CASES: Final[Mapping[str, _Case]] = {
    FILMS: _Case(length=200, stride=100, batch=16),
    BEAUTY: _Case(length=50, stride=5, batch=64, validating=2_000),
    GAMES: _Case(length=50, stride=5, batch=64, validating=2_000),
}


@final
@dataclass(frozen=True, kw_only=True)
class Arm:
    """A model and its options, in the words of ``dolmen.models.build``.

    Args:
        model: its name.
        options: of the model; ``length`` is the case's.
        of_pairs: learns from each action by itself and reads who acts, instead of sequences.
    """

    model: str
    options: Mapping[str, Any]
    of_pairs: bool = False


@final
@dataclass(frozen=True)
class _Part:
    """What is asked: one row a person. ``right``, ``past``, ``others`` (people, 100): places in the catalogue."""

    batch: Batch
    right: Jagged
    past: Jagged
    others: NDArray[np.int64]


@final
@dataclass(frozen=True)
class _Data:
    """``sequences`` and ``pairs`` are the training part, as windows and action by action."""

    schema: Schema
    catalogue: Batch
    sequences: Batch
    pairs: Batch
    validation: _Part
    test: _Part


Score = Callable[[Tensor], Tensor]
"""Scores of the whole catalogue for the people at these places of a part, (n, items)."""

Counted = Callable[[Tensor, Tensor, int], Callable[[Jagged], Tensor]]
"""From who acted, on which place of the catalogue, and the number of items, to what scores pasts."""


def run_arm(cell: Cell, arm: Arm, setting: Setting) -> Mapping[str, float]:
    """The arm's figures on the cell's case.

    ``settings``: ``passes`` by case; in the quick form ``sequences_max``, and ``looks`` at the validation part.
    """
    data = _data(cell.case)
    trainer, told = _trained(cell, arm, setting, data)
    return {**_figures(_scores(trainer, data, data.test), data.test), **told}


def run_counts(cell: Cell, *counted: Counted) -> Mapping[str, float]:
    """The same for an arm that needs no passes; of several, the one with the best NDCG@10 on the validation part."""
    data = _data(cell.case)
    people = torch.unique(data.pairs.slot("user").values, return_inverse=True)[1]
    items = _places(data.catalogue, data.pairs.slot("item").values)
    scores = [one(people, items, data.catalogue.size) for one in counted]

    def figures(score: Callable[[Jagged], Tensor], part: _Part) -> dict[str, float]:
        return _figures(lambda asked: score(part.past.take(asked)), part)

    if len(scores) > 1:
        scores.sort(key=lambda one: figures(one, data.validation)["full_ndcg@10"])
    return figures(scores[-1], data.test)


def _trained(cell: Cell, arm: Arm, setting: Setting, data: _Data) -> tuple[Trainer, dict[str, float]]:
    """Trains in pieces: after each, the validation part is looked at, and a snapshot is left to go on from."""
    case = _CASES[cell.case]
    examples, batch = (data.pairs, _PAIRS_BATCH) if arm.of_pairs else (data.sequences, case.batch)
    count = min(examples.size, setting.settings.get("sequences_max", examples.size))
    passes: int = setting.settings["passes"][cell.case]
    steps = -(-count // batch)
    progress = _Progress.read(setting.scratch)
    if progress.passes:
        trainer = Trainer.resume(load_snapshot(setting.scratch / str(progress.passes), schema=data.schema))
    else:
        options = dict(arm.options) if arm.of_pairs else {"length": case.length - 1, **arm.options}
        warm_up = min(100, steps)
        config = TrainConfig(
            evaluate_every=0,
            seed=cell.seed,
            device=setting.device,
            full_batch=1,  # whatever the batch's size, the rate is the whole one
            weight_decay=0.01,
            warmup_steps=warm_up,
            decay_steps=max(1, passes * steps - warm_up),
        )
        trainer = new_trainer(data.schema, arm.model, options, config, optimizer=Adam(learning_rate=0.001))
        trainer.embeddings.lookup_or_insert("item", data.catalogue.slot("item").values, 0)
    looks: int = setting.settings.get("looks", _LOOKS)
    pieces = sorted({max(1, passes * piece // looks) for piece in range(1, looks + 1)})
    for end in (piece for piece in pieces if piece > progress.passes):
        started = time.process_time()
        for number in range(progress.passes + 1, end + 1):
            order = torch.from_numpy(generator(cell.seed, "order", number).permutation(count))
            for rows in torch.split(order, batch):
                trainer.step(examples.take(rows))
        seconds = progress.seconds + time.process_time() - started
        found = _figures(_scores(trainer, data, data.validation), data.validation)["full_ndcg@10"]
        trainer.save(setting.scratch / str(end))
        progress = replace(progress, passes=end, seconds=seconds, curve=(*progress.curve, (end, found)))
        progress.write(setting.scratch)
    curve = dict(progress.curve)
    best = max(curve, key=lambda passed: curve[passed])
    if best != passes:
        trainer = Trainer.resume(load_snapshot(setting.scratch / str(best), schema=data.schema))
    return trainer, {
        "passes": float(best),
        "validation_half": curve[pieces[(len(pieces) - 1) // 2]],
        "validation_end": curve[pieces[-1]],
        "examples_per_cpu_second": count * passes / progress.seconds,
    }


@final
@dataclass(frozen=True)
class _Progress:
    """How far a cell has come: ``passes`` over the data, the time of them, and what each look at it found."""

    passes: int = 0
    seconds: float = 0.0
    curve: tuple[tuple[int, float], ...] = ()

    @classmethod
    def read(cls, scratch: Path) -> _Progress:
        try:
            told = json.loads((scratch / "progress.json").read_text(encoding="utf-8"))
        except FileNotFoundError:
            return cls()
        return cls(told["passes"], told["seconds"], tuple((end, found) for end, found in told["curve"]))

    def write(self, scratch: Path) -> None:
        told = {"passes": self.passes, "seconds": self.seconds, "curve": self.curve}
        beside = scratch / "progress.part"
        beside.write_text(json.dumps(told), encoding="utf-8")
        beside.replace(scratch / "progress.json")


def _scores(trainer: Trainer, data: _Data, part: _Part) -> Score:
    parameters, model = trainer.parameters(), retriever(trainer.model)
    model.eval()
    groups = torch.split(torch.arange(part.batch.size), _JUDGED_BATCH)
    asked = [parameters.placed(part.batch.take(people)) for people in groups]
    with parameters.computing():
        items = model.items(parameters.placed(data.catalogue)).cpu()
        queries = torch.cat([model.queries(batch)[:, 0] for batch in asked]).cpu()
    return lambda people: queries[people] @ items.T


def _figures(score: Score, part: _Part) -> dict[str, float]:
    right, others = part.right.values, torch.from_numpy(part.others)
    sampled: list[tuple[Tensor, Tensor]] = []

    def scored(people: Tensor) -> Tensor:
        scores = score(people)
        sampled.append((scores.gather(1, right[people].unsqueeze(1)).squeeze(1), scores.gather(1, others[people])))
        return scores

    item_count = score(torch.zeros(1, dtype=torch.int64)).shape[1]
    full = rank_catalogue(scored, part.right, item_count, exclude=part.past).ranks
    few = sampled_ranks(*(torch.cat(scores).numpy() for scores in zip(*sampled, strict=True)))
    return {**few.figures((10,), _METRICS), **full.figures((10,), _METRICS)}


@lru_cache(maxsize=1)
def _data(name: str) -> _Data:
    dataset, case = _dataset(name), _CASES[name]
    # A past is whole here, so that nothing of it is recommended again; the models read its end.
    schema = Schema(
        Slot("user", dim=1 + _WIDTH),
        Slot("item", dim=1 + _WIDTH),
        Slot("history", dim=1 + _WIDTH, table="item", many=True, ordered=True, of=Side.USER),
        Label("click"),
    )
    pairs = Schema(*(schema.slots[name] for name in ("user", "item")), *schema.labels.values())
    fids = torch.from_numpy(encode_array(schema.slot_number("item"), dataset.items["id"].combine_chunks()))
    catalogue = Batch(size=len(fids), slots={"item": Jagged.single(fids)})
    windows = dataset.sequence_batches(
        _READ_BATCH, Split.TRAIN, max_len=case.length, stride=case.stride, length_min=2, schema=schema
    )
    acted_on = encode_array(schema.slot_number("item"), dataset.interactions["item"].combine_chunks())
    popularity = torch.bincount(_places(catalogue, torch.from_numpy(acted_on)), minlength=catalogue.size).numpy()

    def part(split: Split) -> _Part:
        batch = Batch.concat(list(dataset.batches(_READ_BATCH, split, schema=schema)))
        right, past = (
            Jagged(_places(catalogue, column.values), column.offsets)
            for column in (batch.slot("item"), batch.slot("history"))
        )
        others = draw_negatives(_both(past, right), catalogue.size, _SAMPLED, popularity=popularity, seed=0)
        return _Part(batch, right, past, others)

    return _Data(
        schema=schema,
        catalogue=catalogue,
        sequences=Batch.concat(list(windows)),
        pairs=Batch.concat(list(dataset.batches(_READ_BATCH, Split.TRAIN, schema=pairs))),
        validation=part(Split.VALIDATION),
        test=part(Split.TEST),
    )


def _dataset(name: str) -> Dataset:
    dataset, rule = datasets.load(name), LeaveOneOut(validating=_CASES[name].validating)
    if name != FILMS:
        return replace(dataset, rule=rule)
    rated = dataset.interactions
    actions = actions_table(rated["user"], rated["item"], rated["event_time"])
    return replace(dataset, interactions=actions, order=Order.LOG, rule=rule)


def _places(catalogue: Batch, fids: Tensor) -> Tensor:
    """Where in the catalogue each FID stands."""
    order = catalogue.slot("item").values.argsort()
    return order[torch.searchsorted(catalogue.slot("item").values[order], fids)]


def _both(one: Jagged, other: Jagged) -> Jagged:
    """Row by row the values of ``one``, then those of ``other``."""
    owners = torch.cat([torch.repeat_interleave(one.lengths), torch.repeat_interleave(other.lengths)])
    return Jagged(torch.cat([one.values, other.values])[owners.argsort(stable=True)], one.offsets + other.offsets)

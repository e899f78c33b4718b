"""Monolith's collision study: what is lost when ids share rows, at equal rows and in equal memory."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Final, final

import numpy as np
import torch
from numpy.typing import NDArray

from dolmen import datasets
from dolmen.datasets import Negatives, World, WorldConfig
from dolmen.devices import Device
from dolmen.embedding import AdaGrad
from dolmen.evaluation import auc
from dolmen.features import Batch, Jagged, Label, Policy, Schema, Slot, pack_fids
from dolmen.seeds import derive_seed, generator
from dolmen.studies.results import Cell
from dolmen.studies.rules import Above, Ordered, Within
from dolmen.studies.study import Chart, Claim, Part, Plan, Setting, Study
from dolmen.training import TrainConfig, Trainer, new_trainer, validate

__all__ = ["STUDY"]

_Ints = NDArray[np.int64]

_DIM: Final = 17  # a linear weight, then a vector of 16
_WIDE: Final = (256, 128, 64)
_NARROW: Final = (64, 32)  # twelve times less work an example, where there are millions of them
_ROW_BYTES: Final = 2 * 4 * _DIM  # of a plain array: float32 vector and AdaGrad's accumulators, and no key
_RATES: Final = (0.02, 0.05, 0.1, 0.2)
_TEST_BATCH: Final = 16_384
_SLOTS: Final = ("user", "item")
# The paper's hashed ids fit a space of 10^6: 162,541 people became 149,970, and 59,047 films 57,361.
_PAPER_ROWS: Final = {"user": 1_000_000 / 162_541, "item": 1_000_000 / 59_047}

_SHARES: Final = {"1": 1.0, "1-2": 1 / 2, "1-4": 1 / 4, "1-8": 1 / 8}
_KINDS: Final = {"hashed": Policy.HASHED, "quotient": Policy.QUOTIENT_REMAINDER}
_ARMS: Final = {
    "collisionless": "each id its own row",
    "hashed-paper": "ids hashed into as many rows an id as in the paper: 6.2 a person, 16.9 an item",
    "hashed-memory": "ids hashed into as many rows as an array without keys holds in the collisionless table's memory",
    "hashed-1": "ids hashed into as many rows as there are ids",
    "hashed-1-2": "ids hashed into 1/2 as many rows",
    "hashed-1-4": "ids hashed into 1/4 as many rows",
    "hashed-1-8": "ids hashed into 1/8 as many rows",
    "quotient-memory": "the sum of a remainder's and a quotient's row, in the collisionless table's memory",
    "quotient-1": "the same in as many rows as there are ids",
    "quotient-1-2": "the same in 1/2 as many rows",
    "quotient-1-4": "the same in 1/4 as many rows",
    "quotient-1-8": "the same in 1/8 as many rows",
}


@final
@dataclass(frozen=True)
class _Examples:
    """Users and items counted from 0, labels, and how many of the rows train and validate; the rest test."""

    users: _Ints
    items: _Ints
    labels: NDArray[np.float32]
    train: int
    validation: int
    oracle: float = math.nan


@final
@dataclass(frozen=True, kw_only=True)
class _Case:
    """Where a case's examples come from, how many go into a step, and the widths of the deep part's layers."""

    read: Callable[[], _Examples]
    batch_size: int
    hidden: tuple[int, ...]


def _run(cell: Cell, setting: Setting) -> Mapping[str, float]:
    examples = _examples(cell.case, setting.settings.get("examples_max"))
    rows = _rows(cell.arm, examples, setting.prepared["bytes"])
    started = time.process_time()
    trainer = _trained(examples, cell, rows, setting.prepared["rate"], examples.train, setting.device)
    seconds = time.process_time() - started
    found = validate(trainer, _batches(examples, np.arange(examples.train + examples.validation, len(examples.users))))
    ids = _id_counts(examples)
    row_count = sum(rows.values()) if rows else sum(ids.values())
    held = _ROW_BYTES * row_count if rows else trainer.embeddings.memory().total_bytes
    figures = {
        "auc": found.auc,
        "log_loss": found.log_loss,
        "row_share": row_count / sum(ids.values()),
        "megabytes": held / 1e6,
        "examples_per_cpu_second": examples.train / seconds,
    }
    if cell.arm in _HASHED:
        figures["lost"] = 1 - len(trainer.embeddings) / sum(ids.values())
    return figures


def _prepare(case: str, setting: Setting) -> Mapping[str, float]:
    """The rows' learning rate, by the collisionless arm on the validation part, and the memory of its table."""
    examples = _examples(case, setting.settings.get("examples_max"))
    count = min(examples.train, setting.settings["tuning_examples_max"])
    chosen = Cell(case=case, arm="collisionless", seed=derive_seed(0, "tuning"))
    judged = np.arange(examples.train, examples.train + examples.validation)
    aucs = {}
    for rate in _RATES:
        trainer = _trained(examples, chosen, {}, rate, count, setting.device)
        aucs[rate] = validate(trainer, _batches(examples, judged)).auc
    whole = trainer if count == examples.train else _trained(examples, chosen, {}, rate, examples.train, setting.device)
    told = {"rate": max(aucs, key=lambda rate: aucs[rate]), "bytes": float(whole.embeddings.memory().total_bytes)}
    return told if math.isnan(examples.oracle) else {**told, "oracle_auc": examples.oracle}


def _trained(
    examples: _Examples, cell: Cell, rows: Mapping[str, int], rate: float, count: int, device: Device
) -> Trainer:
    """DeepFM after one pass over the first ``count`` examples, in an order of the seed's own."""
    kind = _KINDS.get(cell.arm.partition("-")[0], Policy.COLLISIONLESS)
    seed = derive_seed(cell.seed, "collisions") if rows else 0
    slots = [Slot(name, dim=_DIM, policy=kind, policy_rows=rows.get(name), policy_seed=seed) for name in _SLOTS]
    trainer = new_trainer(
        Schema(*slots, Label("click")),
        "deepfm",
        {"hidden": list(_CASES[cell.case].hidden)},
        TrainConfig(evaluate_every=0, seed=cell.seed, device=device),
        optimizer=AdaGrad(learning_rate=rate),
    )
    order = generator(cell.seed, "order").permutation(count)
    for batch in _batches(examples, order, _CASES[cell.case].batch_size):
        trainer.step(batch)
    return trainer


def _batches(examples: _Examples, rows: _Ints, size: int = _TEST_BATCH) -> list[Batch]:
    batches = []
    for start in range(0, len(rows), size):
        some = rows[start : start + size]
        slots = {"user": examples.users[some], "item": examples.items[some]}
        batches.append(
            Batch(
                size=len(some),
                slots={
                    name: Jagged.single(pack_fids(number, ids)) for number, (name, ids) in enumerate(slots.items(), 1)
                },
                labels={"click": torch.from_numpy(examples.labels[some])},
            )
        )
    return batches


def _rows(arm: str, examples: _Examples, memory: float) -> dict[str, int]:
    """How many rows each slot's ids share; empty where each has its own."""
    if arm == "collisionless":
        return {}
    ids = _id_counts(examples)
    share = arm.partition("-")[2]
    match share:
        case "paper":
            return {name: math.ceil(count * _PAPER_ROWS[name]) for name, count in ids.items()}
        case "memory":
            a_row = memory / _ROW_BYTES / sum(ids.values())
            return {name: math.floor(count * a_row) for name, count in ids.items()}
        case _:
            return {name: max(2, round(count * _SHARES[share])) for name, count in ids.items()}


def _id_counts(examples: _Examples) -> dict[str, int]:
    """How many ids of each slot come in the training part: as many rows has the collisionless table."""
    train = slice(examples.train)
    return {"user": len(np.unique(examples.users[train])), "item": len(np.unique(examples.items[train]))}


@lru_cache(maxsize=1)
def _examples(case: str, count_max: int | None) -> _Examples:
    examples = _CASES[case].read()
    if count_max is None or count_max >= len(examples.users):
        return examples
    part = count_max / len(examples.users)
    kept = slice(count_max)
    return replace(
        examples,
        users=examples.users[kept],
        items=examples.items[kept],
        labels=examples.labels[kept],
        train=int(examples.train * part),
        validation=int(examples.validation * part),
    )


def _split(users: _Ints, items: _Ints, labels: NDArray[np.float32], train_share: float = 0.8) -> _Examples:
    """In an order drawn once for all arms and seeds; what does not train is halved into validation and test."""
    order = generator(0, "split").permutation(len(users))
    train = int(len(users) * train_share)
    return _Examples(users[order], items[order], labels[order], train, (len(users) - train) // 2)


def _read(name: str, negatives: int = 0) -> _Examples:
    """The set's interactions, and beside each the given number of items that its person never chose."""
    dataset = datasets.load(name)
    rows = (dataset.with_negatives(negatives, by=Negatives.POPULARITY) if negatives else dataset).interactions
    return _split(
        rows["user"].to_numpy().astype(np.int64),
        rows["item"].to_numpy().astype(np.int64),
        rows["click"].to_numpy().astype(np.float32),
    )


def _world() -> _Examples:
    """A steady world of 5.6 million examples, of which nine in ten train."""
    world = World(WorldConfig(users=200_000, items=50_000, seed=1))
    rows = world.dataset(560_000).interactions
    users, items = rows["user"].to_numpy(), rows["item"].to_numpy()
    labels = rows["click"].to_numpy().astype(np.float32)
    examples = _split(users, items, labels, train_share=0.9)
    order = generator(0, "split").permutation(len(users))[examples.train + examples.validation :]
    times = rows["event_time"].cast("int64").to_numpy()
    # Of the truth without the position, which the model does not know either.
    truth = world.click_probability(users[order], items[order], times[order])
    return replace(examples, oracle=auc(truth, labels[order]))


_CASES: Final = {
    "movielens-100k": _Case(read=lambda: _read("movielens-100k"), batch_size=512, hidden=_WIDE),
    "movielens-1m-sample": _Case(read=lambda: _read("movielens-1m-sample"), batch_size=512, hidden=_WIDE),
    "ta-feng": _Case(read=lambda: _read("ta-feng", negatives=1), batch_size=2048, hidden=_NARROW),
    "gowalla": _Case(read=lambda: _read("gowalla", negatives=1), batch_size=2048, hidden=_NARROW),
    "world": _Case(read=_world, batch_size=2048, hidden=_NARROW),
}
_HASHED: Final = tuple(arm for arm in _ARMS if arm.startswith("hashed"))
_QUOTIENT: Final = tuple(arm for arm in _ARMS if arm.startswith("quotient"))
_SEEDS: Final = 5

STUDY: Final = Study(
    name="monolith-collisions",
    title="What collisions cost",
    paper=(
        'Z. Liu et al., "Monolith: Real Time Recommendation System With Collisionless Embedding Table", '
        "ORSUM at RecSys 2022, arXiv 2209.07663"
    ),
    module=__name__,
    claims=(
        Claim(
            name="paper's collisions",
            statement="Without collisions DeepFM ranks better than with the few that the paper's hashing makes.",
            paper="MovieLens-25M, 7.7 % of people and 2.9 % of films lost: above from the first epoch on (a curve)",
            rule=Above(arm="collisionless", others=("hashed-paper",), figure="auc"),
        ),
        Claim(
            name="equal rows",
            statement="A row for each id is better than as many rows that ids share.",
            paper="no figure",
            rule=Above(arm="collisionless", others=("hashed-1", "quotient-1"), figure="auc"),
        ),
        Claim(
            name="equal memory",
            statement="A row for each id is better than shared rows in the same memory, keys and index counted.",
            paper="no figure",
            rule=Above(arm="collisionless", others=("hashed-memory", "quotient-memory"), figure="auc"),
        ),
        Claim(
            name="a quarter",
            statement="Hashing into a quarter as many rows loses at least 0.003 of AUC.",
            paper="no figure; what we expected",
            rule=Above(arm="collisionless", others=("hashed-1-4",), figure="auc", margin=0.003),
        ),
        Claim(
            name="monotone",
            statement="The fewer rows ids are hashed into, the worse.",
            paper="no figure; what we expected",
            rule=Ordered(order=("collisionless", *_HASHED), figure="auc", slack=0.001),
        ),
        Claim(
            name="quotient and remainder",
            statement="A row for each id is better than the sum of two shared rows.",
            paper="an internal model: above on each of 12 days, both between 0.770 and 0.790 (a curve)",
            rule=Above(arm="collisionless", others=_QUOTIENT, figure="auc"),
        ),
    ),
    guards=(
        Claim(
            name="far above",
            statement="A row for each id beats an eighth as many hashed rows by far.",
            paper="",
            rule=Above(arm="collisionless", others=("hashed-1-8",), figure="auc", margin=0.05, sure=False),
        ),
        Claim(
            name="ranks",
            statement="A row for each id ranks films as well as it did.",
            paper="",
            rule=Within(arm="collisionless", figure="auc", low=0.75),
        ),
        Claim(
            name="two rows",
            statement="Two shared rows beat one where they are few.",
            paper="",
            rule=Above(arm="quotient-1-8", others=("hashed-1-8",), figure="auc", margin=-0.01, sure=False),
        ),
    ),
    data=("movielens-100k", "movielens-1m-sample", "ta-feng", "gowalla", "world (simulated, 5.6 million examples)"),
    protocol=(
        "DeepFM over two fields, person and item: a linear weight and a vector of 16 an id; AdaGrad on rows, Adam "
        "(0.001) on the network, whose layers are 256, 128 and 64 wide for MovieLens, 64 and 32 for the others.",
        "One pass over the training part, as on a stream: a second pass over ids overfits and hides what is compared.",
        "Batches of 512 (MovieLens) or 2,048 examples.",
        "The rows' learning rate is one of 0.02, 0.05, 0.1 and 0.2 for all arms of a case: that with the best AUC of "
        "the collisionless arm on the validation part, from a seed that is not reported. So every other arm is at a "
        "disadvantage that its own tuning might lessen.",
        "Examples are split at random, once: 80 % train, 10 % validate, 10 % test; of the world 90, 5 and 5 %.",
        "MovieLens: a rating of 4 or 5 is a positive. Ta-Feng and Gowalla: each purchase or visit is a "
        "positive, and beside each stands one item that the person never chose, drawn as often as others chose it.",
        "Hashing is of the id with a seed of the run's, never the id modulo the rows: each seed has other collisions, "
        "another order of examples and other start values.",
        "Memory: of the collisionless table all that it holds (vectors, AdaGrad's state, keys, index, ages, counts, "
        "free room); of shared rows an array of vectors and state, without any key.",
    ),
    care=("on Ta-Feng every arm is near chance (AUC 0.49 to 0.55), so that comparisons there say little."),
    arms=_ARMS,
    figures={
        "auc": "AUC on the test part",
        "log_loss": "log loss on the test part",
        "row_share": "rows over ids of the training part",
        "megabytes": "memory of the rows, as the protocol counts it",
        "lost": "hashed arms: ids less rows in use, over ids",
        "examples_per_cpu_second": "learned by one thread, by its own clock",
    },
    chart=Chart(
        figure="auc",
        lines={"collisionless": ("collisionless",), "hashed": _HASHED, "quotient-remainder": _QUOTIENT},
        across="row_share",
        across_label="rows / ids",
    ),
    full=Plan(
        parts=tuple(Part(case=case, arms=tuple(_ARMS), seed_count=_SEEDS) for case in _CASES),
        settings={"tuning_examples_max": 1_000_000},
        minutes=60,
    ),
    quick=Plan(
        parts=(Part(case="movielens-100k", arms=("collisionless", "hashed-1-8", "quotient-1-8"), seed_count=1),),
        settings={"tuning_examples_max": 20_000},
        minutes=0.5,
    ),
    run=_run,
    prepare=_prepare,
)

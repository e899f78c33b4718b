"""How the studies of ranking by behaviour read their data, train an arm and judge it: alike for DIN, SDIM and TIN."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, final

import torch

from dolmen import datasets
from dolmen.embedding import AdaGrad
from dolmen.evaluation import auc, gauc, log_loss
from dolmen.features import Batch, Label, Schema, Side, Slot
from dolmen.models import scorer
from dolmen.seeds import generator
from dolmen.studies.results import Cell
from dolmen.studies.study import Setting
from dolmen.training import TrainConfig, Trainer, new_trainer

__all__ = ["AMAZON", "EPOCHS", "FIGURES", "LONG", "MODULES", "MOVIELENS", "PROTOCOL", "Arm", "judged"]

AMAZON: Final = "amazon-hin"
MOVIELENS: Final = "movielens-100k"
LONG: Final = "movielens-100k-long"

EPOCHS: Final = {AMAZON: 1, MOVIELENS: 2, LONG: 2}
"""Passes over each case's training part, in the full form."""

MODULES: Final = (
    "dolmen._core",
    "dolmen.datasets.amazon_hin",
    "dolmen.datasets.examples",
    "dolmen.datasets.movielens",
    "dolmen.embedding",
    "dolmen.evaluation.grouped",
    "dolmen.evaluation.metrics",
    "dolmen.evaluation.negatives",
    "dolmen.evaluation.splits",
    "dolmen.models.layers.activations",
    "dolmen.models.layers.attention",
    "dolmen.models.layers.behaviours",
    "dolmen.models.layers.losses",
    "dolmen.models.layers.mlp",
    "dolmen.models.layers.moments",
    "dolmen.models.layers.rows",
    "dolmen.studies.clicks",
    "dolmen.training.adam",
    "dolmen.training.trainer",
)
"""What decides the figures of every study that is run from here."""

FIGURES: Final = {
    "gauc": "AUC within each person, weighed by impressions (the papers' GAUC), on the test part",
    "auc": "AUC on the test part",
    "log_loss": "log loss on the test part",
    "epoch": "the pass whose parameters are judged",
    "examples_per_cpu_second": "learned by one thread, by its own clock",
}

PROTOCOL: Final = (
    "amazon-hin: each review is an action; the last of a person tests, the one before validates, the rest trains; one "
    "random item that the person never touched beside each. An item is its id and its brand, a past the newest 50.",
    "movielens-100k: a rating of 4 or 5 is a click, the other ratings of a page are what was passed over; 80 % train, "
    "10 % validate, 10 % test, in time order. An item is its id; a past is the films clicked before.",
    "Vectors of 16 and a linear weight an id; AdaGrad (0.05) on rows, Adam (0.001) on layers, batches of 512, all arms "
    "alike and tuned for none; training in an order of the seed's own.",
    "One pass over amazon-hin. Two over movielens-100k, of which the parameters with the better GAUC on the validation "
    "part are judged.",
)

_DIM: Final = 17  # a linear weight, then a vector of 16
_BATCH: Final = 512
_JUDGED_BATCH: Final = 4096


@final
@dataclass(frozen=True)
class Arm:
    """A model and its options, in the words of ``dolmen.models.build``."""

    model: str
    options: Mapping[str, Any]


@final
@dataclass(frozen=True)
class _Examples:
    train: Batch
    validation: Batch
    test: Batch


def judged(cell: Cell, arm: Arm, setting: Setting) -> Mapping[str, float]:
    """The arm's figures on the cell's case, from its seed. ``settings``: ``epochs`` by case, ``examples_max``."""
    examples = _examples(cell.case)
    trainer = new_trainer(
        _schema(cell.case),
        arm.model,
        arm.options,
        TrainConfig(evaluate_every=0, seed=cell.seed, device=setting.device),
        optimizer=AdaGrad(learning_rate=0.05),
    )
    count = min(examples.train.size, setting.settings.get("examples_max", examples.train.size))
    epochs: int = setting.settings["epochs"][cell.case]
    kept, best, best_epoch, seconds = None, -1.0, 0, 0.0
    for epoch in range(1, epochs + 1):
        order = torch.from_numpy(generator(cell.seed, "order", epoch).permutation(count))
        started = time.process_time()
        for rows in torch.split(order, _BATCH):
            trainer.step(examples.train.take(rows))
        seconds += time.process_time() - started
        found = _figures(trainer, examples.validation)["gauc"]
        if found > best:
            kept, best, best_epoch = trainer.keep(), found, epoch
    assert kept is not None, "GAUC is a number wherever a person has both answers"
    trainer.restore(kept)
    return {
        **_figures(trainer, examples.test),
        "epoch": float(best_epoch),
        "examples_per_cpu_second": count * epochs / seconds,
    }


def _figures(trainer: Trainer, examples: Batch) -> dict[str, float]:
    parameters, able = trainer.parameters(), scorer(trainer.model)
    able.eval()
    with parameters.computing():
        logits = torch.cat([able.score(parameters.placed(batch)) for batch in _parts(examples)]).cpu()
    labels = examples.labels["click"].numpy()
    people = examples.slot("user").values.numpy()
    return {
        "gauc": gauc(logits.numpy(), labels, people).value,
        "auc": auc(logits.numpy(), labels),
        "log_loss": log_loss(logits.sigmoid().numpy(), labels),
    }


def _parts(examples: Batch) -> Iterator[Batch]:
    for rows in torch.split(torch.arange(examples.size), _JUDGED_BATCH):
        yield examples.take(rows)


@lru_cache(maxsize=1)
def _examples(case: str) -> _Examples:
    dataset = datasets.load(AMAZON).with_negatives(1) if case == AMAZON else datasets.load(MOVIELENS)
    schema = _schema(case)
    train, validation, test = (
        Batch.concat(list(dataset.batches(_JUDGED_BATCH, part, schema=schema)))
        for part in ("train", "validation", "test")
    )
    return _Examples(train, validation, test)


def _schema(case: str) -> Schema:
    """The fields of a case. Both name the person for GAUC; on Amazon no arm reads who it is, as in the papers."""
    if case == AMAZON:
        return Schema(
            Slot("user", dim=_DIM),
            Slot("item", dim=_DIM),
            Slot("brand", dim=_DIM, of=Side.ITEM),
            Slot("history", dim=_DIM, table="item", many=True, ordered=True, max_len=50, of=Side.USER),
            Slot("history_brand", dim=_DIM, table="brand", many=True, ordered=True, max_len=50, of=Side.USER),
            Label("click"),
        )
    length = 500 if case == LONG else 50
    return Schema(
        Slot("user", dim=_DIM),
        Slot("item", dim=_DIM),
        Slot("genres", dim=_DIM, many=True, of=Side.ITEM),
        Slot("age", dim=_DIM, of=Side.USER),
        Slot("gender", dim=_DIM, of=Side.USER),
        Slot("occupation", dim=_DIM, of=Side.USER),
        Slot("history", dim=_DIM, table="item", many=True, ordered=True, max_len=length, of=Side.USER),
        Label("click"),
    )

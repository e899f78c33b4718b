"""A model is tried before anything is served with it: what it would die of, or never learn from, is told at once."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from torch import Tensor, nn

from dolmen.embedding import Embed, Embeddings
from dolmen.errors import ConfigError
from dolmen.features import Batch, Label, Schema, Slot
from dolmen.models import Ability, names
from dolmen.models.layers.losses import log_loss
from dolmen.testing import example_schema
from dolmen.training import Trainer, new_trainer, try_model


@dataclass(frozen=True, kw_only=True)
class PlainConfig:
    """No options."""


class Plain(nn.Module):
    """Weights of two ids, added up. Source: made up for this test."""

    abilities: ClassVar[frozenset[Ability]] = frozenset({Ability.SCORES})
    slots = ("user", "item")
    dense = ()

    def __init__(self, config: PlainConfig, embed: Embed) -> None:
        super().__init__()
        self.config, self.embed = config, embed
        self.bias = nn.Parameter(torch.zeros(()))

    def score(self, batch: Batch) -> Tensor:
        return self.bias + self.embed(batch, self.slots).sum(dim=(1, 2))

    def loss(self, batch: Batch) -> Tensor:
        return log_loss(self.score(batch), batch, "click")


class RaisesInLoss(Plain):
    def loss(self, batch: Batch) -> Tensor:
        raise RuntimeError(f"boom in my loss of {batch.size}")


class RaisesInScore(Plain):
    def score(self, batch: Batch) -> Tensor:
        raise KeyError(batch.size)


class Asserts(Plain):
    def score(self, batch: Batch) -> Tensor:
        if batch.size < 1_000:
            raise AssertionError("a large batch")
        return super().score(batch)


class LosesNothing(Plain):
    def loss(self, batch: Batch) -> Tensor:
        return super().loss(batch) * float("nan")


class ScoresInfinity(Plain):
    def score(self, batch: Batch) -> Tensor:
        return super().score(batch) / 0


class ScoresInTwoDimensions(Plain):
    def score(self, batch: Batch) -> Tensor:
        return super().score(batch)[:, None]

    def loss(self, batch: Batch) -> Tensor:
        return log_loss(super().score(batch), batch, "click")


class LosesEach(Plain):
    def loss(self, batch: Batch) -> Tensor:
        return self.score(batch)


class HasGradientsOfInfinity(Plain):
    def loss(self, batch: Batch) -> Tensor:
        return super().loss(batch) + (self.bias * 0).sqrt()


def trainer_of(kind: type[Plain]) -> Trainer:
    embed = Embed(Embeddings(example_schema()))
    return Trainer(kind(PlainConfig(), embed), embed)


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        (RaisesInLoss, r"raises RuntimeError: boom in my loss of 8 \(.*test_trial\.py, line \d+\)$"),
        (RaisesInScore, r"raises KeyError: 8 \(.*test_trial\.py, line \d+\)$"),
        (Asserts, r"raises AssertionError: a large batch \(.*test_trial\.py, line \d+\)$"),
        (LosesNothing, r"the loss is nan, and must be finite"),
        (ScoresInfinity, r"score is not finite: nan among its values"),
        (ScoresInTwoDimensions, r"score has shape \(8, 1\), and \(8,\) is needed; squeeze\(-1\) drops"),
        (LosesEach, r"the loss has shape \(8,\), and a scalar is needed"),
        (HasGradientsOfInfinity, r"its gradients are not finite, so it would learn nothing"),
    ],
)
def test_a_model_that_cannot_answer_or_learn_is_refused_with_the_place(kind: type[Plain], told: str) -> None:
    with pytest.raises(ConfigError, match=rf"model 'mine' cannot be used: .*{told}"):
        try_model(trainer_of(kind), "mine")


WITHOUT_ASSERTIONS = """
import importlib.util, sys
from dolmen.errors import ConfigError
from dolmen.testing import check_model
from dolmen.training import try_model

assert False, "this Python looks at assertions"
spec = importlib.util.spec_from_file_location("test_trial", sys.argv[1])
tests = importlib.util.module_from_spec(spec)
sys.modules["test_trial"] = tests
spec.loader.exec_module(tests)
for kind in (tests.LosesNothing, tests.ScoresInfinity, tests.ScoresInTwoDimensions, tests.LosesEach):
    try:
        try_model(tests.trainer_of(kind), "mine")
    except ConfigError as problem:
        print(problem)
try:
    check_model(tests.ScoresInfinity, tests.PlainConfig())
except RuntimeError as problem:
    print(problem)
"""


def test_a_python_that_leaves_assertions_out_refuses_as_well() -> None:
    ended = subprocess.run(
        [sys.executable, "-O", "-c", WITHOUT_ASSERTIONS, __file__], capture_output=True, encoding="utf-8", check=True
    )
    told = ended.stdout.splitlines()
    for line, expected in zip(
        told,
        (
            "the loss is nan, and must be finite",
            "score is not finite: nan among its values",
            "score has shape (8, 1), and (8,) is needed",
            "the loss has shape (8,), and a scalar is needed",
            "run Python without -O",
        ),
        strict=True,
    ):
        assert expected in line


@pytest.mark.parametrize("name", names())
def test_every_model_of_ours_can_be_used(name: str) -> None:
    before = torch.get_rng_state()
    try_model(new_trainer(example_schema(), name), name)
    assert torch.equal(torch.get_rng_state(), before)


def test_slots_that_go_together_and_short_ones_are_tried_as_the_model_needs_them() -> None:
    schema = Schema(
        Slot("item", dim=4),
        Slot("shop", dim=4, of="item"),
        Slot("items", dim=4, table="item", many=True, ordered=True, max_len=1, of="user"),
        Slot("shops", dim=4, table="shop", many=True, ordered=True, max_len=1, of="user"),
        Label("click"),
    )
    for name in ("din", "sdim", "tin"):
        try_model(new_trainer(schema, name), name)


def test_the_plain_one_can_be_used() -> None:
    trainer = trainer_of(Plain)
    try_model(trainer, "mine")
    assert trainer.version == 1

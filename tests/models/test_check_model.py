"""check_model lets every model of ours through, and stops each kind of broken one with the right words."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from torch import Tensor, nn

from dolmen.embedding import Embed
from dolmen.features import Batch, Dense, Label, Schema, Side, Slot
from dolmen.models import Ability, entry, names
from dolmen.models.layers.losses import log_loss
from dolmen.models.ranking.deepfm import DeepFM, DeepFMConfig
from dolmen.models.retrieval.two_tower import TwoTowerConfig
from dolmen.testing import CHECKS, check_model


@pytest.mark.parametrize("name", names())
def test_every_model_of_the_registry_passes(name: str) -> None:
    check_model(entry(name).make, entry(name).config())


def test_a_model_that_reads_a_part_of_a_schema_passes() -> None:
    schema = Schema(
        Slot("user", dim=4),
        Slot("item", dim=6),
        Slot("city", dim=4, of=Side.USER),
        Slot("hour", dim=4),
        Dense("price", of=Side.ITEM),
        Label("view"),
        Label("buy"),
    )
    check_model(DeepFM, DeepFMConfig(slots=("user", "city"), dense=(), label="buy", hidden=(16,)), schema)
    check_model(entry("two_tower").make, TwoTowerConfig(dim=8, hidden=(), label="buy"), schema)


@dataclass(frozen=True, kw_only=True)
class PlainConfig:
    """``slots``: what to read."""

    slots: tuple[str, ...] = ("user", "item", "history")


class Plain(nn.Module):
    """Sum of a network's values over slots. Source: made up for this test."""

    abilities: ClassVar[frozenset[Ability]] = frozenset({Ability.SCORES})
    dense = ()

    def __init__(self, config: PlainConfig, embed: Embed) -> None:
        super().__init__()
        self.config, self.embed, self.slots = config, embed, config.slots
        self.network = nn.Sequential(nn.Linear(8 * len(config.slots), 16), nn.ReLU(), nn.Linear(16, 1))
        self.setup()

    def setup(self) -> None:
        """For those that break something."""

    def score(self, batch: Batch) -> Tensor:
        return self.network(self.embed(batch, self.slots).flatten(start_dim=1)).squeeze(1)

    def loss(self, batch: Batch) -> Tensor:
        return log_loss(self.score(batch), batch, "click")


class MeansOverTheBatch(Plain):
    def score(self, batch: Batch) -> Tensor:
        logits = super().score(batch)
        return logits - logits.mean() if len(logits) else logits


class LooksAtTheRowBefore(Plain):
    def score(self, batch: Batch) -> Tensor:
        logits = super().score(batch)
        return logits + logits.roll(1)


class FailsWithoutPositives(Plain):
    def loss(self, batch: Batch) -> Tensor:
        rows = batch.labels["click"] > 0.5
        return -self.score(batch)[rows].mean() + self.score(batch)[~rows].mean()


class DeclaresTooMuch(Plain):
    def score(self, batch: Batch) -> Tensor:
        vectors = self.embed(batch, self.slots).clone()
        vectors[:, 2] = 0
        return self.network(vectors.flatten(start_dim=1)).squeeze(1)


class ReadsInSecret(Plain):
    def score(self, batch: Batch) -> Tensor:
        return super().score(batch) + self.embed(batch, ["genres"]).sum(dim=(1, 2))


class PeeksAtTheLabel(Plain):
    def score(self, batch: Batch) -> Tensor:
        return super().score(batch) + batch.labels.get("click", torch.zeros(batch.size))


class LooksAhead(Plain):
    def score(self, batch: Batch) -> Tensor:
        return super().score(batch) + batch.dense["price"].flip(0).cumsum(0).flip(0)

    dense = ("price",)


class Remembers(Plain):
    def setup(self) -> None:
        self.register_buffer("seen", torch.zeros(()))

    def score(self, batch: Batch) -> Tensor:
        self.seen += batch.size
        return super().score(batch)


class Draws(Plain):
    def score(self, batch: Batch) -> Tensor:
        return super().score(batch) + torch.randn(batch.size)


class KeepsAWeightToItself(Plain):
    def setup(self) -> None:
        self.hidden = torch.ones(())

    def score(self, batch: Batch) -> Tensor:
        if self.training:
            self.hidden = self.hidden * 1.1
        return super().score(batch) * self.hidden


class NeverLearns(Plain):
    def loss(self, batch: Batch) -> Tensor:
        return super().loss(batch) * 1e-9 + 1


class ScoresInTwoDimensions(Plain):
    def score(self, batch: Batch) -> Tensor:
        return super().score(batch)[:, None]

    def loss(self, batch: Batch) -> Tensor:
        return log_loss(self.score(batch)[:, 0], batch, "click")


class SaysNothing(Plain):
    """Silent on where it comes from."""


class LacksItsMethod(Plain):
    abilities: ClassVar[frozenset[Ability]] = frozenset({Ability.ENCODES})


@pytest.mark.parametrize(
    ("broken", "check", "words"),
    [
        (MeansOverTheBatch, "one_row_alone_scores_as_in_a_batch", "score of row 0 depends on its batch"),
        (LooksAtTheRowBefore, "order_of_rows_does_not_matter", "score depends on the order of rows"),
        (FailsWithoutPositives, "empty_slots_and_unseen_ids_work", "no positive: the loss is nan"),
        (DeclaresTooMuch, "declared_slots_get_gradients_and_no_other_is_read", "slot history gets no gradient"),
        (ReadsInSecret, "declared_slots_get_gradients_and_no_other_is_read", "the batch has no slot 'genres'"),
        (PeeksAtTheLabel, "nothing_looks_into_the_future", "score depends on labels"),
        (LooksAhead, "nothing_looks_into_the_future", "score depends on later examples"),
        (Remembers, "scoring_changes_nothing", "changed seen"),
        (Draws, "scoring_changes_nothing", "score gives something else the second time"),
        (KeepsAWeightToItself, "config_and_state_survive_a_round_trip", "score differs after a round trip"),
        (NeverLearns, "overfits_a_batch", "the loss of one batch went from"),
        (
            ScoresInTwoDimensions,
            "answers_have_their_shapes",
            "score has shape (32, 1), and (32,) is needed; squeeze(-1)",
        ),
        (SaysNothing, "names_its_source", "says"),
        (LacksItsMethod, "abilities_are_there", "Encodes is declared and encode is missing"),
    ],
)
def test_a_broken_model_is_stopped_by_name(broken: type[Plain], check: str, words: str) -> None:
    with pytest.raises(AssertionError) as caught:
        check_model(broken, PlainConfig())
    lines = [line for line in str(caught.value).splitlines() if line.startswith(f"- {check}: ")]
    assert lines, caught.value
    assert words in lines[0]


def test_the_plain_one_passes() -> None:
    check_model(Plain, PlainConfig())


def test_a_check_is_skipped_only_with_a_reason_on_the_class() -> None:
    class Excused(NeverLearns):
        """Source: made up."""

        skipped_checks: ClassVar[Mapping[str, str]] = {"overfits_a_batch": "its loss is a constant"}

    class Unexcused(NeverLearns):
        """Source: made up."""

        skipped_checks: ClassVar[Mapping[str, str]] = {"overfits_a_batch": " ", "overfit": "typo"}

    check_model(Excused, PlainConfig())
    with pytest.raises(AssertionError, match="overfits_a_batch needs a reason") as caught:
        check_model(Unexcused, PlainConfig())
    assert "'overfit' is no check" in str(caught.value)


def test_an_error_inside_the_model_is_told_like_a_failure() -> None:
    def make(config: PlainConfig, embed: Embed) -> Plain:
        model = Plain(config, embed)
        model.slots = ("usr",)
        return model

    with pytest.raises(AssertionError, match="did you mean 'user'"):
        check_model(make, PlainConfig())
    assert all(callable(check) for check in CHECKS.values())

"""SDIM: a long past, hashed into buckets; a candidate reads the sum of its own bucket in place of attending to all.

Source: Y. Cao et al., "Sampling Is All You Need on Modeling Long-Term User Behaviors for CTR Prediction", CIKM 2022
(arXiv 2205.10249): hash-based sampling attention over the whole past, target attention over its newest part.
Departs from the paper: the projection is dense (the structured one pays from hundreds of columns on); the recent past
goes through DIN's activation unit.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar, Final, final

from torch import Tensor, nn

from dolmen.embedding import Embed
from dolmen.errors import ConfigError
from dolmen.features import Batch
from dolmen.models.config import at_least, not_empty, positive
from dolmen.models.contract import Ability
from dolmen.models.layers.activations import activations
from dolmen.models.layers.attention import ActivationUnit, attend_by_angle
from dolmen.models.layers.behaviours import BehaviourFields, ClickTower, Past, TowerConfig, Weighed, averaged, pooled
from dolmen.models.layers.hashing import SimHash, interest_of

__all__ = ["SDIM", "LongPast", "SDIMConfig"]

_BITS_MAX: Final = 16  # of 64 columns and 16 rounds, a person's sums take 256 MiB then


class LongPast(StrEnum):
    """How the whole past is read."""

    HASHED = "hashed"  # the paper's method
    ATTENDED = "attended"  # softmax(cos(q, k) / t) over everything: what hashing comes close to
    AVERAGED = "averaged"
    LEFT_OUT = "left_out"


@final
@dataclass(frozen=True, kw_only=True)
class SDIMConfig(TowerConfig):
    """Options of ``SDIM``: those of ``TowerConfig`` and

    Args:
        recent: how many of the newest behaviours the activation unit sees as well (paper: 16 or 50).
        attention_hidden: widths of that unit's hidden layers.
        rounds: hashes (paper: m / tau = 16).
        bits: of each hash, at most 16 (paper: tau = 3): more of them look for more alike behaviours.
        long_past: how the whole past is read; all but ``hashed`` are there to compare with.
        temperature: of ``attended``, over cosines: hashing does not see how long vectors are, so neither does what it
            is compared with (paper: exp(q.s / 0.5) is what 3 bits come close to, for unit vectors).
    """

    recent: int = 16
    attention_hidden: tuple[int, ...] = (36,)
    rounds: int = 16
    bits: int = 3
    long_past: LongPast = LongPast.HASHED
    temperature: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        not_empty(self, "attention_hidden")
        at_least(self, 1, "attention_hidden", "recent", "rounds")
        at_least(self, 0, "bits")
        if self.bits > _BITS_MAX:
            raise ConfigError(f"SDIMConfig.bits must be at most {_BITS_MAX}, got {self.bits}: buckets are 2^bits")
        positive(self, "temperature")


@final
class SDIM(nn.Module):
    """Can: ``Scores``, ``Weighs`` behaviours, and ``Condenses`` a hashed past to the sums of its buckets.

    Source: Cao et al., CIKM 2022.
    """

    abilities: ClassVar[frozenset[Ability]] = frozenset({Ability.SCORES, Ability.WEIGHS, Ability.CONDENSES})

    def __init__(self, config: SDIMConfig, embed: Embed) -> None:
        super().__init__()
        self.config = config
        self.fields = BehaviourFields(embed, config)
        self.slots, self.dense = self.fields.slots, self.fields.dense
        chosen = activations(config.activation, config.window, of_batch=config.batch_moments)
        self.unit = ActivationUnit(self.fields.width, config.attention_hidden, chosen)
        self.hash = SimHash(self.fields.width, config.rounds, config.bits)
        interest_count = 1 if config.long_past is LongPast.LEFT_OUT else 2
        self.tower = ClickTower(config, self.fields, interest_count)

    @property
    def past_slots(self) -> tuple[str, ...]:
        """The history."""
        return self.fields.history

    @property
    def recent_count(self) -> int:
        """How many of the newest behaviours the activation unit sees."""
        return self.config.recent

    @property
    def condensed_shape(self) -> tuple[int, ...] | None:
        """(rounds, buckets, width); ``None`` unless the long past is hashed."""
        if self.config.long_past is not LongPast.HASHED:
            return None
        return self.config.rounds, self.hash.bucket_count, self.fields.width

    def forward(self, batch: Batch) -> Tensor:
        """Logits of the label, (batch,)."""
        candidates, past = self.fields.candidates(batch), self.fields.past(batch)
        return self._logits(batch, candidates, past, self._long(candidates, past))

    def condense(self, batch: Batch, before: Tensor | None = None) -> Tensor:
        """The sums of each bucket of each past, (batch, rounds, buckets, width), added to those of ``before``."""
        return self.hash.sums(self.fields.past(batch), before)

    def score_condensed(self, batch: Batch, sums: Tensor, owners: Tensor) -> Tensor:
        """As ``score``, (batch,): the history may hold the newest behaviours alone, ``sums`` tell the whole."""
        candidates = self.fields.candidates(batch)
        return self._logits(batch, candidates, self.fields.past(batch), [self.hash.read(sums, owners, candidates)])

    def _logits(self, batch: Batch, candidates: Tensor, past: Past, long: list[Tensor]) -> Tensor:
        recent = past.newest(self.config.recent)
        interests = [pooled(recent, self.unit(candidates, recent)), *long]
        logits: Tensor = self.tower(batch, candidates, interests)
        return logits

    def weighed(self, batch: Batch) -> Weighed:
        """How the whole past is read, by ``long_past``: what the activation unit adds of the newest is not told."""
        candidates, past = self.fields.candidates(batch), self.fields.past(batch)
        return self.tower.weighed(candidates, past, self.weights(candidates, past))

    def weights(self, candidates: Tensor, past: Past) -> Tensor:
        """What each behaviour of the whole past counts for its example's candidate, (total,)."""
        match self.config.long_past:
            case LongPast.HASHED:
                return self.hash.weights(candidates, past)
            case LongPast.ATTENDED:
                return attend_by_angle(candidates, past, self.config.temperature)
            case LongPast.AVERAGED:
                return past.shares
            case LongPast.LEFT_OUT:
                return past.vectors.new_zeros(len(past.owners))

    def _long(self, candidates: Tensor, past: Past) -> list[Tensor]:
        match self.config.long_past:
            case LongPast.HASHED:
                return [interest_of(self.hash.met(candidates, past))]
            case LongPast.ATTENDED:
                return [pooled(past, self.weights(candidates, past))]
            case LongPast.AVERAGED:
                return [averaged(past)]
            case LongPast.LEFT_OUT:
                return []

    def score(self, batch: Batch) -> Tensor:
        """What ranking sorts by, (batch,): the logits."""
        logits: Tensor = self(batch)
        return logits

    def loss(self, batch: Batch) -> Tensor:
        """Log loss of the label; while learning, plus the mini-batch aware decay. A scalar."""
        return self.tower.loss(self(batch), batch)

"""A ranker and a retriever learned as one model, on the same rows: the shape that the loop serves.

Source: none of its own; a sum of losses. What they share is the table: an item's row is moved by both.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, cast, final

from torch import Tensor, nn

from dolmen.errors import ConfigError
from dolmen.features import Batch
from dolmen.models.config import positive
from dolmen.models.contract import Ability, Condenses, Retrieves, Scores, condenser

__all__ = ["Joint", "JointConfig"]


@final
@dataclass(frozen=True, kw_only=True)
class JointConfig:
    """Options of ``Joint``.

    Args:
        ranker: name of a model that scores.
        ranker_options: that model's options.
        retriever: name of a model that retrieves.
        retriever_options: that model's options.
        retriever_weight: what the retriever's loss counts beside the ranker's. They pull on the same rows: on
            MovieLens-100k, seen once in time order, 1 costs the ranker 0.005 of AUC and 0.3 nothing.
    """

    ranker: str = "deepfm"
    ranker_options: Mapping[str, Any] = field(default_factory=dict)
    retriever: str = "two_tower"
    retriever_options: Mapping[str, Any] = field(default_factory=dict)
    retriever_weight: float = 0.3

    def __post_init__(self) -> None:
        positive(self, "retriever_weight")


@final
class Joint(nn.Module):
    """Can: ``Scores`` as its ranker does, and ``Condenses`` where that does; ``Retrieves`` as its retriever does.

    Source: its parts' sources.
    """

    abilities: ClassVar[frozenset[Ability]] = frozenset({Ability.SCORES, Ability.CONDENSES, Ability.RETRIEVES})

    def __init__(self, config: JointConfig, ranker: Scores, retriever: Retrieves) -> None:
        super().__init__()
        self.config = config
        # Twice the same parts: as modules, so that parameters are found, and typed by what they can do.
        self.parts = nn.ModuleDict({"ranker": cast("nn.Module", ranker), "retriever": cast("nn.Module", retriever)})
        self._typed = (ranker, retriever)

    @property
    def slots(self) -> tuple[str, ...]:
        """Every slot that a part reads."""
        return tuple(dict.fromkeys(self.ranker.slots + self.retriever.slots))

    @property
    def dense(self) -> tuple[str, ...]:
        """Every dense feature that a part reads."""
        return tuple(dict.fromkeys(self.ranker.dense + self.retriever.dense))

    @property
    def ranker(self) -> Scores:
        """The part that scores."""
        return self._typed[0]

    @property
    def retriever(self) -> Retrieves:
        """The part that retrieves."""
        return self._typed[1]

    @property
    def past_slots(self) -> tuple[str, ...]:
        """What ``condense`` reads."""
        return self._condensing().past_slots

    @property
    def recent_count(self) -> int:
        """How many of the newest behaviours the ranker reads one by one."""
        return self._condensing().recent_count

    @property
    def condensed_shape(self) -> tuple[int, ...] | None:
        """Of the ranker's sums; ``None`` where it condenses nothing."""
        able = condenser(self.ranker)
        return able.condensed_shape if able is not None else None

    @property
    def query_slots(self) -> tuple[str, ...]:
        """What ``queries`` reads."""
        return self.retriever.query_slots

    @property
    def item_slots(self) -> tuple[str, ...]:
        """What ``items`` reads."""
        return self.retriever.item_slots

    @property
    def vector_dim(self) -> int:
        """Width of the retriever's vectors."""
        return self.retriever.vector_dim

    def forward(self, batch: Batch) -> Tensor:
        """The ranker's logits, shape (batch,)."""
        return self.score(batch)

    def score(self, batch: Batch) -> Tensor:
        """The ranker's logits, shape (batch,)."""
        return self.ranker.score(batch)

    def condense(self, batch: Batch, before: Tensor | None = None) -> Tensor:
        """The ranker's sums over each past, (batch, *condensed_shape)."""
        return self._condensing().condense(batch, before)

    def score_condensed(self, batch: Batch, sums: Tensor, owners: Tensor) -> Tensor:
        """The ranker's logits from the sums, shape (batch,)."""
        return self._condensing().score_condensed(batch, sums, owners)

    def queries(self, batch: Batch) -> Tensor:
        """The retriever's queries, shape (batch, k, d)."""
        return self.retriever.queries(batch)

    def items(self, batch: Batch) -> Tensor:
        """The retriever's items, shape (n, d)."""
        return self.retriever.items(batch)

    def loss(self, batch: Batch) -> Tensor:
        """The sum of both losses, a scalar."""
        return self.ranker.loss(batch) + self.config.retriever_weight * self.retriever.loss(batch)

    def _condensing(self) -> Condenses:
        able = condenser(self.ranker)
        if able is None:
            raise ConfigError(f"the ranker {self.config.ranker!r} condenses no past; ask `condenser` before")
        return able

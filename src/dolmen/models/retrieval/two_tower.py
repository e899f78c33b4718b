"""Two towers: a person and an item each become one vector; their inner product says who likes what.

Source: X. Yi et al., "Sampling-Bias-Corrected Neural Modeling for Large Corpus Item Recommendations", RecSys 2019:
in-batch softmax corrected by ln q (equation 5), q from the stream (algorithm 2), vectors of length 1 and a temperature
(section 5.1).
Departs from the paper: an item other than the positive also stands in from a ring of recently chosen items, since an
online batch may hold one positive only; negatives that are the positive's own item are masked.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final, final

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

from dolmen.embedding import Embed
from dolmen.errors import ConfigError, SchemaError
from dolmen.features import Batch, Schema, Side
from dolmen.models.config import at_least, not_empty, positive
from dolmen.models.contract import Ability
from dolmen.models.layers.losses import label_of
from dolmen.models.layers.mlp import MLP
from dolmen.models.layers.rows import side_vectors, vector_width
from dolmen.models.layers.stream import RecentRows, StreamFrequency

__all__ = ["TwoTower", "TwoTowerConfig"]

_MANY_KEPT: Final = 16  # values that the ring keeps of a slot with many; genres and tags have fewer


@final
@dataclass(frozen=True, kw_only=True)
class TwoTowerConfig:
    """Options of ``TwoTower``.

    Args:
        query_slots: what the person's tower reads; ``None``: every slot that the schema says is the user's.
        item_slots: what the item's tower reads; ``None``: every slot that is the item's. Must hold ``item_slot``.
        query_dense: dense features of the person's tower; ``None``: every one that is the user's.
        item_dense: dense features of the item's tower; ``None``: every one that is the item's.
        item_slot: the slot that says which item it is.
        label: an example is a positive where this label is 1; ``None``: the schema's first label.
        dim: width of the vectors.
        hidden: widths of both towers' hidden layers.
        temperature: what cosines are divided by; smaller tells near items apart more sharply.
        recent_items: capacity of the ring of recently chosen items.
        negatives: how many of them each step takes as negatives, beside the batch's own positives.
        frequency_buckets: places for the estimate of how often an item is chosen; a few times the common items.
        frequency_rate: weight of the newest gap in that estimate (paper: alpha).
    """

    query_slots: tuple[str, ...] | None = None
    item_slots: tuple[str, ...] | None = None
    query_dense: tuple[str, ...] | None = None
    item_dense: tuple[str, ...] | None = None
    item_slot: str = "item"
    label: str | None = None
    dim: int = 32
    hidden: tuple[int, ...] = (64,)
    temperature: float = 0.1
    recent_items: int = 1024
    negatives: int = 128
    frequency_buckets: int = 4096
    frequency_rate: float = 0.05

    def __post_init__(self) -> None:
        not_empty(self, "query_slots", "item_slots")
        at_least(self, 1, "dim", "hidden", "recent_items", "frequency_buckets")
        at_least(self, 0, "negatives")
        positive(self, "temperature", "frequency_rate")
        if self.frequency_rate > 1:
            raise ConfigError(f"TwoTowerConfig.frequency_rate must be at most 1, got {self.frequency_rate}")


@final
class TwoTower(nn.Module):
    """Can: ``Retrieves``, one interest a person. Vectors have length 1.

    Source: Yi et al., RecSys 2019.
    """

    abilities: ClassVar[frozenset[Ability]] = frozenset({Ability.RETRIEVES})

    def __init__(self, config: TwoTowerConfig, embed: Embed) -> None:
        super().__init__()
        self.config, self.embed = config, embed
        schema = embed.schema
        self.query_slots = _slots_of(schema, Side.USER, config.query_slots)
        self.item_slots = _slots_of(schema, Side.ITEM, config.item_slots)
        self.query_dense = _dense_of(schema, Side.USER, config.query_dense)
        self.item_dense = _dense_of(schema, Side.ITEM, config.item_dense)
        if config.item_slot not in self.item_slots or schema.slot(config.item_slot).many:
            raise ConfigError(
                f"TwoTowerConfig.item_slot must be a single slot among the item's ({', '.join(self.item_slots)}), "
                f"got {config.item_slot!r}"
            )
        self.label = config.label if config.label is not None else schema.first_label
        self.query_tower = MLP(
            vector_width(schema, self.query_slots) + len(self.query_dense), config.hidden, config.dim, has_shortcut=True
        )
        self.item_tower = MLP(
            vector_width(schema, self.item_slots) + len(self.item_dense), config.hidden, config.dim, has_shortcut=True
        )
        self.frequency = StreamFrequency(config.frequency_buckets, config.frequency_rate)
        self.recent = RecentRows(
            {name: _kept(schema, name) for name in self.item_slots}, self.item_dense, config.recent_items
        )

    @property
    def slots(self) -> tuple[str, ...]:
        """Every slot that the towers read."""
        return tuple(dict.fromkeys(self.query_slots + self.item_slots))

    @property
    def dense(self) -> tuple[str, ...]:
        """Every dense feature that the towers read."""
        return tuple(dict.fromkeys(self.query_dense + self.item_dense))

    @property
    def vector_dim(self) -> int:
        """Width of the vectors."""
        return self.config.dim

    def queries(self, batch: Batch) -> Tensor:
        """The person's vector, shape (batch, 1, dim). Reads ``query_slots`` and ``query_dense`` only."""
        return self._queries(batch).unsqueeze(1)

    def items(self, batch: Batch) -> Tensor:
        """The item's vector, shape (batch, dim). Reads ``item_slots`` and ``item_dense`` only."""
        return self._items(batch)

    def forward(self, batch: Batch) -> Tensor:
        """The cosine of each example's person and item, shape (batch,)."""
        return (self._queries(batch) * self._items(batch)).sum(dim=1)

    def loss(self, batch: Batch) -> Tensor:
        """Sampled softmax of each positive against the batch's other positives and recent items, a scalar."""
        rows = (label_of(batch, self.label) > 0.5).nonzero().squeeze(1)
        recent = self.recent.spread(self.config.negatives)
        queries = self._queries(batch, rows)
        items = torch.cat([self._items(batch, rows), self._items(recent)])
        chosen = self._item_fids(batch)[rows]
        candidates = torch.cat([chosen, self._item_fids(recent)])
        if self.training:
            self.frequency.update(chosen)
        logits = queries @ items.T / self.config.temperature - self.frequency.log_chance(candidates)
        is_own = torch.eye(len(rows), len(candidates), dtype=torch.bool)
        is_accidental = (candidates == chosen.unsqueeze(1)) & ~is_own
        logits = logits.masked_fill(is_accidental, float("-inf"))
        losses = cross_entropy(logits, torch.arange(len(rows)), reduction="none")
        if self.training:
            self.recent.push(batch, rows)
        return (losses * batch.weights[rows]).sum() / max(1, batch.size)

    def _queries(self, batch: Batch, rows: Tensor | None = None) -> Tensor:
        # Slots are read for the whole batch, even where few examples are positives: a model beside this one that reads
        # them too then shares the look-up.
        inputs = side_vectors(self.embed, batch, self.query_slots, self.query_dense)
        return normalize(self.query_tower(inputs if rows is None else inputs[rows]), dim=1)

    def _items(self, batch: Batch, rows: Tensor | None = None) -> Tensor:
        inputs = side_vectors(self.embed, batch, self.item_slots, self.item_dense)
        return normalize(self.item_tower(inputs if rows is None else inputs[rows]), dim=1)

    def _item_fids(self, batch: Batch) -> Tensor:
        """Which item each example is about, shape (batch,); -1 where nobody said."""
        column = batch.slot(self.config.item_slot)
        fids = torch.full((batch.size,), -1, dtype=torch.int64)
        fids[column.lengths > 0] = column.values
        return fids


def _slots_of(schema: Schema, side: Side, chosen: tuple[str, ...] | None) -> tuple[str, ...]:
    names = chosen if chosen is not None else tuple(slot.name for slot in schema.slots_of(side))
    if not names:
        raise SchemaError(f'the schema has no slot of the {side}; declare one with of="{side}", or name slots')
    return names


def _dense_of(schema: Schema, side: Side, chosen: tuple[str, ...] | None) -> tuple[str, ...]:
    return chosen if chosen is not None else tuple(one.name for one in schema.dense_of(side))


def _kept(schema: Schema, name: str) -> int:
    """How many values the ring keeps of a slot."""
    slot = schema.slot(name)
    return min(slot.max_len or _MANY_KEPT, _MANY_KEPT) if slot.many else 1

"""Two towers: a person and an item each become one vector; their inner product says who likes what.

Source: X. Yi et al., "Sampling-Bias-Corrected Neural Modeling for Large Corpus Item Recommendations", RecSys 2019:
in-batch softmax corrected by ln q (equation 5), q from the stream (algorithm 2), vectors of length 1 and a temperature
(section 5.1).
Departs from the paper:

- Negatives come from a ring of recently chosen items too, since an online batch may hold one positive only; those that
  are the positive's own item are masked.
- A tower is a linear map of its slots plus the paper's network. The map belongs to the table, so both towers share it:
  an item in a history and the same item as a candidate start out as one vector, and someone who likes things finds
  their like long before the network has learned anything.
- An item's own row is drawn towards what the rest of its slots say (``content_weight``). A history holds items' rows
  only; so it speaks of genres and tags as well, and five films of one genre ask for more of that genre.
- In training the person's own id is hidden now and then (M. Volkovs et al., "DropoutNet", NeurIPS 2017), or the model
  would know each person by heart and never learn to read the history of one whom it meets for the first time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Final, final

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, linear, normalize

from dolmen.embedding import Embed
from dolmen.errors import ConfigError, SchemaError
from dolmen.features import Batch, Schema, Side
from dolmen.models.config import at_least, not_empty, positive
from dolmen.models.contract import Ability
from dolmen.models.layers.losses import chosen_label
from dolmen.models.layers.mlp import MLP
from dolmen.models.layers.rows import NUMBERS, dense_columns, input_width, slot_vectors
from dolmen.models.layers.sequences import check_rates
from dolmen.models.layers.stream import RecentRows, StreamFrequency, values_kept

__all__ = ["TwoTower", "TwoTowerConfig"]

_LENGTH_MIN: Final = 0.1  # below it a vector stays short: its direction is noise, and its gradient would be huge


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
        hide_slot: the slot that says who the person is; ``None``: nothing is hidden.
        hide_rate: in which share of examples it is hidden in training.
        item_dropout: at which rate each slot of an item is hidden in training, drawn apart (Yao et al., CIKM 2021, call
            it feature dropout).
        content_weight: what the pull of an item's row towards its other slots counts in the loss.
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
    hide_slot: str | None = "user"
    hide_rate: float = 0.5
    item_dropout: float = 0.0
    content_weight: float = 0.5
    temperature: float = 0.2
    recent_items: int = 1024
    negatives: int = 128
    frequency_buckets: int = 4096
    frequency_rate: float = 0.05

    def __post_init__(self) -> None:
        not_empty(self, "query_slots", "item_slots")
        at_least(self, 1, "dim", "hidden", "recent_items", "frequency_buckets")
        at_least(self, 0, "negatives", "hide_rate", "content_weight")
        positive(self, "temperature", "frequency_rate")
        check_rates(self, "item_dropout")
        for name in ("frequency_rate", "hide_rate"):
            if getattr(self, name) > 1:
                raise ConfigError(f"TwoTowerConfig.{name} must be at most 1, got {getattr(self, name)}")


@final
class TwoTower(nn.Module):
    """Can: ``Retrieves``, one interest a person. Vectors have length 1, or less where next to nothing is known.

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
        self.label = chosen_label(schema, config.label)
        self.projections = nn.ModuleDict()
        for name in self.slots:
            owner = schema.owner(name)
            if owner.name not in self.projections:
                projection = nn.Linear(owner.dim - 1, config.dim, bias=False)
                nn.init.orthogonal_(projection.weight)
                self.projections[owner.name] = projection
        query_width = input_width(schema, self.query_slots, self.query_dense)
        item_width = input_width(schema, self.item_slots, self.item_dense)
        self.query_tower = MLP(query_width, config.hidden, config.dim, starts_at_zero=True)
        self.item_tower = MLP(item_width, config.hidden, config.dim, starts_at_zero=True)
        self.frequency = StreamFrequency(config.frequency_buckets, config.frequency_rate)
        self.recent = RecentRows(
            {name: values_kept(schema, name) for name in self.item_slots}, self.item_dense, config.recent_items
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
        """Sampled softmax of each positive among the batch's positives and recent items, plus the content loss."""
        rows = (batch.labels[self.label] > 0.5).nonzero().squeeze(1)
        recent = self.recent.spread(self.config.negatives)
        item_parts = self._item_parts(batch)
        queries = self._tower(self.query_tower, {name: part[rows] for name, part in self._query_parts(batch).items()})
        others = self._item_parts(recent)
        # One pass for both: at a batch's size, a pass costs more than the rows in it.
        parts = {name: torch.cat([part[rows], others[name]]) for name, part in item_parts.items()}
        if self.training and self.config.item_dropout:
            parts |= {name: self._some(parts[name]) for name in self.item_slots}
        items = self._tower(self.item_tower, parts)
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
        content = self.config.content_weight * self._content_losses(item_parts)
        return ((losses * batch.weights[rows]).sum() + (content * batch.weights).sum()) / max(1, batch.size)

    def _content_losses(self, item_parts: Mapping[str, Tensor]) -> Tensor:
        """How far each item's own row is from its content: 1 - cosine, (batch,). Moves the row, not the content."""
        own = self._projected(self.config.item_slot, item_parts)
        others = [name for name in self.item_slots if name != self.config.item_slot]
        if not others:
            return torch.zeros(len(own))
        content = torch.stack([self._projected(name, item_parts) for name in others]).sum(dim=0).detach()
        return 1 - (_unit(own) * _unit(content)).sum(dim=1)

    def _queries(self, batch: Batch) -> Tensor:
        return self._tower(self.query_tower, self._query_parts(batch))

    def _items(self, batch: Batch) -> Tensor:
        return self._tower(self.item_tower, self._item_parts(batch))

    def item_vectors(self, parts: Mapping[str, Tensor]) -> Tensor:
        """The item tower over inputs by slot, (count, dim - 1) each, the dense ones under ``NUMBERS``: (count, dim)."""
        return self._tower(self.item_tower, parts)

    # Parts are a side's inputs by name: (batch, dim - 1) for each slot, and (batch, dense). They are read for the
    # whole batch, even where few examples are positives: a model beside this one that reads them shares the look-up.

    def _query_parts(self, batch: Batch) -> dict[str, Tensor]:
        parts = self._parts(batch, self.query_slots, self.query_dense)
        hidden = self.config.hide_slot
        if self.training and hidden in parts:
            parts[hidden] = parts[hidden] * (torch.rand(batch.size, 1) >= self.config.hide_rate)
        return parts

    def _some(self, part: Tensor) -> Tensor:
        """Rows of ``part``, (count, dim - 1), or zeros where they are hidden."""
        return part * (torch.rand(len(part), 1) >= self.config.item_dropout)

    def _item_parts(self, batch: Batch) -> dict[str, Tensor]:
        return self._parts(batch, self.item_slots, self.item_dense)

    def _parts(self, batch: Batch, slots: tuple[str, ...], dense: tuple[str, ...]) -> dict[str, Tensor]:
        vectors = zip(slots, slot_vectors(self.embed, batch, slots), strict=True)
        return {**dict(vectors), NUMBERS: dense_columns(batch, dense)}

    def _tower(self, network: MLP, parts: Mapping[str, Tensor]) -> Tensor:
        """One side's vectors, shape (batch, config.dim): each slot by its map, and the network over all."""
        inputs = torch.cat(list(parts.values()), dim=1)
        # The sum of each slot's map of its own columns is one map of all columns, and one product instead of many.
        maps = [
            self._map(name) if name != NUMBERS else inputs.new_zeros(self.config.dim, part.shape[1])
            for name, part in parts.items()
        ]
        out: Tensor = network(inputs) + linear(inputs, torch.cat(maps, dim=1))
        return _unit(out)

    def _map(self, slot: str) -> Tensor:
        """From a slot's vectors to the space that the towers share, shape (config.dim, dim - 1)."""
        return self.projections[self.embed.schema.owner(slot).name].get_parameter("weight")

    def _projected(self, slot: str, parts: Mapping[str, Tensor]) -> Tensor:
        """A slot's vectors in the space that the towers share, shape (batch, config.dim)."""
        return linear(parts[slot], self._map(slot))

    def _item_fids(self, batch: Batch) -> Tensor:
        """Which item each example is about, shape (batch,); -1 where nobody said."""
        column = batch.slot(self.config.item_slot)
        fids = torch.full((batch.size,), -1, dtype=torch.int64)
        fids[column.lengths > 0] = column.values
        return fids


def _unit(vectors: Tensor) -> Tensor:
    """Vectors at length 1, or in proportion below ``_LENGTH_MIN``."""
    return normalize(vectors, dim=1, eps=_LENGTH_MIN)


def _slots_of(schema: Schema, side: Side, chosen: tuple[str, ...] | None) -> tuple[str, ...]:
    names = chosen if chosen is not None else tuple(slot.name for slot in schema.slots_of(side))
    if not names:
        raise SchemaError(f'the schema has no slot of the {side}; declare one with of="{side}", or name slots')
    return names


def _dense_of(schema: Schema, side: Side, chosen: tuple[str, ...] | None) -> tuple[str, ...]:
    return chosen if chosen is not None else tuple(one.name for one in schema.dense_of(side))

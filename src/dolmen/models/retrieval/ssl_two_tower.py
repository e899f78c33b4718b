"""Two towers that also learn, without labels, that two partial views of an item are one item: meant for rare ones.

Source: T. Yao et al., "Self-supervised Learning for Large-scale Item Recommendations", CIKM 2021 (arXiv 2007.12865):
contrastive loss (equation 1), masking and dropout (section 3.3), correlated masking by mutual information (3.3),
joint objective with items drawn evenly (3.4).
Departs from the paper:

- The items to draw from are those that examples told of, kept in a buffer of fixed size. It does not learn who left:
  an item that the catalogue dropped is drawn until another one takes its place.
- Mutual information is taken over them anew now and then. Dense features are one feature, of which it is
  not taken.
- What a masked feature is replaced by is learned. So is what stands for the item's id, which neither view sees. In
  serving it does not stand there: an item that nobody has met enters with its own row, as it began (zeros if it has
  none), so its vector is not quite the one that the contrast trained.
- Of two features the first view of correlated masking hides 1. The paper's 1 + k // 2 would be both of them, and leave
  that view nothing to show; from three features on it is the paper's.

Nobody shows the items that this is for, so no example would tell of them: the catalogue does (``train.read_catalogue``,
``Trainer.meet``). What it tells comes as examples that count nothing, and look-ups give their ids rows as they give any
example's. Drawing makes no row: an item that is drawn at each step would never grow old.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, ClassVar, final

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

from dolmen.embedding import Embed
from dolmen.embedding.lookup import pool
from dolmen.errors import ConfigError
from dolmen.features import Batch, Jagged
from dolmen.models.config import at_least, positive
from dolmen.models.contract import Ability
from dolmen.models.layers.rows import NUMBERS, dense_columns, split_rows
from dolmen.models.layers.sequences import check_rates
from dolmen.models.layers.stream import DistinctRows, values_kept
from dolmen.models.retrieval.two_tower import TwoTower, TwoTowerConfig
from dolmen.settings import read_settings

__all__ = ["Aim", "Masking", "SSLTwoTower", "SSLTwoTowerConfig", "mutual_information"]


class Masking(StrEnum):
    """Which features the first view hides; the second hides the others."""

    CORRELATED = "correlated"  # one drawn feature, and those that tell most of it (CFM)
    RANDOM = "random"  # half of them, drawn (RFM)
    NONE = "none"  # none: the views differ by the values that are dropped


class Aim(StrEnum):
    """What is learned of the drawn items."""

    CONTRAST = "contrast"  # of an item's two views, that they are one item's
    SPREAD = (
        "spread"  # of whole items, to stand apart (X. Zhang et al., "Learning Spread-out Local Features", ICCV 2017)
    )


@final
@dataclass(frozen=True, kw_only=True)
class SSLTwoTowerConfig:
    """Options of ``SSLTwoTower``.

    Args:
        towers: options of the two towers.
        aim: what is learned of the drawn items; ``spread`` is a baseline, and hides and drops nothing.
        masking: how features are hidden from the views.
        weight: what the loss of the drawn items counts (paper: alpha).
        temperature: what its cosines are divided by (paper: tau).
        value_dropout: of a feature with many values each is left out at this rate, but for one.
        items: how many items are drawn for each step.
        catalogue: places of the buffer that they are drawn from.
        correlate_every: mutual information is taken anew after so many steps.
    """

    towers: Mapping[str, Any] = field(default_factory=dict)
    aim: Aim = Aim.CONTRAST
    masking: Masking = Masking.CORRELATED
    weight: float = 0.2
    temperature: float = 0.1
    value_dropout: float = 0.2
    items: int = 256
    catalogue: int = 16_384
    correlate_every: int = 1000

    def __post_init__(self) -> None:
        at_least(self, 0, "weight")
        at_least(self, 2, "items", "catalogue")
        at_least(self, 1, "correlate_every")
        positive(self, "temperature")
        check_rates(self, "value_dropout")
        self.towers_config()

    def towers_config(self) -> TwoTowerConfig:
        """``towers``, read."""
        return read_settings(TwoTowerConfig, self.towers, "SSLTwoTowerConfig.towers")


@final
class SSLTwoTower(nn.Module):
    """Can: ``Retrieves``, as the two towers do; the contrastive part is there in training only.

    Source: Yao et al., CIKM 2021.
    """

    abilities: ClassVar[frozenset[Ability]] = frozenset({Ability.RETRIEVES})

    step: Tensor
    information: Tensor

    def __init__(self, config: SSLTwoTowerConfig, embed: Embed) -> None:
        super().__init__()
        self.config, self.embed = config, embed
        self.towers = TwoTower(config.towers_config(), embed)
        towers, schema = self.towers, embed.schema
        self.item_slot = towers.config.item_slot
        # Which item it is determines all else of it: as a feature it would be learned by heart, so no view sees it.
        slots = [name for name in towers.item_slots if name != self.item_slot]
        self.features = (*slots, NUMBERS) if towers.item_dense else tuple(slots)
        if len(self.features) < 2 and config.masking is not Masking.NONE:
            raise ConfigError(
                f"SSLTwoTowerConfig.masking {str(config.masking)!r} needs two features of the item beside "
                f"{self.item_slot!r}, got {', '.join(slots) or 'none'}; declare more, or take 'none'"
            )
        widths = {name: schema.slot(name).dim - 1 for name in towers.item_slots} | {NUMBERS: len(towers.item_dense)}
        self.defaults = nn.ParameterList(0.01 * torch.randn(width) for width in widths.values() if width)
        self._default_of = {name: place for place, name in enumerate(name for name in widths if widths[name])}
        self.catalogue = DistinctRows(
            self.item_slot,
            {name: values_kept(schema, name) for name in slots},
            towers.item_dense,
            config.catalogue,
        )
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))
        self.register_buffer("information", torch.zeros(len(self.features), len(self.features)))

    @property
    def slots(self) -> tuple[str, ...]:
        """Every slot that the towers read."""
        return self.towers.slots

    @property
    def dense(self) -> tuple[str, ...]:
        """Every dense feature that the towers read."""
        return self.towers.dense

    @property
    def query_slots(self) -> tuple[str, ...]:
        """What ``queries`` reads."""
        return self.towers.query_slots

    @property
    def item_slots(self) -> tuple[str, ...]:
        """What ``items`` reads."""
        return self.towers.item_slots

    @property
    def vector_dim(self) -> int:
        """Width of the vectors."""
        return self.towers.vector_dim

    def queries(self, batch: Batch) -> Tensor:
        """The person's vector, (batch, 1, dim)."""
        return self.towers.queries(batch)

    def items(self, batch: Batch) -> Tensor:
        """The item's vector, (batch, dim): nothing is hidden from it."""
        return self.towers.items(batch)

    def loss(self, batch: Batch) -> Tensor:
        """That of the two towers; in training plus ``weight`` times what is learned of items drawn evenly."""
        loss = self.towers.loss(batch)
        if not self.training or self.config.weight == 0:
            return loss
        self.catalogue.push(batch)
        known = self.catalogue.known()
        if len(known) < 2:
            return loss
        drawn = self.catalogue.at(known[torch.randperm(len(known))[: self.config.items]])
        if self.config.aim is Aim.SPREAD:
            return loss + self.config.weight * self.spread(drawn)
        if int(self.step) % self.config.correlate_every == 0:
            self._correlate(known)
        self.step += 1
        return loss + self.config.weight * self.contrast(drawn, self.first_hides())

    def contrast(self, items: Batch, hidden: Sequence[str]) -> Tensor:
        """-log P of each item's own second view among those of all ``items``, a mean (equation 1).

        The first view hides the features ``hidden``, the second all others; both leave out values of what they show.
        With ``masking`` none, neither hides any.
        """
        first = set(hidden)
        second = set() if self.config.masking is Masking.NONE else set(self.features) - first
        one, other = (normalize(self.towers.item_vectors(self._view(items, hides)), dim=1) for hides in (first, second))
        logits = one @ other.T / self.config.temperature
        return cross_entropy(logits, torch.arange(items.size))

    def spread(self, items: Batch) -> Tensor:
        """The mean squared cosine of two different ``items``, at least two: 0 where all stand apart."""
        shown = {name: self._rows_of(items.slot(name), name) for name in self.towers.item_slots}
        shown[NUMBERS] = dense_columns(items, self.towers.item_dense)
        vectors = normalize(self.towers.item_vectors(shown), dim=1)
        squares = (vectors @ vectors.T).square()
        return (squares.sum() - squares.diagonal().sum()) / (items.size * (items.size - 1))

    def first_hides(self) -> list[str]:
        """What the next step's first view hides, drawn; one draw for all of its items."""
        count = len(self.features)
        order = torch.randperm(count).tolist()
        match self.config.masking:
            case Masking.NONE:
                return []
            case Masking.RANDOM:
                return [self.features[place] for place in order[: count // 2]]
            case Masking.CORRELATED:
                seed = order[0]
                # The paper's half of them, but for one feature at least that the second view can show.
                beside = min(count // 2, count - 2)
                told = self.information[seed].clone()
                told[seed] = torch.inf
                return [self.features[place] for place in told.topk(1 + beside).indices.tolist()]

    def _view(self, items: Batch, hides: set[str]) -> dict[str, Tensor]:
        """Inputs of the item tower, as ``TwoTower.item_vectors`` takes them."""
        parts: dict[str, Tensor] = {}
        for name in self.towers.item_slots:
            if name == self.item_slot or name in hides:
                parts[name] = self._default(name, items.size)
            else:
                parts[name] = self._shown(items.slot(name), name)
        numbers = dense_columns(items, self.towers.item_dense)
        is_hidden = NUMBERS in hides and self.towers.item_dense
        parts[NUMBERS] = self._default(NUMBERS, items.size) if is_hidden else numbers
        return parts

    def _default(self, name: str, count: int) -> Tensor:
        default: Tensor = self.defaults[self._default_of[name]]
        return default.expand(count, -1)

    def _shown(self, column: Jagged, name: str) -> Tensor:
        """The mean of what is left of each item's values, (items, dim - 1)."""
        kept = (torch.rand(len(column.values)) >= self.config.value_dropout).to(torch.float32)
        # Of those that would lose all, the first stays.
        owners = torch.repeat_interleave(column.lengths)
        left = torch.zeros(column.size).index_add(0, owners, kept)
        bare = ((left == 0) & (column.lengths > 0)).nonzero().squeeze(1)
        kept[column.offsets[:-1][bare]] = 1.0
        return self._rows_of(column, name, kept)

    def _rows_of(self, column: Jagged, name: str, weights: Tensor | None = None) -> Tensor:
        """The mean of each item's values, (items, dim - 1), with no sight counted."""
        vectors = split_rows(self.embed.peek(name, column.values))[1]
        return pool(vectors, column.lengths, "mean", weights)

    def _correlate(self, known: Tensor) -> None:
        columns = [self.catalogue.at(known).slot(name) for name in self.features if name != NUMBERS]
        for i, one in enumerate(columns):
            for j, other in enumerate(columns[: i + 1]):
                found = mutual_information(one, other)
                self.information[i, j] = self.information[j, i] = found


def mutual_information(one: Jagged, other: Jagged) -> float:
    """How many nats one feature of an item tells of another (section 3.3), from as many items as both have rows.

    An item with several values counts each pair of them in equal parts; one without a value of either does not count.
    """
    weights: dict[tuple[int, int], float] = {}
    for left, right in zip(one.to_lists(), other.to_lists(), strict=True):
        for pair in itertools.product(left, right):
            weights[pair] = weights.get(pair, 0.0) + 1.0 / (len(left) * len(right))
    if not weights:
        return 0.0
    joint = np.array(list(weights.values())) / sum(weights.values())
    places = np.array(list(weights), dtype=np.int64)
    margins = []
    for side in range(2):
        _, codes = np.unique(places[:, side], return_inverse=True)
        margins.append(np.bincount(codes, joint)[codes])
    return float((joint * np.log(joint / (margins[0] * margins[1]))).sum())

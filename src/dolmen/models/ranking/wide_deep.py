"""Wide & Deep: a linear model that remembers beside a network that generalises, added before the sigmoid.

Source: H.-T. Cheng et al., "Wide & Deep Learning for Recommender Systems", DLRS 2016, section 3.
Departs from the paper: both parts follow their own optimisers as all our models do (the wide part the table's, the deep
part Adam); products of features are slots of the schema, made where the features are; a slot with many values counts
as the mean of its rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor, nn

from dolmen.embedding import Embed
from dolmen.features import Batch
from dolmen.models.config import at_least, not_empty
from dolmen.models.contract import Ability
from dolmen.models.layers.losses import chosen_label, log_loss
from dolmen.models.layers.mlp import MLP
from dolmen.models.layers.rows import LinearPart, chosen_fields, dense_columns, input_width, slot_vectors

__all__ = ["WideDeep", "WideDeepConfig"]


@final
@dataclass(frozen=True, kw_only=True)
class WideDeepConfig:
    """Options of ``WideDeep``.

    Args:
        slots: which to read, in this order; ``None``: all of the schema.
        wide: which of them the linear part reads; ``None``: all.
        dense: which dense features to read; ``None``: all of the schema.
        label: what to predict; ``None``: the schema's first label.
        hidden: widths of the deep part's hidden layers.
    """

    slots: tuple[str, ...] | None = None
    wide: tuple[str, ...] | None = None
    dense: tuple[str, ...] | None = None
    label: str | None = None
    hidden: tuple[int, ...] = (200, 80)

    def __post_init__(self) -> None:
        not_empty(self, "slots", "wide")
        at_least(self, 1, "hidden")


@final
class WideDeep(nn.Module):
    """Can: ``Scores``. Source: Cheng et al., DLRS 2016."""

    abilities: ClassVar[frozenset[Ability]] = frozenset({Ability.SCORES})

    def __init__(self, config: WideDeepConfig, embed: Embed) -> None:
        super().__init__()
        self.config, self.embed = config, embed
        self.slots, self.dense = chosen_fields(embed.schema, config.slots, config.dense)
        self.label = chosen_label(embed.schema, config.label)
        self.wide = LinearPart(embed, config.wide if config.wide is not None else self.slots, self.dense)
        self.deep = MLP(input_width(embed.schema, self.slots, self.dense), config.hidden, 1)

    def forward(self, batch: Batch) -> Tensor:
        """Logits of the label, (batch,). A slot without ids counts as a row of zeros."""
        vectors = slot_vectors(self.embed, batch, self.slots)
        deep = self.deep(torch.cat([*vectors, dense_columns(batch, self.dense)], dim=1)).squeeze(1)
        logits: Tensor = self.wide(batch) + deep
        return logits

    def score(self, batch: Batch) -> Tensor:
        """What ranking sorts by, (batch,): the logits."""
        logits: Tensor = self(batch)
        return logits

    def loss(self, batch: Batch) -> Tensor:
        """Log loss of the label, a scalar."""
        return log_loss(self(batch), batch, self.label)

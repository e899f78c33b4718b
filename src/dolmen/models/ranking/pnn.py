"""PNN: the inner product of every pair of slots, laid beside the vectors themselves, into one network.

Source: Y. Qu et al., "Product-based Neural Networks for User Response Prediction", ICDM 2016, section III, the inner
product network (IPNN).
Departs from the paper: the products enter the first layer as they are, one weight a pair, without its factorisation of
that layer (which pays from hundreds of slots on); a slot with many values counts as the mean of its rows.
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
from dolmen.models.layers.rows import chosen_fields, dense_columns, input_width, split_rows

__all__ = ["PNN", "PNNConfig"]


@final
@dataclass(frozen=True, kw_only=True)
class PNNConfig:
    """Options of ``PNN``.

    Args:
        slots: which to read, in this order; ``None``: all of the schema. They need one dim.
        dense: which dense features to read; ``None``: all of the schema.
        label: what to predict; ``None``: the schema's first label.
        hidden: widths of the network's hidden layers.
    """

    slots: tuple[str, ...] | None = None
    dense: tuple[str, ...] | None = None
    label: str | None = None
    hidden: tuple[int, ...] = (200, 80)

    def __post_init__(self) -> None:
        not_empty(self, "slots")
        at_least(self, 1, "hidden")


@final
class PNN(nn.Module):
    """Can: ``Scores``. Source: Qu et al., ICDM 2016."""

    abilities: ClassVar[frozenset[Ability]] = frozenset({Ability.SCORES})

    pairs: Tensor

    def __init__(self, config: PNNConfig, embed: Embed) -> None:
        super().__init__()
        self.config, self.embed = config, embed
        self.slots, self.dense = chosen_fields(embed.schema, config.slots, config.dense)
        self.label = chosen_label(embed.schema, config.label)
        embed.dim(self.slots)  # One dim, or the products would not exist; said now, not at the first batch.
        count = len(self.slots)
        self.register_buffer("pairs", torch.triu_indices(count, count, offset=1), persistent=False)
        width_in = input_width(embed.schema, self.slots, self.dense) + self.pairs.shape[1]
        self.layers = MLP(width_in, config.hidden, 1)

    def forward(self, batch: Batch) -> Tensor:
        """Logits of the label, (batch,). A slot without ids counts as a row of zeros."""
        _, vectors = split_rows(self.embed(batch, self.slots))  # (batch, slot, dim - 1)
        products = torch.bmm(vectors, vectors.transpose(1, 2))[:, self.pairs[0], self.pairs[1]]  # (batch, pair)
        inputs = torch.cat([vectors.flatten(start_dim=1), products, dense_columns(batch, self.dense)], dim=1)
        logits: Tensor = self.layers(inputs).squeeze(1)
        return logits

    def score(self, batch: Batch) -> Tensor:
        """What ranking sorts by, (batch,): the logits."""
        logits: Tensor = self(batch)
        return logits

    def loss(self, batch: Batch) -> Tensor:
        """Log loss of the label, a scalar."""
        return log_loss(self(batch), batch, self.label)

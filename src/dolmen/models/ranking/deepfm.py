"""DeepFM: a factorization machine and a deep network over the same vectors, trained together.

Source: H. Guo et al., "DeepFM: A Factorization-Machine based Neural Network for CTR Prediction", IJCAI 2017, equations
1 to 4; the pairwise term by lemma 3.1 of S. Rendle, "Factorization Machines", ICDM 2010.
Departs from the paper: a slot with many values counts as the mean of its rows; dense features enter as logarithms, in
the linear and the deep part; no dropout, since each example is seen once; negatives that were sampled away are weighed
back in.
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
from dolmen.models.layers.rows import dense_columns, input_width, split_rows

__all__ = ["DeepFM", "DeepFMConfig"]


@final
@dataclass(frozen=True, kw_only=True)
class DeepFMConfig:
    """Options of ``DeepFM``.

    Args:
        slots: which to read, in this order; ``None``: all of the schema. They need one dim.
        dense: which dense features to read; ``None``: all of the schema.
        label: what to predict; ``None``: the schema's first label.
        hidden: widths of the deep part's hidden layers.
    """

    slots: tuple[str, ...] | None = None
    dense: tuple[str, ...] | None = None
    label: str | None = None
    hidden: tuple[int, ...] = (256, 128, 64)

    def __post_init__(self) -> None:
        not_empty(self, "slots")
        at_least(self, 1, "hidden")


@final
class DeepFM(nn.Module):
    """Can: ``Scores``. A row holds the linear weight in column 0, then the vector that both parts share.

    Source: Guo et al., IJCAI 2017.
    """

    abilities: ClassVar[frozenset[Ability]] = frozenset({Ability.SCORES})

    def __init__(self, config: DeepFMConfig, embed: Embed) -> None:
        super().__init__()
        self.config, self.embed = config, embed
        self.slots = config.slots if config.slots is not None else tuple(embed.schema.slots)
        self.dense = config.dense if config.dense is not None else tuple(embed.schema.dense)
        self.label = chosen_label(embed.schema, config.label)
        embed.dim(self.slots)  # One dim, or the pairwise products would not exist; said now, not at the first batch.
        self.bias = nn.Parameter(torch.zeros(()))
        self.dense_weights = nn.Parameter(torch.zeros(len(self.dense)))
        self.deep = MLP(input_width(embed.schema, self.slots, self.dense), config.hidden, 1)

    def forward(self, batch: Batch) -> Tensor:
        """Logits of the label, shape (batch,). A slot without ids counts as a row of zeros."""
        linear, vectors = split_rows(self.embed(batch, self.slots))  # (batch, slot), (batch, slot, dim - 1)
        dense = dense_columns(batch, self.dense)
        # Sum over pairs i < j of <v_i, v_j> = (|sum v|^2 - sum |v|^2) / 2: no loop over pairs.
        pairwise = (vectors.sum(dim=1).square() - vectors.square().sum(dim=1)).sum(dim=-1) / 2
        deep = self.deep(torch.cat([vectors.flatten(start_dim=1), dense], dim=1)).squeeze(1)
        logits: Tensor = self.bias + linear.sum(dim=1) + dense @ self.dense_weights + pairwise + deep
        return logits

    def score(self, batch: Batch) -> Tensor:
        """What ranking sorts by, shape (batch,): the logits."""
        logits: Tensor = self(batch)
        return logits

    def loss(self, batch: Batch) -> Tensor:
        """Log loss of the label, a scalar."""
        return log_loss(self(batch), batch, self.label)

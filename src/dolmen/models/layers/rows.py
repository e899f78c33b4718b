"""How models read a row: column 0 is the linear weight of its id, the rest is its vector.

Every model keeps to it, so that models which share a table agree on what a column means.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Final, final

import torch
from torch import Tensor, nn

from dolmen.embedding import Embed
from dolmen.errors import SchemaError
from dolmen.features import Batch, Schema

__all__ = ["NUMBERS", "LinearPart", "chosen_fields", "dense_columns", "input_width", "slot_vectors", "split_rows"]

NUMBERS: Final = ""
"""What dense features are called where inputs go by the names of slots; no slot is called that."""


def split_rows(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Linear weights (...,) and vectors (..., dim - 1) of rows (..., dim)."""
    return rows[..., 0], rows[..., 1:]


def chosen_fields(
    schema: Schema, slots: tuple[str, ...] | None, dense: tuple[str, ...] | None
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The slots and dense features that an option names, or all of the schema's where it is ``None``."""
    return tuple(schema.slots) if slots is None else slots, tuple(schema.dense) if dense is None else dense


@final
class LinearPart(nn.Module):
    """A logit that is linear in everything: a bias, the linear weight of each id, a weight for each dense feature.

    Args:
        embed: the look-up.
        slots: which slots; several values of one count as their mean.
        dense: which dense features.

    Raises:
        SchemaError: a name is unknown.
    """

    def __init__(self, embed: Embed, slots: Sequence[str], dense: Sequence[str]) -> None:
        super().__init__()
        for name in slots:
            embed.schema.slot(name)
        for name in dense:
            embed.schema.dense_feature(name)
        self.embed, self.slots, self.dense = embed, tuple(slots), tuple(dense)
        self.bias = nn.Parameter(torch.zeros(()))
        self.weights = nn.Parameter(torch.zeros(len(dense)))

    def forward(self, batch: Batch) -> Tensor:
        """(batch,)."""
        logits: Tensor = self.bias + dense_columns(batch, self.dense) @ self.weights
        for _, group in groupby(self.slots, key=lambda name: self.embed.schema.slot(name).dim):
            linear, _ = split_rows(self.embed(batch, tuple(group)))
            logits = logits + linear.sum(dim=1)
        return logits


def input_width(schema: Schema, slots: Sequence[str], dense: Sequence[str]) -> int:
    """How wide the vectors of ``slots`` and the dense features are, side by side.

    Raises:
        SchemaError: a name is unknown, or a slot's dim of 1 leaves no room for a vector.
    """
    for name in dense:
        schema.dense_feature(name)
    for name in slots:
        if schema.slot(name).dim < 2:
            raise SchemaError(f"slot {name!r}: dim must be at least 2 here (a linear weight, then a vector), got 1")
    return sum(schema.slot(name).dim - 1 for name in slots) + len(dense)


def slot_vectors(embed: Embed, batch: Batch, slots: Sequence[str]) -> list[Tensor]:
    """The pooled vector of each slot, each (batch, dim - 1). Slots may differ in dim."""
    parts: list[Tensor] = []
    for _, group in groupby(slots, key=lambda name: embed.schema.slot(name).dim):
        _, vectors = split_rows(embed(batch, tuple(group)))
        parts.extend(vectors.unbind(dim=1))
    return parts


def dense_columns(batch: Batch, names: Sequence[str]) -> Tensor:
    """Dense features side by side, shape (batch, dense), each as sign(x) ln(1 + |x|).

    Raw numbers come in any scale (a price, a count of seconds), and on a stream there is no pass over the data to learn
    it from; the logarithm keeps each within a few units and loses no order.
    """
    if not names:
        return torch.zeros(batch.size, 0)
    missing = [name for name in names if name not in batch.dense]
    if missing:
        raise SchemaError(f"the batch has no dense feature {missing[0]!r}; it has {', '.join(batch.dense) or 'none'}")
    columns = torch.stack([batch.dense[name] for name in names], dim=1)
    return columns.sign() * columns.abs().log1p()

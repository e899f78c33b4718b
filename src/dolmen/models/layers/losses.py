"""Losses that undo what sampling did."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from dolmen.errors import SchemaError
from dolmen.features import Batch, Schema
from dolmen.settings import suggestion

__all__ = ["chosen_label", "example_weights", "log_loss"]


def chosen_label(schema: Schema, name: str | None) -> str:
    """The label called ``name``, or the schema's first.

    Raises:
        SchemaError: there is none.
    """
    if name is not None and name not in schema.labels:
        raise SchemaError(f"the schema has no label {name!r}{suggestion(name, schema.labels)}")
    return name if name is not None else schema.first_label


def example_weights(batch: Batch) -> Tensor:
    """What each example counts, shape (batch,): its weight, divided by the odds with which it was kept.

    An example that was kept with probability r stands for 1 / r of its kind (Horvitz and Thompson 1952). So the
    expected loss is the one without sampling, whatever r was for each example, and the logits need no ln r later.
    """
    return batch.weights / batch.sampling_rates


def log_loss(logits: Tensor, batch: Batch, label: str) -> Tensor:
    """Binary log loss of ``logits`` (batch,) against ``label``: sum over examples / their number, a scalar."""
    target = batch.labels[label]
    total = binary_cross_entropy_with_logits(logits, target, example_weights(batch), reduction="sum")
    return torch.as_tensor(total / max(1, batch.size))

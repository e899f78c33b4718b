"""Joined items to columns: the last step on the way to an example."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Final

import numpy as np
import torch
from torch import Tensor

from dolmen.events.event import Impression
from dolmen.features import Batch, Jagged, Schema

__all__ = ["Row", "assembled"]

Row = tuple[Impression, int, int, int, float]
"""One example to be: slate, place in it, event time, the bits of the labels that are 1, sampling rate."""

_NONE: Final[list[int]] = []
_NAN: Final = float("nan")


def assembled(schema: Schema, rows: Sequence[Row]) -> Batch:
    """The batch of ``rows``, in their order. What a slate lacks is an empty slot or the dense feature's default."""
    return Batch(
        size=len(rows),
        slots={name: _slot(name, rows) for name in schema.slots},
        dense={
            name: _numbers(
                [
                    impression.item_dense[name][place]
                    if name in impression.item_dense
                    else impression.shared.dense.get(name, dense.default)
                    for impression, place, _, _, _ in rows
                ]
            )
            for name, dense in schema.dense.items()
        },
        labels={name: _numbers([float(row[3] >> bit & 1) for row in rows]) for bit, name in enumerate(schema.labels)},
        weights=torch.ones(len(rows)),
        sampling_rates=_numbers([row[4] for row in rows]),
        served_probabilities=_numbers([row[0].probabilities[row[1]] if row[0].probabilities else _NAN for row in rows]),
        event_times_us=torch.tensor([row[2] for row in rows], dtype=torch.int64),
    )


def _slot(name: str, rows: Sequence[Row]) -> Jagged:
    lists = [
        impression.item_slots[name][place]
        if name in impression.item_slots
        else impression.shared.slots.get(name, _NONE)
        for impression, place, _, _, _ in rows
    ]
    ends = np.zeros(len(rows) + 1, dtype=np.int64)
    np.cumsum(np.fromiter(map(len, lists), dtype=np.int64, count=len(rows)), out=ends[1:])
    values = np.fromiter(chain.from_iterable(lists), dtype=np.int64, count=int(ends[-1]))
    return Jagged(torch.from_numpy(values), torch.from_numpy(ends))


def _numbers(values: list[float]) -> Tensor:
    return torch.from_numpy(np.array(values, dtype=np.float32))

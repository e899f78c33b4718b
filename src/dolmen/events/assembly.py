"""Joined items to columns: the last step on the way to an example.

The columns are Arrow's. A ``Batch`` would hold the same numbers as tensors, and cost the joiner torch, of which it has
no other use: two hundred megabytes, and most of its start.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Final

import numpy as np
import pyarrow as pa

from dolmen.events.event import Impression
from dolmen.features import Schema, examples_schema

__all__ = ["Row", "assembled"]

Row = tuple[Impression, int, int, int, float]
"""One example to be: slate, place in it, event time, the bits of the labels that are 1, sampling rate."""

_NONE: Final[list[int]] = []
_NAN: Final = float("nan")


def assembled(schema: Schema, rows: Sequence[Row]) -> pa.RecordBatch:
    """The examples of ``rows``, in their order, in the layout of ``examples_schema``.

    What a slate lacks is an empty slot or the dense feature's default.
    """
    columns = [_slot(name, rows) for name in schema.slots]
    columns += [
        _numbers(
            [
                impression.item_dense[name][place]
                if name in impression.item_dense
                else impression.shared.dense.get(name, dense.default)
                for impression, place, _, _, _ in rows
            ]
        )
        for name, dense in schema.dense.items()
    ]
    columns += [_numbers([float(row[3] >> bit & 1) for row in rows]) for bit in range(len(schema.labels))]
    columns.append(_numbers([1.0] * len(rows)))
    columns.append(_numbers([row[4] for row in rows]))
    columns.append(_numbers([row[0].probabilities[row[1]] if row[0].probabilities else _NAN for row in rows]))
    columns.append(pa.array([row[2] for row in rows], pa.int64()))
    return pa.RecordBatch.from_arrays(columns, schema=examples_schema(schema))


def _slot(name: str, rows: Sequence[Row]) -> pa.LargeListArray:
    lists = [
        impression.item_slots[name][place]
        if name in impression.item_slots
        else impression.shared.slots.get(name, _NONE)
        for impression, place, _, _, _ in rows
    ]
    ends = np.zeros(len(rows) + 1, dtype=np.int64)
    np.cumsum(np.fromiter(map(len, lists), dtype=np.int64, count=len(rows)), out=ends[1:])
    values = np.fromiter(chain.from_iterable(lists), dtype=np.int64, count=int(ends[-1]))
    return pa.LargeListArray.from_arrays(pa.array(ends), pa.array(values))


def _numbers(values: list[float]) -> pa.Array:
    # By way of NumPy: Arrow would keep a NaN too, but refuse a number too large for float32, which here is infinite.
    return pa.array(np.array(values, dtype=np.float32))

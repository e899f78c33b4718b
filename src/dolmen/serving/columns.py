"""Features of many items in flat columns, by row, so that those of any rows are gathered in a few NumPy calls."""

from __future__ import annotations

from typing import final

import numpy as np
import torch
from numpy.typing import NDArray

from dolmen.features import Batch, Jagged, Schema, Side

__all__ = ["Columns", "Rows"]

Rows = NDArray[np.int64]
"""Numbers of items, as the catalogue gives them."""


@final
class Columns:
    """The item side of many items, by row. Values of a changed row are appended; the old ones are swept in time."""

    def __init__(self, schema: Schema) -> None:
        self.slots = {slot.name: _Ragged() for slot in schema.slots_of(Side.ITEM)}
        self._dense = {one.name: np.zeros(16, dtype=np.float32) for one in schema.dense_of(Side.ITEM)}

    def put(self, rows: Rows, batch: Batch) -> None:
        """Set the features of ``rows``, each once."""
        for name, column in self.slots.items():
            jagged = batch.slot(name)
            column.put(rows, jagged.values.numpy(), jagged.offsets.numpy())
        end = int(rows.max()) + 1
        for name, values in self._dense.items():
            if len(values) < end:
                self._dense[name] = np.concatenate([values, np.zeros(max(end, len(values)), dtype=np.float32)])
            self._dense[name][rows] = batch.dense[name].numpy()

    def take(self, rows: Rows) -> Batch:
        """The features of ``rows``, in their order."""
        return Batch(
            size=len(rows),
            slots={name: column.take(rows) for name, column in self.slots.items()},
            dense={name: torch.from_numpy(values[rows]) for name, values in self._dense.items()},
        )


@final
class _Ragged:
    """Lists of FIDs by row: row ``i`` is ``values[starts[i]:starts[i] + lengths[i]]``."""

    def __init__(self) -> None:
        self._starts, self._lengths = np.zeros(16, dtype=np.int64), np.zeros(16, dtype=np.int64)
        self._values = np.empty(64, dtype=np.int64)
        self._end = self._live = 0  # values there are, and those of them that a row has

    def put(self, rows: Rows, values: NDArray[np.int64], offsets: NDArray[np.int64]) -> None:
        top = int(rows.max()) + 1
        if top > len(self._starts):
            self._starts, self._lengths = _grown(self._starts, top), _grown(self._lengths, top)
        self._live += len(values) - int(self._lengths[rows].sum())
        self._lengths[rows] = 0
        if self._end + len(values) > len(self._values):
            if self._live > len(self._values) // 2:  # there is little to sweep, and the next sweep would come soon
                self._values = _grown(self._values, self._end + len(values))
            else:
                self._sweep()
        self._values[self._end : self._end + len(values)] = values
        self._starts[rows] = offsets[:-1] + self._end
        self._lengths[rows] = np.diff(offsets)
        self._end += len(values)

    def take(self, rows: Rows) -> Jagged:
        lengths = self._lengths[rows]
        offsets = np.zeros(len(rows) + 1, dtype=np.int64)
        lengths.cumsum(out=offsets[1:])
        places = (self._starts[rows] - offsets[:-1]).repeat(lengths)
        places += np.arange(len(places))
        return Jagged.from_arrays(self._values[places], offsets)

    def _sweep(self) -> None:
        """Leave behind the values that no row has any more."""
        kept = self.take(np.arange(len(self._starts)))
        self._starts = kept.offsets.numpy()[:-1].copy()
        self._end = len(kept.values)
        self._values[: self._end] = kept.values.numpy()


def _grown(array: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    larger = np.zeros(max(size, 2 * len(array)), dtype=np.int64)
    larger[: len(array)] = array
    return larger

"""A table as it was at one instant, read while the table goes on.

Taking the instant costs the writer one bit a row. From then on whoever comes to a row first copies it: the reader as it
passes by, or a writer before its first change. So the instant is exact, and no writer waits longer than 64 rows take.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Self, final

import numpy as np
from numpy.typing import NDArray

from dolmen._core import NativeAllRows
from dolmen.embedding.rows import PendingCounts, RowChunk, TableHeader

__all__ = ["TableInstant"]


@final
class TableInstant:
    """What `Table.instant` gives: ``header``, ``pending`` and the rows of one instant. Each row is read once.

    While it is open, writers keep a copy of each row that they change and that was not read yet; so read on, and close
    it (it is a context manager). Stretches of rows may be read by several threads, where they begin at multiples of 64.
    """

    def __init__(self, header: TableHeader, pending: PendingCounts, rows: NativeAllRows) -> None:
        self.header, self.pending, self._rows = header, pending, rows

    @property
    def row_end(self) -> int:
        """No row number is as high as this."""
        return self._rows.row_end

    def chunks(self, begin: int = 0, end: int | None = None, *, chunk_rows: int = 65_536) -> Iterator[RowChunk]:
        """The rows numbered from ``begin`` on and below ``end`` (all if ``None``), in order, ``chunk_rows`` at a time.

        Raises:
            MemoryError: there was no room for a row that a writer had to save before it changed it.
        """
        end = self.row_end if end is None else end
        while True:
            chunk, begin = self.read(self.buffer(chunk_rows), begin, end)
            if len(chunk.fids) > 0:
                yield chunk
            if begin >= end:
                return

    def buffer(self, row_count: int) -> RowChunk:
        """Room for ``row_count`` rows, to be handed to `read`."""
        return RowChunk(
            fids=np.empty(row_count, dtype=np.int64),
            vectors=np.empty((row_count, self.header.dim), dtype=np.float32),
            states=np.empty((row_count, self.header.state_dim), dtype=np.float32),
            last_seen_us=np.empty(row_count, dtype=np.int64),
            counts=np.empty(row_count, dtype=np.int64),
            epochs=np.empty(row_count, dtype=np.uint32),
            row_numbers=np.empty(row_count, dtype=np.uint32),
        )

    def read(self, buffer: RowChunk, begin: int, end: int) -> tuple[RowChunk, int]:
        """Fill ``buffer`` with rows from number ``begin`` on; returns its filled part, and where to go on."""
        columns: list[NDArray[Any]] = [buffer.fids, buffer.vectors, buffer.states, buffer.last_seen_us, buffer.counts]
        for added in (buffer.epochs, buffer.row_numbers):
            assert added is not None  # `buffer` made it.
            columns.append(added)
        count, following = self._rows.read(begin, end, *columns)
        return RowChunk(*(column[:count] for column in columns)), following

    def close(self) -> None:
        """Let go of the table; writers spare no more copies. Rows that were not read are gone."""
        self._rows.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

"""The vectors of all items, kept near the newest parameters, and the index that finds among them.

Items whose own rows a delta touched are encoded at once; so are items that the catalogue changed. All others drift
with what they share (genres, the tower's weights) and are encoded in turn, so many a second. A vector that hardly
moved stays as it is in the index, since linking into a graph costs ten times as much as encoding.
"""

from __future__ import annotations

import time
from typing import Final, final

import numpy as np
from numpy.typing import NDArray

from dolmen.errors import NotReadyError
from dolmen.indexes import ABSENT, ExactIndex, GraphIndex, GrowingIndex, Index, Vectors
from dolmen.models import Ability, retriever
from dolmen.serving.catalogue import Catalogue, Rows
from dolmen.serving.settings import IndexKind, ServeSettings
from dolmen.serving.worker import Worker
from dolmen.telemetry import logger
from dolmen.training.snapshot import Parameters

__all__ = ["Shelf"]

_log = logger(__name__)
_ENCODE_TOGETHER: Final = 256  # a few milliseconds of work, between which requests get their turn
_NOTE_TOGETHER: Final = 2_000  # in less than a millisecond, for which whoever reads the catalogue waits
_TURN_SECONDS: Final = 0.25  # as often as deltas come
_INDEXES: Final = {IndexKind.AUTO: GrowingIndex, IndexKind.EXACT: ExactIndex, IndexKind.GRAPH: GraphIndex}
_MOVED: Final = 0.05  # of a vector's length: below this its place among the neighbours is the same


@final
class Shelf:
    """Item vectors and their index, kept current by a thread. Any thread may search.

    Args:
        settings: which index, and how fast to refresh.
        catalogue: the items; the ids of the index are its rows.
    """

    def __init__(self, settings: ServeSettings, catalogue: Catalogue) -> None:
        self._settings, self._catalogue = settings, catalogue
        self._parameters: Parameters | None = None
        self._index: Index | None = None
        self._vectors = np.empty((0, 0), dtype=np.float32)
        self._held = np.empty(0, dtype=np.bool_)
        self._touched: set[int] = set()
        self._is_all_touched = False
        self._next_row = 0
        self._rows_by_fid: dict[int, int] = {}
        self._fids_by_row: dict[int, int] = {}
        self.worker = Worker("shelf", self._run)
        self.encoded_count = 0
        self.linked_count = 0

    def __len__(self) -> int:
        """How many items can be found."""
        return len(self._index) if self._index is not None else 0

    def learned(self, parameters: Parameters, touched: NDArray[np.int64] | None) -> None:
        """There are newer parameters; ``touched`` are the FIDs of items whose rows changed, ``None`` for all."""
        with self.worker.wake:
            self._parameters = parameters
            if touched is None:
                self._is_all_touched = True
            else:
                self._touched.update(touched.tolist())
            self.worker.wake.notify()

    def search(self, queries: Vectors, k: int) -> tuple[Rows, Vectors]:
        """The nearest items' rows for each query (n, d), best first, shape (n, k); ``ABSENT`` where there are fewer."""
        index = self._index
        if index is None or len(index) == 0 or queries.shape[1] != index.dim:
            shape = (len(queries), k)
            return np.full(shape, ABSENT, dtype=np.int64), np.full(shape, -np.inf, dtype=np.float32)
        return index.search(queries, k)

    def affinities(self, queries: Vectors, rows: Rows) -> NDArray[np.float64]:
        """How near each of ``rows`` is to the nearest of ``queries`` (n, d), shape (rows,); 0 without a vector."""
        vectors, held = self._vectors, self._held  # grown by another thread, one after the other
        found = np.zeros(len(rows))
        has = rows < min(len(held), len(vectors))
        has[has] = held[rows[has]]
        if queries.shape[1] == vectors.shape[1]:
            found[has] = (vectors[rows[has]] @ queries.T).max(axis=1)
        return found

    def similar(self, row: int, k: int) -> tuple[Rows, Vectors]:
        """The items nearest to one item, itself left out: rows and inner products, shape (count,).

        Raises:
            NotReadyError: the item has no vector yet.
        """
        index = self._index
        if index is None or row >= len(self._held) or not self._held[row]:
            raise NotReadyError("this item has no vector yet; ask again when the model has learned, or in a second")
        found, scores = index.search(self._vectors[row : row + 1], k + 1)
        kept = (found[0] != row) & (found[0] != ABSENT)
        return found[0][kept][:k], scores[0][kept][:k]

    def _run(self) -> None:
        while True:
            with self.worker.wake:
                self.worker.wake.wait_for(self._has_work, _TURN_SECONDS)
                if self.worker.is_stopping:
                    return
                parameters, touched, is_all = self._parameters, self._touched, self._is_all_touched
                self._touched, self._is_all_touched = set(), False
            try:
                self._turn(parameters, touched, is_all)
            except Exception:  # a fault of ours: what can be found stays as it is, and the next turn tries again
                _log.exception("item vectors not refreshed")
                self.worker.rest(_TURN_SECONDS)

    def _has_work(self) -> bool:
        return self.worker.is_stopping or self._is_all_touched or bool(self._touched)

    def _turn(self, parameters: Parameters | None, touched: set[int], is_all: bool) -> None:
        started = time.monotonic()
        # Taken whether a model retrieves or not, or they would grow for ever: the first that does touches all rows.
        changed = self._catalogue.take_changed_rows()
        if parameters is not None and Ability.RETRIEVES in parameters.model.abilities:
            if is_all:
                changed = np.arange(self._catalogue.row_count)
            self._note(changed)
            self._prepare(parameters)
            if is_all:
                rows = changed
            else:
                rows = np.union1d(changed, self._rows_of(touched))
                rows = np.union1d(rows, self._in_turn())
            for start in range(0, len(rows), _ENCODE_TOGETHER):
                if self.worker.is_stopping:
                    return
                self._encode(parameters, rows[start : start + _ENCODE_TOGETHER])
        # Deltas come several times a second; a turn takes what came together.
        self.worker.rest(max(0.0, _TURN_SECONDS - (time.monotonic() - started)))

    def _note(self, rows: Rows) -> None:
        """Remember which row the FID of each item names, and of no item that has left."""
        for start in range(0, len(rows), _NOTE_TOGETHER):
            some = rows[start : start + _NOTE_TOGETHER]
            fids = self._catalogue.fids("item", some)
            is_alive = self._catalogue.alive()[some].tolist()
            for row, fid, is_here in zip(some.tolist(), fids, is_alive, strict=True):
                old = self._fids_by_row.pop(row, None)
                if old is not None and self._rows_by_fid.get(old) == row:  # two items may share a FID
                    del self._rows_by_fid[old]
                if is_here:
                    self._fids_by_row[row], self._rows_by_fid[fid] = fid, row

    def _rows_of(self, fids: set[int]) -> Rows:
        rows = [row for fid in fids if (row := self._rows_by_fid.get(fid)) is not None]
        return np.array(rows, dtype=np.int64)

    def _in_turn(self) -> Rows:
        count = self._catalogue.row_count
        share = min(count, int(self._settings.refresh_items_per_second * _TURN_SECONDS) + 1)
        rows = (self._next_row + np.arange(share)) % max(1, count)
        self._next_row = (self._next_row + share) % max(1, count)
        return rows

    def _prepare(self, parameters: Parameters) -> None:
        """Room for every row; a new index where the vectors have another width than before."""
        dim = retriever(parameters.model).vector_dim
        if self._index is None or self._index.dim != dim:
            kind = _INDEXES[self._settings.index]
            self._vectors, self._held = np.empty((0, dim), dtype=np.float32), np.empty(0, dtype=np.bool_)
            self._index = kind(dim)
        missing = self._catalogue.row_count - len(self._held)
        if missing > 0:
            more = max(missing, len(self._held))
            self._vectors = np.concatenate([self._vectors, np.zeros((more, dim), dtype=np.float32)])
            self._held = np.concatenate([self._held, np.zeros(more, dtype=np.bool_)])

    def _encode(self, parameters: Parameters, rows: Rows) -> None:
        assert self._index is not None
        alive = self._catalogue.alive()[rows]
        gone = rows[~alive & self._held[rows]]
        if len(gone) > 0:
            self._index.remove(gone)
            self._held[gone] = False
        rows = rows[alive]
        if len(rows) == 0:
            return
        with parameters.computing():
            placed = parameters.placed(self._catalogue.items(rows))
            vectors = retriever(parameters.model).items(placed).float().cpu().numpy()
        self.encoded_count += len(rows)
        usable = np.isfinite(vectors).all(axis=1)
        rows, vectors = rows[usable], vectors[usable]
        old = self._vectors[rows]
        moved = np.linalg.norm(vectors - old, axis=1) > _MOVED * np.linalg.norm(old, axis=1)
        moved |= ~self._held[rows]
        rows, vectors = rows[moved], vectors[moved]
        self._vectors[rows] = vectors
        self._index.upsert(rows, vectors)
        self._held[rows] = True
        self.linked_count += len(rows)

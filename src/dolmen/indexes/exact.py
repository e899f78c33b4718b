"""The exact index: every vector is compared with every query. The naive twin of the graph, and the better choice for
some ten thousand vectors (docs/decisions/0004-vector-index.md has the measurement).
"""

from __future__ import annotations

import threading
from typing import final

import numpy as np

from dolmen.indexes.contract import ABSENT, Ids, Vectors, Where, check_search, check_update

__all__ = ["ExactIndex"]


@final
class ExactIndex:
    """Vectors in one matrix without holes. Any thread may call anything; calls take turns."""

    def __init__(self, dim: int) -> None:
        if dim < 1:
            raise ValueError(f"dim must be at least 1, got {dim}")
        self.dim = dim
        self._lock = threading.Lock()
        self._places: dict[int, int] = {}
        self._ids = np.empty(16, dtype=np.int64)
        self._vectors = np.empty((16, dim), dtype=np.float32)

    def __len__(self) -> int:
        return len(self._places)

    def upsert(self, ids: Ids, vectors: Vectors) -> None:
        """As ``Index.upsert``."""
        ids, vectors = check_update(self.dim, ids, vectors)
        with self._lock:
            places = np.empty(len(ids), dtype=np.int64)
            for at, one in enumerate(ids.tolist()):
                places[at] = self._places.setdefault(one, len(self._places))
            self._reserve(len(self._places))
            self._ids[places] = ids
            self._vectors[places] = vectors

    def remove(self, ids: Ids) -> None:
        """As ``Index.remove``."""
        with self._lock:
            for one in ids.tolist():
                place = self._places.pop(one, None)
                if place is None:
                    continue
                last = len(self._places)
                if place != last:  # the last vector moves into the hole
                    moved = int(self._ids[last])
                    self._ids[place], self._vectors[place] = moved, self._vectors[last]
                    self._places[moved] = place

    def search(self, queries: Vectors, k: int, where: Where | None = None) -> tuple[Ids, Vectors]:
        """As ``Index.search``; equal scores come in the order of their ids."""
        check_search(self.dim, queries, k)
        found = np.full((len(queries), k), ABSENT, dtype=np.int64)
        scores = np.full((len(queries), k), -np.inf, dtype=np.float32)
        with self._lock:
            ids = self._ids[: len(self._places)].copy()
            products = queries @ self._vectors[: len(ids)].T  # (n, held)
        products[np.isnan(products)] = -np.inf  # of a query that is no number: compared, it would find nothing at all
        if where is not None and len(ids) > 0:
            allowed = where(ids)
            ids, products = ids[allowed], products[:, allowed]
        count = min(k, len(ids))
        if count == 0:
            return found, scores
        for row, product in enumerate(products):
            # Everything that ties with the k-th best must be looked at, or equal scores would come in any order.
            threshold = np.partition(product, -count)[-count]
            near = np.flatnonzero(product >= threshold)
            best = near[np.lexsort((ids[near], -product[near]))[:count]]
            found[row, :count], scores[row, :count] = ids[best], product[best]
        return found, scores

    def held(self) -> tuple[Ids, Vectors]:
        """A copy of everything that is held: ids (n,) and vectors (n, dim), in no order."""
        with self._lock:
            count = len(self._places)
            return self._ids[:count].copy(), self._vectors[:count].copy()

    def _reserve(self, count: int) -> None:
        size = len(self._ids)
        if count <= size:
            return
        while size < count:
            size *= 2
        ids, vectors = np.empty(size, dtype=np.int64), np.empty((size, self.dim), dtype=np.float32)
        ids[: len(self._ids)], vectors[: len(self._ids)] = self._ids, self._vectors
        self._ids, self._vectors = ids, vectors

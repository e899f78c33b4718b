"""The graph index: usearch's navigable small-world graph, updated while it is searched.

Replacing a vector means taking its node out and linking a new one. Recall falls slowly as such updates pile up; after
``rebuild_after`` replacements for each vector held, the graph is therefore built anew beside the old one, which answers
until the new one takes its place.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final, final

import numpy as np
from usearch.index import Index as _Graph

from dolmen.indexes.contract import ABSENT, Ids, Vectors, Where, check_search, check_update

__all__ = ["GraphIndex"]

_CHUNK: Final = 16  # vectors linked in one go: a search waits for one chunk at most, about a millisecond
_REBUILD_MIN: Final = 4096  # fewer replacements than this never ask for a rebuild


@final
class GraphIndex:
    """Approximate search by inner product. Any thread may call anything; updates take turns, searches go between them.

    Args:
        dim: width of the vectors.
        connectivity: links of a node.
        expansion_add: candidates looked at while linking a node.
        expansion_search: candidates looked at by a search; at least twice the ``k`` of a search is used.
        rebuild_after: replacements and removals for each vector held after which the graph is built anew.
    """

    def __init__(
        self,
        dim: int,
        *,
        connectivity: int = 16,
        expansion_add: int = 64,
        expansion_search: int = 200,
        rebuild_after: float = 4.0,
    ) -> None:
        if dim < 1:
            raise ValueError(f"dim must be at least 1, got {dim}")
        self.dim = dim
        self._connectivity, self._expansion_add, self._expansion_search = connectivity, expansion_add, expansion_search
        self._rebuild_after = rebuild_after
        self._worn = 0  # replacements and removals since the graph was built
        self._updating = threading.Lock()
        # usearch does not promise that a removal may overlap a search, so one call is inside at a time. A thread that
        # waits for the graph holds the door: nobody who comes later overtakes it.
        self._door = threading.Lock()
        self._inside = threading.Lock()
        self._graph = self._new_graph()

    def __len__(self) -> int:
        return len(self._graph)

    def upsert(self, ids: Ids, vectors: Vectors) -> None:
        """As ``Index.upsert``. Of each id, a search meets the old vector or the new one."""
        ids, vectors = check_update(self.dim, ids, vectors)
        vectors = np.ascontiguousarray(vectors, dtype=np.float32)
        with self._updating:
            for start in range(0, len(ids), _CHUNK):
                keys = ids[start : start + _CHUNK].astype(np.uint64)
                with self._alone() as graph:
                    self._worn += _removed(graph, keys)
                    graph.add(keys, vectors[start : start + _CHUNK], threads=1)
            self._renew_if_worn()

    def remove(self, ids: Ids) -> None:
        """As ``Index.remove``."""
        ids = np.unique(ids[ids >= 0])
        with self._updating:
            if len(ids) > 0:
                with self._alone() as graph:
                    self._worn += _removed(graph, ids.astype(np.uint64))
            self._renew_if_worn()

    def search(self, queries: Vectors, k: int, where: Where | None = None) -> tuple[Ids, Vectors]:
        """As ``Index.search``, approximately: tests hold recall of the true ``k`` best at 95 % or more.

        With ``where``, more and more of the neighbourhood is fetched until ``k`` allowed ones are found.
        """
        check_search(self.dim, queries, k)
        queries = np.ascontiguousarray(queries, dtype=np.float32)
        fetched = k
        while True:
            found, scores, held = self._nearest(queries, fetched)
            if where is None:
                return found, scores
            kept = _keep(found, scores, k, where)
            if fetched >= held or bool((kept[0] != ABSENT).all()):
                return kept
            fetched = min(held, fetched * 4)

    def rebuild(self) -> None:
        """Build the graph anew; searches go on in the old one meanwhile, updates wait."""
        with self._updating:
            self._rebuild()

    def _renew_if_worn(self) -> None:
        if self._worn > max(_REBUILD_MIN, self._rebuild_after * len(self._graph)):
            self._rebuild()

    def _rebuild(self) -> None:
        with self._alone() as graph:
            keys = np.asarray(graph.keys, dtype=np.uint64)
            vectors = np.asarray(graph.get(keys), dtype=np.float32).reshape(len(keys), self.dim)
        renewed = self._new_graph()
        if len(keys) > 0:
            renewed.add(keys, vectors, threads=1)
        with self._alone():
            self._graph, self._worn = renewed, 0

    def _nearest(self, queries: Vectors, k: int) -> tuple[Ids, Vectors, int]:
        found = np.full((len(queries), k), ABSENT, dtype=np.int64)
        scores = np.full((len(queries), k), -np.inf, dtype=np.float32)
        with self._alone() as graph:
            held = len(graph)
            if held == 0 or len(queries) == 0:
                return found, scores, held
            graph.expansion_search = max(self._expansion_search, 2 * k)
            # Past half of the graph, comparing with everything is cheaper, and finds everything.
            matches = graph.search(queries, k, threads=1, exact=2 * k >= held)
        if len(queries) == 1:
            count = len(matches.keys)
            found[0, :count], scores[0, :count] = matches.keys, 1.0 - matches.distances
            return found, scores, held
        counts = np.asarray(matches.counts)
        filled = np.arange(matches.keys.shape[1]) < counts[:, None]
        width = matches.keys.shape[1]
        found[:, :width][filled] = matches.keys[filled].astype(np.int64)
        scores[:, :width][filled] = 1.0 - matches.distances[filled]
        return found, scores, held

    def _new_graph(self) -> Any:
        # "ip" is usearch's distance 1 - inner product. Full precision: rows of an embedding are small already.
        return _Graph(
            ndim=self.dim,
            metric="ip",
            dtype="f32",
            connectivity=self._connectivity,
            expansion_add=self._expansion_add,
            expansion_search=self._expansion_search,
        )

    @contextmanager
    def _alone(self) -> Iterator[Any]:
        with self._door:
            self._inside.acquire()
        try:
            yield self._graph
        finally:
            self._inside.release()


def _removed(graph: Any, keys: np.ndarray[Any, np.dtype[np.uint64]]) -> int:
    return int(np.sum(graph.remove(keys)))


def _keep(found: Ids, scores: Vectors, k: int, where: Where) -> tuple[Ids, Vectors]:
    """The first ``k`` allowed finds of each row."""
    allowed = found != ABSENT
    allowed[allowed] = where(found[allowed])
    kept = np.full((len(found), k), ABSENT, dtype=np.int64)
    kept_scores = np.full((len(found), k), -np.inf, dtype=np.float32)
    for row, mask in enumerate(allowed):
        best = np.flatnonzero(mask)[:k]
        kept[row, : len(best)], kept_scores[row, : len(best)] = found[row, best], scores[row, best]
    return kept, kept_scores

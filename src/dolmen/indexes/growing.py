"""Exact while there are few vectors, a graph once there are many.

Linking a vector into the graph costs a hundred times what it costs to put it into a matrix, and vectors move all the
time; until comparing with everything takes longer than walking the graph, there is nothing to gain from one
(docs/decisions/0004-vector-index.md has the measurement).
"""

from __future__ import annotations

import threading
from typing import Final, final

from dolmen.indexes.contract import Ids, Index, Vectors, Where
from dolmen.indexes.exact import ExactIndex
from dolmen.indexes.graph import GraphIndex

__all__ = ["GRAPH_ABOVE", "GrowingIndex"]

GRAPH_ABOVE: Final = 20_000
"""Vectors held at most without a graph."""


@final
class GrowingIndex:
    """An ``ExactIndex`` that becomes a ``GraphIndex`` when it holds more than ``graph_above`` vectors, and stays one.

    Any thread may call anything. While the graph is built, searches go on without it and updates wait.

    Raises:
        ValueError: ``dim`` is less than 1.
    """

    def __init__(self, dim: int, *, graph_above: int = GRAPH_ABOVE) -> None:
        self.dim = dim
        self._graph_above = graph_above
        self._updating = threading.Lock()
        self._exact: ExactIndex | None = ExactIndex(dim)
        self._index: Index = self._exact

    def __len__(self) -> int:
        return len(self._index)

    @property
    def has_graph(self) -> bool:
        """Whether searches are approximate by now."""
        return self._exact is None

    def upsert(self, ids: Ids, vectors: Vectors) -> None:
        """As ``Index.upsert``."""
        with self._updating:
            self._index.upsert(ids, vectors)
            if self._exact is not None and len(self._exact) > self._graph_above:
                graph = GraphIndex(self.dim)
                graph.upsert(*self._exact.held())
                self._index, self._exact = graph, None

    def remove(self, ids: Ids) -> None:
        """As ``Index.remove``."""
        with self._updating:
            self._index.remove(ids)

    def search(self, queries: Vectors, k: int, where: Where | None = None) -> tuple[Ids, Vectors]:
        """As ``Index.search``; approximate where ``has_graph``."""
        return self._index.search(queries, k, where)

"""How candidates are found: vectors by id, searched by inner product while they change."""

from dolmen.indexes.contract import ABSENT, Ids, Index, Vectors, Where
from dolmen.indexes.exact import ExactIndex
from dolmen.indexes.graph import GraphIndex
from dolmen.indexes.growing import GrowingIndex

__all__ = ["ABSENT", "ExactIndex", "GraphIndex", "GrowingIndex", "Ids", "Index", "Vectors", "Where"]

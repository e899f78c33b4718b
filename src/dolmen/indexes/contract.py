"""What an index does: keep vectors by id, and find the ones with the largest inner product, while they change."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

__all__ = ["ABSENT", "Ids", "Index", "Vectors", "Where", "check_search", "check_update"]

Ids = NDArray[np.int64]
"""Ids of vectors, shape (n,), none negative."""

Vectors = NDArray[np.float32]
"""One vector a row, shape (n, dim)."""

Where = Callable[[Ids], NDArray[np.bool_]]
"""A condition on ids: given many, says of each whether it may be found. It is called for batches, never for one."""

ABSENT: Final = -1
"""Fills the tail of ``ids`` where fewer than ``k`` were found; the score there is minus infinity."""


class Index(Protocol):
    """Vectors by id, searched by inner product. Any thread may call anything at any time."""

    dim: int

    def __len__(self) -> int:
        """How many ids are held."""
        ...

    def upsert(self, ids: Ids, vectors: Vectors) -> None:
        """Add or replace; of an id that is given twice the last vector stays.

        Raises:
            ValueError: shapes don't fit, an id is negative, or a number is not finite; nothing is changed then.
        """
        ...

    def remove(self, ids: Ids) -> None:
        """Take out; ids that are not held are passed over."""
        ...

    def search(self, queries: Vectors, k: int, where: Where | None = None) -> tuple[Ids, Vectors]:
        """The ``k`` best ids for each query, best first, with their inner products: shapes (n, k) and (n, k).

        Rows with fewer than ``k`` finds end in ``ABSENT`` and minus infinity. A query that holds NaN finds as many as
        any other, in no order that means anything.

        Raises:
            ValueError: ``queries`` is not (n, dim), or ``k`` is less than 1.
        """
        ...


def check_update(dim: int, ids: Ids, vectors: Vectors) -> tuple[Ids, Vectors]:
    """The same update with each id once (its last vector), or ``ValueError`` where it cannot be used."""
    if ids.ndim != 1 or vectors.shape != (len(ids), dim):
        raise ValueError(f"upsert takes ids (n,) and vectors (n, {dim}), got {ids.shape} and {vectors.shape}")
    if len(ids) == 0:
        return ids, vectors
    if int(ids.min()) < 0:
        raise ValueError(f"ids must not be negative, got {int(ids.min())}")
    if not np.isfinite(vectors).all():
        bad = int(ids[~np.isfinite(vectors).all(axis=1)][0])
        raise ValueError(f"vectors must be finite, that of id {bad} is not")
    unique, last = np.unique(ids[::-1], return_index=True)
    if len(unique) == len(ids):
        return ids, vectors
    return unique, vectors[len(ids) - 1 - last]


def check_search(dim: int, queries: Vectors, k: int) -> None:
    """``ValueError`` where a search cannot be asked so."""
    if queries.ndim != 2 or queries.shape[1] != dim:
        raise ValueError(f"search takes queries (n, {dim}), got {queries.shape}")
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}")

"""What metrics refuse, by name, value and mend. A guard only raises or does nothing.

That is why it stands here, and is called as a statement of its own: no figure follows from a guard that let something
pass, so it does not count for what a study's cells stand on (``dolmen.studies.cells``), and may be added at any time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from dolmen.features import Jagged  # which loads torch

__all__ = ["require_distinct", "require_probabilities", "require_weights"]


def require_probabilities(values: NDArray[np.float64]) -> None:
    """Refuse what is no probability, shape (count,). NaN is not looked at.

    Raises:
        ValueError: a value lies outside [0, 1].

    >>> require_probabilities(np.array([0.5, 2.0]))
    Traceback (most recent call last):
    ValueError: probabilities must be in [0, 1], got 2.0 at place 1; of logits, take the sigmoid first
    """
    outside = (values < 0) | (values > 1)
    if outside.any():
        place = int(outside.argmax())
        told = f"got {float(values[place])!r} at place {place}"
        raise ValueError(f"probabilities must be in [0, 1], {told}; of logits, take the sigmoid first")


def require_weights(weights: NDArray[np.float64]) -> None:
    """Refuse what cannot weigh an example, shape (count,).

    Raises:
        ValueError: a weight is below 0, infinite or NaN.

    >>> require_weights(np.array([1.0, -1.0]))
    Traceback (most recent call last):
    ValueError: weights must be finite and at least 0, got -1.0 at place 1; an example that is not to count has 0
    """
    strange = ~(np.isfinite(weights) & (weights >= 0))
    if strange.any():
        place = int(strange.argmax())
        told = f"got {float(weights[place])!r} at place {place}"
        raise ValueError(f"weights must be finite and at least 0, {told}; an example that is not to count has 0")


def require_distinct(name: str, places: Jagged) -> None:
    """Refuse a query that names an item twice.

    Raises:
        ValueError: a row of ``places`` holds a value twice.

    >>> from dolmen.features import Jagged
    >>> require_distinct("relevant", Jagged.from_lists([[4], [3, 3]]))
    Traceback (most recent call last):
    ValueError: relevant names item 3 twice for query 1; name each once
    """
    rows, values = np.repeat(np.arange(places.size), places.lengths.numpy()), places.values.numpy()
    order = np.lexsort((values, rows))
    rows, values = rows[order], values[order]
    is_twice = (rows[1:] == rows[:-1]) & (values[1:] == values[:-1])
    if is_twice.any():
        first = int(is_twice.argmax())
        raise ValueError(f"{name} names item {values[first]} twice for query {rows[first]}; name each once")

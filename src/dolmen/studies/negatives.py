"""Negatives beside what people chose, for data that knows no other."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["with_negatives"]

_Ints = NDArray[np.int64]


def with_negatives(
    users: _Ints, items: _Ints, draw: np.random.Generator, *, ratio: int = 1
) -> tuple[_Ints, _Ints, NDArray[np.float32]]:
    """Each different pair once with label 1, and ``ratio`` items that its person never chose with label 0.

    A negative is drawn in proportion to how many people chose the item, so that an item's popularity alone tells
    nothing: it is as often a negative as a positive. Where a person chose nearly everything, a drawn item may stay a
    positive for a hundred tries; its negative is then left out.

    Returns:
        Users, items and labels, each of shape (count,): positives first.
    """
    span = int(items.max()) + 1
    codes = np.unique(users * span + items)
    people, chosen = codes // span, codes % span
    owners = np.repeat(people, ratio)
    drawn = chosen[draw.integers(0, len(chosen), len(owners))]
    for _ in range(100):
        wrong = np.flatnonzero(_is_in(owners * span + drawn, codes))
        if not len(wrong):
            break
        drawn[wrong] = chosen[draw.integers(0, len(chosen), len(wrong))]
    else:
        kept = np.ones(len(owners), dtype=bool)
        kept[wrong] = False
        owners, drawn = owners[kept], drawn[kept]
    labels = np.repeat(np.array([1, 0], dtype=np.float32), [len(codes), len(owners)])
    return np.concatenate([people, owners]), np.concatenate([chosen, drawn]), labels


def _is_in(values: _Ints, sorted_values: _Ints) -> NDArray[np.bool_]:
    places = np.searchsorted(sorted_values, values)
    found: NDArray[np.bool_] = sorted_values[np.minimum(places, len(sorted_values) - 1)] == values
    return found

"""Items to stand against the right one: drawn from what a person never touched, evenly or by popularity.

Draws are successive: one item after the other, in proportion to its weight among those that are left. That is what
drawing without replacement from a discrete distribution means, and it is done here by drawing with replacement and
passing over what is seen or drawn already, many people at once.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dolmen import features
from dolmen.seeds import generator

__all__ = ["draw_negatives"]

_CELLS_AT_ONCE: Final = 1 << 22  # draws in one array: 32 MiB, whatever the number of people
_SPARE: Final = 1.5  # draws for each item wanted; who needs more gets another round


def draw_negatives(
    seen: features.Jagged,
    item_count: int,
    count: int,
    *,
    popularity: ArrayLike | None = None,
    of: NDArray[np.int64] | None = None,
    seed: int,
) -> NDArray[np.int64]:
    """``count`` different items outside what a person has ``seen``, in the order drawn; shape (draws, count).

    The same arguments give the same items.

    Args:
        seen: what each person must not get, as places in the catalogue, in any order; repeats do no harm.
        item_count: how many items the catalogue has; their places are 0 to ``item_count - 1``.
        count: how many to draw for each.
        popularity: a weight for each item, shape (item_count,), not below 0; an item of weight 0 is never drawn.
            ``None`` draws evenly.
        of: whom each row of the result is drawn for, as rows of ``seen``, shape (draws,); one for each row if ``None``.
        seed: of the draws.

    Raises:
        ValueError: ``seen`` names an item outside the catalogue, weights do not fit, or somebody has fewer than
            ``count`` items left; the message says who.
    """
    if count < 1:
        raise ValueError(f"count must be at least 1, got {count}")
    ends = _cumulative(popularity, item_count)
    values = seen.values.numpy()
    if len(values) and not 0 <= int(values.min()) <= int(values.max()) < item_count:
        raise ValueError(f"seen holds places {values.min()} to {values.max()}; the catalogue has {item_count} items")
    people = np.repeat(np.arange(seen.size), seen.lengths.numpy())
    keys = np.unique(people * np.int64(item_count) + values)  # sorted pairs (person, item): a look-up is a search
    _check_enough(keys, np.diff(ends, prepend=0.0) > 0, seen.size, count)
    whom = np.arange(seen.size) if of is None else of
    drawn = np.empty((len(whom), count), dtype=np.int64)
    step = max(1, int(_CELLS_AT_ONCE / (count * _SPARE + 8)))
    for start in range(0, len(whom), step):
        random = generator(seed, "negatives", start)
        drawn[start : start + step] = _draw_for(whom[start : start + step], keys, ends, count, random)
    return drawn


def _draw_for(
    people: NDArray[np.int64],
    keys: NDArray[np.int64],
    ends: NDArray[np.float64],
    count: int,
    random: np.random.Generator,
) -> NDArray[np.int64]:
    drawn = np.full((len(people), count), -1, dtype=np.int64)
    filled = np.zeros(len(people), dtype=np.int64)
    width = int(count * _SPARE) + 8
    while (short := np.flatnonzero(filled < count)).size:
        fresh = np.searchsorted(ends, random.random((len(short), width)), side="right")
        # What is already drawn stands before what is fresh, so that the first of equals is the one that stays.
        row = np.concatenate([drawn[short], fresh], axis=1)
        good = np.concatenate([drawn[short] >= 0, ~_among(people[short], fresh, keys, len(ends))], axis=1)
        good &= _first_of_equals(row)
        places = np.cumsum(good, axis=1) - 1
        good &= places < count
        rows, columns = np.nonzero(good)
        drawn[short[rows], places[rows, columns]] = row[rows, columns]
        filled[short] = np.minimum(good.sum(axis=1), count)
    return drawn


def _among(
    people: NDArray[np.int64], items: NDArray[np.int64], keys: NDArray[np.int64], item_count: int
) -> NDArray[np.bool_]:
    """Whether each person has seen each item of their row of ``items``."""
    if not len(keys):
        return np.zeros(items.shape, dtype=bool)
    wanted = people[:, None] * np.int64(item_count) + items
    found: NDArray[np.bool_] = keys[np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)] == wanted
    return found


def _first_of_equals(rows: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which entries of each row have no equal before them."""
    order = np.argsort(rows, axis=1, kind="stable")
    in_order = np.take_along_axis(rows, order, axis=1)
    first_in_order = np.ones(rows.shape, dtype=bool)
    first_in_order[:, 1:] = in_order[:, 1:] != in_order[:, :-1]
    first = np.empty(rows.shape, dtype=bool)
    np.put_along_axis(first, order, first_in_order, axis=1)
    return first


def _cumulative(popularity: ArrayLike | None, item_count: int) -> NDArray[np.float64]:
    """Where each item's share of [0, 1] ends, shape (item_count,)."""
    weights = np.ones(item_count) if popularity is None else np.asarray(popularity, dtype=np.float64)
    if weights.shape != (item_count,) or not np.isfinite(weights).all() or (weights < 0).any() or weights.sum() <= 0:
        raise ValueError(
            f"popularity must be {item_count} finite numbers, none below 0 and not all 0, got shape {weights.shape}"
        )
    ends: NDArray[np.float64] = np.cumsum(weights / weights.sum())
    ends[ends >= ends[-1]] = (
        1.0  # the last item with a weight ends at 1 whatever the rounding; those behind it are empty
    )
    return ends


def _check_enough(keys: NDArray[np.int64], can_be_drawn: NDArray[np.bool_], people_count: int, count: int) -> None:
    item_count = len(can_be_drawn)
    taken = np.bincount(keys // item_count, can_be_drawn[keys % item_count], people_count)
    left = int(can_be_drawn.sum()) - taken
    if people_count and left.min() < count:
        person = int(left.argmin())
        raise ValueError(f"person {person} has {int(left[person])} unseen items left to draw from, {count} are wanted")

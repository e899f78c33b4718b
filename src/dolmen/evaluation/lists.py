"""What lists of recommendations are like, beside being right: how much of the catalogue, how known, how alike.

Lists are places of items in the catalogue, best first, shape (queries, k); -1 where a list ends early.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["catalogue_coverage", "intra_list_diversity", "mean_popularity", "novelty", "popularity_lift", "tail_share"]

_PAIRS_AT_ONCE: Final = 1 << 22  # similarities held at once


def catalogue_coverage(lists: ArrayLike, item_count: int) -> float:
    """The share of the catalogue that stands in at least one list.

    >>> catalogue_coverage([[0, 1], [1, -1]], 4)
    0.5
    """
    items, _ = _items(lists, item_count)
    return len(np.unique(items)) / item_count


def novelty(lists: ArrayLike, interaction_counts: ArrayLike) -> float:
    """Mean over recommendations of -log2 of the item's share of all interactions: the bits that its name carries.

    Source: T. Zhou et al., "Solving the apparent diversity-accuracy dilemma of recommender systems", PNAS 2010
    (self-information). An item without interactions counts as one with a single interaction.
    """
    counts = _counts(interaction_counts)
    items, _ = _items(lists, len(counts))
    if not len(items) or counts.sum() == 0:
        return float("nan")
    return float(-np.log2(np.maximum(counts[items], 1) / counts.sum()).mean())


def intra_list_diversity(lists: ArrayLike, vectors: ArrayLike) -> float:
    """1 - cosine of two different items of a list, mean over pairs, then over lists of at least two items.

    Source: B. Smyth, P. McClave, "Similarity vs. Diversity", ICCBR 2001, with cosine similarity. A vector of zeros is
    like nothing, itself included.

    Args:
        lists: places of items.
        vectors: what items are like, shape (items, dim).
    """
    features = np.asarray(vectors, dtype=np.float64)
    places = np.asarray(lists, dtype=np.int64)
    _items(places, len(features))
    norms = np.linalg.norm(features, axis=1, keepdims=True)
    units = np.divide(features, norms, out=np.zeros_like(features), where=norms > 0)
    step = max(1, _PAIRS_AT_ONCE // max(1, places.shape[1] * max(places.shape[1], features.shape[1])))
    total, judged = 0.0, 0
    for start in range(0, len(places), step):
        part = places[start : start + step]
        real = part >= 0
        mine = units[np.where(real, part, 0)] * real[:, :, None]
        # The sum of the cosines of all pairs is |sum of units|^2, of which each item's own is one part.
        sums = np.square(mine.sum(axis=1)).sum(axis=1) - np.square(mine).sum(axis=(1, 2))
        counts = real.sum(axis=1)
        paired = counts >= 2
        total += float((1 - sums[paired] / (counts * (counts - 1))[paired]).sum())
        judged += int(paired.sum())
    return total / judged if judged else float("nan")


def mean_popularity(lists: ArrayLike, interaction_counts: ArrayLike) -> float:
    """Interactions of a recommended item, mean over each list, then over lists.

    Source: H. Yin et al., "Challenging the Long Tail Recommendation", VLDB 2012 (average recommendation popularity).
    """
    counts = _counts(interaction_counts)
    return float(np.mean(_means_of_lists(lists, counts))) if np.size(lists) else float("nan")


def popularity_lift(lists: ArrayLike, profiles: ArrayLike, interaction_counts: ArrayLike) -> float:
    """How much more popular the recommended items are than what the same people chose: 0 is as popular, 1 twice.

    Source: H. Abdollahpouri et al., "The Connection Between Popularity Bias, Calibration, and Fairness in
    Recommendation", RecSys 2020. ``profiles`` is written as ``lists``, one row for the same person.
    """
    chosen = mean_popularity(profiles, interaction_counts)
    return mean_popularity(lists, interaction_counts) / chosen - 1 if chosen > 0 else float("nan")


def tail_share(lists: ArrayLike, interaction_counts: ArrayLike, *, head_share: float = 0.8) -> float:
    """The share of recommendations that are of the long tail: mean over each list, then over lists.

    Source: H. Abdollahpouri et al., "Managing Popularity Bias in Recommender Systems with Personalized Re-ranking",
    FLAIRS 2019 (APLT). The head is the fewest items that together have ``head_share`` of all interactions.
    """
    if not 0 < head_share < 1:
        raise ValueError(f"head_share must be above 0 and below 1, got {head_share}")
    counts = _counts(interaction_counts)
    order = np.argsort(-counts, kind="stable")
    reached = np.cumsum(counts[order])
    head = order[: int(np.searchsorted(reached, head_share * counts.sum())) + 1]
    is_tail = np.ones(len(counts))
    is_tail[head] = 0
    return float(np.mean(_means_of_lists(lists, is_tail))) if np.size(lists) else float("nan")


def _means_of_lists(lists: ArrayLike, values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The mean of ``values`` over each list that has items, shape (lists with items,)."""
    items, rows = _items(lists, len(values))
    row_count = len(np.asarray(lists))
    lengths = np.bincount(rows, minlength=row_count)
    sums = np.bincount(rows, values[items], row_count)
    return np.asarray(sums[lengths > 0] / lengths[lengths > 0])


def _items(lists: ArrayLike, item_count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """All items of all lists, and the list of each.

    Raises:
        ValueError: it is not a table of lists, or a place is outside the catalogue.
    """
    places = np.asarray(lists, dtype=np.int64)
    if places.ndim != 2:
        raise ValueError(f"lists must have shape (queries, k), got {places.shape}")
    if places.size and not -1 <= int(places.min()) <= int(places.max()) < item_count:
        raise ValueError(f"lists hold places {places.min()} to {places.max()}; the catalogue has {item_count} items")
    rows, columns = np.nonzero(places >= 0)
    return places[rows, columns], rows


def _counts(interaction_counts: ArrayLike) -> NDArray[np.float64]:
    counts = np.asarray(interaction_counts, dtype=np.float64)
    if counts.ndim != 1 or (counts < 0).any():
        raise ValueError(f"interaction_counts must be one number an item, none below 0, got shape {counts.shape}")
    return counts

"""What and when together: how much a past behaviour says about an answer, by its category and its position.

Source: H. Zhou et al., "Temporal Interest Network for User Response Prediction", WWW 2024 Companion (arXiv 2308.08487),
section 3: category-wise target-aware correlation.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import log
from typing import final

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["TemporalCorrelation", "mutual_information", "temporal_correlation"]


@final
@dataclass(frozen=True)
class TemporalCorrelation:
    """``bits``: mutual information, (category, position), of the row ``categories[i]`` and the column ``position - 1``.

    ``counts``: how many of the examples have such a behaviour there, same shape. ``example_count``: examples whose
    candidate is of the target category.
    """

    categories: NDArray[np.int64]
    bits: NDArray[np.float64]
    counts: NDArray[np.int64]
    example_count: int

    @property
    def chance_bits(self) -> float:
        """What a cell shows on average where the behaviour tells nothing, so that only luck is in it.

        Of n examples, 2 n ln(2) times the bits is then chi-squared with one degree of freedom, whose mean is 1.
        """
        return 1 / (2 * log(2) * self.example_count)


def mutual_information(
    with_positive: ArrayLike, with_negative: ArrayLike, positive: ArrayLike, negative: ArrayLike
) -> NDArray[np.float64]:
    """Bits that the presence of something tells of a binary label, from counts.

    Args:
        with_positive: positive examples that have it.
        with_negative: negative examples that have it.
        positive: all positive examples.
        negative: all negative examples.

    >>> float(mutual_information(5, 0, 5, 5))
    1.0
    >>> float(mutual_information(2, 2, 4, 4))
    0.0
    """
    counts = np.stack(np.broadcast_arrays(with_positive, with_negative, positive, negative)).astype(np.float64)
    has, totals = counts[:2], counts[2:]
    joint = np.stack([has, totals - has])  # (has it or not, label, ...)
    joint = joint / np.maximum(joint.sum(axis=(0, 1)), 1)
    independent = joint.sum(axis=1, keepdims=True) * joint.sum(axis=0, keepdims=True)
    # A cell without examples adds nothing: x log x goes to 0.
    ratio = np.divide(joint, independent, out=np.ones_like(joint), where=joint > 0)
    bits: NDArray[np.float64] = (joint * np.log2(ratio)).sum(axis=(0, 1))
    return np.maximum(bits, 0.0)  # rounding alone goes below


def temporal_correlation(
    categories: ArrayLike,
    offsets: ArrayLike,
    targets: ArrayLike,
    labels: ArrayLike,
    *,
    target: int,
    position_max: int = 10,
    category_count: int = 10,
    starts: ArrayLike | None = None,
    rows: ArrayLike | None = None,
) -> TemporalCorrelation:
    """Mutual information between "a behaviour of category c stands at position p" and the label.

    Positions count back from the candidate: 1 is the newest. Only examples whose candidate is of category ``target``
    take part.

    Args:
        categories: of all behaviours, oldest first within each example, int64 (total,).
        offsets: which of the behaviours is each example's first, and the end, (example + 1,).
        targets: category of each candidate, (example,).
        labels: 0 or 1, (example,).
        target: the candidates' category to look at.
        position_max: how many positions back.
        category_count: how many categories: those with most behaviours in the part looked at.
        starts: where the categories of each behaviour begin, and the end, (behaviour + 1,): a behaviour may be of
            several or of none. ``None``: each is of one.
        rows: the categories to tell of, instead of the most frequent ones.

    Raises:
        ValueError: the arrays do not go together, or nothing has the category ``target``.
    """
    values, ends = np.asarray(categories, dtype=np.int64), np.asarray(offsets, dtype=np.int64)
    begins = np.arange(len(values) + 1) if starts is None else np.asarray(starts, dtype=np.int64)
    chosen, answers = np.asarray(targets) == target, np.asarray(labels) > 0
    if len(ends) != len(chosen) + 1 or len(answers) != len(chosen) or ends[-1] != len(begins) - 1:
        raise ValueError(
            f"{len(chosen)} targets need as many labels and one offset more, and the last offset is the count of "
            f"behaviours; got {len(answers)} labels, {len(ends)} offsets and {len(begins) - 1} behaviours"
        )
    if begins[-1] != len(values):
        raise ValueError(f"starts must end with the count of categories, {len(values)}, got {begins[-1]}")
    if not chosen.any():
        raise ValueError(f"no candidate is of the category {target}")
    owners = np.repeat(np.arange(len(chosen)), np.diff(ends))
    positions = ends[1:][owners] - np.arange(len(owners))
    behaviours = np.repeat(np.arange(len(owners)), np.diff(begins))
    is_seen = (chosen[owners] & (positions <= position_max))[behaviours]
    values, behaviours = values[is_seen], behaviours[is_seen]
    kept = _most_frequent(values, category_count) if rows is None else np.unique(np.asarray(rows, dtype=np.int64))
    is_kept = np.isin(values, kept)
    # A behaviour that names a category twice is of it once; then a count of behaviours is a count of examples, since
    # one behaviour stands at each position of an example.
    named = np.unique(behaviours[is_kept] * len(kept) + np.searchsorted(kept, values[is_kept]))
    behaviours, categories_at = named // max(1, len(kept)), named % max(1, len(kept))
    cells = categories_at * position_max + positions[behaviours] - 1
    is_positive, shape = answers[owners[behaviours]], (len(kept), position_max)
    with_positive, with_negative = (
        np.bincount(cells[part], minlength=shape[0] * shape[1]).reshape(shape) for part in (is_positive, ~is_positive)
    )
    positive, negative = int((chosen & answers).sum()), int((chosen & ~answers).sum())
    return TemporalCorrelation(
        categories=kept,
        bits=mutual_information(with_positive, with_negative, positive, negative),
        counts=with_positive + with_negative,
        example_count=positive + negative,
    )


def _most_frequent(values: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """The ``count`` most frequent of ``values``, in their own order; of equally frequent ones the smaller."""
    found, sizes = np.unique(values, return_counts=True)
    return np.sort(found[np.argsort(-sizes, kind="stable")[:count]])

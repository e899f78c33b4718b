"""What and when together: how much a past behaviour says about an answer, by its category and its position.

``temporal_correlation`` measures it in data; ``temporal_strength`` tells on the same grid what a model makes of it.

Source: H. Zhou et al., "Temporal Interest Network for User Response Prediction", WWW 2024 Companion (arXiv 2308.08487),
section 3: category-wise target-aware correlation.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import log
from typing import Final, final

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = [
    "TemporalCorrelation",
    "mutual_information",
    "rank_correlation",
    "temporal_correlation",
    "temporal_strength",
]

# Chi-squared with one degree of freedom is above this once in 1,000 times.
_SURE: Final = 10.828


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

    @property
    def sure_bits(self) -> NDArray[np.float64]:
        """``bits``, but 0 where luck alone shows as many once in 1,000 times or more often: such cells have no order.

        >>> grid = temporal_correlation([1, 2], [0, 1, 2], [7, 7], [1, 0], target=7, position_max=1)
        >>> grid.bits.tolist(), grid.sure_bits.tolist()
        ([[1.0], [1.0]], [[0.0], [0.0]])
        """
        return np.where(self.bits > _SURE * self.chance_bits, self.bits, 0.0)


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
    answers = np.asarray(labels) > 0
    found = _Cells.of(categories, offsets, targets, target=target, position_max=position_max, starts=starts)
    if len(answers) != len(found.is_chosen):
        raise ValueError(f"{len(found.is_chosen)} targets need as many labels, got {len(answers)}")
    kept = found.most_frequent(category_count) if rows is None else np.unique(np.asarray(rows, dtype=np.int64))
    cells, behaviours = found.kept(kept)
    is_positive, shape = answers[found.owners[behaviours]], (len(kept), position_max)
    with_positive, with_negative = (
        np.bincount(cells[part], minlength=shape[0] * shape[1]).reshape(shape) for part in (is_positive, ~is_positive)
    )
    positive, negative = int((found.is_chosen & answers).sum()), int((found.is_chosen & ~answers).sum())
    return TemporalCorrelation(
        categories=kept,
        bits=mutual_information(with_positive, with_negative, positive, negative),
        counts=with_positive + with_negative,
        example_count=positive + negative,
    )


def temporal_strength(
    strengths: ArrayLike,
    categories: ArrayLike,
    offsets: ArrayLike,
    targets: ArrayLike,
    *,
    target: int,
    rows: ArrayLike,
    position_max: int = 10,
    starts: ArrayLike | None = None,
) -> NDArray[np.float64]:
    """How much a model makes of "a behaviour of category c at position p", on the grid of ``temporal_correlation``.

    A cell is the mean over examples that have such a behaviour, of those with at least ``position_max`` behaviours:
    weights that sum to 1 are larger in a short past, which would let every model seem to fade with position.

    Args:
        strengths: of all behaviours, oldest first within each example: attention times the length of what it weighs,
            (behaviour,).
        categories: of all behaviours, as in ``temporal_correlation``.
        offsets: which of the behaviours is each example's first, and the end, (example + 1,).
        targets: category of each candidate, (example,).
        target: the candidates' category to look at.
        rows: the categories to tell of.
        position_max: how many positions back.
        starts: where the categories of each behaviour begin, and the end; ``None``: each is of one.

    Returns:
        (row, position), of the sorted ``rows``; NaN where no example has such a behaviour.

    Raises:
        ValueError: the arrays do not go together, or nothing has the category ``target``.
    """
    told, kept = np.asarray(strengths, dtype=np.float64), np.unique(np.asarray(rows, dtype=np.int64))
    found = _Cells.of(categories, offsets, targets, target=target, position_max=position_max, starts=starts)
    if len(told) != len(found.owners):
        raise ValueError(f"{len(found.owners)} behaviours need as many strengths, got {len(told)}")
    cells, behaviours = found.kept(kept)
    is_long = (np.bincount(found.owners, minlength=len(found.is_chosen)) >= position_max)[found.owners[behaviours]]
    cells, behaviours = cells[is_long], behaviours[is_long]
    size = len(kept) * position_max
    counts = np.bincount(cells, minlength=size)
    sums = np.bincount(cells, told[behaviours], minlength=size)
    means: NDArray[np.float64] = np.divide(sums, counts, out=np.full(size, np.nan), where=counts > 0)
    return means.reshape(len(kept), position_max)


def rank_correlation(first: ArrayLike, second: ArrayLike) -> float:
    """Spearman's: how well one orders what the other orders, from -1 to 1. Pairs with a NaN are left out.

    Equal values share their mean rank. NaN where all values of one are equal, or fewer than two pairs are left.

    Source: C. Spearman, "The Proof and Measurement of Association between Two Things", 1904.

    >>> round(rank_correlation([1, 2, 3, 4], [10, 30, 20, 90]), 6)
    0.8
    """
    pairs = np.stack([np.ravel(np.asarray(one, dtype=np.float64)) for one in (first, second)])
    left, right = map(_mean_ranks, pairs[:, ~np.isnan(pairs).any(axis=0)])
    spread = float(np.sqrt((left @ left) * (right @ right)))
    return float(left @ right) / spread if spread > 0 else float("nan")


def _mean_ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The rank of each value, from their mean on; equal values share theirs."""
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks: NDArray[np.float64] = (np.cumsum(counts) - (counts - 1) / 2)[places]
    return ranks - (len(values) + 1) / 2


@final
@dataclass(frozen=True)
class _Cells:
    """Behaviours before candidates of one category, each once for each category that it is of, both (named,).

    ``owners``: the example of each behaviour, (behaviour,). ``positions``: of each, counted back. ``is_chosen``: which
    examples take part, (example,).
    """

    values: NDArray[np.int64]
    behaviours: NDArray[np.int64]
    owners: NDArray[np.int64]
    positions: NDArray[np.int64]
    is_chosen: NDArray[np.bool_]
    position_max: int

    @classmethod
    def of(
        cls,
        categories: ArrayLike,
        offsets: ArrayLike,
        targets: ArrayLike,
        *,
        target: int,
        position_max: int,
        starts: ArrayLike | None,
    ) -> _Cells:
        values, ends = np.asarray(categories, dtype=np.int64), np.asarray(offsets, dtype=np.int64)
        begins = np.arange(len(values) + 1) if starts is None else np.asarray(starts, dtype=np.int64)
        chosen = np.asarray(targets) == target
        if len(ends) != len(chosen) + 1 or ends[-1] != len(begins) - 1:
            raise ValueError(
                f"{len(chosen)} targets need one offset more, and the last offset is the count of behaviours; got "
                f"{len(ends)} offsets and {len(begins) - 1} behaviours"
            )
        if begins[-1] != len(values):
            raise ValueError(f"starts must end with the count of categories, {len(values)}, got {begins[-1]}")
        if not chosen.any():
            raise ValueError(f"no candidate is of the category {target}")
        owners = np.repeat(np.arange(len(chosen)), np.diff(ends))
        positions = ends[1:][owners] - np.arange(len(owners))
        behaviours = np.repeat(np.arange(len(owners)), np.diff(begins))
        is_seen = (chosen[owners] & (positions <= position_max))[behaviours]
        return cls(values[is_seen], behaviours[is_seen], owners, positions, chosen, position_max)

    def most_frequent(self, count: int) -> NDArray[np.int64]:
        """The ``count`` most frequent categories, in their own order; of equally frequent ones the smaller."""
        found, sizes = np.unique(self.values, return_counts=True)
        return np.sort(found[np.argsort(-sizes, kind="stable")[:count]])

    def kept(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Cells of a grid with the sorted ``rows``, row by row, and the behaviour in each, both (cell filled,)."""
        is_kept = np.isin(self.values, rows)
        # A behaviour that names a category twice is of it once; then a count of behaviours is a count of examples,
        # since one behaviour stands at each position of an example.
        named = np.unique(self.behaviours[is_kept] * len(rows) + np.searchsorted(rows, self.values[is_kept]))
        behaviours, places = named // max(1, len(rows)), named % max(1, len(rows))
        return places * self.position_max + self.positions[behaviours] - 1, behaviours

"""Is a difference more than luck? How sure a mean is; and two methods, judged on the same seeds or people, in pairs.

Pairs are what makes few seeds enough: what a seed does to both cancels. With n pairs the smallest p-value there is is
2^(1 - n), so five seeds cannot give less than 0.0625, however clear the difference; eight can give 0.0078.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final, final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dolmen.seeds import generator

__all__ = ["Comparison", "Mean", "compare", "mean_of", "ratio_of"]

_STUDENT_PAIRS_MAX: Final = 30  # seeds: a bootstrap of so few is too narrow. More are people, whose figures are skewed
_ANGLES: Final = 20_001  # of the grid on which Student's t is integrated: its quantiles are right to six digits
_DRAWS: Final = 10_000
_EXACT_PAIRS_MAX: Final = 14  # 16,384 sign patterns: all of them are looked at
_DRAWS_AT_ONCE: Final = 1 << 22


@final
@dataclass(frozen=True, kw_only=True)
class Mean:
    """A mean: ``deviation`` of one value (with n - 1), and the interval in which the true mean lies.

    Of one value nothing is known but itself: deviation and interval are NaN then.
    """

    value: float
    deviation: float
    low: float
    high: float
    count: int


@final
@dataclass(frozen=True)
class Comparison:
    """``first`` less ``second`` over pairs.

    ``difference``: the mean, and its interval at ``confidence``.
    ``p_value``: how often a difference at least this large comes from random signs (two-sided permutation test).
    ``wins``: pairs where ``first`` is larger, ties counted half. ``first_spread``, ``second_spread``: standard
    deviations over pairs (with n - 1); ``nan`` for one pair.
    """

    difference: Mean
    confidence: float
    p_value: float
    wins: float
    first_spread: float
    second_spread: float


def mean_of(values: Iterable[float], confidence: float = 0.95) -> Mean:
    """The mean of at least one value, and its interval by Student's t. Of values with a NaN all is NaN.

    >>> found = mean_of([1.0, 2.0, 3.0])
    >>> round(found.low, 2), found.value, round(found.high, 2)
    (-0.48, 2.0, 4.48)
    """
    column: NDArray[np.float64] = np.fromiter(values, dtype=np.float64)
    count, value, deviation = len(column), float(column.mean()), _spread(column)
    reach = _student(count - 1, confidence) * deviation / math.sqrt(count) if count > 1 else math.nan
    return Mean(value=value, deviation=deviation, low=value - reach, high=value + reach, count=count)


def ratio_of(first: ArrayLike, second: ArrayLike, *, confidence: float = 0.95) -> Mean:
    """The mean of ``first`` over the mean of ``second``, of pairs, such as the figures of two methods by seed.

    The interval is Fieller's: those ratios r for which the mean of first - r second lies no further from 0 than
    Student's t allows. It is NaN for one pair, and where the mean of ``second`` may as well be 0: no ratio is too large
    then. ``deviation`` is NaN: a ratio of means has no values of its own. E. Fieller, "Some Problems in Interval
    Estimation", J. of the Royal Statistical Society B 16, 1954.

    Args:
        first: shape (pairs,).
        second: shape (pairs,); single ones may be 0.
        confidence: of the interval, above 0 and below 1.

    Raises:
        ValueError: there are no pairs, shapes differ, a figure is not finite, or the mean of ``second`` is not above 0.

    >>> found = ratio_of([10.0, 14.0, 12.0], [2.0, 3.0, 2.5])
    >>> round(found.low, 2), found.value, round(found.high, 2)
    (4.53, 4.8, 5.59)
    """
    one, other = _pairs(first, second, confidence)
    if not other.mean() > 0:
        raise ValueError(f"a ratio needs a mean above 0 below the line, got {other.mean()}")
    count, value = len(one), float(one.mean() / other.mean())
    low = high = math.nan
    if count > 1:
        share = _student(count - 1, confidence) ** 2 / count
        (of_left, of_both), (_, of_other) = (share * np.cov(one - value * other, other)).tolist()
        # With r = value + s the mean of one - r other is -s times that of other. Its square is at most the share of the
        # variance: s^2 mean^2 <= of_left - 2 s of_both + s^2 of_other.
        room = float(other.mean() ** 2 - of_other)
        if room > 0:
            reach = math.sqrt(of_both**2 + room * of_left)
            low, high = value - (of_both + reach) / room, value - (of_both - reach) / room
    return Mean(value=value, deviation=math.nan, low=low, high=high, count=count)


def compare(first: ArrayLike, second: ArrayLike, *, confidence: float = 0.95, seed: int = 0) -> Comparison:
    """Compare two methods over pairs: the same seeds, or the same queries (``Ranks.of_each``).

    The interval is Student's t of the differences for up to 30 pairs, and a bootstrap for more: B. Efron, R.
    Tibshirani, "An Introduction to the Bootstrap", 1993, chapters 13 (percentiles) and 15 (sign permutation).

    Args:
        first: figures of one method, shape (pairs,).
        second: figures of the other on the same pairs, shape (pairs,).
        confidence: of the interval.
        seed: of the random draws; 10,000 each. Up to 14 pairs every sign pattern is looked at instead.

    Raises:
        ValueError: there are no pairs, shapes differ, or a figure is not finite.

    >>> compare([0.7, 0.8, 0.9], [0.6, 0.7, 0.8]).p_value
    0.25
    """
    one, other = _pairs(first, second, confidence)
    differences = one - other
    found = mean_of(differences, confidence)
    if found.count > _STUDENT_PAIRS_MAX:
        low, high = np.quantile(_bootstrap_means(differences, seed), [(1 - confidence) / 2, (1 + confidence) / 2])
        found = replace(found, low=float(low), high=float(high))
    return Comparison(
        difference=found,
        confidence=confidence,
        p_value=_sign_p_value(differences, seed),
        wins=float((differences > 0).sum() + (differences == 0).sum() / 2),
        first_spread=_spread(one),
        second_spread=_spread(other),
    )


def _pairs(first: ArrayLike, second: ArrayLike, confidence: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    one, other = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if one.ndim != 1 or one.shape != other.shape or not len(one):
        raise ValueError(f"figures of both on the same pairs, at least one, got shapes {one.shape} and {other.shape}")
    if not (np.isfinite(one).all() and np.isfinite(other).all()):
        raise ValueError("figures must be finite; leave out the pairs where one of them is not defined, and say so")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must be above 0 and below 1, got {confidence}")
    return one, other


def _spread(figures: NDArray[np.float64]) -> float:
    return float(figures.std(ddof=1)) if len(figures) > 1 else float("nan")


def _student(degrees: int, confidence: float) -> float:
    """Between minus this and this lies ``confidence`` of Student's t of so many degrees of freedom.

    With t = sqrt(degrees) tan(angle) its density is proportional to cos(angle)^(degrees - 1).
    """
    angles = np.linspace(0, np.pi / 2, _ANGLES)
    density = np.cos(angles) ** (degrees - 1)
    within = np.concatenate([[0.0], np.cumsum(density[1:] + density[:-1])])
    return float(np.sqrt(degrees) * np.tan(np.interp(confidence, within / within[-1], angles)))


def _bootstrap_means(differences: NDArray[np.float64], seed: int) -> NDArray[np.float64]:
    random, count = generator(seed, "bootstrap"), len(differences)
    step = max(1, _DRAWS_AT_ONCE // count)
    means = [
        differences[random.integers(0, count, (min(step, _DRAWS - start), count))].mean(axis=1)
        for start in range(0, _DRAWS, step)
    ]
    return np.concatenate(means)


def _sign_p_value(differences: NDArray[np.float64], seed: int) -> float:
    count, told = len(differences), abs(differences.sum())
    edge = told - 1e-12 * np.abs(differences).sum()  # the same numbers summed in another order are not smaller
    if count <= _EXACT_PAIRS_MAX:
        signs = 1 - 2 * ((np.arange(1 << count)[:, None] >> np.arange(count)) & 1)
        return float((np.abs(signs @ differences) >= edge).mean())
    random, step, extreme = generator(seed, "signs"), max(1, _DRAWS_AT_ONCE // count), 0
    for start in range(0, _DRAWS, step):
        signs = random.integers(0, 2, (min(step, _DRAWS - start), count), dtype=np.int8) * np.int8(2) - np.int8(1)
        extreme += int((np.abs(signs @ differences) >= edge).sum())
    return (extreme + 1) / (_DRAWS + 1)  # what was observed is one of the patterns

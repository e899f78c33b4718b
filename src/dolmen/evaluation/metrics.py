"""Metrics of predictions, over arrays or CPU tensors. ``nan`` where a metric is not defined, rather than an invention.

Labels are 0 or 1, probabilities in [0, 1]; ``weights`` say what each example counts, 1 if ``None``. Anything else is a
``ValueError`` that names what it was, its place and the mend.
"""

from __future__ import annotations

from typing import Final, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dolmen.evaluation.guards import require_probabilities, require_weights

__all__ = [
    "auc",
    "calibration_ratio",
    "expected_calibration_error",
    "log_loss",
    "normalized_entropy",
    "relative_information_gain",
]

_Column: TypeAlias = NDArray[np.float64]

_SMALLEST_PROBABILITY: Final = float(np.finfo(np.float64).eps)  # scikit-learn clips there too


def auc(scores: ArrayLike, labels: ArrayLike, weights: ArrayLike | None = None) -> float:
    """The chance that a positive scores above a negative, ties counted half: area under the ROC curve.

    ``nan`` unless there are positives and negatives.

    >>> auc([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1])
    0.75
    """
    score, label, weight = columns(scores, labels, weights)
    _, places = np.unique(score, return_inverse=True)  # equal scores share a place
    count = int(places.max()) + 1 if places.size else 0
    positives = sums_at(places, weight * label, count)
    negatives = sums_at(places, weight * (1 - label), count)
    return auc_of_counts(positives, negatives)


def log_loss(probabilities: ArrayLike, labels: ArrayLike, weights: ArrayLike | None = None) -> float:
    """Mean of -ln of the probability that was given to what happened. Probabilities of 0 and 1 are moved in by 2e-16.

    >>> round(log_loss([0.5, 0.5], [0, 1]), 6)
    0.693147
    """
    probability, label, weight = columns(probabilities, labels, weights)
    require_probabilities(probability)
    if weight.sum() == 0:
        return float("nan")
    return float(np.average(log_losses(probability, label), weights=weight))


def normalized_entropy(
    probabilities: ArrayLike, labels: ArrayLike, weights: ArrayLike | None = None, *, base_rate: float | None = None
) -> float:
    """Log loss over that of always predicting the base rate: below 1 is better than knowing nothing of the example.

    Source: X. He et al., "Practical Lessons from Predicting Clicks on Ads at Facebook", ADKDD 2014, equation 1.

    Args:
        probabilities: in [0, 1], shape (count,).
        labels: 0 or 1, shape (count,).
        weights: what each example counts; 1 if ``None``.
        base_rate: the rate that was known beforehand, such as that of training; that of ``labels`` if ``None``.

    >>> normalized_entropy([0.25, 0.25, 0.25, 0.25], [0, 0, 0, 1])
    1.0
    """
    _, label, weight = columns(probabilities, labels, weights)
    require_probabilities(np.asarray(probabilities, dtype=np.float64))
    if base_rate is None:
        base_rate = float(weight @ label / weight.sum()) if weight.sum() > 0 else float("nan")
    elif not 0 < base_rate < 1:
        raise ValueError(f"base_rate must be above 0 and below 1, got {base_rate}")
    if not 0 < base_rate < 1:  # one class only: knowing the rate leaves nothing to tell
        return float("nan")
    return log_loss(probabilities, labels, weights) / log_loss(np.full(len(label), base_rate), labels, weights)


def relative_information_gain(
    probabilities: ArrayLike, labels: ArrayLike, weights: ArrayLike | None = None, *, base_rate: float | None = None
) -> float:
    """1 - normalized entropy: what share of the base rate's uncertainty the predictions take away."""
    return 1 - normalized_entropy(probabilities, labels, weights, base_rate=base_rate)


def calibration_ratio(probabilities: ArrayLike, labels: ArrayLike, weights: ArrayLike | None = None) -> float:
    """What was predicted over what happened: 1 is right, 2 promises twice too much. ``nan`` without positives."""
    probability, label, weight = columns(probabilities, labels, weights)
    require_probabilities(probability)
    happened = float(weight @ label)
    return float(weight @ probability) / happened if happened > 0 else float("nan")


def expected_calibration_error(
    probabilities: ArrayLike, labels: ArrayLike, weights: ArrayLike | None = None, *, bin_count: int = 15
) -> float:
    """How far predictions are from frequencies, on average over bins of equal width, each by its share of examples.

    Source: M. P. Naeini et al., "Obtaining Well Calibrated Probabilities Using Bayesian Binning", AAAI 2015.

    >>> round(expected_calibration_error([0.1, 0.1, 0.9, 0.9], [0, 0, 1, 1]), 6)
    0.1
    """
    if bin_count < 1:
        raise ValueError(f"bin_count must be at least 1, got {bin_count}")
    probability, label, weight = columns(probabilities, labels, weights)
    require_probabilities(probability)
    total = float(weight.sum())
    if total == 0:
        return float("nan")
    places = np.minimum((probability * bin_count).astype(np.int64), bin_count - 1)
    # Share of a bin times its |mean prediction - frequency| is |sum of (prediction - label)| over all examples.
    gaps = sums_at(places, weight * (probability - label), bin_count)
    return float(np.abs(gaps).sum() / total)


def auc_of_counts(positives: _Column, negatives: _Column) -> float:
    """AUC of examples counted by score, lowest score first, both shape (places,); equal scores share a place."""
    positive_total, negative_total = float(positives.sum()), float(negatives.sum())
    if positive_total == 0 or negative_total == 0:
        return float("nan")
    below = np.cumsum(negatives) - negatives
    return float((positives * (below + negatives / 2)).sum() / positive_total / negative_total)


def sums_at(places: NDArray[np.int64], values: _Column, count: int) -> _Column:
    """The sum of the values that share a place, shape (count,)."""
    return np.asarray(np.bincount(places, values, count), dtype=np.float64)


def log_losses(probabilities: _Column, labels: _Column) -> _Column:
    """-ln of the probability of what happened, shape (count,)."""
    inside = np.clip(probabilities, _SMALLEST_PROBABILITY, 1 - _SMALLEST_PROBABILITY)
    losses: _Column = -np.log(np.where(labels > 0.5, inside, 1 - inside))
    return losses


def columns(values: ArrayLike, labels: ArrayLike, weights: ArrayLike | None) -> tuple[_Column, _Column, _Column]:
    """Values, labels and weights as arrays that fit each other.

    Raises:
        ValueError: shapes differ, a label is neither 0 nor 1, a value is NaN, or a weight below 0 or not finite.
    """
    value, label = np.asarray(values, dtype=np.float64), np.asarray(labels, dtype=np.float64)
    weight = np.ones_like(value) if weights is None else np.asarray(weights, dtype=np.float64)
    if not value.ndim == label.ndim == weight.ndim == 1 or not len(value) == len(label) == len(weight):
        shapes = ", ".join(str(column.shape) for column in (value, label, weight))
        raise ValueError(f"one value, label and weight for each example, got shapes {shapes}")
    strange = label[(label != 0) & (label != 1)]
    if strange.size:
        raise ValueError(f"labels must be 0 or 1, got {strange[0]}")
    if np.isnan(value).any():
        raise ValueError(f"value {int(np.isnan(value).argmax())} is NaN; leave out examples without a prediction")
    require_weights(weight)
    return value, label, weight

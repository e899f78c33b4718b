"""Each metric against scikit-learn or its definition, written out."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import ArrayLike
from sklearn.metrics import log_loss as sklearn_log_loss
from sklearn.metrics import roc_auc_score

from dolmen.evaluation import (
    auc,
    calibration_ratio,
    expected_calibration_error,
    log_loss,
    normalized_entropy,
    relative_information_gain,
)

Metric = Callable[[ArrayLike, ArrayLike, ArrayLike | None], float]
METRICS: list[Metric] = [
    auc,
    calibration_ratio,
    expected_calibration_error,
    log_loss,
    normalized_entropy,
    relative_information_gain,
]

# Few distinct probabilities, so that ties happen; the ends included.
PROBABILITIES = st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0])
ROWS = st.lists(st.tuples(PROBABILITIES, st.booleans(), st.integers(1, 3)), min_size=2, max_size=40)


def columns(rows: list[tuple[float, bool, int]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    probabilities, labels, weights = (np.array(column, dtype=float) for column in zip(*rows, strict=True))
    return probabilities, labels, weights


@pytest.mark.property
@settings(max_examples=100, deadline=None)
@given(ROWS)
def test_auc_and_log_loss_agree_with_scikit_learn(rows: list[tuple[float, bool, int]]) -> None:
    probabilities, labels, weights = columns(rows)
    for weight in (None, weights):
        told = log_loss(probabilities, labels, weight)
        assert told == pytest.approx(sklearn_log_loss(labels, probabilities, sample_weight=weight, labels=[0, 1]))
        if 0 < labels.sum() < len(labels):
            expected = roc_auc_score(labels, probabilities, sample_weight=weight)
            assert auc(probabilities, labels, weight) == pytest.approx(expected)


@pytest.mark.property
@settings(max_examples=100, deadline=None)
@given(ROWS)
def test_calibration_is_what_its_definition_says(rows: list[tuple[float, bool, int]]) -> None:
    probabilities, labels, weights = columns(rows)
    if labels.any():
        expected = sum(p * w for p, _, w in rows) / sum(w for _, label, w in rows if label)
        assert calibration_ratio(probabilities, labels, weights) == pytest.approx(expected)
    gap = 0.0
    for low in range(10):
        inside = [(p, label, w) for p, label, w in rows if min(int(p * 10), 9) == low]
        mass = sum(w for *_, w in inside)
        if mass:
            mean = sum(p * w for p, _, w in inside) / mass
            frequency = sum(w for _, label, w in inside if label) / mass
            gap += mass / weights.sum() * abs(mean - frequency)
    assert expected_calibration_error(probabilities, labels, weights, bin_count=10) == pytest.approx(gap, abs=1e-12)


@pytest.mark.property
@settings(max_examples=50, deadline=None)
@given(ROWS, st.sampled_from([None, 0.3]))
def test_normalized_entropy_is_the_log_loss_over_that_of_the_base_rate(
    rows: list[tuple[float, bool, int]], base_rate: float | None
) -> None:
    probabilities, labels, weights = columns(rows)
    rate = base_rate if base_rate is not None else float(np.average(labels, weights=weights))
    found = normalized_entropy(probabilities, labels, weights, base_rate=base_rate)
    if not 0 < rate < 1:
        assert math.isnan(found)
        return
    told, constant = (
        sklearn_log_loss(labels, one, sample_weight=weights, labels=[0, 1])
        for one in (probabilities, np.full(len(labels), rate))
    )
    assert found == pytest.approx(told / constant)
    assert relative_information_gain(probabilities, labels, weights, base_rate=base_rate) == pytest.approx(1 - found)


def test_what_is_not_defined_is_nan() -> None:
    assert math.isnan(auc([0.3, 0.4], [1, 1]))
    assert math.isnan(auc([], []))
    assert math.isnan(log_loss([], []))
    assert math.isnan(calibration_ratio([0.5], [0]))
    assert math.isnan(expected_calibration_error([], []))
    assert math.isnan(normalized_entropy([], []))
    with pytest.raises(ValueError, match="base_rate must be above 0 and below 1, got 0"):
        normalized_entropy([0.5], [1], base_rate=0)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("weight", [-1.0, math.nan, math.inf])
def test_what_cannot_weigh_is_refused_by_every_metric(metric: Metric, weight: float) -> None:
    with pytest.raises(ValueError, match=rf"weights must be finite and at least 0, got {weight} at place 1"):
        metric([0.1, 0.9], [0, 1], [1.0, weight])


@pytest.mark.parametrize("metric", [one for one in METRICS if one is not auc])
@pytest.mark.parametrize(("strange", "labels"), [(2.0, [1, 0]), (-0.3, [0, 1]), (5.0, [1, 1])])
def test_what_is_no_probability_is_refused_by_every_metric_of_probabilities(
    metric: Metric, strange: float, labels: list[int]
) -> None:
    with pytest.raises(ValueError, match=rf"probabilities must be in \[0, 1\], got {strange} at place 0; of logits"):
        metric([strange, 0.5], labels, None)
    assert not math.isinf(metric([0.0, 1.0], [0, 1], None))  # the ends are probabilities


@pytest.mark.parametrize(
    ("scores", "labels", "told"),
    [
        ([0.1, 0.2], [1], "one value, label and weight for each example"),
        ([0.1], [2], "labels must be 0 or 1, got 2"),
        ([0.1, float("nan")], [0, 1], "value 1 is NaN"),
    ],
)
def test_bad_columns_are_named(scores: list[float], labels: list[int], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        auc(scores, labels)

"""Progressive evaluation against the same metrics over everything it saw, and through JSON and back."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dolmen.errors import SnapshotError
from dolmen.evaluation import Progressive, auc, calibration_ratio, log_loss

BIN = 1 / 128  # of the logit, as the module's docstring says


def stream(size: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    logits = random.normal(-1, 2, size)
    return 1 / (1 + np.exp(-logits)), (random.random(size) < 1 / (1 + np.exp(-logits))).astype(float)


def auc_error_allowed(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Half the share of positive-negative pairs that may share a bin."""
    logits = np.log(probabilities / (1 - probabilities))
    gaps = np.abs(logits[labels == 1][:, None] - logits[labels == 0])
    return float((gaps <= BIN).mean()) / 2


@pytest.mark.property
@settings(max_examples=30, deadline=None)
@given(st.integers(20, 400), st.integers(0, 10_000), st.lists(st.integers(1, 60), min_size=1, max_size=8))
def test_figures_equal_those_over_everything(size: int, seed: int, cuts: list[int]) -> None:
    probabilities, labels = stream(size, seed)
    progressive = Progressive()
    for part in np.array_split(np.arange(size), np.cumsum(cuts).clip(max=size)):
        progressive.update(probabilities[part], labels[part])
    assert progressive.count == size
    assert progressive.log_loss == pytest.approx(log_loss(probabilities, labels))
    if labels.any():
        assert progressive.calibration_ratio == pytest.approx(calibration_ratio(probabilities, labels))
    if 0 < labels.sum() < size:
        assert abs(progressive.auc - auc(probabilities, labels)) <= auc_error_allowed(probabilities, labels) + 1e-12


def test_recent_covers_the_window_and_no_more() -> None:
    window = 1_600
    progressive = Progressive(window=window)
    probabilities, labels = stream(10_000, seed=1)
    labels[5_000:] = 1 - labels[5_000:]  # the world turns over: right becomes wrong
    for part in np.split(np.arange(10_000), 200):
        progressive.update(probabilities[part], labels[part])
    recent = progressive.recent()
    count = int(recent["count"])
    assert window * 15 / 16 <= count <= window * 17 / 16
    assert recent["log_loss"] == pytest.approx(log_loss(probabilities[-count:], labels[-count:]))
    assert recent["auc"] < 0.3 < progressive.auc
    assert progressive.total()["count"] == 10_000


def test_examples_without_a_prediction_are_passed_over() -> None:
    progressive = Progressive()
    assert progressive.update([float("nan"), 0.8], [0, 1]) == 1
    assert progressive.update([float("nan")], [0]) == 0
    assert progressive.update([], []) == 0
    assert progressive.count == 1


def test_certain_predictions_count_like_any_other() -> None:
    progressive = Progressive()
    progressive.update([0.0, 1.0, 0.5, 1.0], [0, 1, 1, 0])
    assert progressive.auc == auc([0.0, 1.0, 0.5, 1.0], [0, 1, 1, 0])
    assert progressive.log_loss == pytest.approx(log_loss([0.0, 1.0, 0.5, 1.0], [0, 1, 1, 0]))


def test_weights_stand_for_examples_that_were_dropped() -> None:
    # Each negative came four times; one in four was kept and weighs four.
    whole, kept = Progressive(), Progressive()
    whole.update([0.9, 0.4, 0.2, 0.2, 0.2, 0.2], [1, 1, 0, 0, 0, 0])
    kept.update([0.9, 0.4, 0.2], [1, 1, 0], [1, 1, 4])
    for name in ("auc", "log_loss", "calibration_ratio"):
        assert kept.total()[name] == pytest.approx(whole.total()[name])


def test_state_survives_json_exactly() -> None:
    probabilities, labels = stream(3_000, seed=2)
    one = Progressive(window=500)
    one.update(probabilities[:2_000], labels[:2_000])
    other = Progressive()
    other.load_state_dict(json.loads(json.dumps(one.state_dict())))
    for progressive in (one, other):
        for part in np.split(np.arange(2_000, 3_000), 20):
            progressive.update(probabilities[part], labels[part])
    assert other.total() == one.total()
    assert other.recent() == one.recent()
    assert other.window == 500


def test_state_of_another_format_is_refused_and_nothing_changes() -> None:
    progressive = Progressive()
    progressive.update([0.5], [1])
    with pytest.raises(SnapshotError, match="format 1 with 128 bins a unit is needed, got 2"):
        progressive.load_state_dict({**Progressive().state_dict(), "format": 2})
    assert progressive.count == 1


@pytest.mark.parametrize(
    ("probabilities", "labels", "weights", "told"),
    [
        ([0.5, 1.2], [0, 1], None, r"probabilities must be in \[0, 1\], got 1.2 at place 1"),
        ([0.5, math.nan], [0, 1], [1, -2], "weights must be finite and at least 0, got -2.0 at place 1"),
        ([0.5, 0.5], [0, 3], None, "labels must be 0 or 1, got 3"),
        ([0.5, 0.5], [0], None, "one value, label and weight for each example"),
    ],
)
def test_what_cannot_be_judged_is_refused_before_anything_is_counted(
    probabilities: list[float], labels: list[int], weights: list[float] | None, told: str
) -> None:
    progressive = Progressive()
    with pytest.raises(ValueError, match=told):
        progressive.update(probabilities, labels, weights)
    assert progressive.count == 0


def test_nothing_seen_is_nan_and_a_window_has_a_least_size() -> None:
    assert math.isnan(Progressive().auc)
    assert math.isnan(Progressive().log_loss)
    with pytest.raises(ValueError, match="window must be at least 16, got 3"):
        Progressive(window=3)

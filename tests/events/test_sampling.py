"""Negative sampling and its correction, on data whose truth is known."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from dolmen.errors import ConfigError
from dolmen.events.sampling import corrected_logits, corrected_probabilities, is_kept


def fitted(features: NDArray[np.float64], labels: NDArray[np.float64]) -> NDArray[np.float64]:
    """Maximum likelihood of a logistic model, by Newton's method."""
    weights = np.zeros(features.shape[1])
    for _ in range(25):
        chances = 1 / (1 + np.exp(-features @ weights))
        hessian = (features * (chances * (1 - chances))[:, None]).T @ features
        weights += np.linalg.solve(hessian, features.T @ (labels - chances))
    return weights


def auc(scores: NDArray[np.float64], labels: NDArray[np.float64]) -> float:
    ranks = np.empty(len(scores))
    ranks[scores.argsort()] = np.arange(1, len(scores) + 1)
    positives = labels.sum()
    return float((ranks[labels == 1].sum() - positives * (positives + 1) / 2) / (positives * (len(labels) - positives)))


def test_correction_brings_predictions_back_to_the_base_rate() -> None:
    """The card's item 6: r = 0.05; corrected within 2 % of the base rate, uncorrected off by more than 5 times."""
    rate, count = 0.05, 400_000
    odds = np.random.default_rng(1)
    features = np.column_stack([np.ones(count), odds.normal(size=(count, 2))])
    truth = 1 / (1 + np.exp(-features @ np.array([-3.5, 0.8, -0.5])))
    labels = (odds.random(count) < truth).astype(np.float64)
    kept = np.array([label == 1 or is_kept(0, "r", place, rate) for place, label in enumerate(labels)])

    logits = features @ fitted(features[kept], labels[kept])
    corrected = corrected_logits(logits, rate)
    base_rate = labels.mean()
    assert (1 / (1 + np.exp(-corrected))).mean() == pytest.approx(base_rate, rel=0.02)
    assert (1 / (1 + np.exp(-logits))).mean() > 5 * base_rate
    assert auc(corrected, labels) == auc(logits, labels)


def test_probabilities_and_logits_are_corrected_alike() -> None:
    logits = torch.linspace(-6, 6, 25, dtype=torch.float64)
    by_logits = torch.sigmoid(corrected_logits(logits, 0.05))
    torch.testing.assert_close(corrected_probabilities(torch.sigmoid(logits), 0.05), by_logits)


def test_what_is_kept_depends_on_seed_request_and_item_only() -> None:
    kept = [is_kept(1, "request", item, 0.3) for item in range(2000)]
    assert kept == [is_kept(1, "request", item, 0.3) for item in range(2000)]
    assert kept != [is_kept(2, "request", item, 0.3) for item in range(2000)]
    assert abs(sum(kept) - 600) < 4 * (2000 * 0.3 * 0.7) ** 0.5
    # A higher rate keeps what a lower one kept: turning it up or down does not reshuffle the examples.
    assert all(is_kept(1, "request", item, 0.6) for item in range(2000) if kept[item])


@pytest.mark.parametrize("rate", [0.0, -0.1, 1.1, float("nan")])
def test_rate_that_cannot_be_corrected_for_is_refused(rate: float) -> None:
    with pytest.raises(ConfigError, match="above 0 and at most 1"):
        corrected_logits(0.0, rate)

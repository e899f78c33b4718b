"""Ranking within groups: AUC of each person (or request, or page), averaged. What the papers on click models report.

A person's mood shifts all their scores alike; that moves the AUC over everybody, but cannot change a slate. GAUC does
not see it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import final

import numpy as np
from numpy.typing import ArrayLike

from dolmen.evaluation.metrics import columns, sums_at

__all__ = ["GroupAUC", "Weighting", "gauc"]


class Weighting(StrEnum):
    """What a group counts in the mean."""

    IMPRESSIONS = "impressions"  # its examples: DIN (KDD 2018), section 6.2, equation 9, and TIN
    CLICKS = "clicks"  # its positives
    EVEN = "even"  # one


@final
@dataclass(frozen=True)
class GroupAUC:
    """``value``: the mean (``nan`` if no group has both classes); ``judged`` and ``skipped``: how many groups.

    A group without positives or without negatives has no AUC: it is skipped, with its weight.
    """

    value: float
    judged: int
    skipped: int


def gauc(
    scores: ArrayLike,
    labels: ArrayLike,
    groups: ArrayLike,
    weights: ArrayLike | None = None,
    *,
    weighting: Weighting | str = Weighting.IMPRESSIONS,
) -> GroupAUC:
    """Mean over groups of the AUC within each, ties counted half.

    Args:
        scores: what was predicted, any increasing function of it; shape (count,).
        labels: 0 or 1, shape (count,).
        groups: whom each example belongs to, integers or strings, shape (count,).
        weights: what each example counts inside its group and in its group's weight; 1 if ``None``.
        weighting: what a group counts.

    Raises:
        ValueError: shapes differ, a label is neither 0 nor 1, a score is NaN, a weight below 0 or not finite, or there
            is no such weighting.

    >>> gauc([0.1, 0.9, 0.8, 0.2, 0.5], [0, 1, 0, 1, 1], ["a", "a", "b", "b", "c"])
    GroupAUC(value=0.5, judged=2, skipped=1)
    """
    score, label, weight = columns(scores, labels, weights)
    names = np.asarray(groups)
    if names.shape != score.shape:
        raise ValueError(f"one group for each example, got {names.shape} groups for {score.shape} scores")
    weighting = Weighting(weighting)
    _, group = np.unique(names, return_inverse=True)
    count = int(group.max()) + 1 if len(group) else 0
    order = np.lexsort((score, group))
    group, score, label, weight = group[order], score[order], label[order], weight[order]
    new = np.ones(len(group), dtype=bool)
    new[1:] = (np.diff(group) != 0) | (np.diff(score) != 0)
    places = np.cumsum(new) - 1  # equal scores of one group share a place
    of_place = group[new]
    positives = sums_at(places, weight * label, len(of_place))
    negatives = sums_at(places, weight * (1 - label), len(of_place))
    positive_sums, negative_sums = sums_at(of_place, positives, count), sums_at(of_place, negatives, count)
    # A running sum over all places, less what it was where the group began, is a running sum within the group.
    before_group = np.cumsum(negative_sums) - negative_sums
    below = np.cumsum(negatives) - negatives - before_group[of_place]
    won = sums_at(of_place, positives * (below + negatives / 2), count)
    judged = (positive_sums > 0) & (negative_sums > 0)
    if not judged.any():
        return GroupAUC(float("nan"), 0, count)
    aucs = won[judged] / (positive_sums[judged] * negative_sums[judged])
    match weighting:
        case Weighting.IMPRESSIONS:
            group_weights = (positive_sums + negative_sums)[judged]
        case Weighting.CLICKS:
            group_weights = positive_sums[judged]
        case Weighting.EVEN:
            group_weights = np.ones(int(judged.sum()))
    judged_count = int(judged.sum())
    return GroupAUC(float(np.average(aucs, weights=group_weights)), judged_count, count - judged_count)

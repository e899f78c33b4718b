import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from dolmen.evaluation import Weighting, auc, gauc

ROWS = st.lists(
    st.tuples(st.sampled_from([-1.0, 0.0, 0.5, 2.0]), st.booleans(), st.sampled_from("abcd"), st.integers(1, 3)),
    min_size=1,
    max_size=40,
)


@pytest.mark.property
@settings(max_examples=100, deadline=None)
@given(ROWS, st.sampled_from(Weighting), st.booleans())
def test_it_is_the_weighted_mean_of_scikit_learns_auc_of_each_group(
    rows: list[tuple[float, bool, str, int]], weighting: Weighting, has_weights: bool
) -> None:
    aucs, shares, skipped = [], [], 0
    for name in {row[2] for row in rows}:
        scores, labels, _, weights = zip(*(row for row in rows if row[2] == name), strict=True)
        counted = np.array(weights) if has_weights else np.ones(len(labels))
        if len(set(labels)) == 1:
            skipped += 1
            continue
        aucs.append(roc_auc_score(labels, scores, sample_weight=counted))
        clicks = float(counted[np.array(labels)].sum())
        shares.append({"impressions": float(counted.sum()), "clicks": clicks, "even": 1.0}[weighting])

    scores, labels, groups, weights = (np.array(column) for column in zip(*rows, strict=True))
    found = gauc(scores, labels, groups, weights if has_weights else None, weighting=weighting)

    assert (found.judged, found.skipped) == (len(aucs), skipped)
    assert math.isnan(found.value) if not aucs else found.value == pytest.approx(np.average(aucs, weights=shares))


def test_three_people_by_hand() -> None:
    # a: 0.9 above 0.1 and below nothing: AUC 1, four impressions, one click. b: a tie: 1/2, two, one. c: clicks only.
    scores = [0.9, 0.1, 0.2, 0.3, 0.5, 0.5, 0.7]
    labels = [1, 0, 0, 0, 1, 0, 1]
    people = ["a", "a", "a", "a", "b", "b", "c"]

    assert gauc(scores, labels, people).value == pytest.approx((4 * 1 + 2 * 0.5) / 6)
    assert gauc(scores, labels, people, weighting="clicks").value == pytest.approx(0.75)
    assert gauc(scores, labels, people).skipped == 1


def test_a_persons_mood_moves_the_auc_but_not_the_gauc() -> None:
    random = np.random.default_rng(5)
    people, labels = np.repeat(np.arange(20), 10), random.integers(0, 2, 200)
    scores = random.normal(size=200) + labels
    moods = random.normal(0, 5, 20)[people]

    assert gauc(scores + moods, labels, people).value == pytest.approx(gauc(scores, labels, people).value)
    assert abs(auc(scores + moods, labels) - auc(scores, labels)) > 0.1


def test_one_positive_and_one_negative_each_is_the_share_of_pairs_in_order() -> None:
    scores = [3.0, 1.0, 1.0, 2.0, 5.0, 5.0]

    assert gauc(scores, [1, 0, 1, 0, 1, 0], [0, 0, 1, 1, 2, 2]).value == pytest.approx((1 + 0 + 0.5) / 3)


def test_groups_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="one group for each example"):
        gauc([0.1, 0.2], [0, 1], ["a"])
    with pytest.raises(ValueError, match="elsewhere"):
        gauc([0.1], [0], ["a"], weighting="elsewhere")
    assert math.isnan(gauc([], [], []).value)

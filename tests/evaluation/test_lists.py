import math
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics.pairwise import cosine_similarity

from dolmen.evaluation import (
    catalogue_coverage,
    intra_list_diversity,
    mean_popularity,
    novelty,
    popularity_lift,
    tail_share,
)

ITEM_COUNT, K = 6, 4
COUNTS = st.lists(st.integers(0, 9), min_size=ITEM_COUNT, max_size=ITEM_COUNT).filter(any)
LISTS = st.lists(st.sets(st.integers(0, ITEM_COUNT - 1), max_size=K).map(sorted), min_size=1, max_size=8)


def padded(lists: list[list[int]]) -> np.ndarray:
    return np.array([row + [-1] * (K - len(row)) for row in lists])


@pytest.mark.property
@settings(max_examples=100, deadline=None)
@given(LISTS, COUNTS)
def test_each_measure_is_what_its_definition_says(lists: list[list[int]], counts: list[int]) -> None:
    everything = [item for row in lists for item in row]
    assert catalogue_coverage(padded(lists), ITEM_COUNT) == len(set(everything)) / ITEM_COUNT
    if not everything:
        assert math.isnan(novelty(padded(lists), counts))
        return
    bits = [-math.log2(max(counts[item], 1) / sum(counts)) for item in everything]
    assert novelty(padded(lists), counts) == pytest.approx(np.mean(bits))
    means = [np.mean([counts[item] for item in row]) for row in lists if row]
    assert mean_popularity(padded(lists), counts) == pytest.approx(np.mean(means))
    head: set[int] = set()
    for item in sorted(range(ITEM_COUNT), key=lambda one: -counts[one]):
        if sum(counts[one] for one in head) < 0.8 * sum(counts):
            head.add(item)
    shares = [np.mean([item not in head for item in row]) for row in lists if row]
    assert tail_share(padded(lists), counts) == pytest.approx(np.mean(shares))


@pytest.mark.property
@settings(max_examples=60, deadline=None)
@given(LISTS, st.integers(0, 1000))
def test_diversity_agrees_with_scikit_learn_over_all_pairs(lists: list[list[int]], seed: int) -> None:
    vectors = np.random.default_rng(seed).integers(-1, 2, (ITEM_COUNT, 3))
    similar = cosine_similarity(vectors)
    means = [np.mean([1 - similar[pair] for pair in combinations(row, 2)]) for row in lists if len(row) > 1]

    found = intra_list_diversity(padded(lists), vectors)

    assert math.isnan(found) if not means else found == pytest.approx(np.mean(means))


def test_twice_as_popular_items_are_a_lift_of_one() -> None:
    assert popularity_lift([[1], [1]], [[0], [0]], [4, 8]) == pytest.approx(1.0)
    assert popularity_lift([[0], [1]], [[1], [0]], [4, 8]) == pytest.approx(0.0)


@pytest.mark.parametrize(
    ("lists", "told"), [([1, 2], r"shape \(queries, k\)"), ([[ITEM_COUNT]], "hold places 6 to 6; the catalogue has 6")]
)
def test_lists_that_do_not_fit_are_named(lists: list[int], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        catalogue_coverage(lists, ITEM_COUNT)

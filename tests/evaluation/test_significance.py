import math
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from dolmen.evaluation import compare, mean_of, ratio_of

FIGURES = st.lists(st.tuples(st.integers(-9, 9), st.integers(-9, 9)), min_size=1, max_size=6)


@pytest.mark.property
@settings(max_examples=60, deadline=None)
@given(FIGURES)
def test_the_p_value_counts_sign_patterns(pairs: list[tuple[int, int]]) -> None:
    first, second = (np.array(column, dtype=float) / 10 for column in zip(*pairs, strict=True))
    differences = first - second
    sums = [abs(np.dot(signs, differences)) for signs in product((-1, 1), repeat=len(pairs))]
    expected = np.mean([one >= abs(differences.sum()) - 1e-9 for one in sums])

    found = compare(first, second)

    assert found.p_value == pytest.approx(expected)
    assert found.difference.value == pytest.approx(differences.mean())
    if len(pairs) > 1:
        assert found.difference == mean_of(differences)  # for few pairs the interval is that of seeds
    assert found.wins == sum((one > 0) + (one == 0) / 2 for one in differences)


@pytest.mark.property
@given(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=40), st.sampled_from([0.5, 0.9, 0.95, 0.99]))
def test_the_interval_of_a_mean_is_students(values: list[float], confidence: float) -> None:
    found = mean_of(values, confidence)
    deviation = np.std(values, ddof=1)
    reach = stats.t.ppf((1 + confidence) / 2, len(values) - 1) * deviation / math.sqrt(len(values))
    assert found.value == pytest.approx(np.mean(values), abs=1e-9)
    assert found.deviation == pytest.approx(deviation, abs=1e-9)
    # The worst quantile of the grid, at 99 % and one degree of freedom, is right to six digits.
    assert found.high - found.value == pytest.approx(reach, rel=1e-6, abs=1e-9)
    assert found.value - found.low == pytest.approx(reach, rel=1e-6, abs=1e-9)


def test_of_one_value_nothing_is_known_but_itself() -> None:
    found = mean_of([0.7])
    assert (found.value, found.count) == (0.7, 1)
    assert all(map(math.isnan, (found.deviation, found.low, found.high)))


def test_equal_methods_differ_as_often_as_the_p_value_says() -> None:
    """Under no difference a p-value of at most 0.2 comes in at most one of five times."""
    random = np.random.default_rng(7)
    trials = 200
    found = [compare(*random.normal(size=(2, 8))).p_value for _ in range(trials)]

    rate = np.mean([one <= 0.2 for one in found])
    assert rate < 0.2 + 4 * math.sqrt(0.2 * 0.8 / trials)
    assert rate > 0.2 - 4 * math.sqrt(0.2 * 0.8 / trials) - 2 / 2**7  # p-values come in steps of 2^-7


def test_the_interval_covers_the_true_difference_about_as_often_as_it_says() -> None:
    """Many pairs, where the percentile bootstrap is right: its width is that of the normal interval."""
    differences = np.random.default_rng(8).normal(1.0, 2.0, 2000)

    found = compare(differences, np.zeros(2000))

    half_width = 1.96 * differences.std(ddof=1) / math.sqrt(2000)
    assert (found.difference.high - found.difference.low) / 2 == pytest.approx(half_width, rel=0.05)
    assert found.p_value == pytest.approx(1 / 10_001)


def test_five_seeds_cannot_be_more_certain_than_one_in_sixteen() -> None:
    found = compare([0.9] * 5, [0.1] * 5)

    assert found.p_value == 2 / 2**5


def test_one_pair_has_no_spread() -> None:
    assert math.isnan(compare([0.5], [0.4]).first_spread)


def test_a_ratio_lies_in_its_interval_exactly_if_the_difference_at_it_may_be_none() -> None:
    """Fieller's interval against what it means: at its ends, Student's interval of first - r second ends at 0."""
    random = np.random.default_rng(5)
    for count in (2, 3, 8):
        second = random.uniform(90.0, 110.0, count)
        first = 0.3 * second + random.normal(0.0, 1.0, count)

        found = ratio_of(first, second)

        assert found.value == pytest.approx(first.mean() / second.mean())
        assert mean_of(first - found.low * second).low == pytest.approx(0.0, abs=1e-6)
        assert mean_of(first - found.high * second).high == pytest.approx(0.0, abs=1e-6)
        assert found.low < found.value < found.high


def test_a_ratio_that_every_pair_has_is_sure() -> None:
    found = ratio_of([2.0, 2.1, 2.2], [8.0, 8.4, 8.8])

    assert (found.low, found.value, found.high) == pytest.approx((0.25, 0.25, 0.25))


def test_a_ratio_over_what_may_be_nothing_has_no_interval() -> None:
    for first, second in (([1.0], [2.0]), ([1.0, 1.0, 1.0], [0.0, 0.0, 0.3])):
        found = ratio_of(first, second)

        assert found.value == pytest.approx(np.mean(first) / np.mean(second))
        assert math.isnan(found.low)
        assert math.isnan(found.high)
    with pytest.raises(ValueError, match=r"a mean above 0 below the line, got 0\.0"):
        ratio_of([1.0, 2.0], [0.0, 0.0])


@pytest.mark.parametrize(
    ("first", "second", "told"),
    [
        ([], [], "at least one"),
        ([1.0], [1.0, 2.0], r"got shapes \(1,\) and \(2,\)"),
        ([math.nan], [1.0], "figures must be finite"),
    ],
)
def test_pairs_that_do_not_fit_are_refused(first: list[float], second: list[float], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        compare(first, second)

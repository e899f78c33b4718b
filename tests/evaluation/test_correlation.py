"""The correlation of what and when, against the formula written as loops."""

from math import log2

import numpy as np
import pytest
from scipy import stats

from dolmen.evaluation import mutual_information, rank_correlation, temporal_correlation, temporal_strength


def test_a_cause_tells_the_whole_entropy_and_a_stranger_nothing() -> None:
    # Three of four are positive, and exactly those have it: the entropy of the label.
    entropy = -(0.75 * log2(0.75) + 0.25 * log2(0.25))
    assert mutual_information(3, 0, 3, 1) == pytest.approx(entropy)
    assert mutual_information(6, 2, 6, 2) == 0  # everybody has it
    assert mutual_information(0, 0, 6, 2) == 0  # nobody has it
    assert mutual_information([1, 3], [1, 0], 3, 3).shape == (2,)


def test_the_grid_equals_the_formula_example_by_example() -> None:
    random = np.random.default_rng(3)
    pasts = [random.integers(0, 4, random.integers(0, 7)).tolist() for _ in range(300)]
    targets, labels = random.integers(0, 3, 300), random.integers(0, 2, 300)
    offsets = np.concatenate([[0], np.cumsum([len(past) for past in pasts])])
    grid = temporal_correlation(
        np.concatenate(pasts), offsets, targets, labels, target=1, position_max=3, category_count=4
    )
    assert grid.categories.tolist() == [0, 1, 2, 3]
    of_target = [(past, int(label)) for past, target, label in zip(pasts, targets, labels, strict=True) if target == 1]
    assert grid.example_count == len(of_target)
    for category in range(4):
        for position in (1, 2, 3):
            has = [int(len(past) >= position and past[-position] == category) for past, _ in of_target]
            assert grid.counts[category, position - 1] == sum(has)
            expected = 0.0
            for one in (0, 1):
                for answer in (0, 1):
                    both = np.mean([h == one and label == answer for h, (_, label) in zip(has, of_target, strict=True)])
                    apart = np.mean([h == one for h in has]) * np.mean([label == answer for _, label in of_target])
                    expected += both * log2(both / apart) if both > 0 else 0.0
            assert grid.bits[category, position - 1] == pytest.approx(expected, abs=1e-12)


def test_a_decay_that_is_there_is_seen() -> None:
    # The label is the newest behaviour's category with chance 0.9, and a coin otherwise; older ones say nothing.
    random = np.random.default_rng(5)
    pasts = random.integers(0, 2, (4000, 5))
    labels = np.where(random.random(4000) < 0.9, pasts[:, -1], random.integers(0, 2, 4000))
    grid = temporal_correlation(
        pasts.flatten(), np.arange(4001) * 5, np.ones(4000), labels, target=1, position_max=5, category_count=2
    )
    # 2 n ln(2) MI of independent things is chi-squared with one degree: above 0.0035 bits once in 10^5 draws or so.
    assert (grid.bits[:, 1:] < 0.0035).all()
    assert (grid.bits[:, 0] > 0.5).all()


def test_a_behaviour_of_several_categories_counts_for_each_and_once() -> None:
    # Two examples. The first, which is positive, has behaviours of {1, 2} and, newest, of {2, 2}; the other of {}, {1}.
    grid = temporal_correlation(
        [1, 2, 2, 2, 1], [0, 2, 4], [7, 7], [1, 0], target=7, position_max=2, starts=[0, 2, 4, 4, 5]
    )
    assert grid.categories.tolist() == [1, 2]
    assert grid.counts.tolist() == [[1, 1], [1, 1]]  # of 1: the other's newest, the first's oldest; of 2: the first's
    # Each cell tells the two apart, so it tells the whole entropy of a fair label: one bit.
    assert grid.bits == pytest.approx(np.ones((2, 2)))


def test_rows_may_be_named_and_then_others_are_left_out() -> None:
    grid = temporal_correlation([1, 2, 1], [0, 2, 3], [7, 7], [1, 0], target=7, position_max=2, rows=[9, 1])
    assert grid.categories.tolist() == [1, 9]
    assert grid.counts.tolist() == [[1, 1], [0, 0]]
    assert grid.bits[1].tolist() == [0, 0]


def test_what_tells_nothing_shows_on_average_what_luck_is_said_to() -> None:
    random, size, cells = np.random.default_rng(7), 500, 400
    labels = random.integers(0, 2, size)
    past = random.integers(0, 2, (size, cells))
    grid = temporal_correlation(
        past.flatten(), np.arange(size + 1) * cells, np.ones(size), labels, target=1, position_max=cells, rows=[1]
    )
    # Chi-squared with one degree has variance 2, so the mean of 400 such is 1 within 3 x sqrt(2 / 400) = 0.21.
    assert grid.bits.mean() / grid.chance_bits == pytest.approx(1, abs=0.21)


def test_a_cell_that_luck_alone_could_fill_has_no_sure_bits() -> None:
    # Of 1,000 examples a fair coin tells the label itself (1 bit), and nothing tells nothing; chi-squared of one degree
    # is above 10.828 once in 1,000 times, which are 10.828 / (2 n ln 2) bits.
    random, size = np.random.default_rng(8), 1000
    labels = random.integers(0, 2, size)
    past = np.stack([random.integers(0, 2, size), labels], axis=1)
    grid = temporal_correlation(past.flatten(), np.arange(size + 1) * 2, np.ones(size), labels, target=1, rows=[1])
    assert grid.sure_bits[0, 0] == grid.bits[0, 0] == pytest.approx(1, abs=0.01)
    assert 0 < grid.bits[0, 1] < stats.chi2.isf(0.001, df=1) / (2 * np.log(2) * size)
    assert grid.sure_bits[0, 1] == 0


def test_a_models_grid_is_the_mean_over_full_pasts_that_have_the_behaviour() -> None:
    random = np.random.default_rng(4)
    pasts = [random.integers(0, 4, random.integers(0, 7)).tolist() for _ in range(200)]
    targets = random.integers(0, 3, 200)
    offsets = np.concatenate([[0], np.cumsum([len(past) for past in pasts])])
    strengths = random.random(offsets[-1])
    grid = temporal_strength(
        strengths, np.concatenate(pasts), offsets, targets, target=1, rows=[3, 0, 9], position_max=3
    )
    assert grid.shape == (3, 3)  # of 0, 3 and 9
    for row, category in enumerate((0, 3)):
        for position in (1, 2, 3):
            told = [
                strengths[end - position]
                for past, target, end in zip(pasts, targets, offsets[1:], strict=True)
                if target == 1 and len(past) >= 3 and past[-position] == category
            ]
            assert grid[row, position - 1] == pytest.approx(np.mean(told))
    assert np.isnan(grid[2]).all()


def test_weights_that_are_equal_do_not_seem_to_fade_because_some_pasts_are_short() -> None:
    lengths = [1, 2, 3, 3, 2, 3]
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    shares = np.concatenate([np.full(length, 1 / length) for length in lengths])
    grid = temporal_strength(shares, np.zeros(len(shares)), offsets, np.ones(6), target=1, rows=[0], position_max=3)
    assert grid.tolist() == [[pytest.approx(1 / 3)] * 3]


def test_ranks_correlate_as_another_program_says() -> None:
    random = np.random.default_rng(6)
    first, second = random.integers(0, 5, 60).astype(float), random.normal(size=60)
    assert rank_correlation(first, second) == pytest.approx(stats.spearmanr(first, second).statistic)
    assert rank_correlation(first, first**3) == pytest.approx(1)
    assert rank_correlation(first, -first) == pytest.approx(-1)
    first[3], second[7] = np.nan, np.nan
    expected = stats.spearmanr(first, second, nan_policy="omit").statistic
    assert rank_correlation(first.reshape(6, 10), second.reshape(6, 10)) == pytest.approx(expected)
    assert np.isnan(rank_correlation([1, 1, 1], [1, 2, 3]))
    assert np.isnan(rank_correlation([np.nan], [1]))


def test_arrays_that_do_not_go_together_are_refused() -> None:
    with pytest.raises(ValueError, match="starts must end with the count of categories, 1, got 2"):
        temporal_correlation([1], [0, 1], [1], [0], target=1, starts=[0, 2])
    with pytest.raises(ValueError, match="2 targets need one offset more"):
        temporal_correlation([1], [0, 1], [1, 1], [0, 1], target=1)
    with pytest.raises(ValueError, match="2 targets need as many labels, got 1"):
        temporal_correlation([1], [0, 1, 1], [1, 1], [0], target=1)
    with pytest.raises(ValueError, match="1 behaviours need as many strengths, got 2"):
        temporal_strength([1, 1], [1], [0, 1], [1], target=1, rows=[1])
    with pytest.raises(ValueError, match="no candidate is of the category 7"):
        temporal_correlation([1], [0, 1], [1], [0], target=7)

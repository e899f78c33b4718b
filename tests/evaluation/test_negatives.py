import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dolmen.evaluation import draw_negatives
from dolmen.features import Jagged

ITEM_COUNT = 12
SEEN = st.lists(st.lists(st.integers(0, ITEM_COUNT - 1), max_size=7), min_size=1, max_size=6)


@pytest.mark.property
@settings(max_examples=80, deadline=None)
@given(SEEN, st.integers(1, 5), st.booleans(), st.integers(0, 99))
def test_draws_are_different_unseen_items_and_repeat_with_the_seed(
    seen: list[list[int]], count: int, by_popularity: bool, seed: int
) -> None:
    weights = np.arange(1, ITEM_COUNT + 1) if by_popularity else None

    drawn = draw_negatives(Jagged.from_lists(seen), ITEM_COUNT, count, popularity=weights, seed=seed)

    assert drawn.shape == (len(seen), count)
    for own, row in zip(seen, drawn.tolist(), strict=True):
        assert len(set(row)) == count
        assert not set(row) & set(own)
        assert all(0 <= item < ITEM_COUNT for item in row)
    again = draw_negatives(Jagged.from_lists(seen), ITEM_COUNT, count, popularity=weights, seed=seed)
    assert drawn.tolist() == again.tolist()


def test_every_last_item_can_be_drawn() -> None:
    seen = Jagged.from_lists([list(range(5)), []])

    drawn = draw_negatives(seen, ITEM_COUNT, 7, seed=0)

    assert sorted(drawn[0].tolist()) == list(range(5, ITEM_COUNT))


def test_the_chances_are_those_of_successive_draws() -> None:
    """Two of three items with weights 1, 2 and 3: the chance of each ordered pair by hand, over 30,000 draws."""
    weights, count = np.array([1.0, 2.0, 3.0]), 30_000

    drawn = draw_negatives(Jagged.empty(1), 3, 2, popularity=weights, of=np.zeros(count, dtype=np.int64), seed=1)

    for first in range(3):
        for second in set(range(3)) - {first}:
            chance = weights[first] / 6 * weights[second] / (6 - weights[first])
            found = (drawn == [first, second]).all(axis=1).mean()
            assert abs(found - chance) < 5 * np.sqrt(chance * (1 - chance) / count)  # five standard errors


def test_an_item_of_weight_zero_is_never_drawn() -> None:
    weights = [0.0, 1.0, 1.0, 0.0]

    drawn = draw_negatives(Jagged.from_lists([[]] * 500), 4, 2, popularity=weights, seed=2)

    assert set(drawn.ravel().tolist()) == {1, 2}


@pytest.mark.parametrize(
    ("seen", "count", "weights", "told"),
    [
        ([[], [0, 1]], 3, None, "person 1 has 2 unseen items left to draw from, 3 are wanted"),
        ([[]], 3, [1.0, 0.0, 0.0, 1.0], "person 0 has 2 unseen items left"),
        ([[4]], 1, None, "seen holds places 4 to 4; the catalogue has 4 items"),
        ([[]], 0, None, "count must be at least 1, got 0"),
        ([[]], 1, [1.0], "popularity must be 4 finite numbers"),
        ([[]], 1, [-1.0, 1.0, 1.0, 1.0], "none below 0"),
    ],
)
def test_what_cannot_be_drawn_is_named(
    seen: list[list[int]], count: int, weights: list[float] | None, told: str
) -> None:
    with pytest.raises(ValueError, match=told):
        draw_negatives(Jagged.from_lists(seen), 4, count, popularity=weights, seed=0)

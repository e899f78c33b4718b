"""The policy: a stated chance for new items, and propensities that are exactly what happens."""

from __future__ import annotations

import random
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dolmen.serving.policy import Draw, Pool, compose, draw


def pool_of(rows: list[int]) -> Pool:
    return Pool.of(np.array(rows, dtype=np.int64))


def all_usable(count: int = 40) -> np.ndarray:
    return np.ones(count, dtype=np.bool_)


def test_without_exploration_the_best_stand_in_order() -> None:
    drawn = draw(random.Random(1), pool_of([7]), all_usable(), 3, 0.0)
    places = compose([5, 2, 9, 1], drawn)
    assert [place.row for place in places] == [5, 2, 9]
    assert [place.propensity for place in places] == [1.0, 1.0, 1.0]
    assert not any(place.explored for place in places)


def test_with_exploration_everywhere_the_pool_comes_first_and_then_the_best() -> None:
    drawn = draw(random.Random(1), pool_of([7, 8]), all_usable(), 4, 1.0)
    places = compose([5, 7, 9], drawn)
    assert {place.row for place in places[:2]} == {7, 8}
    assert [place.row for place in places[2:]] == [5, 9]
    assert [place.propensity for place in places] == [0.5, 1.0, 1.0, 1.0]


def test_hidden_items_are_never_drawn() -> None:
    usable = all_usable()
    usable[[7, 8]] = False
    for seed in range(50):
        drawn = draw(random.Random(seed), pool_of([7, 8, 9]), usable, 5, 1.0)
        assert drawn.rows == [9]
        assert drawn.usable_count == 1


@pytest.mark.property
@settings(max_examples=200, deadline=None)
@given(
    seed=st.integers(0, 1 << 30),
    pool=st.sets(st.integers(0, 39)),
    hidden=st.sets(st.integers(0, 39)),
    ranked=st.permutations(range(40)),
    ranked_count=st.integers(0, 40),
    count=st.integers(1, 12),
    share=st.sampled_from([0.0, 0.1, 0.5, 1.0]),
)
def test_a_slate_has_no_item_twice_none_hidden_and_possible_odds(
    seed: int, pool: set[int], hidden: set[int], ranked: list[int], ranked_count: int, count: int, share: float
) -> None:
    usable = all_usable()
    usable[sorted(hidden)] = False
    best = [row for row in ranked[:ranked_count] if row not in hidden]
    drawn = draw(random.Random(seed), pool_of(sorted(pool)), usable, count, share)
    places = compose(best, drawn)
    rows = [place.row for place in places]
    assert len(set(rows)) == len(rows)
    assert not set(rows) & hidden
    assert all(0.0 < place.propensity <= 1.0 + 1e-12 for place in places)
    assert all(place.row in pool for place in places if place.explored)
    assert len(places) >= min(count, len(best))


def test_the_propensity_of_a_place_is_how_often_it_happens() -> None:
    """Over many slates, each (items above, item) comes as often as the propensity that was recorded for it says."""
    pool, ranked, share, rounds = pool_of([1, 5, 6]), [0, 1, 2, 3], 0.4, 40_000
    seen: Counter[tuple[int, ...]] = Counter()
    told: dict[tuple[int, ...], float] = {}
    for seed in range(rounds):
        above: tuple[int, ...] = ()
        for place in compose(ranked, draw(random.Random(seed), pool, all_usable(8), 3, share)):
            seen[above] += 1
            above = (*above, place.row)
            assert told.setdefault(above, place.propensity) == place.propensity
    for path, propensity in told.items():
        chances = seen[path[:-1]]
        happened = seen[path] if len(path) < 3 else None
        if happened is None:
            continue
        deviation = (propensity * (1 - propensity) / chances) ** 0.5
        assert abs(happened / chances - propensity) < 5 * deviation + 1e-9, path
    firsts = {path[0]: propensity for path, propensity in told.items() if len(path) == 1}
    assert sum(firsts.values()) == pytest.approx(1.0)


def test_a_draw_holds_as_many_as_there_are_positions() -> None:
    drawn: Draw = draw(random.Random(3), pool_of(list(range(40))), all_usable(), 6, 0.9)
    assert len(set(drawn.rows)) == 6

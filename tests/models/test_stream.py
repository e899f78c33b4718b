"""What a model remembers of the stream, against lists that forget nothing."""

from collections import deque

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dolmen.features import Batch, Jagged
from dolmen.models.layers.stream import RecentRows, StreamFrequency


def test_one_draw_at_a_time_is_the_algorithm_of_the_paper() -> None:
    # Algorithm 2 of Yi et al.: B <- (1 - alpha) B + alpha (t - A); A <- t. The first gap counts from the beginning.
    alpha, buckets = 0.3, 1 << 20
    frequency = StreamFrequency(buckets, alpha)
    last: dict[int, int] = {}
    gap: dict[int, float] = {}
    draws = np.random.default_rng(0).integers(0, 6, 200).tolist()
    for t, fid in enumerate(draws, start=1):
        frequency.update(torch.tensor([fid]))
        new = t - last.get(fid, 0)
        gap[fid] = new if fid not in gap else (1 - alpha) * gap[fid] + alpha * new
        last[fid] = t
    fids = sorted(gap)
    expected = [-np.log(gap[fid]) for fid in fids]
    np.testing.assert_allclose(frequency.log_chance(torch.tensor(fids)).numpy(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("batch_size", [1, 7, 256])
def test_chances_are_found_whatever_the_size_of_batches(batch_size: int) -> None:
    chances = np.array([0.5, 0.25, 0.15, 0.08, 0.02])
    draws = torch.from_numpy(np.random.default_rng(1).choice(5, 20_000, p=chances))
    frequency = StreamFrequency(1 << 16, 0.01)
    for first in range(0, len(draws), batch_size):
        frequency.update(draws[first : first + batch_size])
    found = frequency.log_chance(torch.arange(5)).exp().numpy()
    # Gaps of chance p spread as widely as they are long; averaged at rate a their error is sqrt(a / 2), 7 %.
    np.testing.assert_allclose(found, chances, rtol=4 * np.sqrt(0.01 / 2))


def test_an_id_that_becomes_common_is_soon_known_as_such() -> None:
    frequency = StreamFrequency(1 << 16, 0.05)
    frequency.update(torch.arange(10_000))
    for _ in range(200):
        frequency.update(torch.tensor([77, 5, 6, 8]))
    assert frequency.log_chance(torch.tensor([77])).exp().item() == pytest.approx(0.25, rel=0.05)


def test_ids_that_share_a_place_read_as_the_rarer_of_their_two_estimates() -> None:
    frequency = StreamFrequency(8, 0.1)
    for _ in range(50):
        frequency.update(torch.arange(64))
    # 64 ids in 8 places: a place is hit every draw in eight, and no id can look rarer than that.
    assert (frequency.log_chance(torch.arange(64)).exp() <= 1).all()
    frequency = StreamFrequency(1 << 16, 0.1)
    frequency.update(torch.arange(9))
    assert frequency.log_chance(torch.tensor([1_000_000])).exp().item() == pytest.approx(1 / 10)


def test_no_draws_change_nothing() -> None:
    frequency = StreamFrequency(16, 0.1)
    frequency.update(torch.empty(0, dtype=torch.int64))
    assert frequency.log_chance(torch.empty(0, dtype=torch.int64)).shape == (0,)
    assert int(frequency.draw_count) == 0


EXAMPLES = st.lists(st.tuples(st.integers(0, 99), st.lists(st.integers(0, 99), max_size=4)), max_size=9)


@pytest.mark.property
@settings(max_examples=80, deadline=None)
@given(st.lists(EXAMPLES, max_size=6), st.integers(1, 7), st.integers(0, 9))
def test_the_ring_holds_the_newest_examples(
    pushes: list[list[tuple[int, list[int]]]], capacity: int, count: int
) -> None:
    width = 2
    ring = RecentRows({"item": 1, "tags": width}, ["price"], capacity)
    expected: deque[tuple[int, tuple[int, ...], float]] = deque(maxlen=capacity)
    for examples in pushes:
        batch = Batch(
            size=len(examples),
            slots={
                "item": Jagged.from_lists([[item] for item, _ in examples]),
                "tags": Jagged.from_lists([tags for _, tags in examples]),
            },
            dense={"price": torch.tensor([float(item) for item, _ in examples])},
        )
        rows = torch.arange(len(examples))[::2]  # some examples only
        ring.push(batch, rows)
        expected.extend((item, tuple(tags[-width:]), float(item)) for item, tags in examples[::2])
    got = ring.spread(count)
    items, tags = got.slot("item").to_lists(), got.slot("tags").to_lists()
    found = [
        (item[0], tuple(some), price)
        for item, some, price in zip(items, tags, got.dense["price"].tolist(), strict=True)
    ]
    assert len(found) == min(count, len(expected))
    left = list(expected)
    for one in found:
        left.remove(one)  # each is there, and none is given twice


def test_the_ring_survives_a_round_trip() -> None:
    ring, twin = RecentRows({"item": 1}, [], 3), RecentRows({"item": 1}, [], 3)
    batch = Batch(size=5, slots={"item": Jagged.single(torch.arange(5))})
    ring.push(batch, torch.tensor([0, 1]))
    twin.load_state_dict(ring.state_dict())
    for each in (ring, twin):
        each.push(batch, torch.tensor([2, 3, 4]))
    assert twin.spread(3).slot("item").to_lists() == ring.spread(3).slot("item").to_lists()
    assert sorted(ring.spread(3).slot("item").values.tolist()) == [2, 3, 4]

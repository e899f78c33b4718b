from dataclasses import replace
from itertools import pairwise, permutations
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from numpy.typing import NDArray

from dolmen import datasets
from dolmen.clock import parse_duration_us
from dolmen.datasets import Dataset, World, WorldConfig
from dolmen.datasets.truth import Truth, drift_correlation
from dolmen.datasets.world import DRIFTING, STEADY
from dolmen.features import values_of

MOVING = WorldConfig(users=300, items=200, drift_half_life="10m", item_lifetime="40m", seed=5)
SIGMAS = 5  # a bound that a right world breaks once in two million checks


def column(dataset: Dataset, name: str) -> NDArray[Any]:
    values = dataset.interactions[name]
    return (values.cast(pa.int64()) if pa.types.is_timestamp(values.type) else values).to_numpy()


def truth_of(world: World, dataset: Dataset) -> NDArray[np.float64]:
    return world.click_probability(*(column(dataset, name) for name in ("user", "item", "event_time", "position")))


def assert_as_frequent(happened: NDArray[Any], chances: NDArray[np.float64]) -> None:
    """The count lies where a sum of independent draws with these chances lies."""
    spread = np.sqrt((chances * (1 - chances)).sum())
    assert abs(happened.sum() - chances.sum()) < SIGMAS * spread


@pytest.mark.parametrize("config", [STEADY, DRIFTING, MOVING], ids=["steady", "drifting", "moving"])
def test_clicks_are_as_frequent_as_the_truth_says(config: WorldConfig) -> None:
    world = World(config)
    dataset = world.dataset(8_000)
    chances, clicked = truth_of(world, dataset), column(dataset, "click")

    edges = np.quantile(chances, np.linspace(0, 1, 21))
    for low, high in pairwise(edges):
        inside = (chances >= low) & (chances <= high)
        assert_as_frequent(clicked[inside], chances[inside])


def test_each_position_is_looked_at_as_often_as_its_curve_says() -> None:
    world = World(replace(STEADY, position_exponent=0.7))
    dataset = world.dataset(8_000)
    position, clicked = column(dataset, "position"), column(dataset, "click")
    attraction = truth_of(world, dataset) / world.examination(position)

    for place in range(STEADY.slate_size):
        here = position == place
        assert_as_frequent(clicked[here], attraction[here] * (place + 1) ** -0.7)
    assert clicked[position == 0].mean() > 2 * clicked[position == 9].mean()


@pytest.mark.parametrize("exponent", [0.0, 0.8, 1.2])
def test_what_is_shown_first_follows_zipfs_law(exponent: float) -> None:
    dataset = World(replace(STEADY, zipf_exponent=exponent)).dataset(20_000)
    first = column(dataset, "item")[column(dataset, "position") == 0]
    ranks = np.arange(1, STEADY.items + 1)
    shares = ranks**-exponent / (ranks**-exponent).sum()

    counts = np.bincount(first, minlength=STEADY.items)
    head = shares * len(first) > 25  # where counts are large enough for a logarithm
    slope = np.polyfit(np.log(ranks[head]), np.log(counts[head]), 1, w=np.sqrt(counts[head]))[0] if exponent else 0.0
    assert slope == pytest.approx(-exponent, abs=0.06)
    for from_rank, to_rank in ((0, 1), (1, 10), (10, 100), (100, 1000)):
        assert_as_frequent(counts[from_rank:to_rank], np.full(len(first), shares[from_rank:to_rank].sum()))


def test_slates_are_drawn_without_replacement_in_proportion_to_what_is_left() -> None:
    odds = np.array([1, 1 / 2, 1 / 3, 1 / 4])
    config = WorldConfig(items=4, slate_size=3, zipf_exponent=1.0)

    slates = column(World(config).dataset(20_000), "item").reshape(-1, 3)

    for order in permutations(range(4), 3):
        left, chance = odds.sum(), 1.0
        for item in order:
            chance *= odds[item] / left
            left -= odds[item]
        assert_as_frequent((slates == order).all(axis=1), np.full(len(slates), chance))


def test_a_slate_as_large_as_the_catalogue_shows_everything_once() -> None:
    config = WorldConfig(items=30, slate_size=30, zipf_exponent=1.5)

    for slate in World(config).slates(200):
        assert sorted(slate.items) == list(range(30))


def test_the_correlation_of_a_drifting_taste_is_that_of_its_formula() -> None:
    for lag in (0.0, 0.3, 0.7, 1.0, 1.4, 2.0, 3.0):
        place = (np.arange(200_000) + 0.5) / 200_000
        start, end = np.floor(place), np.floor(place + lag)
        weight = {0: np.cos(np.pi / 2 * place), 1: np.sin(np.pi / 2 * place)}
        later = {0: np.cos(np.pi / 2 * (place + lag - end)), 1: np.sin(np.pi / 2 * (place + lag - end))}
        mean = sum(
            np.where(start + first == end + second, weight[first] * later[second], 0).mean()
            for first in (0, 1)
            for second in (0, 1)
        )
        assert drift_correlation(lag) == pytest.approx(mean, abs=1e-6)


def test_after_its_half_life_a_taste_or_a_fashion_is_correlated_by_one_half() -> None:
    truth = Truth(WorldConfig(drift_half_life="10m", segment_count=5000, genre_count=5000))
    half_life_us, start_us = parse_duration_us("10m"), STEADY.start_us + 10**12
    people = np.arange(5000)

    def moved(kind: str, by_us: float) -> float:
        now, then = (np.array([start_us + at]) for at in (0, int(by_us)))
        if kind == "fashion":
            return float(np.mean(truth.fashions(now) * truth.fashions(then)))
        return float(np.mean(truth.tastes(people, now) * truth.tastes(people, then)))

    for kind, draws in (("taste", 5000 * 8), ("fashion", 5000)):
        # A product of two standard normals has at most variance 2.
        assert moved(kind, 0) == pytest.approx(1, abs=SIGMAS * np.sqrt(2 / draws))
        assert moved(kind, half_life_us) == pytest.approx(0.5, abs=SIGMAS * np.sqrt(2 / draws))
        assert moved(kind, 4 * half_life_us) == pytest.approx(0, abs=SIGMAS * np.sqrt(2 / draws))


def test_tastes_of_a_steady_world_never_change() -> None:
    world = World(STEADY)
    later_us = STEADY.start_us + parse_duration_us("300d")

    assert world.click_probability(3, 4, STEADY.start_us) == world.click_probability(3, 4, later_us)
    assert world.items_at(later_us).tolist() == list(range(STEADY.items))


def test_drift_is_smooth() -> None:
    world = World(replace(MOVING, item_lifetime=None))
    times_us = MOVING.start_us + np.arange(0, parse_duration_us("1h"), parse_duration_us("1s"))

    chances = world.click_probability(3, 4, times_us)

    assert np.abs(np.diff(chances)).max() < 0.01
    assert np.ptp(chances) > 0.05


@pytest.mark.parametrize(("after", "share"), [("10m", 0.25), ("20m", 0.5), ("40m", 1.0), ("400m", 1.0)])
def test_the_catalogue_is_renewed_evenly_within_one_lifetime(after: str, share: float) -> None:
    config = replace(MOVING, items=2000)
    world, start_us = World(config), MOVING.start_us + 123

    gone = ~np.isin(world.items_at(start_us), world.items_at(start_us + parse_duration_us(after)))

    assert gone.mean() == pytest.approx(share, abs=SIGMAS * np.sqrt(share * (1 - share) / 2000) + 1e-9)


def test_only_items_that_are_there_are_shown() -> None:
    world = World(MOVING)
    dataset = world.dataset(5_000)
    rows = pc.index_in(dataset.interactions["item"].combine_chunks(), value_set=dataset.items["id"].combine_chunks())
    came = dataset.items["available_from_us"].take(rows).to_numpy()
    left = pc.fill_null(dataset.items["available_until_us"].take(rows), 2**62).to_numpy()
    shown = column(dataset, "event_time")

    assert rows.null_count == 0
    assert ((came <= shown) & (shown < left)).all()
    assert dataset.items.num_rows == pytest.approx(MOVING.items * (1 + 5_000 / parse_duration_us("40m") * 1e6), rel=0.1)
    for slate in list(world.slates(50)):
        assert set(slate.items) <= set(world.items_at(slate.time_us).tolist())


def test_clicks_arrive_after_a_log_normal_delay() -> None:
    config = replace(STEADY, delay_median="4s", delay_sigma=1.5)
    dataset = World(config).dataset(8_000)
    delays_us = column(dataset, "action_time") - column(dataset, "event_time")
    logs = np.log(delays_us[column(dataset, "click") == 1] / parse_duration_us("4s"))

    assert len(logs) > 5_000
    assert logs.mean() == pytest.approx(0, abs=SIGMAS * 1.5 / np.sqrt(len(logs)))
    assert logs.std() == pytest.approx(1.5, abs=SIGMAS * 1.5 / np.sqrt(2 * len(logs)))
    assert dataset.interactions["action_time"].null_count == (column(dataset, "click") == 0).sum()


def test_people_come_by_their_activity_and_slates_at_their_rate() -> None:
    config = replace(STEADY, users=100, activity_exponent=1.0, slates_per_second=50.0)
    slates = list(World(config).slates(10_000))
    shares = 1 / np.arange(1, 101) / (1 / np.arange(1, 101)).sum()

    visits = np.bincount([int(slate.user) for slate in slates], minlength=100)
    for person in (0, 1, 9, 99):
        assert_as_frequent(visits[person], np.full(len(slates), shares[person]))
    times_us = [slate.time_us for slate in slates]
    assert times_us == sorted(times_us)
    assert (times_us[-1] - config.start_us) / 1e6 == pytest.approx(10_000 / 50, rel=0.05)


def test_over_many_worlds_the_base_click_rate_is_kept() -> None:
    rates = []
    for seed in range(150):
        world = World(replace(STEADY, base_click_rate=0.1, items=50, seed=seed))
        rates.append(world.click_probability(np.arange(50), np.arange(50), STEADY.start_us).mean())

    assert np.mean(rates) == pytest.approx(0.1, abs=SIGMAS * np.std(rates) / np.sqrt(len(rates)))


@pytest.mark.parametrize("name", ["quality_strength", "fashion_strength", "taste_strength"])
def test_strengths_are_the_spreads_of_what_they_name(name: str) -> None:
    no_other: dict[str, Any] = {"quality_strength": 0, "fashion_strength": 0, "taste_strength": 0}
    truth = Truth(WorldConfig(**{**no_other, name: 1.5}, genre_count=1000, segment_share=0.0))
    # Items that share a genre share its fashion, so the count of independent draws is the count of genres.
    one_of_each, count = np.arange(1000), 1000

    logits = truth.logits(one_of_each, one_of_each, np.full(count, STEADY.start_us)) - truth.intercept

    assert logits.mean() == pytest.approx(0, abs=SIGMAS * 1.5 / np.sqrt(count))
    assert logits.std() == pytest.approx(1.5, abs=SIGMAS * 1.5 / np.sqrt(2 * count))


def test_a_simulated_data_set_cannot_be_called_real() -> None:
    with pytest.raises(ValueError, match="must have simulated=True"):
        World().dataset(1, replace(datasets.describe("world"), simulated=False))


@pytest.mark.parametrize("name", ["world", "world-drifting"])
def test_worlds_are_loaded_by_name_and_say_that_they_are_simulated(name: str) -> None:
    dataset = datasets.load(name)

    assert dataset.info == datasets.describe(name)
    assert dataset.info.simulated
    assert "SIMULATED" in repr(dataset)
    assert len(dataset) == 100_000
    batch = next(iter(dataset.batches(256)))
    assert set(batch.slots) == {"user", "item", "genres", "segment", "history", "history_genres"}
    assert values_of(batch.slot("item").values.numpy()).tolist() == column(dataset, "item")[:256].tolist()


def test_the_same_seed_repeats_a_world_and_another_seed_makes_another() -> None:
    first, again = World(MOVING).dataset(1500), World(MOVING).dataset(1500)
    other = World(replace(MOVING, seed=6)).dataset(1500)

    assert first.interactions.equals(again.interactions)
    assert first.items.equals(again.items)
    assert first.users.equals(again.users)
    for name in ("user", "item", "event_time", "click"):
        assert not first.interactions[name].equals(other.interactions[name])
    assert not first.items["genres"].slice(0, 200).equals(other.items["genres"].slice(0, 200))
    assert not first.users["segment"].equals(other.users["segment"])


@pytest.mark.parametrize("count", [0, 1, 1023, 1024, 1025, 2500])
def test_a_longer_log_starts_with_a_shorter_one(count: int) -> None:
    world = World(MOVING)
    longest = list(world.slates(2500))

    assert list(world.slates(count)) == longest[:count]
    assert list(world.dataset(count).slates()) == longest[:count]


def test_a_person_asked_again_answers_as_in_the_log() -> None:
    world = World(MOVING)

    for slate in world.slates(300):
        answers = world.respond(int(slate.user), slate.items, slate.time_us)
        assert answers.clicked.tolist() == slate.clicked
        assert answers.delays_us.tolist() == slate.delays_us


def test_standing_still_costs_much_where_the_world_drifts_and_nothing_where_it_does_not() -> None:
    drifting, steady = World(DRIFTING).margin(6_000), World(STEADY).margin(6_000)

    assert drifting.oracle_auc - drifting.frozen_auc > 0.1
    assert steady.oracle_auc == steady.frozen_auc > 0.75


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"users": 0}, "WorldConfig.users must be at least 1, got 0"),
        ({"slate_size": 11, "items": 10}, "WorldConfig.slate_size 11 is more than the 10 items"),
        ({"zipf_exponent": -0.1}, "WorldConfig.zipf_exponent must be at least 0, got -0.1"),
        ({"delay_sigma": float("nan")}, "WorldConfig.delay_sigma must be at least 0, got nan"),
        ({"base_click_rate": 1.0}, "WorldConfig.base_click_rate must be between 0 and 1, got 1.0"),
        ({"genre_share": 1.5}, "WorldConfig.genre_share must be between 0 and 1, got 1.5"),
        ({"slates_per_second": 0.0}, "WorldConfig.slates_per_second must be above 0, got 0.0"),
        ({"drift_half_life": "soon"}, "WorldConfig.drift_half_life: a duration is a number"),
        ({"item_lifetime": "0s"}, "WorldConfig.item_lifetime must be longer than 0"),
    ],
)
def test_a_config_out_of_range_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(STEADY, **change)


def test_its_repr_tells_what_differs_from_a_steady_world() -> None:
    assert repr(World()) == "World(SIMULATED: steady)"
    assert repr(World(replace(STEADY, seed=3))) == "World(SIMULATED: seed=3)"

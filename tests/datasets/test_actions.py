"""Data sets of actions only: order without times, protocols, negatives, sequences; each against its naive twin."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dolmen.datasets import Dataset, DatasetInfo, Negatives, Order
from dolmen.datasets.actions import action_dataset
from dolmen.errors import DataError
from dolmen.evaluation import GivenSplit, LeaveOneOut, PeopleSplit, PersonRatio, SplitRule, TemporalSplit
from dolmen.features import Batch, Label, Schema, Side, Slot, values_of

HISTORY_MAX, ITEM_COUNT = 4, 12
SCHEMA = Schema(
    Slot("user"),
    Slot("item"),
    Slot("history", table="item", many=True, ordered=True, max_len=HISTORY_MAX, of=Side.USER),
    Label("click"),
)
PLAIN = Schema(Slot("user"), Slot("item"), Label("click"))
INFO = DatasetInfo(
    name="tiny", title="Tiny", summary="", source_url="", citation="", terms="", terms_url="", simulated=True
)
ACTIONS = st.lists(st.tuples(st.integers(0, 3), st.integers(0, ITEM_COUNT - 4)), min_size=1, max_size=30)
Actions = list[tuple[int, int]]


def dataset_of(actions: Actions, order: Order = Order.PERSON, rule: SplitRule | None = None, **more: Any) -> Dataset:
    user, item = (np.array(column, dtype=np.int64) for column in zip(*actions, strict=True))
    items = pa.table({"id": np.arange(ITEM_COUNT)})
    return action_dataset(INFO, SCHEMA, user, item, items=items, order=order, rule=rule or LeaveOneOut(), **more)


def raw(batches: Any, slot: str) -> list[list[int]]:
    every: list[Batch] = list(batches)
    return [values_of(np.array(row, dtype=np.int64)).tolist() for one in every for row in one.slot(slot).to_lists()]


@pytest.mark.property
@settings(max_examples=60, deadline=None)
@given(ACTIONS, st.sampled_from([Order.LOG, Order.PERSON]), st.integers(1, 7))
def test_histories_are_all_of_the_persons_rows_before(actions: Actions, order: Order, batch_size: int) -> None:
    expected = [
        [item for who, item in actions[:row] if who == person][-HISTORY_MAX:] for row, (person, _) in enumerate(actions)
    ]

    assert raw(dataset_of(actions, order).batches(batch_size), "history") == expected


@pytest.mark.property
@settings(max_examples=20, deadline=None)
@given(ACTIONS)
def test_a_history_may_tell_what_was_noted_with_each_action(actions: Actions) -> None:
    schema = Schema(
        *SCHEMA.slots.values(),
        Slot("day", of=Side.ITEM),
        Slot("history_day", table="day", many=True, ordered=True, max_len=HISTORY_MAX, of=Side.USER),
        Label("click"),
    )
    plain = dataset_of(actions, day=np.arange(len(actions)))

    expected = [
        [before for before in range(row) if actions[before][0] == person][-HISTORY_MAX:]
        for row, (person, _) in enumerate(actions)
    ]
    assert raw(plain.batches(9, schema=schema), "history_day") == expected
    more = plain.with_negatives(1).batches(9, schema=schema)  # what was sampled has no day, and the same history
    assert raw(more, "history_day") == [one for one in expected for _ in range(2)]


def test_actions_of_one_day_stand_in_the_order_of_rows() -> None:
    """Times that are days are too coarse to say what came before; the order of rows is what the papers use."""
    day = pa.array([0, 0, 0], pa.timestamp("us", tz="UTC"))
    actions = [(0, 5), (0, 6), (0, 7)]

    assert raw(dataset_of(actions, Order.LOG, event_time=day).batches(9), "history") == [[], [5], [5, 6]]
    assert raw(dataset_of(actions, Order.TIME, event_time=day).batches(9), "history") == [[], [], []]


@pytest.mark.property
@settings(max_examples=60, deadline=None)
@given(ACTIONS)
def test_leave_one_out_asks_for_the_last_item_with_all_before_it(actions: Actions) -> None:
    dataset = dataset_of(actions)

    users, items, histories = (raw(dataset.batches(5, "test"), slot) for slot in ("user", "item", "history"))

    own = {person: [item for who, item in actions if who == person] for person, _ in actions}
    expected = [([person], mine[-1:], mine[:-1][-HISTORY_MAX:]) for person, mine in own.items() if len(mine) >= 3]
    assert sorted(zip(users, items, histories, strict=True)) == sorted(expected)


@pytest.mark.property
@settings(max_examples=25, deadline=None)
@given(ACTIONS, st.integers(1, 3), st.sampled_from(Negatives), st.integers(0, 9))
def test_negatives_stand_beside_their_positive_and_change_nothing_else(
    actions: Actions, count: int, by: Negatives, seed: int
) -> None:
    if by is Negatives.POPULARITY:  # a handful of people who know everything that anybody knows leaves nothing to draw
        actions = [*actions, *((person + 10, item) for person, item in enumerate(range(ITEM_COUNT)))]
    plain = dataset_of(actions)

    more = plain.with_negatives(count, by=by, seed=seed)

    rows = more.interactions.to_pylist()
    assert [(row["user"], row["item"]) for row in rows if row["click"]] == actions
    for place, (person, item) in enumerate(actions):
        slate = rows[place * (count + 1) : (place + 1) * (count + 1)]
        assert [row["slate"] for row in slate] == [place] * (count + 1)
        assert [row["position"] for row in slate] == list(range(count + 1))
        assert (slate[0]["item"], slate[0]["click"]) == (item, 1)
        drawn = [row["item"] for row in slate[1:]]
        assert len(set(drawn)) == count
        assert not set(drawn) & {other for who, other in actions if who == person}
        assert all(row["click"] == 0 and row["action_time"] is None and row["user"] == person for row in slate[1:])
    for split in ("train", "validation", "test"):
        assert len(more.rows(split)) == (count + 1) * len(plain.rows(split))
        histories = raw(plain.batches(8, split), "history")
        assert raw(more.batches(8, split), "history") == [one for one in histories for _ in range(count + 1)]
    assert more.interactions.equals(plain.with_negatives(count, by=by, seed=seed).interactions)


def test_negatives_leave_other_columns_empty_and_keep_their_types() -> None:
    dataset = dataset_of([(0, 1), (1, 2)], rating=pa.array([5, 4], pa.int8()))

    more = dataset.with_negatives(1)

    assert more.interactions["rating"].to_pylist() == [5, None, 4, None]
    assert more.interactions.schema == dataset.interactions.schema


@pytest.mark.property
@settings(max_examples=60, deadline=None)
@given(ACTIONS, st.lists(st.sampled_from(["train", "validation", "test"]), unique=True))
def test_sequences_are_what_each_person_did_in_the_splits(actions: Actions, splits: list[str]) -> None:
    dataset = dataset_of(actions)
    rows = sorted(row for split in splits for row in dataset.rows(split)) if splits else range(len(actions))
    expected: dict[int, list[int]] = {}
    for row in rows:
        expected.setdefault(actions[row][0], []).append(actions[row][1])

    table = dataset.sequences(*splits)

    assert dict(zip(table["user"].to_pylist(), table["item"].to_pylist(), strict=True)) == expected
    assert table.column_names == ["user", "item"]


def windows_naively(sequence: list[int], max_len: int, stride: int) -> list[list[int]]:
    """From the end back by the stride while a whole window fits, then the one from the start; first one first."""
    ends, end = [], len(sequence)
    while end > max_len:
        ends.append(end)
        end -= stride
    ends.append(min(max_len, len(sequence)))
    return [sequence[max(0, end - max_len) : end] for end in reversed(ends)]


@pytest.mark.property
@settings(max_examples=80, deadline=None)
@given(ACTIONS, st.integers(1, 6), st.integers(1, 6), st.integers(1, 3))
def test_whole_sequences_are_cut_into_windows(actions: Actions, max_len: int, stride: int, length_min: int) -> None:
    wide = Schema(Slot("user"), Slot("item"), Slot("history", table="item", many=True, ordered=True, of=Side.USER))
    batches = dataset_of(actions).sequence_batches(
        3, max_len=max_len, stride=stride, length_min=length_min, schema=wide
    )

    expected = [
        (person, window)
        for person in dict.fromkeys(who for who, _ in actions)
        for window in windows_naively([item for who, item in actions if who == person], max_len, stride)
        if len(window) >= length_min
    ]
    assert batches.example_count == len(expected)
    assert raw(batches, "history") == [window[:-1] for _, window in expected]
    assert raw(batches, "user") == [[person] for person, _ in expected]
    assert raw(batches, "item") == [window[-1:] for _, window in expected]


def test_a_training_sequence_holds_nothing_that_validates_or_tests() -> None:
    dataset = dataset_of([(0, 1), (0, 2), (0, 3), (0, 4), (1, 5), (1, 6)])

    assert raw(dataset.sequence_batches(9, "train", max_len=10), "history") == [[1], [5]]
    assert raw(dataset.sequence_batches(9, "train", max_len=10), "item") == [[2], [6]]
    assert raw(dataset.sequence_batches(9, "train", "validation", max_len=10), "history") == [[1, 2], [5]]
    assert raw(dataset.batches(9, "test"), "history") == [[1, 2, 3]]


@pytest.mark.parametrize(
    ("order", "rule", "told"),
    [
        (Order.NONE, LeaveOneOut(), r"tiny: LeaveOneOut\(.*\) needs the order of slates"),
        (Order.NONE, PersonRatio(), "needs the order of slates"),
        (Order.PERSON, TemporalSplit(), "needs the time of slates"),
        (Order.TIME, TemporalSplit(), "order 'time' needs event times"),
    ],
)
def test_a_rule_that_needs_what_is_not_known_is_refused(order: Order, rule: SplitRule, told: str) -> None:
    with pytest.raises(DataError, match=told):
        dataset_of([(0, 1)], order, rule)


def test_pairs_without_order_have_splits_and_batches_but_no_histories() -> None:
    dataset = dataset_of([(0, item) for item in range(8)], Order.NONE, PersonRatio(0.5, 0.25, seed=1))

    assert [len(dataset.rows(split)) for split in ("train", "validation", "test")] == [4, 2, 2]
    assert dataset.with_rule(PeopleSplit(1.0, 0.0)).batches(3, "train", schema=PLAIN).example_count == 8
    for ask in (
        lambda: list(dataset.batches(3)),
        lambda: dataset.sequences("train"),
        lambda: dataset.sequence_batches(3, max_len=2),
    ):
        with pytest.raises(DataError, match="tells no order of actions"):
            ask()
    with pytest.raises(DataError, match="tells no times, so there is nothing to replay"):
        list(dataset.slates())


def test_what_the_source_split_is_kept_and_the_rest_left_out() -> None:
    parts = np.array([0, 1, 2, -1], dtype=np.int8)
    dataset = dataset_of([(0, 1), (0, 2), (0, 3), (0, 4)], rule=GivenSplit(parts))

    assert [dataset.rows(split).tolist() for split in ("train", "validation", "test")] == [[0], [1], [2]]
    assert dataset.rows().tolist() == [0, 1, 2, 3]


def test_times_are_known_of_all_rows_or_of_none() -> None:
    times = pa.array([0, None], pa.timestamp("us", tz="UTC"))

    with pytest.raises(DataError, match="event_time is null in 1 rows; it must be in all or none"):
        dataset_of([(0, 1), (0, 2)], event_time=times)


def test_an_item_outside_the_catalogue_cannot_be_kept_from_the_negatives() -> None:
    with pytest.raises(DataError, match="item 99 of the interactions is not in the table of items"):
        dataset_of([(0, 99)]).with_negatives(1)


@pytest.mark.parametrize("name", ["batch_size", "max_len", "stride", "length_min"])
def test_numbers_below_one_are_refused(name: str) -> None:
    options = {"batch_size": 1, "max_len": 1, "stride": 1, "length_min": 1, name: 0}

    with pytest.raises(ValueError, match=f"{name} must be at least 1, got 0"):
        dataset_of([(0, 1)]).sequence_batches(**options)

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dolmen.datasets import Dataset, DatasetInfo, Slate, Split
from dolmen.errors import DataError, SchemaError
from dolmen.features import Batch, Label, Schema, Side, Slot, encode_values, values_of

HISTORY_MAX = 3
SCHEMA = Schema(
    Slot("user"),
    Slot("item"),
    Slot("genres", many=True, of=Side.ITEM),
    Slot("age", of=Side.USER),
    Slot("shade", of=Side.ITEM),
    Slot("history", table="item", many=True, ordered=True, max_len=HISTORY_MAX, of=Side.USER),
    Slot("history_genres", table="genres", many=True, ordered=True, max_len=HISTORY_MAX, of=Side.USER),
    Slot("history_shades", table="shade", many=True, ordered=True, max_len=HISTORY_MAX, of=Side.USER),
    Label("click"),
)
INFO = DatasetInfo(
    name="tiny", title="Tiny", summary="", source_url="", citation="", terms="", terms_url="", simulated=True
)
USER_COUNT, ITEM_COUNT = 3, 6
GENRES = [["g0"], ["g1"], [], ["g0", "g2"], None, ["g1"]]
SHADES = [7, None, 9, 7, 8, None]
INSTANT = pa.timestamp("us", tz="UTC")


@dataclass(frozen=True)
class Shown:
    """A slate as the tests write it down: for each item, how long until the click, or ``None``."""

    user: int
    time_us: int
    answers: tuple[tuple[int, int | None], ...]


def dataset_of(slates: list[Shown]) -> Dataset:
    rows: list[dict[str, Any]] = [
        {
            "user": slate.user,
            "item": item,
            "slate": number,
            "position": position,
            "event_time": slate.time_us,
            "action_time": None if delay is None else slate.time_us + delay,
            "click": int(delay is not None),
        }
        for number, slate in enumerate(slates)
        for position, (item, delay) in enumerate(slate.answers)
    ]
    columns = {
        "user": pa.int64(),
        "item": pa.int64(),
        "slate": pa.int64(),
        "position": pa.int16(),
        "event_time": INSTANT,
        "action_time": INSTANT,
        "click": pa.int8(),
    }
    interactions = pa.table({name: pa.array([row[name] for row in rows], kind) for name, kind in columns.items()})
    items = pa.table(
        {
            "id": list(range(ITEM_COUNT)),
            "genres": [GENRES[item] for item in range(ITEM_COUNT)],
            "shade": [SHADES[item] for item in range(ITEM_COUNT)],
        }
    )
    users = pa.table({"id": list(range(USER_COUNT)), "age": [20 + user for user in range(USER_COUNT)]})
    return Dataset(INFO, SCHEMA, items, users, interactions)


answers = st.tuples(st.integers(0, ITEM_COUNT - 1), st.none() | st.integers(0, 6))
shown = st.builds(
    Shown, st.integers(0, USER_COUNT - 1), st.integers(0, 12), st.lists(answers, min_size=1, max_size=4).map(tuple)
)
logs = st.lists(shown, min_size=1, max_size=12).map(lambda slates: sorted(slates, key=lambda slate: slate.time_us))


def histories_naively(slates: list[Shown]) -> list[list[int]]:
    """One list an impression: the items whose click came strictly before the slate, oldest first."""
    clicks: dict[int, list[tuple[int, int, int]]] = defaultdict(list)
    place = 0
    for slate in slates:
        for item, delay in slate.answers:
            if delay is not None:
                clicks[slate.user].append((slate.time_us + delay, place, item))
            place += 1
    return [
        [item for at, _, item in sorted(clicks[slate.user]) if at < slate.time_us][-HISTORY_MAX:]
        for slate in slates
        for _ in slate.answers
    ]


def history_of(batches: list[Batch]) -> list[list[int]]:
    return [
        values_of(np.array(fids, dtype=np.int64)).tolist() for b in batches for fids in b.slot("history").to_lists()
    ]


@pytest.mark.property
@settings(max_examples=80, deadline=None)
@given(logs, st.integers(1, 7))
def test_histories_are_those_of_the_naive_twin(slates: list[Shown], batch_size: int) -> None:
    batches = list(dataset_of(slates).batches(batch_size))

    histories = histories_naively(slates)
    assert history_of(batches) == histories
    for name, told in (("genres", GENRES), ("shade", [None if one is None else [one] for one in SHADES])):
        number, slot = SCHEMA.slot_number(name), f"history_{name}{'s' if name == 'shade' else ''}"
        assert [fids for batch in batches for fids in batch.slot(slot).to_lists()] == [
            encode_values(number, [one for item in history for one in told[item] or ()]).tolist()[-HISTORY_MAX:]
            for history in histories
        ]


@pytest.mark.property
@settings(max_examples=60, deadline=None)
@given(logs, logs, st.integers(0, 12))
def test_another_future_leaves_the_examples_of_the_past_as_they_are(
    past: list[Shown], other_future: list[Shown], now_us: int
) -> None:
    before = [slate for slate in past if slate.time_us < now_us]
    after = [slate for slate in past if slate.time_us >= now_us]
    changed = [Shown(slate.user, slate.time_us + now_us, slate.answers) for slate in other_future]
    count = sum(len(slate.answers) for slate in before)

    first, second = dataset_of(before + after), dataset_of(before + changed)

    assert history_of(list(first.batches(1000)))[:count] == history_of(list(second.batches(1000)))[:count]


@pytest.mark.property
@settings(max_examples=60, deadline=None)
@given(logs)
def test_slates_give_back_what_was_shown(slates: list[Shown]) -> None:
    expected = [
        Slate(
            slate.user,
            slate.time_us,
            [item for item, _ in slate.answers],
            [delay is not None for _, delay in slate.answers],
            [delay or 0 for _, delay in slate.answers],
        )
        for slate in slates
    ]

    assert list(dataset_of(slates).slates()) == expected


@pytest.mark.property
@settings(max_examples=60, deadline=None)
@given(logs)
def test_splits_follow_each_other_in_time_and_leave_nothing_out(slates: list[Shown]) -> None:
    dataset = dataset_of(slates)
    parts = [list(dataset.slates(split)) for split in (Split.TRAIN, Split.VALIDATION, Split.TEST)]

    assert [slate for part in parts for slate in part] == list(dataset.slates())
    assert sum(dataset.batches(2, split).example_count for split in ("train", "validation", "test")) == len(dataset)


SLATES = [
    Shown(0, 10, ((1, 5), (2, None))),
    Shown(1, 11, ((3, 0),)),
    Shown(0, 15, ((4, None),)),
    Shown(0, 16, ((5, 1), (0, None), (1, None))),
]


def test_a_click_at_the_very_instant_of_a_slate_is_not_in_its_history() -> None:
    assert history_of(list(dataset_of(SLATES).batches(10))) == [[], [], [], [], [1], [1], [1]]


def test_attributes_are_joined_to_each_example() -> None:
    (batch,) = dataset_of(SLATES).batches(100)
    alone = Schema(Slot("genres", many=True))

    assert values_of(batch.slot("age").values.numpy()).tolist() == [20, 20, 21, 20, 20, 20, 20]
    told = [GENRES[item] or [] for item in (1, 2, 3, 4, 5, 0, 1)]
    assert batch.slot("genres").to_lists() == [
        encode_values(SCHEMA.slot_number("genres"), one).tolist() for one in told
    ]
    assert len(next(iter(dataset_of(SLATES).batches(100, schema=alone))).slots) == 1
    assert batch.event_times_us.tolist() == [10, 10, 11, 15, 16, 16, 16]
    assert batch.labels["click"].tolist() == [1, 0, 1, 0, 1, 0, 0]


def test_an_item_outside_the_catalogue_has_empty_attributes() -> None:
    dataset = dataset_of([Shown(0, 1, ((ITEM_COUNT + 7, None),))])

    (batch,) = dataset.batches(1)

    assert batch.slot("genres").to_lists() == [[]]
    assert values_of(batch.slot("item").values.numpy()).tolist() == [ITEM_COUNT + 7]


def test_batches_can_be_iterated_again_and_count_themselves() -> None:
    batches = dataset_of(SLATES).batches(3)

    assert len(batches) == 3
    assert [batch.size for batch in batches] == [batch.size for batch in batches] == [3, 3, 1]


def test_shuffled_batches_hold_the_same_examples_in_an_order_that_repeats_with_the_seed() -> None:
    def items(batch_list: list[Batch]) -> list[int]:
        return [int(fid) for batch in batch_list for fid in batch.slot("item").values]

    dataset = dataset_of([Shown(0, time, ((time % ITEM_COUNT, None),)) for time in range(50)])
    first, again = dataset.batches(7, shuffle_seed=1), dataset.batches(7, shuffle_seed=1)

    epochs = [items(list(first)) for _ in range(2)]

    assert epochs == [items(list(again)) for _ in range(2)]
    assert epochs[0] != epochs[1]
    assert sorted(epochs[0]) == sorted(epochs[1]) == sorted(items(list(dataset.batches(7))))


def test_a_field_that_is_nowhere_is_named() -> None:
    with pytest.raises(SchemaError, match=r"no column 'colour'; it has action_time, age, click"):
        list(dataset_of(SLATES).batches(1, schema=Schema(Slot("colour"))))


def test_a_batch_size_of_zero_is_refused() -> None:
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        dataset_of(SLATES).batches(0)


def test_its_repr_says_that_it_is_simulated() -> None:
    assert repr(dataset_of(SLATES)) == "Dataset('tiny', SIMULATED: 3 users, 6 items, 7 interactions in 4 slates)"


def test_a_data_set_without_interactions_has_no_slates() -> None:
    dataset = dataset_of([])

    assert (len(dataset), dataset.slate_count, list(dataset.slates()), list(dataset.batches(4))) == (0, 0, [], [])


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        ("slate", pa.array([0, 0, 2, 3, 4, 4, 4]), "slate must count up from 0"),
        ("event_time", pa.array([9, 9, 8, 10, 11, 11, 11], INSTANT), "in order of event_time"),
        ("action_time", pa.nulls(7, INSTANT), "click = 1 need an action_time"),
        ("event_time", pa.array([1] * 7), "event_time must be timestamp"),
    ],
)
def test_tables_that_contradict_themselves_are_refused(column: str, values: pa.Array, message: str) -> None:
    good = dataset_of(SLATES)
    table = good.interactions
    changed = table.set_column(table.column_names.index(column), column, values)

    with pytest.raises(DataError, match=message):
        Dataset(INFO, SCHEMA, good.items, good.users, changed)


@pytest.mark.parametrize("column", ["user", "position", "click"])
def test_a_missing_column_is_named(column: str) -> None:
    good = dataset_of(SLATES)

    with pytest.raises(DataError, match=f"needs a column '{column}'"):
        Dataset(INFO, SCHEMA, good.items, good.users, good.interactions.drop_columns([column]))
    with pytest.raises(DataError, match="'users' needs a column 'id'"):
        Dataset(INFO, SCHEMA, good.items, good.users.drop_columns(["id"]), good.interactions)


def test_what_is_no_rule_is_refused_with_those_that_there_are() -> None:
    rule: Any = "x"
    with pytest.raises(TypeError, match=r"rule must be one of dolmen\.evaluation, such as TemporalSplit\(\), got 'x'"):
        dataset_of([]).with_rule(rule)

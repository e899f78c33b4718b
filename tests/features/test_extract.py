"""Raw values to batches: from rows and from Arrow the same, and errors that name row, field, value and mend."""

import csv
import io
import math
from collections import UserDict
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dolmen.errors import SchemaError
from dolmen.features import (
    Batch,
    Dense,
    Label,
    Schema,
    Side,
    Slot,
    encode_values,
    extract_rows,
    extract_side,
    extract_table,
    extract_usable,
)
from dolmen.features.attributes import Described

SCHEMA = Schema(
    Slot("user"),
    Slot("item"),
    Slot("tags", many=True),
    Slot("history", table="item", many=True, ordered=True, max_len=3),
    Dense("hour", default=0.5),
    Label("click"),
)
TYPES = {
    "user": pa.string(),
    "item": pa.int64(),
    "tags": pa.list_(pa.string()),
    "history": pa.large_list(pa.int64()),
    "hour": pa.float64(),
    "click": pa.int8(),
}
NUMBERS = st.floats(-1e6, 1e6, width=32)
ROW = st.fixed_dictionaries(
    {
        "user": st.none() | st.text(st.characters(codec="utf-8"), max_size=5),
        "item": st.none() | st.integers(-(2**63), 2**63 - 1),
        "tags": st.none() | st.lists(st.text(st.characters(codec="utf-8"), max_size=3), max_size=4),
        "history": st.none() | st.lists(st.integers(0, 99), max_size=6),
        "hour": st.none() | NUMBERS,
        "click": st.integers(0, 1),
    }
)


def table_of(rows: list[dict[str, Any]]) -> pa.Table:
    return pa.table({name: pa.array([row[name] for row in rows], kind) for name, kind in TYPES.items()})


@pytest.mark.property
@settings(deadline=None)
@given(st.lists(ROW, max_size=8), st.integers(0, 3))
def test_rows_and_tables_give_the_same_batch(rows: list[dict[str, Any]], cut: int) -> None:
    table = table_of(rows)
    # Chunks and slices are how Arrow columns come in practice.
    table = pa.concat_tables([table.slice(0, cut), table.slice(cut)])
    one, other = extract_rows(SCHEMA, rows, with_labels=True), extract_table(SCHEMA, table)
    for name, slot in SCHEMA.slots.items():
        values = [row[name] for row in rows]
        lists = [[] if value is None else value if slot.many else [value] for value in values]
        kept = [some[-slot.max_len :] if slot.max_len else some for some in lists]
        expected = [encode_values(SCHEMA.slot_number(name), some).tolist() for some in kept]
        assert one.slot(name).to_lists() == other.slot(name).to_lists() == expected
    hours = [0.5 if row["hour"] is None else row["hour"] for row in rows]
    assert one.dense["hour"].tolist() == other.dense["hour"].tolist() == hours
    assert one.labels["click"].tolist() == other.labels["click"].tolist() == [row["click"] for row in rows]


def test_only_what_is_asked_for_is_read() -> None:
    rows = [{"user": "u", "item": 1, "tags": [], "history": [], "hour": 3.0, "click": 1}]
    for batch in (
        extract_rows(SCHEMA, rows, slots=["item"], dense=[]),
        extract_table(SCHEMA, table_of(rows), slots=["item"], dense=[], with_labels=False),
    ):
        assert list(batch.slots) == ["item"]
        assert batch.dense == {}
        assert batch.labels == {}
    assert extract_table(SCHEMA, table_of(rows).select(["item"]), slots=["item"], with_labels=False).dense[
        "hour"
    ].tolist() == [0.5]


def test_what_is_missing_or_unknown_in_a_row_is_no_error() -> None:
    batch = extract_rows(SCHEMA, [{"colour": "red"}])
    assert all(batch.slot(name).to_lists() == [[]] for name in SCHEMA.slots)
    assert batch.dense["hour"].tolist() == [0.5]
    assert extract_rows(SCHEMA, []).size == 0


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"user": 1.5}, r"row 1: user has the value 1.5 \(float\); send an integer or a string"),
        ({"user": True}, r"row 1: user has the value True \(bool\); send an integer or a string"),
        (
            {"user": ["a"]},
            r"row 1: user takes one value, got a list of 1; send one value, or declare Slot\('user', many",
        ),
        ({"tags": "a"}, r"row 1: tags takes a list of values, got 'a'; send \['a'\]"),
        ({"tags": ["a", None]}, r"row 1: tags has the value None \(NoneType\)"),
        ({"tags": [["a"]]}, r"row 1: tags has the value \['a'\] \(list\)"),
        ({"user": "\ud800"}, "no valid text"),
        ({"hour": "noon"}, "row 1: hour must be a finite number, got 'noon'"),
        ({"hour": float("nan")}, "row 1: hour must be a finite number, got nan"),
        ({"hour": 1e39}, r"row 1: hour must be a finite number, got 1e\+39"),
        ({"hour": 10**400}, "row 1: hour must be a finite number, got 1000"),
        ({"click": None}, "row 1: the label click is missing; send 0 or 1"),
    ],
)
def test_a_bad_value_is_named_with_row_field_and_mend(row: dict[str, Any], told: str) -> None:
    with pytest.raises(SchemaError, match=told):
        extract_rows(SCHEMA, [{"click": 0}, {"click": 0, **row}], with_labels=True)


@pytest.mark.parametrize(
    ("column", "values", "told"),
    [
        (
            "user",
            pa.array([1.5, 2.5]),
            "slot 'user': ids must be integers or strings, got an Arrow column of type double",
        ),
        ("user", pa.array([[1], [2]]), "slot 'user' needs one value a row, got an Arrow column of type list"),
        ("tags", pa.array(["a", "b"]), "slot 'tags' needs a list column, got an Arrow column of type string"),
        ("tags", pa.array([["a"], ["b", None]]), "slot 'tags': ids must not be null here"),
        ("hour", pa.array(["1", "2"]), "'hour' must be a column of numbers, got Arrow type string"),
        ("hour", pa.array([1.0, math.inf]), "row 1: hour must be a finite number, got inf"),
        ("hour", pa.array([1.0, 1e39]), "row 1: hour must be a finite number, got inf"),
        ("click", pa.array([1, None]), "'click' is null in 1 rows; fill or drop them"),
        ("weight", pa.array([1.0, None]), "'weight' is null in 1 rows; fill or drop them"),
        ("event_time", pa.array([1.0, 2.0]), "event_time must be int64 microseconds or a timestamp"),
        ("event_time", pa.array([1, None]), "event_time must be int64 microseconds or a timestamp without nulls"),
    ],
)
def test_a_bad_column_is_named_with_its_mend(column: str, values: pa.Array, told: str) -> None:
    rows = [dict.fromkeys(TYPES) | {"click": 0}] * 2
    table = table_of(rows)
    place = table.schema.get_field_index(column)
    table = table.append_column(column, values) if place < 0 else table.set_column(place, column, values)
    with pytest.raises(SchemaError, match=told):
        extract_table(SCHEMA, table)


def test_a_missing_column_or_field_is_named() -> None:
    table = table_of([dict.fromkeys(TYPES) | {"click": 0}])
    with pytest.raises(SchemaError, match=r"column 'item' is missing; the table has user, tags.*add the column"):
        extract_table(SCHEMA, table.drop_columns("item"))
    with pytest.raises(SchemaError, match="no slot 'itm'; did you mean 'item'"):
        extract_rows(SCHEMA, [], slots=["itm"])
    with pytest.raises(SchemaError, match="no dense feature 'our'; did you mean 'hour'"):
        extract_table(SCHEMA, table, dense=["our"])


def test_a_column_of_nulls_is_empty_slots_whatever_its_type() -> None:
    table = table_of([dict.fromkeys(TYPES) | {"click": 0}] * 2)
    for name in ("user", "tags", "hour"):
        table = table.set_column(table.schema.get_field_index(name), name, pa.nulls(2))
    batch = extract_table(SCHEMA, table)
    assert batch.slot("user").to_lists() == batch.slot("tags").to_lists() == [[], []]
    assert batch.dense["hour"].tolist() == [0.5, 0.5]


def test_numbers_of_any_arrow_type_and_large_ones_are_rounded_to_float32() -> None:
    table = table_of([dict.fromkeys(TYPES) | {"click": 1}] * 2)
    place = table.schema.get_field_index("hour")
    for values in (pa.array([2**24 + 1, 0]), pa.array([True, False]), pa.array([np.float16(0.5), np.float16(1)])):
        batch = extract_table(SCHEMA, table.set_column(place, "hour", values))
        assert batch.dense["hour"].tolist() == [float(np.float32(value)) for value in values.to_pylist()]


def test_weights_rates_and_times_are_read_where_they_are_given() -> None:
    moment = datetime(2026, 1, 2, 3, 4, 5, 678_901, UTC)
    expected = int(moment.timestamp() * 1_000_000)
    table = table_of([dict.fromkeys(TYPES) | {"click": 1}])
    batch = extract_table(SCHEMA, table)
    assert batch.weights.tolist() == batch.sampling_rates.tolist() == [1]
    assert batch.event_times_us.tolist() == [0]
    for times in (
        pa.array([expected]),
        pa.array([moment], pa.timestamp("us", tz="UTC")),
        pa.array([expected * 1_000 + 7], pa.timestamp("ns")),
    ):
        given_table = (
            table.append_column("weight", pa.array([2.0]))
            .append_column("sampling_rate", pa.array([0.25]))
            .append_column("event_time", times)
        )
        batch = extract_table(SCHEMA, given_table)
        assert batch.weights.tolist() == [2]
        assert batch.sampling_rates.tolist() == [0.25]
        assert batch.event_times_us.tolist() == [expected]


def test_a_misspelt_key_is_warned_of_where_all_slots_are_wanted() -> None:
    schema = Schema(Slot("user"), Slot("genres", many=True))
    rows = [{"user": 1, "genre": ["drama"], "colour": "red"}]
    with pytest.warns(UserWarning, match="no row has the slot 'genres', .* and 'genre' is no field of the schema"):
        extract_rows(schema, rows)
    for silent in ([{"user": 1, "colour": "red"}], [{"user": 1, "genres": None, "genre": 2}], []):
        extract_rows(schema, silent)
    extract_rows(schema, rows, slots=["user", "genres"])  # as serving does, whose rows carry more


def test_of_a_misspelt_key_nobody_is_told_twice() -> None:
    rows = [{"usr": 1, "itm": 2}]
    for schema in (Schema(Slot("user"), Slot("item"), Label("click")), Schema(Slot("user"), Slot("item"))):
        with pytest.warns(UserWarning, match="is no field of the schema") as told:
            extract_rows(schema, rows)
        assert sorted(str(one.message).split("'")[1] for one in told) == ["item", "user"]
        extract_rows(schema, rows)  # a warning would be an error here


@pytest.mark.parametrize(
    "row",
    [
        {"user": 1, "item": 2, 5: 1, "colour": "red"},
        {"user": 1, 5: 1, None: 2, ("item",): 3},
        {"user": 1, "item": 2, "event_time": 7, "weight": 2.0},  # what every example has is misspelt for no slot
        next(csv.DictReader(io.StringIO("user,item\n1,2,3,4\n"))),  # with None for the cells beyond the header
        UserDict(user=1, item=2),
    ],
)
def test_keys_of_every_kind_are_passed_over(row: Any) -> None:
    schema = Schema(Slot("user"), Slot("item"), Slot("event_type"))
    batch = extract_rows(schema, [row, row])
    assert batch.slot("user").lengths.tolist() == [1, 1]
    assert batch.slot("item").lengths.tolist() == [int("item" in row)] * 2
    assert batch.slot("event_type").lengths.tolist() == [0, 0]


@pytest.mark.parametrize(("rows", "place", "came"), [([{}, 5], 1, "5"), ([None], 0, "None"), (["item"], 0, "'item'")])
def test_a_row_that_is_no_mapping_is_named(rows: Any, place: int, came: str) -> None:
    for slots in (None, ["item"]):
        with pytest.raises(SchemaError, match=f"row {place} must be values by name, got {came}; make a dict of each"):
            extract_rows(SCHEMA, rows, slots=slots)


@pytest.mark.parametrize(
    ("call", "kind", "told"),
    [
        (
            lambda: extract_rows(SCHEMA, {"item": 1}),
            SchemaError,
            r"rows must be a list of values by name, .* got {'item': 1}; write \[row\]",
        ),
        (
            lambda: extract_rows(SCHEMA, [{}], slots="item"),
            TypeError,
            r"slots must be a list of names, got 'item'; write \['item'\]",
        ),
        (lambda: extract_rows(SCHEMA, [{}], dense="hour"), TypeError, "dense must be a list of names, got 'hour'"),
        (lambda: extract_rows(SCHEMA, [{}], slots=[["item"]]), SchemaError, r"no slot \['item'\]; did you mean 'item'"),
        (lambda: extract_table(SCHEMA, {"item": [1]}), TypeError, r"table must be Arrow's, got dict; pyarrow.table\("),
    ],
)
def test_what_is_no_list_and_no_table_is_named(call: Callable[[], Batch], kind: type[Exception], told: str) -> None:
    with pytest.raises(kind, match=told):
        call()


def usable_row_by_row(schema: Schema, side: Side, rows: list[Described]) -> Batch:
    """What `extract_usable` promises, the slow way."""
    parts = []
    for raw, attributes in rows:
        try:
            parts.append(extract_side(schema, side, [(raw, attributes)]))
        except SchemaError:
            parts.append(extract_side(schema, side, [(raw, {})]))
    return Batch.concat(parts)


@pytest.mark.property
@settings(deadline=None)
@given(st.lists(st.sampled_from(["fits", "list", "price", "empty"]), min_size=1, max_size=20))
def test_rows_that_do_not_fit_keep_their_id_and_cost_the_others_nothing(kinds: list[str]) -> None:
    schema = Schema(
        Slot("item"), Slot("brand", of="item"), Slot("tags", of="item", many=True), Dense("price", of="item")
    )
    told = {
        "fits": {"brand": "b", "tags": ["x", "y"], "price": 2.0},
        "list": {"brand": ["b"], "tags": ["x"], "price": 2.0},
        "price": {"brand": "c", "price": "dear"},
        "empty": {},
    }
    rows = [(f"i{number}", told[kind]) for number, kind in enumerate(kinds)]
    found, expected = extract_usable(schema, Side.ITEM, rows), usable_row_by_row(schema, Side.ITEM, rows)
    assert found.size == expected.size
    for name in schema.slots:
        assert found.slot(name).to_lists() == expected.slot(name).to_lists()
    assert found.dense["price"].tolist() == expected.dense["price"].tolist()


def test_an_id_that_cannot_be_is_named() -> None:
    rows: Any = [(1, {}), (2, {}), (2.5, {}), (3, {})]
    with pytest.raises(SchemaError, match=r"row 2: item has the value 2.5 \(float\)"):
        extract_usable(Schema(Slot("item")), Side.ITEM, rows)

"""The schema: what it tells, how it is written, and what it refuses in which words."""

import json
from collections.abc import Callable
from dataclasses import fields, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dolmen.embedding import Embeddings
from dolmen.errors import SchemaError
from dolmen.features import Dense, Label, Schema, Side, Slot
from dolmen.features.schema import _OF_COLUMN, _OF_ROWS

SHOP = Schema(
    Slot("user", dim=8),
    Slot("item", dim=8, admit_after=2, expire_after="30d"),
    Slot("genres", dim=4, many=True, of=Side.ITEM),
    Slot("history", dim=8, table="item", many=True, ordered=True, max_len=50, of="user"),
    Slot("city", dim=4, admit_after=3, admission="sketch", capacity=100, eviction="score", half_life="7d"),
    Dense("price", default=1.5, of="item"),
    Dense("hour"),
    Label("click"),
    Label("buy", action="purchase"),
)

TOML = """
[[schema.slot]]
name = "user"
dim = 8

[[schema.slot]]
name = "history"
dim = 8
table = "user"
many = true
of = "user"

[[schema.label]]
name = "click"
"""


def test_sides_numbers_and_owners_follow_from_the_declaration() -> None:
    assert [slot.name for slot in SHOP.slots_of(Side.USER)] == ["user", "history"]
    assert [slot.name for slot in SHOP.slots_of(Side.ITEM)] == ["item", "genres"]
    assert [slot.name for slot in SHOP.slots_of(Side.REQUEST)] == ["city"]
    assert [one.name for one in SHOP.dense_of(Side.ITEM)] == ["price"]
    assert [SHOP.slot_number(name) for name in SHOP.slots] == [1, 2, 3, 2, 5]
    assert SHOP.owner("history") is SHOP.slot("item")
    assert SHOP.owner("user") is SHOP.slot("user")
    assert SHOP.slot("item").expire_after_us == 30 * 86_400 * 1_000_000
    assert SHOP.slot("user").expire_after_us == 0
    assert SHOP.slot("city").half_life_us == 7 * 86_400 * 1_000_000
    assert SHOP.labels["buy"].action_kind == "purchase"
    assert SHOP.labels["click"].action_kind == "click"
    assert SHOP.first_label == "click"


def test_a_schema_survives_dicts_and_toml(tmp_path: Path) -> None:
    assert Schema.from_dict(SHOP.to_dict()) == SHOP
    assert Schema.from_dict(SHOP.to_dict()).fingerprint == SHOP.fingerprint
    assert hash(Schema.from_dict(SHOP.to_dict())) == hash(SHOP)
    path = tmp_path / "shop.toml"
    path.write_text(TOML)
    expected = Schema(Slot("user", dim=8), Slot("history", dim=8, table="user", many=True, of="user"), Label("click"))
    assert Schema.from_toml(path) == expected


def test_whatever_changes_rows_or_examples_changes_the_fingerprint() -> None:
    base = Schema(Slot("user", dim=8), Slot("item", dim=8), Label("click"))
    others = [
        Schema(Slot("item", dim=8), Slot("user", dim=8), Label("click")),
        Schema(Slot("user", dim=8), Slot("item", dim=9), Label("click")),
        Schema(Slot("user", dim=8), Slot("item", dim=8, table="user"), Label("click")),
        Schema(Slot("user", dim=8), Slot("item", dim=8, many=True), Label("click")),
        Schema(Slot("user", dim=8), Slot("item", dim=8), Dense("hour"), Label("click")),
        Schema(Slot("user", dim=8), Slot("item", dim=8), Label("buy")),
    ]
    assert len({schema.fingerprint for schema in (base, *others)}) == 7
    assert base != others[0]


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64, np.longdouble, Fraction])
def test_numbers_of_every_kind_are_written_as_pythons_own(kind: Callable[[float], Any], tmp_path: Path) -> None:
    slot = Slot("a", dim=np.int8(4), learning_rate_scale=kind(0.5), capacity=np.uint32(9), admit_after=np.int64(2))
    schema = Schema(slot, Dense("b", default=kind(-2.5)))
    plain = Schema(Slot("a", dim=4, learning_rate_scale=0.5, capacity=9, admit_after=2), Dense("b", default=-2.5))
    assert schema == plain
    assert schema.fingerprint == plain.fingerprint
    assert Schema.from_dict(json.loads(json.dumps(schema.to_dict()))) == plain
    embeddings = Embeddings(schema)
    embeddings.save(tmp_path)
    assert Embeddings.load(tmp_path, plain).tables[4].rules == embeddings.tables[4].rules


def test_a_whole_number_says_the_same_as_in_a_file() -> None:
    tables = {"slot": [{"name": "a", "learning_rate_scale": 2}], "dense": [{"name": "b", "default": 1}]}
    schema = Schema(Slot("a", learning_rate_scale=2), Dense("b", default=1))
    assert Schema.from_dict(tables).fingerprint == schema.fingerprint


@pytest.mark.parametrize(
    ("declare", "told"),
    [
        (lambda: Slot("a b"), "Slot: name must be letters, digits and underscores, got 'a b'"),
        (lambda: Slot(5), "Slot: name must be letters, digits and underscores, got 5"),
        (lambda: Dense("weight"), "Dense: the name 'weight' is taken by every example"),
        (lambda: Dense("a", default=float("nan")), "Dense 'a': default must be finite, got nan"),
        (lambda: Dense("a", default=-1e39), r"Dense 'a': default must be finite also in float32, .* make it -inf, got"),
        (lambda: Dense("a", default="1"), r"Dense 'a': default must be a number, got '1' \(write 1 without quotes\)"),
        (lambda: Slot("a", dim=0), "Slot 'a': dim must be between 1 and 4096, got 0"),
        (lambda: Slot("a", ordered=True), "Slot 'a': ordered=True needs many=True"),
        (lambda: Slot("a", max_len=3), "Slot 'a': max_len needs many=True, since"),
        (lambda: Slot("a", many=True, max_len=0), "Slot 'a': max_len must be at least 1, got 0"),
        (lambda: Slot("a", admit_after=0), "Slot 'a': admit_after must be at least 1, got 0"),
        (
            lambda: Slot("a", learning_rate_scale=-1.0),
            "Slot 'a': learning_rate_scale must be 0 or more and at most 100, got -1",
        ),
        (lambda: Slot("a", expire_after="0s"), "Slot 'a': expire_after must be above 0, got '0s'"),
        (lambda: Slot("a", admit_after="2"), r"Slot 'a': admit_after must be a whole number, got '2' \(write 2 w"),
        (lambda: Slot("a", dim="8"), r"Slot 'a': dim must be a whole number, got '8' \(write 8 without quotes\)"),
        (lambda: Slot("a", dim=None), "Slot 'a': dim must be a whole number, got None"),
        (lambda: Slot("a", capacity=1e6), r"Slot 'a': capacity must be a whole number, got 1000000.0 \(write 1000000"),
        (lambda: Slot("a", many="no"), "Slot 'a': many must be True or False, got 'no'"),
        (lambda: Slot("a", admission="bloom"), "Slot 'a': admission 'bloom' needs admit_after of 2 or more"),
        (lambda: Slot("a", admission="blum"), "'a': admission must be one of exact, sketch, bloom, .*, got 'blum'"),
        (
            lambda: Slot("a", admission="sketch", admit_after=17),
            "Slot 'a': admission 'sketch' counts to 16 at most, got admit_after 17; use 'exact'",
        ),
        (
            lambda: Slot("a", admission_capacity=0),
            "Slot 'a': admission_capacity must be between 1 and 2147483648, got 0",
        ),
        (lambda: Slot("a", absent="ones"), "'a': absent must be one of zeros, start, got 'ones'"),
        (lambda: Slot("a", capacity=0), "Slot 'a': capacity must be between 1 and 2147483648, got 0"),
        (lambda: Slot("a", eviction="lfu"), "Slot 'a': eviction 'lfu' needs a capacity"),
        (
            lambda: Slot("a", capacity=5, eviction="score"),
            "Slot 'a': eviction 'score' and half_life go together, got 'score' and None",
        ),
        (
            lambda: Slot("a", capacity=5, half_life="1d"),
            "eviction 'score' and half_life go together, got 'lru' and '1d'",
        ),
        (lambda: Slot("a", expire_after="soon"), "Slot 'a': expire_after: a duration is a number and one of"),
        (lambda: Slot("a", of="shop"), "'a': of must be one of user, item, request, got 'shop'"),
        (lambda: Schema(Slot("a"), Dense("a")), "the name 'a' is declared twice"),
        (lambda: Schema(Slot("a"), 5), "Schema takes Slot, Dense and Label, got 5"),
        (lambda: Schema(Slot("item"), Slot("b", table="itm")), "table 'itm' is no slot; did you mean 'item'"),
        (lambda: Schema(Slot("item"), Slot("b", dim=3, table="item")), "dim 3 differs from dim 16 of 'item'"),
        (
            lambda: Schema(Slot("a"), Slot("b", table="a"), Slot("c", table="b")),
            "Slot 'c': table 'b' itself shares 'a'; name that one",
        ),
        (
            lambda: Schema(Slot("a"), Slot("b", table="a", expire_after="1d")),
            "Slot 'b' shares the rows of 'a', which alone says when they come and go.*; move expire_after to 'a'",
        ),
        (lambda: SHOP.slot("histroy"), "the schema has no slot 'histroy'; did you mean 'history'"),
        (lambda: SHOP.dense_feature("prise"), "the schema has no dense feature 'prise'; did you mean 'price'"),
        (lambda: Schema(Slot("a")).first_label, "the schema has no label"),
        (lambda: Schema.from_dict({"slots": []}), "schema: unknown key 'slots'; did you mean 'slot'"),
        (lambda: Schema.from_dict({"slot": [{"name": "a", "dims": 3}]}), "unknown setting 'dims'; did you mean 'dim'"),
        (lambda: Schema.from_dict({"slot": [{"dim": 3}]}), r"schema.slot\[0\].name is missing"),
        (
            lambda: Schema.from_dict({"slot": [{"name": "a", "dim": "x"}]}),
            r"schema.slot\[0\] \(a\).dim must be a",
        ),
        (
            lambda: Schema.from_dict({"slot": {"name": "a"}}),
            r"schema.slot must be a list.*\[\[schema.slot\]\]",
        ),
    ],
)
def test_what_contradicts_itself_is_named_with_its_mend(declare: object, told: str) -> None:
    with pytest.raises(SchemaError, match=told):
        declare()


def test_a_fid_has_room_for_1023_slots() -> None:
    many = [Slot(f"s{number}") for number in range(1024)]
    assert Schema(*many[:1023]).slot_number("s1022") == 1023
    with pytest.raises(SchemaError, match="at most 1023 slots fit a FID, got 1024"):
        Schema(*many)


BASE = Slot("a", many=True)


@pytest.mark.parametrize(
    ("other", "told"),
    [
        (BASE, None),
        (replace(BASE, dim=3), None),
        (replace(BASE, admit_after=2, expire_after="1d", capacity=5, learning_rate_scale=0.5), None),
        (replace(BASE, table="a"), None),
        (replace(BASE, of="request"), None),
        (replace(BASE, many=False), ("slot 'a': many", True, False)),
        (replace(BASE, ordered=True), ("slot 'a': ordered", False, True)),
        (replace(BASE, max_len=3), ("slot 'a': max_len", None, 3)),
        (replace(BASE, of="user"), ("slot 'a': of", "request", "user")),
        (replace(BASE, table="b"), ("slot 'a': table", None, "b")),
        (replace(BASE, name="c"), ("slot 'a'", "declared", "missing")),
    ],
)
def test_schemas_differ_where_they_read_a_column_otherwise(
    other: Slot, told: tuple[str, object, object] | None
) -> None:
    mine, theirs = Schema(Slot("b"), BASE, Label("click")), Schema(other, Slot("b"), Label("buy"))
    assert mine.difference(theirs) == told
    turned = told and (told[0], told[2], told[1])
    assert theirs.difference(mine) == (turned if other.name == "a" else ("slot 'c'", "declared", "missing"))


def test_schemas_differ_in_whose_a_dense_feature_is() -> None:
    mine = Schema(Dense("price", of="item"))
    assert mine.difference(Schema(Dense("price", of="item", default=1.0))) is None
    assert mine.difference(Schema(Dense("price"))) == ("dense feature 'price': of", "item", "request")
    assert mine.difference(Schema(Slot("a"))) == ("slot 'a'", "missing", "declared")


def test_each_option_of_a_slot_is_of_its_column_or_of_its_rows() -> None:
    assert sorted(["name", "dim", *_OF_COLUMN, *_OF_ROWS]) == sorted(option.name for option in fields(Slot))

"""FIDs: integers exact, everything else by XXH64 as its authors' library computes it."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from dolmen.errors import SchemaError
from dolmen.features import encode_array, encode_values, pack_fids, slot_numbers, values_of
from dolmen.features.fids import SLOT_NUMBER_MAX, VALUE_MAX

SLOTS = st.integers(0, SLOT_NUMBER_MAX)
SMALL = st.integers(0, VALUE_MAX)
ANY_INTEGER = st.integers(-(2**70), 2**70)
TEXTS = st.text(st.characters(codec="utf-8"), max_size=40)


def hashed(text: str, seed: int) -> int:
    return xxhash.xxh64_intdigest(text.encode(), seed) & VALUE_MAX


@pytest.mark.property
@settings(deadline=None)
@given(SLOTS, st.lists(SMALL))
def test_small_integers_keep_their_value_and_can_be_read_back(slot: int, values: list[int]) -> None:
    fids = encode_values(slot, values)
    assert fids.dtype == np.int64
    assert values_of(fids).tolist() == values
    assert slot_numbers(fids).tolist() == [slot] * len(values)
    assert (fids >= 0).all()
    assert encode_array(slot, pa.array(values, pa.int64())).tolist() == fids.tolist()
    assert pack_fids(slot, np.array(values, dtype=np.int64)).tolist() == fids.tolist()


@pytest.mark.property
@settings(deadline=None)
@given(SLOTS, st.lists(TEXTS))
def test_texts_are_hashed_by_xxh64(slot: int, values: list[str]) -> None:
    fids = encode_values(slot, values)
    assert values_of(fids).tolist() == [hashed(value, 0) for value in values]
    for kind in (pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())):
        assert encode_array(slot, pa.array(values, kind)).tolist() == fids.tolist()
    if values:
        assert encode_array(slot, pa.array(["cut", *values])[1:]).tolist() == fids.tolist()
        assert encode_array(slot, pa.chunked_array([values, values])).tolist() == [*fids, *fids]


@pytest.mark.property
@settings(deadline=None)
@given(st.lists(ANY_INTEGER))
def test_other_integers_are_hashed_apart_from_the_text_of_their_digits(values: list[int]) -> None:
    expected = [value if 0 <= value <= VALUE_MAX else hashed(str(value), 1) for value in values]
    assert values_of(encode_values(1, values)).tolist() == expected
    for value in values:
        if not 0 <= value <= VALUE_MAX:
            assert encode_values(1, [value]) != encode_values(1, [str(value)])


@pytest.mark.parametrize("kind", [pa.int64(), pa.uint64(), pa.int8(), pa.uint32()])
def test_arrow_integers_read_as_the_same_fids_as_pythons(kind: pa.DataType) -> None:
    values = {
        pa.int64(): [0, -1, VALUE_MAX, VALUE_MAX + 1, -(2**63), 2**63 - 1],
        pa.uint64(): [0, VALUE_MAX + 1, 2**64 - 1],
        pa.int8(): [-128, 0, 127],
        pa.uint32(): [0, 2**32 - 1],
    }[kind]
    assert encode_array(5, pa.array(values, kind)).tolist() == encode_values(5, values).tolist()


def test_mixed_values_keep_their_order() -> None:
    values = [3, "3", -3, "x", np.int32(4), 2**60]
    one_by_one = [int(encode_values(2, [value])[0]) for value in values]
    assert encode_values(2, values).tolist() == one_by_one
    assert len(set(one_by_one)) == len(values)


@pytest.mark.parametrize("value", [True, 1.5, None, b"x", [1], float("nan")])
def test_a_value_that_is_no_id_is_named_with_its_place(value: object) -> None:
    with pytest.raises(SchemaError, match=r"value 1 must be an integer or a string, got .* \(" + type(value).__name__):
        encode_values(1, [7, value])


def test_half_a_surrogate_pair_is_refused_in_words() -> None:
    with pytest.raises(SchemaError, match="value 0 is no valid text"):
        encode_values(1, ["\ud800"])


def test_ranges_are_checked_before_anything_is_packed() -> None:
    with pytest.raises(ValueError, match="slot_number must be between 0 and 1023, got 1024"):
        pack_fids(1024, np.array([1]))
    for bad in (-1, VALUE_MAX + 1):
        with pytest.raises(ValueError, match=f"values must be between 0 and {VALUE_MAX}, got {bad}"):
            pack_fids(1, np.array([0, bad]))


def test_arrow_types_that_are_no_ids_are_named() -> None:
    with pytest.raises(SchemaError, match="integers or strings, got an Arrow column of type double"):
        encode_array(1, pa.array([1.5]))
    with pytest.raises(SchemaError, match="ids must not be null here"):
        encode_array(1, pa.array([1, None]))


@pytest.mark.parametrize("values", [[5, 0, VALUE_MAX], [5, -1, VALUE_MAX + 1], []], ids=["exact", "hashed", "none"])
def test_arrays_and_tensors_read_as_the_same_fids_as_lists(values: list[int]) -> None:
    expected = encode_values(3, values).tolist()
    assert encode_values(3, np.array(values, np.int64)).tolist() == expected
    assert encode_values(3, torch.tensor(values, dtype=torch.int64)).tolist() == expected
    assert encode_values(3, np.array(["a", "b"])).tolist() == encode_values(3, ["a", "b"]).tolist()
    assert encode_values(3, np.array([VALUE_MAX + 1], np.uint64)).tolist() == encode_values(3, [VALUE_MAX + 1]).tolist()


@pytest.mark.parametrize(
    ("slot", "values", "kind", "told"),
    [
        (
            "user",
            [1],
            TypeError,
            r"slot_number must be a slot's number, got 'user'; schema.slot_number\('user'\) tells",
        ),
        (
            1,
            {7},
            SchemaError,
            r"values must be a list, an array or a tensor of ids, got \{7\}; write list\(...\) of them",
        ),
        (
            1,
            (n for n in [7]),
            SchemaError,
            r"values must be a list, .* got <generator object .*; write list\(...\) of them",
        ),
        (1, None, SchemaError, r"values must be a list, .* got None; write \[\] for none"),
        (1, 7, SchemaError, r"values must be a list, .* got 7; write \[...\] around one"),
        (1, torch.tensor(7), SchemaError, r"values must be a list, .* got tensor\(7\); write \[...\] around one"),
        (1, bytearray(b"ab"), SchemaError, r"values must be a list of ids, got bytearray\(b'ab'\); write \[bytearray"),
        (1, "abc", SchemaError, r"values must be a list of ids, got 'abc'; write \['abc'\]"),
        (1, torch.tensor([1.5]), SchemaError, r"value 0 must be an integer or a string, got 1.5 \(float\)"),
        (1, np.zeros((2, 2), np.int64), SchemaError, r"values must have one dimension, got the shape \(2, 2\)"),
    ],
)
def test_what_is_no_column_of_ids_is_named(slot: int, values: Any, kind: type[Exception], told: str) -> None:
    with pytest.raises(kind, match=told):
        encode_values(slot, values)

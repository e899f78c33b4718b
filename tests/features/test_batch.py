"""Jagged columns against lists of lists, and batches through Arrow and back."""

import copy
import pickle
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dolmen.embedding import Embed, Embeddings
from dolmen.errors import SchemaError
from dolmen.features import Batch, Dense, Jagged, Label, Schema, Slot, Spread, examples_schema

ROWS = st.lists(st.lists(st.integers(0, 2**62), max_size=4), max_size=6)
SCHEMA = Schema(Slot("user"), Slot("tags", many=True), Dense("hour"), Label("click"))


def batch_of(rows: list[list[int]], first: int = 0) -> Batch:
    size = len(rows)
    return Batch(
        size=size,
        slots={"user": Jagged.single(torch.arange(first, first + size)), "tags": Jagged.from_lists(rows)},
        dense={"hour": torch.arange(size) / 7},
        labels={"click": torch.arange(size) % 2 + 0.0},
        weights=torch.arange(size) + 1.0,
        event_times_us=torch.arange(size) * 10,
    )


def same(one: Batch, other: Batch) -> bool:
    columns = [*one.dense, *one.labels]
    twins = [{**batch.dense, **batch.labels} for batch in (one, other)]
    plain = ("weights", "sampling_rates", "event_times_us")
    return (
        one.size == other.size
        and {name: jagged.to_lists() for name, jagged in one.slots.items()}
        == {name: jagged.to_lists() for name, jagged in other.slots.items()}
        and all(torch.equal(twins[0][name], twins[1][name]) for name in columns)
        and all(torch.equal(getattr(one, name), getattr(other, name)) for name in plain)
        and np.array_equal(one.served_probabilities.numpy(), other.served_probabilities.numpy(), equal_nan=True)
    )


@pytest.mark.property
@settings(deadline=None)
@given(ROWS)
def test_lists_come_back_as_they_were(rows: list[list[int]]) -> None:
    jagged = Jagged.from_lists(rows)
    assert jagged.to_lists() == rows
    assert jagged.size == len(rows)
    assert jagged.lengths.tolist() == [len(row) for row in rows]
    assert jagged.values.dtype == jagged.offsets.dtype == torch.int64
    assert Jagged.empty(len(rows)).to_lists() == [[] for _ in rows]


@pytest.mark.property
@settings(deadline=None)
@given(ROWS, st.data())
def test_take_gives_the_rows_asked_for_in_that_order(rows: list[list[int]], data: st.DataObject) -> None:
    places = data.draw(st.lists(st.integers(0, len(rows) - 1), max_size=9)) if rows else []
    taken = Jagged.from_lists(rows).take(torch.tensor(places, dtype=torch.int64))
    assert taken.to_lists() == [rows[place] for place in places]


@pytest.mark.property
@settings(deadline=None)
@given(ROWS, st.integers(1, 5))
def test_last_keeps_the_end_of_each_row(rows: list[list[int]], count: int) -> None:
    assert Jagged.from_lists(rows).last(count).to_lists() == [row[-count:] for row in rows]


@pytest.mark.property
@settings(deadline=None)
@given(st.lists(ROWS, min_size=1, max_size=4))
def test_concat_puts_rows_one_after_the_other(parts: list[list[list[int]]]) -> None:
    joined = Jagged.concat([Jagged.from_lists(part) for part in parts])
    assert joined.to_lists() == [row for part in parts for row in part]


@pytest.mark.property
@settings(deadline=None)
@given(ROWS, ROWS)
def test_a_batch_taken_apart_and_joined_is_the_same(rows: list[list[int]], more: list[list[int]]) -> None:
    batch = Batch.concat([batch_of(rows), batch_of(more)])
    assert len(batch) == len(rows) + len(more)
    head = torch.arange(len(rows))
    tail = torch.arange(len(rows), len(batch))
    assert same(batch.take(head), batch_of(rows))
    assert same(batch.take(tail), batch_of(more))
    assert same(Batch.concat([batch.take(head), batch.take(tail)]), batch)


@pytest.mark.property
@settings(deadline=None)
@given(ROWS)
def test_examples_survive_arrow(rows: list[list[int]]) -> None:
    batch = batch_of(rows)
    examples = batch.to_examples(SCHEMA)
    assert examples.schema.names == examples_schema(SCHEMA).names
    assert same(Batch.from_examples(SCHEMA, examples), batch)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, examples.schema) as stream:
        stream.write_batch(examples)
    read = pa.ipc.open_stream(sink.getvalue()).read_next_batch() if rows else examples
    again = Batch.from_examples(SCHEMA, read)
    assert same(again, batch)
    again.weights.add_(1)  # a batch is its own: writing into it touches no file
    if rows:
        assert same(Batch.from_examples(SCHEMA, examples[1:]), batch.take(torch.arange(1, len(rows))))


@given(st.data())
def test_rows_that_examples_share_read_like_rows_laid_out(data: st.DataObject) -> None:
    rows = data.draw(st.lists(st.lists(st.integers(0, 9), max_size=4), min_size=1, max_size=4))
    owners = data.draw(st.lists(st.integers(0, len(rows) - 1), max_size=6))
    spread = Spread(Jagged.from_lists(rows), torch.tensor(owners, dtype=torch.int64))
    laid_out = Jagged.from_lists([rows[owner] for owner in owners])
    assert (spread.size, spread.is_single) == (laid_out.size, laid_out.is_single)
    assert spread.lengths.tolist() == laid_out.lengths.tolist()
    assert (spread.values.tolist(), spread.offsets.tolist()) == (laid_out.values.tolist(), laid_out.offsets.tolist())
    chosen = data.draw(st.lists(st.integers(0, len(owners) - 1), max_size=3)) if owners else []
    assert spread.to_lists(chosen) == [rows[owners[place]] for place in chosen]
    assert spread.take(torch.tensor(chosen, dtype=torch.int64)).to_lists() == spread.to_lists(chosen)
    assert spread.last(2).to_lists() == [rows[owner][-2:] for owner in owners]


def test_what_a_batch_makes_lies_where_it_does() -> None:
    batch = batch_of([[1, 2, 3], [], [4]])
    batch = replace(batch, slots={**batch.slots, "tags": Spread(batch.slots["tags"], torch.tensor([1, 0, 2]))})

    def change() -> list[Batch]:
        tags = {"tags": batch.slot("tags").last(2), "user": Jagged.single(batch.slot("user").values)}
        return [
            batch.take(torch.tensor([2, 0], device="cpu")),
            Batch.concat([batch, batch]),
            replace(batch, slots=tags),
        ]

    expected = change()
    with torch.device("meta"):  # where tensors land of which nobody says where: as if the batch were elsewhere
        found = change()
    assert all(same(one, other) for one, other in zip(found, expected, strict=True))


def test_what_nobody_said_has_a_default() -> None:
    batch = Batch(size=2, slots={})
    assert batch.weights.tolist() == batch.sampling_rates.tolist() == [1, 1]
    assert batch.served_probabilities.isnan().all()
    assert batch.event_times_us.tolist() == [0, 0]
    assert batch.event_times_us.dtype == torch.int64


def test_a_batch_may_be_pickled_copied_and_taken_for_plain_values() -> None:
    batch = batch_of([[1, 2], []])
    for made in (pickle.loads(pickle.dumps(batch)), copy.deepcopy(batch), copy.copy(batch)):
        assert same(made, batch)
        with pytest.raises(SchemaError, match="the batch has no label 'clik'; did you mean 'click'"):
            made.labels["clik"]
    plain = asdict(batch)
    assert plain["slots"]["tags"]["offsets"].tolist() == [0, 2, 2]
    assert plain["labels"]["click"].tolist() == [0, 1]
    assert plain["size"] == 2


@pytest.mark.parametrize(
    ("columns", "told"),
    [
        ({"slots": {"user": Jagged.empty(3)}}, "batch of 2 examples: slot 'user' has 3 rows"),
        ({"slots": {}, "dense": {"hour": torch.zeros(1)}}, "batch of 2 examples: dense 'hour' has 1 values"),
        ({"slots": {}, "labels": {"click": torch.zeros(3)}}, "batch of 2 examples: labels 'click' has 3 values"),
        ({"slots": {}, "weights": torch.ones(3)}, "batch of 2 examples: weights has 3 values"),
        ({"slots": {}, "event_times_us": torch.ones(1)}, "batch of 2 examples: event_times_us has 1 values"),
        ({"slots": {"user": torch.ones(2)}}, r"slot 'user' must be a Jagged, got Tensor; Jagged.single\(fids\) makes"),
        ({"slots": {}, "labels": {"click": [0, 1]}}, "labels 'click' must be a tensor, got list; torch.tensor"),
    ],
)
def test_columns_of_another_length_are_named(columns: dict[str, object], told: str) -> None:
    with pytest.raises(SchemaError, match=told):
        Batch(size=2, **columns)


def test_a_field_that_is_not_there_is_named() -> None:
    batch = batch_of([[1], [2]])
    with pytest.raises(SchemaError, match="the batch has no slot 'usr'; did you mean 'user'"):
        batch.slot("usr")
    with pytest.raises(SchemaError, match="the batch has no label 'clik'; did you mean 'click'"):
        batch.labels["clik"]
    with pytest.raises(SchemaError, match="the batch has no dense feature 'price'; known are hour"):
        batch.dense["price"]
    with pytest.raises(SchemaError, match="an example needs 'buy', and the batch does not have it"):
        batch.to_examples(Schema(Slot("user"), Label("buy")))
    with pytest.raises(SchemaError, match="the batch has no slot 'city'"):
        batch.to_examples(Schema(Slot("city")))
    with pytest.raises(SchemaError, match=r"examples have the columns .* the schema asks for"):
        Batch.from_examples(Schema(Slot("user"), Label("click")), batch.to_examples(SCHEMA))


@pytest.mark.parametrize(
    ("values", "offsets", "told"),
    [
        ([1, 2, 3], [0, 2], r"Jagged.offsets must begin with 0 and end with 3, the count of values, got \[0, 2\]"),
        ([1, 2], [1, 2], r"Jagged.offsets must begin with 0 and end with 2"),
        ([1, 2], [], r"Jagged.offsets must be an int64 tensor of one dimension, got torch.float32 of shape \(0,\)"),
        ([[1], [2]], [0, 2], r"Jagged.values must be an int64 tensor of one dim.* got torch.int64 of shape \(2, 1\)"),
        ([1.0, 2.0], [0, 2], "Jagged.values must be an int64 tensor of one dimension, got torch.float32"),
    ],
)
def test_offsets_that_do_not_fit_are_refused(values: list[int], offsets: list[int], told: str) -> None:
    with pytest.raises(SchemaError, match=told):
        Jagged(torch.tensor(values), torch.tensor(offsets))


def test_offsets_that_fall_are_refused_where_they_are_used() -> None:
    wrong = Jagged(torch.tensor([5, 6]), torch.tensor([0, 2, 1, 2]))
    embed = Embed(Embeddings(Schema(Slot("tags", dim=2, many=True))))
    with pytest.raises(SchemaError, match=r"Jagged.offsets must not fall, got 2 and then 1 for row 1; Jagged"):
        embed(Batch(size=3, slots={"tags": wrong}), ["tags"])


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (
            lambda: Jagged([1, 2], torch.tensor([0, 2])),
            r"Jagged.values must be .* got \[1, 2\]; torch.as_tensor\(..., dtype=torch.int64\) makes one",
        ),
        (lambda: Jagged(torch.tensor([1, 2]), [0, 2]), r"Jagged.offsets must be .* got \[0, 2\]; torch.as_tensor"),
        (lambda: Jagged.single([1, 2]), r"Jagged.values must be an int64 tensor .* got \[1, 2\]; torch.as_tensor"),
        (lambda: Jagged.from_lists([1, 2]), r"takes a list of FIDs for each row, got \[1, 2\]; .* Jagged.single"),
        (lambda: Jagged.from_lists([["a"]]), r"takes a list of FIDs .* got \[\['a'\]\]; encode_values makes FIDs"),
        (lambda: Jagged.from_lists([[1 << 63]]), r"takes a list of FIDs for each row, got \[\[9223372036854775808"),
        (lambda: Jagged.from_lists([[1]]).last(-1), "count must be 0 or more, got -1"),
        (lambda: Jagged.concat([]), "concat takes at least one part, got none"),
        (lambda: Batch.concat([]), "concat takes at least one part, got none"),
    ],
)
def test_what_makes_no_column_is_named(call: Callable[[], Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        call()

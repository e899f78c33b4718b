import pyarrow as pa
import pytest
import torch

from dolmen.errors import SchemaError
from dolmen.events import decode_examples, encode_examples
from dolmen.features import Batch, Dense, Jagged, Label, Schema, Slot

SCHEMA = Schema(Slot("user"), Slot("genres", many=True), Dense("hour"), Label("click"))


def batch() -> Batch:
    return Batch(
        size=3,
        slots={"user": Jagged.from_lists([[1], [2], []]), "genres": Jagged.from_lists([[3, 4], [], [5]])},
        dense={"hour": torch.tensor([0.0, 0.5, 1.0])},
        labels={"click": torch.tensor([1.0, 0.0, 0.0])},
        sampling_rates=torch.tensor([1.0, 0.1, 0.1]),
        served_probabilities=torch.tensor([0.5, 0.25, 0.125]),
        event_times_us=torch.tensor([1, 2, 3]),
    )


def test_examples_survive_the_log() -> None:
    positions = {"actions/0": 7, "impressions/0": 3}
    value = encode_examples(SCHEMA, batch(), positions, negative_rate=0.1, request_ids=["a", "a", "b"])
    read = decode_examples(SCHEMA, value)
    assert (read.positions, read.negative_rate, read.request_ids) == (positions, 0.1, ["a", "a", "b"])
    assert read.batch.to_examples(SCHEMA).equals(batch().to_examples(SCHEMA))


def test_any_arrow_reader_can_open_a_record() -> None:
    table = pa.ipc.open_stream(encode_examples(SCHEMA, batch(), {})).read_all()
    assert table.num_rows == 3
    assert table.column_names[:4] == ["user", "genres", "hour", "click"]
    assert table.column_names[-1] == "request_id"


def test_examples_of_another_schema_are_refused() -> None:
    value = encode_examples(SCHEMA, batch(), {})
    other = Schema(Slot("user", dim=8), Slot("genres", many=True), Dense("hour"), Label("click"))
    with pytest.raises(SchemaError, match=f"examples of schema {SCHEMA.fingerprint}, expected {other.fingerprint}"):
        decode_examples(other, value)


def test_damaged_record_is_refused() -> None:
    value = encode_examples(SCHEMA, batch(), {})
    for length in range(0, len(value) - 8, 37):
        with pytest.raises(SchemaError):
            decode_examples(SCHEMA, value[:length])

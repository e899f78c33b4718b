import subprocess
import sys
from pathlib import Path

import numpy as np
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
    value = encode_examples(
        SCHEMA, batch().to_examples(SCHEMA), positions, negative_rate=0.1, request_ids=["a", "a", "b"]
    )
    read = decode_examples(SCHEMA, value)
    assert (read.positions, read.negative_rate, read.request_ids) == (positions, 0.1, ["a", "a", "b"])
    assert read.batch.to_examples(SCHEMA).equals(batch().to_examples(SCHEMA))


def test_any_arrow_reader_can_open_a_record() -> None:
    table = pa.ipc.open_stream(encode_examples(SCHEMA, batch().to_examples(SCHEMA), {})).read_all()
    assert table.num_rows == 3
    assert table.column_names[:4] == ["user", "genres", "hour", "click"]
    assert table.column_names[-1] == "request_id"


def test_examples_of_another_schema_are_refused() -> None:
    value = encode_examples(SCHEMA, batch().to_examples(SCHEMA), {})
    other = Schema(Slot("user", dim=8), Slot("genres", many=True), Dense("hour"), Label("click"))
    with pytest.raises(SchemaError, match=f"examples of schema {SCHEMA.fingerprint}, expected {other.fingerprint}"):
        decode_examples(other, value)


def test_offsets_that_point_outside_their_column_are_refused() -> None:
    """Arrow reads them as they are; the look-up after them would read memory that is not the batch's."""
    value = encode_examples(SCHEMA, batch().to_examples(SCHEMA), {})
    offsets = np.array([0, 2, 2, 3], dtype=np.int64).tobytes()  # of genres
    assert value.count(offsets) == 1
    for wrong in ([0, 2, 2, 1 << 40], [0, 2, 1, 3], [0, -5, 2, 3], [-(1 << 33), 2, 2, 3]):
        with pytest.raises(SchemaError, match="genres"):
            decode_examples(SCHEMA, value.replace(offsets, np.array(wrong, dtype=np.int64).tobytes()))


def test_nulls_are_refused() -> None:
    rows = pa.ipc.open_stream(encode_examples(SCHEMA, batch().to_examples(SCHEMA), {})).read_next_batch()
    holed = rows.set_column(2, rows.schema.field(2), pa.array([0.0, None, 1.0], type=pa.float32()))
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, holed.schema) as stream:
        stream.write_batch(holed)
    with pytest.raises(SchemaError, match="column 'hour' has nulls"):
        decode_examples(SCHEMA, bytes(sink.getvalue()))


@pytest.mark.fault
def test_any_flipped_byte_is_refused_or_read_and_never_crashes() -> None:
    """In a process of its own: what must not happen is an end that no `except` sees."""
    program = """
import random, sys
sys.path.insert(0, sys.argv[1])
from test_examples import SCHEMA, batch
from dolmen.errors import SchemaError
from dolmen.events import decode_examples, encode_examples
value, odds, refused = encode_examples(SCHEMA, batch().to_examples(SCHEMA), {"actions/0": 1}), random.Random(5), 0
for _ in range(4000):
    torn = bytearray(value)
    for _ in range(odds.choice([1, 1, 4])):
        torn[odds.randrange(len(torn))] = odds.randrange(256)
    try:
        for jagged in decode_examples(SCHEMA, bytes(torn)).batch.slots.values():
            jagged.to_lists()
    except SchemaError:
        refused += 1
print(refused)
"""
    command = [sys.executable, "-c", program, str(Path(__file__).parent)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=100)
    assert ended.returncode == 0, ended.stderr[-2000:]
    assert int(ended.stdout) > 1000, "most of a record is its layout"


def test_damaged_record_is_refused() -> None:
    value = encode_examples(SCHEMA, batch().to_examples(SCHEMA), {})
    for length in range(0, len(value) - 8, 37):
        with pytest.raises(SchemaError):
            decode_examples(SCHEMA, value[:length])

"""Examples on the log: one record is one batch, as an Arrow stream that any Arrow reader can open.

Columns: those of ``examples_schema``, then ``request_id``. The stream's metadata says which schema it was made for,
what of the inputs it includes (``positions``) and the odds with which its joiner kept negatives.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, final

import pyarrow as pa

from dolmen import features
from dolmen.errors import SchemaError
from dolmen.features import Schema, examples_schema

__all__ = ["Examples", "decode_examples", "encode_examples"]

_SCHEMA: Final = b"dolmen.schema"
_POSITIONS: Final = b"dolmen.positions"
_NEGATIVE_RATE: Final = b"dolmen.negative_rate"


@final
@dataclass(frozen=True)
class Examples:
    """A batch from the log.

    Args:
        batch: the examples.
        positions: by ``"topic/partition"``, the offset below which every input is accounted for in this record and
            those before it.
        negative_rate: the odds with which the joiner kept a negative; ``ln negative_rate`` corrects the served logit.
        request_ids: the slate that each example comes from; empty if unknown.
    """

    batch: features.Batch
    positions: Mapping[str, int] = field(default_factory=dict)
    negative_rate: float = 1.0
    request_ids: Sequence[str] = ()


def encode_examples(
    schema: Schema,
    examples: pa.RecordBatch,
    positions: Mapping[str, int],
    *,
    negative_rate: float = 1.0,
    request_ids: Sequence[str] | None = None,
) -> bytes:
    """The value of one record of the topic ``examples``.

    Args:
        schema: what an example is.
        examples: in the layout of ``examples_schema``, as ``Batch.to_examples`` makes them.
        positions: see ``Examples``.
        negative_rate: see ``Examples``.
        request_ids: the slate of each example; unknown if ``None``.
    """
    ids = pa.array(request_ids if request_ids is not None else [""] * examples.num_rows, type=pa.string())
    layout = examples.schema.append(pa.field("request_id", pa.string())).with_metadata(
        {
            _SCHEMA: schema.fingerprint,
            _POSITIONS: json.dumps(dict(positions), sort_keys=True),
            _NEGATIVE_RATE: repr(negative_rate),
        }
    )
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, layout) as stream:
        stream.write_batch(pa.RecordBatch.from_arrays([*examples.columns, ids], schema=layout))
    return bytes(sink.getvalue())


def decode_examples(schema: Schema, value: bytes) -> Examples:
    """The inverse of ``encode_examples``; numbers are not copied where Arrow's layout allows it.

    The bytes are not trusted: offsets that point outside their column, which Arrow takes as they are, are found here.

    Raises:
        SchemaError: ``value`` is no batch of examples, or one of another schema.
    """
    try:
        with pa.ipc.open_stream(value) as stream:
            metadata = stream.schema.metadata or {}
            if metadata.get(_SCHEMA) != schema.fingerprint.encode():
                theirs = metadata.get(_SCHEMA, b"none").decode()
                raise SchemaError(f"examples of schema {theirs}, expected {schema.fingerprint}: were fields changed?")
            rows = stream.read_next_batch()
        for name, column in zip(rows.schema.names, rows.columns, strict=True):
            try:
                column.validate(full=True)
            except pa.ArrowInvalid as problem:
                raise SchemaError(f"examples: column {name!r}: {problem}") from None
            if column.null_count or (pa.types.is_large_list(column.type) and column.values.null_count):
                raise SchemaError(f"examples: column {name!r} has nulls, and an example has none")
        batch = features.Batch.from_examples(schema, rows.select(examples_schema(schema).names))
        return Examples(
            batch=batch,
            positions=_decoded_positions(metadata[_POSITIONS]),
            negative_rate=float(metadata[_NEGATIVE_RATE]),
            request_ids=rows.column("request_id").to_pylist(),
        )
    except (pa.ArrowException, KeyError, OSError, StopIteration, TypeError, ValueError) as problem:
        if isinstance(problem, SchemaError):
            raise
        raise SchemaError(f"a record of {len(value)} bytes is no batch of examples: {problem}") from None


def _decoded_positions(text: bytes) -> dict[str, int]:
    positions = json.loads(text)
    if not isinstance(positions, dict) or not all(type(offset) is int for offset in positions.values()):
        raise SchemaError(f"examples: positions must be offsets by topic and partition, got {text!r:.200}")
    return positions

"""The attributes of items and people to features, as the catalogue tells of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from dolmen.errors import SchemaError
from dolmen.features.batch import Batch
from dolmen.features.extract import extract_rows
from dolmen.features.fids import RawId
from dolmen.features.schema import Schema, Side

__all__ = ["Described", "extract_side", "extract_usable"]

Described = tuple[RawId, Mapping[str, Any]]
"""An item or a person: the id, and the attributes by name."""


def extract_side(schema: Schema, side: Side, rows: Sequence[Described]) -> Batch:
    """The slots and dense features of ``side``, the id among them, of each of ``rows``.

    Raises:
        SchemaError: a value does not fit its field; the message names row, field, value and mend.
    """
    slots = [slot.name for slot in schema.slots_of(side)]
    dense = [one.name for one in schema.dense_of(side)]
    values = [{**attributes, str(side): raw} for raw, attributes in rows]
    return extract_rows(schema, values, slots=slots, dense=dense)


def extract_usable(schema: Schema, side: Side, rows: Sequence[Described]) -> Batch:
    """As ``extract_side``; of a row that does not fit this schema the id alone.

    The API checked each change against its schema; the log may also hold changes from before the schema was changed.
    """
    try:
        return extract_side(schema, side, rows)
    except SchemaError:
        unusable = set(_unusable(schema, side, rows, 0, len(rows)))
    kept = [(raw, {} if place in unusable else told) for place, (raw, told) in enumerate(rows)]
    return extract_side(schema, side, kept)


def _unusable(schema: Schema, side: Side, rows: Sequence[Described], begin: int, end: int) -> Iterator[int]:
    """Which rows from ``begin`` to ``end``, that do not all fit, do not: halves, of which one often fits as a whole."""
    if end - begin == 1:
        yield begin
        return
    middle = (begin + end) // 2
    for first, last in ((begin, middle), (middle, end)):
        try:
            extract_side(schema, side, rows[first:last])
        except SchemaError:
            yield from _unusable(schema, side, rows, first, last)

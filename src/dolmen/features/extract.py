"""Raw values to FIDs: from Arrow tables (data sets) and from mappings (JSON events). Both give the same batch.

Everything is checked before anything is returned: a bad value names its field, its row, what came and the mend.
"""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from dolmen.errors import SchemaError
from dolmen.features.batch import Batch, Jagged
from dolmen.features.fids import encode_array, encode_values
from dolmen.features.schema import RESERVED_NAMES, Dense, Label, Schema, Slot

__all__ = ["extract_rows", "extract_table"]

_COMPARED_MAX: Final = 200  # keys beside the schema's of one call; with more they are hardly names of columns
_warned: set[tuple[str, str]] = set()  # fingerprints of schemas with names of slots, of which nobody is told twice
_LIST_TYPES: Final = (list, tuple)
_NUMBER_TYPES: Final = (int, float, np.integer, np.floating, np.bool_)
_NUMBER_KINDS: Final = (
    pa.types.is_integer,
    pa.types.is_floating,
    pa.types.is_boolean,
    pa.types.is_decimal,
    pa.types.is_null,
)
_FLOAT32_MAX: Final = float(np.finfo(np.float32).max)


def extract_table(
    schema: Schema,
    table: pa.Table | pa.RecordBatch,
    *,
    slots: Sequence[str] | None = None,
    dense: Sequence[str] | None = None,
    with_labels: bool = True,
) -> Batch:
    """A batch from Arrow columns named as the schema's fields.

    Args:
        schema: what to read.
        table: integer or string columns for single slots, lists of them for ``many``, numbers for the rest. Optional
            columns: ``weight``, ``sampling_rate`` (numbers) and ``event_time`` (microseconds, or an Arrow timestamp).
        slots: read only these slots; all if ``None``.
        dense: read only these dense features; all if ``None``. A column that is not there has its default everywhere.
        with_labels: false where there is nothing to learn yet.

    Raises:
        SchemaError: a column is missing or of another type, or a value cannot be used.
        TypeError: ``table`` is none of Arrow's, or ``slots`` or ``dense`` is one name instead of a list.
    """
    if not isinstance(table, pa.Table | pa.RecordBatch):
        raise TypeError(
            f"table must be Arrow's, got {type(table).__name__}; pyarrow.table(columns) makes one of arrays by name, "
            "pyarrow.Table.from_pandas of a data frame, and extract_rows reads dicts"
        )
    wanted, numbers = _wanted(schema, slots, dense)
    labels = list(schema.labels.values()) if with_labels else []
    size = table.num_rows
    return Batch(
        size=size,
        slots={slot.name: _slot_column(schema, slot, _column(table, slot.name)) for slot in wanted},
        dense={one.name: _number_column(table, one.name, default=one.default, may_lack=True) for one in numbers},
        labels={one.name: _number_column(table, one.name) for one in labels},
        weights=_meta_column(table, "weight"),
        sampling_rates=_meta_column(table, "sampling_rate"),
        event_times_us=_event_times(table, size),
    )


def extract_rows(
    schema: Schema,
    rows: Sequence[Mapping[str, Any]],
    *,
    slots: Sequence[str] | None = None,
    dense: Sequence[str] | None = None,
    with_labels: bool = False,
) -> Batch:
    """A batch from mappings of raw values, as they come in JSON events. A missing or null value is an empty slot.

    Args:
        schema: what to read.
        rows: one mapping an example; keys that the schema does not know are passed over.
        slots: read only these slots; all if ``None``. Then a slot that no row has, where the rows have a key much like
            it that is no field, is warned of, once for each slot of a schema.
        dense: read only these dense features; all if ``None``.
        with_labels: read labels too; then each row must have them.

    Raises:
        SchemaError: a value cannot be used, a row is no mapping, or ``rows`` is one row instead of a list; the message
            names the row, field, value and mend.
        TypeError: ``slots`` or ``dense`` is one name instead of a list.
    """
    if isinstance(rows, Mapping):
        raise SchemaError(f"rows must be a list of values by name, one for each example, got {rows!r:.80}; write [row]")
    for place, row in enumerate(rows):
        if type(row) is not dict and not isinstance(row, Mapping):  # The first is true at once, and nearly always.
            raise SchemaError(f"row {place} must be values by name, got {row!r:.80}; make a dict of each row")
    if slots is None:
        _warn_of_misspelt_slots(schema, rows)
    wanted, numbers = _wanted(schema, slots, dense)
    labels = list(schema.labels.values()) if with_labels else []
    return Batch(
        size=len(rows),
        slots={slot.name: _slot_values(schema, slot, [row.get(slot.name) for row in rows]) for slot in wanted},
        dense={one.name: _numbers(one, [row.get(one.name) for row in rows]) for one in numbers},
        labels={one.name: _numbers(one, [row.get(one.name) for row in rows]) for one in labels},
    )


def _wanted(schema: Schema, slots: Sequence[str] | None, dense: Sequence[str] | None) -> tuple[list[Slot], list[Dense]]:
    for kind, names in (("slots", slots), ("dense", dense)):
        if isinstance(names, str):
            raise TypeError(f"{kind} must be a list of names, got {names!r}; write [{names!r}]")
    return (
        [schema.slot(name) for name in (slots if slots is not None else schema.slots)],
        [schema.dense_feature(name) for name in (dense if dense is not None else schema.dense)],
    )


def _warn_of_misspelt_slots(schema: Schema, rows: Sequence[Mapping[str, Any]]) -> None:
    keys: set[Any] = set()
    for row in rows:
        keys.update(row)
    lacking = {name for name in schema.slots if name not in keys and (schema.fingerprint, name) not in _warned}
    if not lacking:
        return
    known = RESERVED_NAMES.union(schema.slots, schema.dense, schema.labels)
    foreign = sorted(key for key in keys if isinstance(key, str) and key not in known)
    slots = tuple(schema.slots)
    for key in foreign[:_COMPARED_MAX]:
        name = next((one for one in _slots_like(key, slots) if one in lacking), None)
        if name is not None:
            warnings.warn(
                f"no row has the slot {name!r}, which is read as empty, and {key!r} is no field of the schema: rename "
                f"the key, or name the slots that are wanted",
                stacklevel=3,
            )
            _warned.add((schema.fingerprint, name))
            lacking.remove(name)


@lru_cache(maxsize=4_096)
def _slots_like(key: str, slots: tuple[str, ...]) -> list[str]:
    """Kept, since the rows of a stream have the same keys again and again, and comparing texts is slow."""
    return difflib.get_close_matches(key, slots)


def _slot_values(schema: Schema, slot: Slot, values: Sequence[Any]) -> Jagged:
    """One slot of many rows: everything flattened, encoded in one call, and cut to ``max_len``."""
    rows: list[Sequence[Any]] = []
    for place, value in enumerate(values):
        if value is None:
            rows.append(())
        elif isinstance(value, _LIST_TYPES):
            if not slot.many:
                mend = f"send one value, or declare Slot({slot.name!r}, many=True)"
                raise SchemaError(f"row {place}: {slot.name} takes one value, got a list of {len(value)}; {mend}")
            rows.append(value[-slot.max_len :] if slot.max_len is not None else value)
        elif slot.many:
            raise SchemaError(f"row {place}: {slot.name} takes a list of values, got {value!r}; send [{value!r}]")
        else:
            rows.append((value,))
    ends = np.zeros(len(rows) + 1, dtype=np.int64)
    np.cumsum([len(row) for row in rows], out=ends[1:])
    flat = [value for row in rows for value in row]
    for place, value in enumerate(flat):
        if isinstance(value, bool) or not isinstance(value, (int, str, np.integer)):
            row = int(np.searchsorted(ends, place, side="right")) - 1
            mend = "send an integer or a string"
            raise SchemaError(f"row {row}: {slot.name} has the value {value!r} ({type(value).__name__}); {mend}")
    fids = encode_values(schema.slot_number(slot.name), flat)
    return Jagged.from_arrays(fids, ends)


def _numbers(one: Dense | Label, values: Sequence[Any]) -> Tensor:
    default = one.default if isinstance(one, Dense) else None
    column = np.empty(len(values), dtype=np.float32)
    for place, value in enumerate(values):
        number = default if value is None else value
        if number is None:
            raise SchemaError(f"row {place}: the label {one.name} is missing; send 0 or 1")
        if not isinstance(number, _NUMBER_TYPES) or not -_FLOAT32_MAX <= number <= _FLOAT32_MAX:
            raise SchemaError(f"row {place}: {one.name} must be a finite number, got {value!r}")
        column[place] = number
    return torch.from_numpy(column)


def _column(table: pa.Table | pa.RecordBatch, name: str) -> pa.Array:
    if name not in table.schema.names:
        mend = "add the column (nulls where nothing is known), or leave the field out of the schema"
        raise SchemaError(f"column {name!r} is missing; the table has {', '.join(table.schema.names)}; {mend}")
    column = table.column(name)
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


def _slot_column(schema: Schema, slot: Slot, column: pa.Array) -> Jagged:
    number = schema.slot_number(slot.name)
    if pa.types.is_null(column.type):  # nulls throughout: nothing is known of anybody
        return Jagged.empty(len(column))
    is_list = pa.types.is_list(column.type) or pa.types.is_large_list(column.type)
    if is_list != slot.many:
        wanted = "a list column" if slot.many else "one value a row"
        raise SchemaError(f"slot {slot.name!r} needs {wanted}, got an Arrow column of type {column.type}")
    try:
        if not is_list:
            present = column.is_valid()
            ends = np.zeros(len(column) + 1, dtype=np.int64)
            np.cumsum(present.to_numpy(zero_copy_only=False), out=ends[1:])
            return Jagged(torch.from_numpy(encode_array(number, column.drop_null())), torch.from_numpy(ends))
        lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy(zero_copy_only=False)
        ends = np.zeros(len(column) + 1, dtype=np.int64)
        np.cumsum(lengths, out=ends[1:])
        jagged = Jagged(torch.from_numpy(encode_array(number, column.flatten())), torch.from_numpy(ends))
        return jagged.last(slot.max_len) if slot.max_len is not None else jagged
    except SchemaError as problem:
        raise SchemaError(f"slot {slot.name!r}: {problem}") from None


def _number_column(
    table: pa.Table | pa.RecordBatch, name: str, *, default: float | None = None, may_lack: bool = False
) -> Tensor:
    """A column of finite numbers; ``default`` stands in for nulls, and for the whole column where that ``may_lack``."""
    if may_lack and default is not None and name not in table.schema.names:
        return torch.full((table.num_rows,), default)
    column = _column(table, name)
    kind = column.type
    if not any(is_kind(kind) for is_kind in _NUMBER_KINDS):
        raise SchemaError(f"{name!r} must be a column of numbers, got Arrow type {kind}")
    column = pc.cast(column, pa.float32(), safe=False)  # large integers are rounded, as every float32 is
    if column.null_count:
        if default is None:
            raise SchemaError(f"{name!r} is null in {column.null_count} rows; fill or drop them")
        column = pc.fill_null(column, default)
    values = torch.tensor(column.to_numpy(zero_copy_only=False), dtype=torch.float32)
    finite = torch.isfinite(values)
    if not bool(finite.all()):
        place = int((~finite).nonzero()[0])
        raise SchemaError(f"row {place}: {name} must be a finite number, got {values[place].item()}")
    return values


def _meta_column(table: pa.Table | pa.RecordBatch, name: str) -> Tensor:
    return _number_column(table, name) if name in table.schema.names else torch.ones(table.num_rows)


def _event_times(table: pa.Table | pa.RecordBatch, size: int) -> Tensor:
    if "event_time" not in table.schema.names:
        return torch.zeros(size, dtype=torch.int64)
    column = _column(table, "event_time")
    if pa.types.is_timestamp(column.type):
        # Nanoseconds are cut; a time zone says how to print an instant, not which one it is.
        column = column.cast(pa.timestamp("us", tz=column.type.tz), safe=False).cast(pa.int64())
    if not pa.types.is_int64(column.type) or column.null_count:
        raise SchemaError(f"event_time must be int64 microseconds or a timestamp without nulls, got {column.type}")
    return torch.tensor(column.to_numpy())

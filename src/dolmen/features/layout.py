"""The Arrow layout of examples: the joiner writes it, and dolmen's own stages and any Arrow reader read it."""

from __future__ import annotations

from functools import lru_cache
from typing import Final

import pyarrow as pa

from dolmen.features.schema import Schema

__all__ = ["examples_schema"]

_META: Final = {
    "weight": pa.float32(),
    "sampling_rate": pa.float32(),
    "served_probability": pa.float32(),
    "event_time": pa.int64(),
}


@lru_cache(maxsize=64)
def examples_schema(schema: Schema) -> pa.Schema:
    """The Arrow layout of examples: FIDs by slot, dense features, labels, then what every example has."""
    columns = [pa.field(name, pa.large_list(pa.int64())) for name in schema.slots]
    columns += [pa.field(name, pa.float32()) for name in (*schema.dense, *schema.labels)]
    columns += [pa.field(name, kind) for name, kind in _META.items()]
    return pa.schema(columns, metadata={"dolmen.schema": schema.fingerprint})

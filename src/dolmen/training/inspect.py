"""What is in a snapshot or in the folder of one table, for people: ``dolmen inspect``."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from dolmen.embedding import Embeddings, Table
from dolmen.features import Schema, slot_numbers, values_of
from dolmen.training.snapshot import load_snapshot

__all__ = ["describe_snapshot", "describe_table"]

_QUANTILES: Final = {"min": 0.0, "p50": 0.5, "p99": 0.99, "max": 1.0}


def describe_snapshot(path: Path | str, *, top_count: int = 10) -> dict[str, Any]:
    """Plain values, ready for JSON or a table.

    ``slots`` has, for each slot that owns rows: ``rows``, ``sights`` (of all rows), quantiles of vectors' ``norms``, of
    ``counts`` and of ``ages_seconds`` (since the row was last seen, at the data's newest time), and ``top_ids``: the
    ``top_count`` most often seen, as ``[value, count]`` (the id itself if it was a small integer, else its hash).
    ``not_finite``: rows whose vector has NaN or infinity, which no quantile of ``norms`` counts.

    Of ids without a row: ``waiting``, those that are counted exactly; ``filter_bytes`` of the slot's sketch or Bloom
    filter; and ``admission_failures``, those that a full sketch admitted at once. ``evicted``: rows that left because a
    capacity was full, since the beginning.

    Args:
        path: a snapshot, a folder of snapshots or a trainer's folder.
        top_count: how many ids to name.

    Raises:
        SnapshotError: there is no valid snapshot.
    """
    snapshot = load_snapshot(path)
    manifest, schema, embeddings = snapshot.manifest, snapshot.parameters.schema, snapshot.parameters.embeddings
    return {
        "path": str(snapshot.path),
        "version": manifest.version,
        "offset": manifest.offset,
        "lineage": manifest.lineage,
        "dolmen": manifest.dolmen,
        "created_time_us": manifest.created_time_us,
        "newest_event_time_us": manifest.newest_event_time_us,
        "model": manifest.model,
        "model_options": manifest.model_options,
        "train": manifest.train,
        "schema": manifest.schema,
        "schema_fingerprint": manifest.schema_fingerprint,
        "positions": manifest.positions,
        "counters": manifest.counters,
        "file_bytes": {name: entry.bytes for name, entry in manifest.files.items()},
        "dense_parameters": sum(one.numel() for one in snapshot.parameters.model.parameters()),
        "rows": len(embeddings),
        "table_bytes": embeddings.memory().total_bytes,
        "evicted": sum(table.clocks.eviction_count for table in embeddings.tables.values()),
        "slots": _slots(schema, embeddings, manifest.newest_event_time_us, top_count),
    }


def describe_table(folder: Path | str, *, top_count: int = 10) -> dict[str, Any]:
    """As ``describe_snapshot``, of what ``Table.save`` wrote: ages at the table's newest time.

    ``slots`` by name where the table knows it, as one of ``Embeddings`` does, else by number.

    Raises:
        SnapshotError: a file is missing or damaged.
    """
    table = Table.load(folder)
    columns = _Columns(table)
    numbers = sorted({*table.slots(), *table.rules})
    return {
        "path": str(folder),
        "rows": len(table),
        "dim": table.dim,
        "precision": str(table.precision),
        "optimizer": str(table.optimizer),
        "capacity": None if table.capacity is None else str(table.capacity),
        "table_bytes": table.memory().total_bytes,
        "newest_event_time_us": table.time_seen_max_us,
        "evicted": table.clocks.eviction_count,
        "slots": {
            _slot_name(table, number): columns.of_slot(number, table.time_seen_max_us, top_count) for number in numbers
        },
    }


def _slot_name(table: Table, number: int) -> str:
    rule = table.rules.get(number)
    return rule.name if rule is not None and rule.name else str(number)


def _slots(schema: Schema, embeddings: Embeddings, now_us: int, top_count: int) -> dict[str, dict[str, Any]]:
    columns = {dim: _Columns(table) for dim, table in embeddings.tables.items()}
    return {
        name: {"dim": slot.dim, **columns[slot.dim].of_slot(schema.slot_number(name), now_us, top_count)}
        for name, slot in schema.slots.items()
        if schema.owner(name) is slot
    }


class _Columns:
    """What is told of a table's rows, column by column; the vectors themselves stay behind."""

    def __init__(self, table: Table) -> None:
        with table.instant() as instant:
            chunks = list(instant.chunks())
            self.filters, self.waiting = instant.header.filters, slot_numbers(instant.pending.fids)
        self.table = table
        self.fids = _joined([chunk.fids for chunk in chunks], np.int64)
        self.counts = _joined([chunk.counts for chunk in chunks], np.int64)
        self.last_seen_us = _joined([chunk.last_seen_us for chunk in chunks], np.int64)
        self.norms = _joined([_norms(chunk.vectors) for chunk in chunks], np.float64)
        self.slot_numbers = slot_numbers(self.fids)

    def of_slot(self, number: int, now_us: int, top_count: int) -> dict[str, Any]:
        """Of the rows of one slot, and of the ids that have none yet."""
        chosen = np.flatnonzero(self.slot_numbers == number)
        counts, norms = self.counts[chosen], self.norms[chosen]
        is_finite = np.isfinite(norms)
        top = chosen[np.argsort(-counts, kind="stable")[:top_count]]
        return {
            "rows": len(chosen),
            "sights": int(counts.sum()),
            "norms": _quantiles(norms[is_finite]),
            "not_finite": int((~is_finite).sum()),
            "counts": _quantiles(counts),
            "ages_seconds": _quantiles(np.maximum(0, now_us - self.last_seen_us[chosen]) / 1e6),
            "waiting": int((self.waiting == number).sum()),
            "filter_bytes": self.filters[number].nbytes if number in self.filters else 0,
            "admission_failures": self.table.admission_failures(number),
            "top_ids": [
                [int(value), int(count)]
                for value, count in zip(values_of(self.fids[top]), self.counts[top], strict=True)
            ],
        }


def _norms(vectors: NDArray[np.float32]) -> NDArray[np.float64]:
    """Of each row; finite where the row is, however large."""
    norms: NDArray[np.float64] = np.sqrt(np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64))
    return norms


def _joined(parts: list[NDArray[Any]], kind: type) -> NDArray[Any]:
    return np.concatenate(parts) if parts else np.empty(0, dtype=kind)


def _quantiles(values: NDArray[Any]) -> dict[str, float]:
    if len(values) == 0:
        return {}
    return {
        name: float(value) for name, value in zip(_QUANTILES, np.quantile(values, [*_QUANTILES.values()]), strict=True)
    }

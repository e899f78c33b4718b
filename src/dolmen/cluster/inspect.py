"""``dolmen inspect``: what is in a snapshot, a table file, a log or a state folder, for people and for programs."""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, final

from rich.table import Table as TextTable

from dolmen import training
from dolmen.errors import DataError
from dolmen.events import EmbeddedLog, Retention
from dolmen.sheets import Sheet, record

__all__ = ["Inspection", "inspect_path"]


@final
@dataclass(frozen=True)
class Inspection:
    """What was found: by kind (``snapshot``, ``table``, ``tables``, ``log``), plain values ready for JSON."""

    values: dict[str, dict[str, Any]]

    def tables(self) -> Iterator[Sheet | TextTable]:
        """The same for people."""
        for kind, values in self.values.items():
            yield from _SHOWN[kind](values)


def inspect_path(path: Path, *, top_count: int = 5, retention: Mapping[str, Retention] | None = None) -> Inspection:
    """Look at what lies at ``path``, which changes nothing.

    Args:
        path: a snapshot, a folder of snapshots, what ``Table.save`` or ``Embeddings.save`` wrote, a log or a state
            folder.
        top_count: how many of the most seen ids to name.
        retention: of the log's topics, as the configuration has it; it says which readers must be waited for.

    Raises:
        DataError: there is nothing that dolmen wrote.
        SnapshotError: what is there is damaged.
    """
    if not path.exists():
        raise DataError(f"{path} does not exist")
    if _holds_table(path):
        return Inspection({"table": training.describe_table(path, top_count=top_count)})
    found: dict[str, dict[str, Any]] = {}
    snapshots, log = _first(path, _holds_snapshots), _first(path, _holds_log)
    if snapshots is not None:
        found["snapshot"] = training.describe_snapshot(snapshots, top_count=top_count)
    if log is not None:
        found["log"] = _describe_log(log, retention)
    tables = [] if found else sorted(filter(_holds_table, path.glob("table-*")))
    if tables:
        found["tables"] = {one.name: training.describe_table(one, top_count=top_count) for one in tables}
    if not found:
        raise DataError(
            f"{path} holds nothing that dolmen wrote: no snapshot (manifest.json), no table (table.json, table-*/"
            "table.json) and no log (TOPIC/0/data.mdb); name a state folder, or one of these"
        )
    return Inspection(found)


def _first(path: Path, holds: Any) -> Path | None:
    """``path`` itself, or the folder inside a state folder that has what is looked for."""
    places = [path, path / "trainer" / "snapshots", path / "snapshots", path / "log"]
    return next((place for place in places if place.is_dir() and holds(place)), None)


def _holds_table(path: Path) -> bool:
    return (path / "table.json").exists()


def _holds_snapshots(path: Path) -> bool:
    return (path / "manifest.json").exists() or any(path.glob("[0-9]*/manifest.json"))


def _holds_log(path: Path) -> bool:
    return any(path.glob("*/0/data.mdb"))


def _describe_log(path: Path, retention: Mapping[str, Retention] | None) -> dict[str, Any]:
    log = EmbeddedLog(path, retention=retention, read_only=True)
    try:
        topics = {}
        for topic in log.topics():
            for partition in range(log.partitions(topic)):
                first, following = log.bounds(topic, partition)
                awaited = log.awaited(topic, partition)
                slowest = min(awaited, key=lambda name: awaited[name], default=None)
                is_held = slowest is not None and awaited[slowest] < following
                newest = log.read(topic, partition, following - 1, max_records=1) if following > first else []
                topics[f"{topic}/{partition}"] = {
                    "first_offset": first,
                    "next_offset": following,
                    "records": following - first,
                    "newest": _time(newest[0].time_us) if newest else None,
                    "readers": awaited,
                    "held_by": slowest if is_held else None,
                    "file_bytes": sum(file.stat().st_size for file in (path / topic / str(partition)).glob("data.mdb")),
                }
        return {"path": str(path), "topics": topics}
    finally:
        log.close()


def _snapshot_tables(values: dict[str, Any]) -> Iterator[Sheet | TextTable]:
    names = "version", "model", "rows", "dense_parameters", "schema_fingerprint", "dolmen"
    about = {name: str(values[name]) for name in names} | {
        "written": _time(values["created_time_us"]),
        "newest event": _time(values["newest_event_time_us"]),
        "bytes": f"{sum(values['file_bytes'].values()):,}",
    }
    yield record(f"snapshot {values['path']}", about)
    yield _slots_table(values)


def _table_tables(values: dict[str, Any]) -> Iterator[Sheet | TextTable]:
    about = {name: str(values[name]) for name in ("rows", "dim", "precision", "optimizer", "capacity")} | {
        "newest event": _time(values["newest_event_time_us"]),
        "bytes in memory": f"{values['table_bytes']:,}",
    }
    yield record(f"table {values['path']}", about)
    yield _slots_table(values)


def _several_tables(values: dict[str, Any]) -> Iterator[Sheet | TextTable]:
    for one in values.values():
        yield from _table_tables(one)


def _slots_table(values: dict[str, Any]) -> Sheet:
    heads = "slot", "rows", "sights", "norm p50", "norm max", "age p50", "count p99", "waiting", "filter", "failed"
    title = f"slots ({values['evicted']:,} rows evicted so far)"
    broken = {name: slot["not_finite"] for name, slot in values["slots"].items() if slot["not_finite"]}
    if broken:
        told = ", ".join(f"{count:,} of {name}" for name, count in broken.items())
        title += f"; rows with NaN or infinity, left out of norms: {told}"
    slots = Sheet(*heads, "most seen (times); of a text, its hash", title=title)
    for name, slot in values["slots"].items():
        slots.add_row(
            name,
            f"{slot['rows']:,}",
            f"{slot['sights']:,}",
            *(_quantile(slot["norms"], one) for one in ("p50", "max")),
            _quantile(slot["ages_seconds"], "p50", unit=" s"),
            _quantile(slot["counts"], "p99"),
            f"{slot['waiting']:,}",
            f"{slot['filter_bytes']:,} B",
            f"{slot['admission_failures']:,}",
            ", ".join(f"{value} ({count:,})" for value, count in slot["top_ids"]),
        )
    return slots


def _log_tables(values: dict[str, Any]) -> Iterator[Sheet | TextTable]:
    heads = "topic", "first", "next", "records", "newest", "file bytes", "retention waits for"
    topics = Sheet(*heads, title=f"log {values['path']}")
    for name, one in values["topics"].items():
        numbers = [f"{one[key]:,}" for key in ("first_offset", "next_offset", "records")]
        reader = one["held_by"]
        held = f"{reader} at {one['readers'][reader]:,}" if reader is not None else "-"
        topics.add_row(name, *numbers, one["newest"] or "-", f"{one['file_bytes']:,}", held)
    yield topics


def _quantile(values: dict[str, Any] | None, name: str, *, unit: str = "") -> str:
    if not values or values.get(name) is None:
        return "-"
    value = values[name]
    return f"{value:,.0f}{unit}" if abs(value) >= 1000 else f"{value:.3g}{unit}"


def _time(time_us: int) -> str:
    return datetime.datetime.fromtimestamp(time_us / 1e6, tz=datetime.UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


_SHOWN: Final = {
    "snapshot": _snapshot_tables,
    "table": _table_tables,
    "tables": _several_tables,
    "log": _log_tables,
}

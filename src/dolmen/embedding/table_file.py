"""A table as a folder of Arrow files: the rows in shards, which are written and checked by several threads.

    table-16/
        table.json         dim, optimiser, rules, epochs; size and checksum of every other file; itself checksummed
        rows-00000.arrow   fid, vector, state, last_seen_us, count, epoch, row: rows by number, the first stretch
        rows-00001.arrow   and so on
        pending.arrow      FIDs seen but not yet admitted
        removed.arrow      FIDs removed, with the epoch of it
        filters.arrow      by slot: the state of its admission sketch or Bloom filter

The folder appears under its name when all of it is on disk. A reader checks every byte before it hands out anything:
what was cut short or has one bit wrong is refused by name. The cut into shards follows from the table alone, so the
same table gives the same bytes on any machine.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, Final, final

import msgspec
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dolmen.checksums import NO_CHECKSUM, FileEntry, entry_of, flush, is_sealed, sealed
from dolmen.embedding.instant import TableInstant
from dolmen.embedding.optimizers import optimizer_from_dict, optimizer_to_dict
from dolmen.embedding.precision import Precision
from dolmen.embedding.rows import Capacity, Clocks, PendingCounts, RowChunk, RowRules, TableHeader
from dolmen.errors import SnapshotError
from dolmen.unfinished import unfinished

__all__ = ["FORMAT_VERSION", "MANIFEST", "read", "write"]

FORMAT_VERSION: Final = 2
MANIFEST: Final = "table.json"

_SHARD_BYTES: Final = 128 << 20  # Enough shards to share out among threads, few enough for a folder to be looked at.
_BATCH_BYTES: Final = 4 << 20  # Of one record batch: its copy stays in the processor's cache until it is written.
_THREADS_MAX: Final = 4  # A disk has no use for more.
_PENDING: Final = "pending.arrow"
_REMOVED: Final = "removed.arrow"
_FILTERS: Final = "filters.arrow"


@final
class _Manifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    checksum: str
    format: int
    table: dict[str, Any]
    files: dict[str, FileEntry]


class _Head(msgspec.Struct):
    checksum: str
    format: int


# Made here and not at the first call: threads that read a kind of struct for the first time at once crash msgspec.
_head_decoder: Final = msgspec.json.Decoder(_Head)
_manifest_decoder: Final = msgspec.json.Decoder(_Manifest)


def write(folder: Path, instant: TableInstant) -> dict[str, FileEntry]:
    """Put a table at ``folder``, which must not exist, by one rename. Returns its files, ``table.json`` among them.

    Raises:
        OSError: the folder exists, or the disk failed; nothing is left behind then. What a writer that was killed left
            goes with the next write to the same place.
    """
    if folder.exists():
        raise _there_already(folder)
    with unfinished(folder) as path:
        files = _write_files(path, instant)
        flush(path)
        try:
            path.rename(folder)
        except OSError:
            if folder.exists():
                raise _there_already(folder) from None
            raise
        flush(folder.parent)
    return files


def _there_already(folder: Path) -> FileExistsError:
    return FileExistsError(f"{folder} exists already; save each version of a table under a name of its own")


def read(folder: Path, *, is_checked: bool = False) -> tuple[TableHeader, PendingCounts, Iterator[RowChunk]]:
    """What `write` was given. The rows are mapped from the files as the iterator goes on, without copies.

    Args:
        folder: the table's.
        is_checked: the caller has just compared the files with their checksums.

    Raises:
        SnapshotError: a file is missing, torn, damaged or of another format.
        OSError: there is no such folder, or it cannot be read.
    """
    manifest = _read_manifest(folder)
    if not is_checked:
        _check(folder, manifest.files)
    try:
        header = _header(manifest.table, _read_columns(folder / _REMOVED), _read_columns(folder / _FILTERS))
        waiting = _read_columns(folder / _PENDING)
        pending = PendingCounts(waiting["fid"], waiting["count"], waiting["last_seen_us"])
    except (KeyError, TypeError, ValueError, pa.ArrowException) as problem:
        raise SnapshotError(f"{folder}: {MANIFEST} does not describe a table: {problem!r}") from problem
    shards = [folder / name for name in sorted(manifest.files) if name.startswith("rows-")]
    # Room for the rows is made before the first is read, so this number is not taken on trust.
    rows_bytes = sum(manifest.files[shard.name].bytes for shard in shards)
    if not 0 <= header.row_count * _row_bytes(header) <= rows_bytes:
        raise SnapshotError(
            f"{folder}: {MANIFEST} promises {header.row_count} rows, but its rows-*.arrow hold {rows_bytes} bytes, "
            f"and a row takes {_row_bytes(header)}; it was altered, fetch the folder again"
        )
    return header, pending, (chunk for shard in shards for chunk in _read_rows(shard, header))


def _write_files(folder: Path, instant: TableInstant) -> dict[str, FileEntry]:
    header, pending = instant.header, instant.pending
    row_bytes = _row_bytes(header)
    shard_rows = -(-_SHARD_BYTES // row_bytes // 64) * 64  # Shards begin at multiples of 64, as an instant wants it.
    tasks: dict[str, Callable[[Path], None]] = {
        f"rows-{number:05d}.arrow": partial(_write_rows, instant, begin, begin + shard_rows, row_bytes)
        for number, begin in enumerate(range(0, max(1, instant.row_end), shard_rows))
    }
    waiting = {"fid": pending.fids, "count": pending.counts, "last_seen_us": pending.last_seen_us}
    removed = {"fid": header.removed, "epoch": header.removed_epochs}
    slots = sorted(header.filters)
    states = pa.array([header.filters[slot].tobytes() for slot in slots], pa.large_binary())
    filters = {"slot": np.array(slots, dtype=np.int64), "state": states}
    for name, columns in ((_PENDING, waiting), (_REMOVED, removed), (_FILTERS, filters)):
        batch = pa.record_batch({column: pa.array(values) for column, values in columns.items()})
        tasks[name] = partial(_write_batch, batch)

    def run(name: str) -> FileEntry:
        tasks[name](folder / name)
        flush(folder / name)
        return entry_of(folder / name)

    with ThreadPoolExecutor(_thread_count(len(tasks)), thread_name_prefix="table-file") as threads:
        files = dict(zip(tasks, threads.map(run, tasks), strict=True))
    manifest = _Manifest(checksum=NO_CHECKSUM, format=FORMAT_VERSION, table=_values(header), files=files)
    path = folder / MANIFEST
    path.write_bytes(sealed(msgspec.json.format(msgspec.json.encode(manifest, order="sorted"))))
    flush(path)
    return {**files, MANIFEST: entry_of(path)}


def _row_bytes(header: TableHeader) -> int:
    return (header.dim + header.state_dim) * 4 + 32  # FID, last sight and count; epoch and row number


def _write_rows(instant: TableInstant, begin: int, end: int, row_bytes: int, path: Path) -> None:
    header = instant.header
    fields = [("fid", pa.int64()), ("vector", pa.list_(pa.float32(), header.dim))]
    if header.state_dim > 0:
        fields.append(("state", pa.list_(pa.float32(), header.state_dim)))
    fields += [("last_seen_us", pa.int64()), ("count", pa.int64()), ("epoch", pa.uint32()), ("row", pa.uint32())]
    schema = pa.schema([pa.field(name, kind, nullable=False) for name, kind in fields])
    buffer = instant.buffer(max(64, _BATCH_BYTES // row_bytes))
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        while begin < end:
            chunk, begin = instant.read(buffer, begin, end)
            columns = [pa.array(chunk.fids), _list_column(chunk.vectors)]
            if header.state_dim > 0:
                columns.append(_list_column(chunk.states))
            columns += [pa.array(each) for each in (chunk.last_seen_us, chunk.counts, chunk.epochs, chunk.row_numbers)]
            if len(chunk.fids) > 0:
                writer.write_batch(pa.record_batch(columns, schema=schema))


def _write_batch(batch: Any, path: Path) -> None:
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, batch.schema) as writer:
        writer.write_batch(batch)


def _read_manifest(folder: Path) -> _Manifest:
    try:
        text = (folder / MANIFEST).read_bytes()
    except FileNotFoundError:
        if not folder.is_dir():
            raise
        raise SnapshotError(
            f"{folder}: {MANIFEST} is missing, so this is no saved table; Table.save makes one"
        ) from None
    name = f"{folder}: {MANIFEST}"
    try:
        head = _head_decoder.decode(text)
        if not is_sealed(text, head.checksum):
            raise SnapshotError(f"{name} fails its checksum; it was cut short or damaged, fetch it again")
        if head.format != FORMAT_VERSION:
            raise SnapshotError(
                f"{name} is of format {head.format}, this dolmen reads {FORMAT_VERSION}; use the one it is from"
            )
        return _manifest_decoder.decode(text)
    except (msgspec.DecodeError, ValueError) as problem:
        raise SnapshotError(f"{name} cannot be read: {problem}; it was cut short or damaged, fetch it again") from None


def _check(folder: Path, files: Mapping[str, FileEntry]) -> None:
    with ThreadPoolExecutor(_thread_count(len(files)), thread_name_prefix="table-file") as threads:
        problems = threads.map(lambda name: files[name].problem_of(folder / name), files)
        for name, problem in zip(files, problems, strict=True):
            if problem is not None:
                raise SnapshotError(f"{folder}: {name} {problem}")


def _read_columns(path: Path) -> dict[str, NDArray[Any]]:
    with pa.memory_map(str(path)) as source:
        batch = pa.ipc.open_file(source).get_batch(0)
        return {name: np.array(batch.column(name)) for name in batch.schema.names}


def _read_rows(path: Path, header: TableHeader) -> Iterator[RowChunk]:
    with pa.memory_map(str(path)) as source:
        reader = pa.ipc.open_file(source)
        for i in range(reader.num_record_batches):
            batch = reader.get_batch(i)
            count = batch.num_rows

            def column(name: str, batch: Any = batch) -> NDArray[Any]:
                array: NDArray[Any] = batch.column(name).to_numpy()
                return array

            def lists(name: str, dim: int, batch: Any = batch, count: int = count) -> NDArray[np.float32]:
                array: NDArray[np.float32] = batch.column(name).flatten().to_numpy().reshape(count, dim)
                return array

            yield RowChunk(
                fids=column("fid"),
                vectors=lists("vector", header.dim),
                states=lists("state", header.state_dim) if header.state_dim > 0 else np.empty((count, 0), np.float32),
                last_seen_us=column("last_seen_us"),
                counts=column("count"),
                epochs=column("epoch"),
                row_numbers=column("row"),
            )


def _list_column(rows: NDArray[np.float32]) -> Any:
    return pa.FixedSizeListArray.from_arrays(pa.array(rows.reshape(-1)), rows.shape[1])


# Fields of a header that need more than JSON.
_ELSEWHERE: Final = {"optimizer", "rules", "clocks", "removed", "removed_epochs", "filters", "precision", "capacity"}


def _values(header: TableHeader) -> dict[str, Any]:
    plain = {name: value for name, value in vars(header).items() if name not in _ELSEWHERE}
    rules = {str(slot): asdict(rule) for slot, rule in sorted(header.rules.items())}
    return plain | {
        "optimizer": optimizer_to_dict(header.optimizer),
        "rules": rules,
        "precision": str(header.precision),
        "capacity": None if header.capacity is None else asdict(header.capacity),
        "clocks": asdict(header.clocks),
    }


def _header(
    values: Mapping[str, Any], removed: Mapping[str, NDArray[Any]], filters: Mapping[str, NDArray[Any]]
) -> TableHeader:
    plain = {name: value for name, value in values.items() if name not in _ELSEWHERE}
    return TableHeader(
        **plain,
        optimizer=optimizer_from_dict(values["optimizer"]),
        rules={int(slot): RowRules(**rule) for slot, rule in values["rules"].items()},
        clocks=Clocks(**values["clocks"]),
        removed=removed["fid"],
        removed_epochs=removed["epoch"],
        filters={
            int(slot): np.frombuffer(state, dtype=np.uint8)
            for slot, state in zip(filters["slot"], filters["state"], strict=True)
        },
        precision=Precision(values.get("precision", Precision.FLOAT32)),
        capacity=Capacity(**values["capacity"]) if values.get("capacity") else None,
    )


def _thread_count(task_count: int) -> int:
    return max(1, min(_THREADS_MAX, os.cpu_count() or 1, task_count))

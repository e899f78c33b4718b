"""A table as one Arrow IPC file: rows as columns, the rest in the schema's metadata.

The metadata holds a checksum of the whole file but itself (XXH64 of the XXH64 of each stretch around its places, for
Arrow writes a schema twice, before and after the rows). It is checked before Arrow reads anything, so a file that
was cut short or has one bit wrong is refused by name. A file appears under its name only when all of it is on disk.
"""

import base64
import json
import mmap
import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import DTypeLike, NDArray

from dolmen._core import checksum
from dolmen.embedding.optimizers import optimizer_from_dict, optimizer_to_dict
from dolmen.embedding.rows import Clocks, PendingCounts, RowChunk, RowRules, TableHeader
from dolmen.errors import SnapshotError

__all__ = ["FORMAT_VERSION", "read", "write"]

FORMAT_VERSION: Final = 1

_KEY: Final = b"dolmen.table"
_CHECKSUM_KEY: Final = b"dolmen.checksum"
_CHECKSUM_MARK: Final = b"xxh64:"
_CHECKSUM_DIGITS: Final = 16


def write(path: Path, header: TableHeader, pending: PendingCounts, chunks: Iterable[RowChunk]) -> None:
    """Put a table at ``path``, replacing what was there by one rename."""
    partial = path.with_name(f"{path.name}.partial-{os.getpid()}")
    try:
        _write_arrow(partial, header, pending, chunks)
        _seal(partial)
        partial.replace(path)
        _sync_folder(path.parent)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def read(path: Path) -> tuple[TableHeader, PendingCounts, Iterator[RowChunk]]:
    """What `write` was given. The rows are read from the file as the iterator goes on, without copies.

    Raises:
        SnapshotError: the file is torn, damaged, not a table, or of another version.
    """
    with path.open("rb") as file:
        if os.fstat(file.fileno()).st_size == 0:
            raise SnapshotError(f"{path}: the file is empty, so it is no table; fetch it again")
        mapping = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    _check_seal(path, mapping)
    reader = pa.ipc.open_file(pa.py_buffer(mapping))
    try:
        values = json.loads(reader.schema.metadata[_KEY])
    except (KeyError, ValueError) as error:
        raise SnapshotError(f"{path}: an Arrow file, but its schema does not say that it is a table") from error
    if values["version"] != FORMAT_VERSION:
        raise SnapshotError(
            f"{path}: a table of format {values['version']}, this dolmen reads {FORMAT_VERSION}; use the one it is from"
        )
    header, pending = _parse(values)
    return header, pending, _chunks(reader, header)


def _write_arrow(path: Path, header: TableHeader, pending: PendingCounts, chunks: Iterable[RowChunk]) -> None:
    fields = [("fid", pa.int64()), ("vector", pa.list_(pa.float32(), header.dim))]
    if header.state_dim > 0:
        fields.append(("state", pa.list_(pa.float32(), header.state_dim)))
    fields += [("last_seen_us", pa.int64()), ("count", pa.int64()), ("epoch", pa.uint32()), ("row", pa.uint32())]
    metadata = {
        _KEY: json.dumps(_unparse(header, pending)).encode(),
        _CHECKSUM_KEY: _CHECKSUM_MARK + b"0" * _CHECKSUM_DIGITS,
    }
    schema = pa.schema([pa.field(name, kind, nullable=False) for name, kind in fields], metadata)
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        for chunk in chunks:
            columns = [pa.array(chunk.fids), _list_column(chunk.vectors)]
            if header.state_dim > 0:
                columns.append(_list_column(chunk.states))
            columns += [pa.array(each) for each in (chunk.last_seen_us, chunk.counts, chunk.epochs, chunk.row_numbers)]
            writer.write_batch(pa.record_batch(columns, schema=schema))


def _chunks(reader: Any, header: TableHeader) -> Iterator[RowChunk]:
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


def _unparse(header: TableHeader, pending: PendingCounts) -> dict[str, Any]:
    return {
        "version": FORMAT_VERSION,
        "dim": header.dim,
        "state_dim": header.state_dim,
        "optimizer": optimizer_to_dict(header.optimizer),
        "seed": header.seed,
        "initial_range": header.initial_range,
        "rules": {str(slot): asdict(rule) for slot, rule in sorted(header.rules.items())},
        "row_count": header.row_count,
        "time_seen_max_us": header.time_seen_max_us,
        "clocks": asdict(header.clocks),
        "oldest_epoch": header.oldest_epoch,
        "epoch": header.epoch,
        "removed": _text(header.removed),
        "removed_epochs": _text(header.removed_epochs),
        "filters": {str(slot): _text(state) for slot, state in sorted(header.filters.items())},
        "pending_fids": _text(pending.fids),
        "pending_counts": _text(pending.counts),
        "pending_last_seen_us": _text(pending.last_seen_us),
    }


def _parse(values: dict[str, Any]) -> tuple[TableHeader, PendingCounts]:
    header = TableHeader(
        dim=values["dim"],
        state_dim=values["state_dim"],
        optimizer=optimizer_from_dict(values["optimizer"]),
        seed=values["seed"],
        initial_range=values["initial_range"],
        rules={int(slot): RowRules(**rule) for slot, rule in values["rules"].items()},
        row_count=values["row_count"],
        time_seen_max_us=values["time_seen_max_us"],
        clocks=Clocks(**values["clocks"]),
        oldest_epoch=values["oldest_epoch"],
        epoch=values["epoch"],
        removed=_array(values["removed"], np.int64),
        removed_epochs=_array(values["removed_epochs"], np.uint32),
        filters={int(slot): _array(state, np.uint8) for slot, state in values["filters"].items()},
    )
    pending = PendingCounts(
        fids=_array(values["pending_fids"], np.int64),
        counts=_array(values["pending_counts"], np.int64),
        last_seen_us=_array(values["pending_last_seen_us"], np.int64),
    )
    return header, pending


def _text(values: NDArray[Any]) -> str:
    return base64.b64encode(values.astype(values.dtype.newbyteorder("<")).tobytes()).decode()


def _array(text: str, dtype: DTypeLike) -> NDArray[Any]:
    return np.frombuffer(base64.b64decode(text), dtype=np.dtype(dtype).newbyteorder("<")).astype(dtype)


def _seal(path: Path) -> None:
    """Write the checksum into both of its places, and the file to disk."""
    with path.open("r+b") as file:
        with mmap.mmap(file.fileno(), 0) as mapping:
            places = _checksum_places(mapping)
            if places is None:
                raise AssertionError("Arrow wrote a schema without our metadata")
            digits = _digest(mapping, places)
            for place in places:
                mapping[place : place + _CHECKSUM_DIGITS] = digits
            mapping.flush()
        os.fsync(file.fileno())


def _check_seal(path: Path, mapping: mmap.mmap) -> None:
    places = _checksum_places(mapping)
    if places is None:
        raise SnapshotError(f"{path}: no table, or one that was cut short or damaged; fetch it again")
    digits = _digest(mapping, places)
    for place in places:
        written = mapping[place : place + _CHECKSUM_DIGITS]
        if written != digits:
            raise SnapshotError(
                f"{path}: its checksum is {digits.decode()}, but it says {written.decode(errors='replace')}: "
                "it was cut short or damaged; fetch it again"
            )


def _checksum_places(mapping: mmap.mmap) -> tuple[int, int] | None:
    first, last = mapping.find(_CHECKSUM_MARK), mapping.rfind(_CHECKSUM_MARK)
    if first < 0 or last - first < len(_CHECKSUM_MARK) + _CHECKSUM_DIGITS:
        return None
    return first + len(_CHECKSUM_MARK), last + len(_CHECKSUM_MARK)


def _digest(mapping: mmap.mmap, places: tuple[int, int]) -> bytes:
    first, last = places
    stretches = [(0, first), (first + _CHECKSUM_DIGITS, last), (last + _CHECKSUM_DIGITS, len(mapping))]
    whole = np.frombuffer(mapping, dtype=np.uint8)
    parts = np.array([checksum(whole[begin:end], 0) for begin, end in stretches], dtype=np.uint64)
    del whole  # A view would keep the mapping from being closed.
    return f"{checksum(parts.view(np.uint8), 0):0{_CHECKSUM_DIGITS}x}".encode()


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

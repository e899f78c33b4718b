"""This server's own memory on disk: people, catalogue and counts, each with the log position that it includes.

The log is the truth. What is here is what the log's records made, written behind every second in one transaction with
the positions; after a crash the records from there on are applied again, and nothing that was acknowledged is lost.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol, final

import msgspec

from dolmen.errors import ConfigError
from dolmen.events.store import Store, Transaction

__all__ = ["Change", "Changes", "Part", "State"]

_POSITIONS: Final = "positions"
_FORMAT_KEY: Final = b"format"
_FORMAT: Final = b"2"
_SCAN: Final = 5_000  # entries read in one transaction

Change = tuple[str, bytes, bytes | None]
"""Table, key, and value; ``None`` deletes."""


@final
@dataclass(frozen=True)
class Changes:
    """What a part wants on disk. ``positions``: next offset by topic and partition, that this includes."""

    changes: Sequence[Change]
    positions: Mapping[str, Mapping[int, int]]


class Part(Protocol):
    """A part of the server whose memory is kept in the state."""

    def take_changes(self) -> Changes:
        """What changed since the last call."""
        ...

    def saved(self, *, on_disk: bool) -> None:
        """What was taken is on disk, or is not and must be taken again."""
        ...


@final
class State:
    """Tables of bytes in one LMDB environment. Any thread may call anything.

    Args:
        folder: made if missing; one server's own.
        tables: names of the tables.

    Raises:
        ConfigError: the folder's state is of another format.
    """

    def __init__(self, folder: Path, tables: Iterable[str]) -> None:
        self._folder = folder
        self._store = Store(folder, databases=[*tables, _POSITIONS])
        try:
            self._store.write(self._check_format)
        except ConfigError:
            self._store.close()
            raise

    def get(self, table: str, key: bytes) -> bytes | None:
        """One value."""
        database = self._store.database(table)

        def work(txn: Transaction) -> bytes | None:
            value = txn.get(key, db=database)
            return bytes(value) if value is not None else None

        return self._store.read(work)

    def scan(self, table: str, start: bytes = b"", limit: int | None = None) -> Iterator[tuple[bytes, bytes]]:
        """Keys from ``start`` on with their values, in order, at most ``limit``."""
        left = limit if limit is not None else 1 << 62
        while left > 0:
            part = self._scan_part(table, start, min(left, _SCAN))
            yield from part
            left -= len(part)
            if len(part) < _SCAN:
                return
            start = part[-1][0] + b"\x00"

    def positions(self, topic: str) -> dict[int, int]:
        """The positions committed last for ``topic``, by partition."""
        value = self.get(_POSITIONS, topic.encode())
        return msgspec.msgpack.decode(value, type=dict[int, int]) if value is not None else {}

    def save(self, *parts: Part) -> int:
        """Write what changed in the parts, with their positions, all or none; returns how many entries.

        A part that refers to another stands before it: what is taken from that one later knows of everything it names.

        Raises:
            LogError: the disk failed; nothing was written, and the next call tries again.
        """
        on_disk = False
        try:
            taken = [part.take_changes() for part in parts]
            if any(one.changes or self._has_moved(one) for one in taken):
                self._commit(taken)
            on_disk = True
        finally:
            for part in parts:
                part.saved(on_disk=on_disk)
        return sum(len(one.changes) for one in taken)

    def _has_moved(self, taken: Changes) -> bool:
        return any(self.positions(topic) != dict(at) for topic, at in taken.positions.items())

    def _commit(self, taken: Sequence[Changes]) -> None:

        def work(txn: Transaction) -> None:
            for table, key, value in itertools.chain.from_iterable(one.changes for one in taken):
                database = self._store.database(table)
                if value is None:
                    txn.delete(key, db=database)
                else:
                    txn.put(key, value, db=database)
            database = self._store.database(_POSITIONS)
            for topic, by_partition in itertools.chain.from_iterable(one.positions.items() for one in taken):
                txn.put(topic.encode(), msgspec.msgpack.encode(dict(by_partition)), db=database)

        self._store.write(work)

    def close(self) -> None:
        """Release the environment."""
        self._store.close()

    def _scan_part(self, table: str, start: bytes, count: int) -> list[tuple[bytes, bytes]]:
        database = self._store.database(table)

        def work(txn: Transaction) -> list[tuple[bytes, bytes]]:
            part: list[tuple[bytes, bytes]] = []
            with txn.cursor(db=database) as cursor:
                if cursor.set_range(start) if start else cursor.first():
                    for key, value in cursor.iternext():
                        part.append((bytes(key), bytes(value)))
                        if len(part) == count:
                            break
            return part

        return self._store.read(work)

    def _check_format(self, txn: Transaction) -> None:
        database = self._store.database(_POSITIONS)
        held = txn.get(_FORMAT_KEY, db=database)
        if held is None:
            txn.put(_FORMAT_KEY, _FORMAT, db=database)
        elif bytes(held) != _FORMAT:
            # Of another release: it can be made anew from what the log still has, but must never be silently misread.
            raise ConfigError(
                f"the server's state in {self._folder} is of format {bytes(held).decode(errors='replace')}, this"
                f" release reads format {_FORMAT.decode()}; run the release that wrote it, or move the folder away:"
                " it is then made anew from the log, without what people did and what was counted before the log's"
                " oldest records"
            )

"""The log without a server: a folder that any process of this machine may append to and read from.

    folder/<topic>/<partition>/   one LMDB environment each: writers of different topics never wait for each other
    folder/_groups/               positions committed by readers, and the log's identity

In an environment, in the order of its keys: ``00`` the head (first and next offset); ``01 producer 00 sequence``, where
an earlier append went; ``02 offset``, chunks. A chunk holds consecutive records of one append, with their time and a
checksum; it is as large as its append, up to 256 KiB, so that one read never checks much more than it returns.
"""

from __future__ import annotations

import re
import shutil
import struct
import threading
import time
import uuid
import zlib
from bisect import bisect_right
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from itertools import accumulate, pairwise, repeat
from pathlib import Path
from typing import Final, NamedTuple, final

from dolmen.clock import Clock, SystemClock
from dolmen.errors import LogError, OffsetGoneError
from dolmen.events.log import DEFAULT_RETENTION, Appended, Record, Retention, partition_of
from dolmen.events.store import MAP_SIZE, Store, Transaction
from dolmen.events.watch import Watch

__all__ = ["EmbeddedLog"]

VALUE_BYTES_MAX: Final = 1 << 30
_CHUNK_BYTES: Final = 256 << 10
_CHUNK_RECORDS: Final = 4096
_REMEMBERED: Final = 1024  # appends of each producer that a retry still finds
_DELETED_MAX: Final = 32  # chunks that one append may delete, so that retention never makes it slow
_NO_FLOOR: Final = 1 << 64
_NO_LIMIT: Final = 1 << 62
_MISSING_SECONDS: Final = 0.005  # between looks for a topic that nobody has made yet

_NAME: Final = re.compile(r"[a-z][a-z0-9_-]{0,63}")
_MAGIC: Final = b"dlog\x01\x00\x00\x00"
_HEAD_KEY: Final = b"\x00"
_IDENTITY_KEY: Final = b"\x00identity"  # no group has an empty name
_HEAD: Final = struct.Struct("<8sQQQ")  # magic, first, next, bytes stored
_PAIR: Final = struct.Struct("<QQ")
_OFFSET: Final = struct.Struct(">Q")  # big endian: LMDB orders keys by their bytes
_CHECKSUM: Final = struct.Struct("<I")
_CHUNK: Final = struct.Struct("<Iq")  # count, time; then count lengths (uint32), then the values


class _Head(NamedTuple):
    first: int
    next: int
    stored_bytes: int


@final
class EmbeddedLog:
    """A ``Log`` in a folder. Handles of one process share their environments, and a forked child opens its own.

    Args:
        folder: made at the first append.
        clock: gives records their time.
        partitions: how many partitions a topic gets when it is made here (default 1); an existing topic keeps its own.
        retention: what to keep, by topic; given topics replace those of ``DEFAULT_RETENTION``.
        map_size: bytes of address space that each environment starts with.
        read_only: nothing is written, not even by mistake: an append, commit or truncation is a ``LogError``.
    """

    def __init__(
        self,
        folder: Path | str,
        *,
        clock: Clock | None = None,
        partitions: Mapping[str, int] | None = None,
        retention: Mapping[str, Retention] | None = None,
        map_size: int = MAP_SIZE,
        read_only: bool = False,
    ) -> None:
        self.folder = Path(folder)
        self._clock: Clock = clock if clock is not None else SystemClock()
        self._partitions = dict(partitions or {})
        self._retention = {**DEFAULT_RETENTION, **(retention or {})}
        self._map_size, self._read_only = map_size, read_only
        self._stores: dict[tuple[str, int], Store] = {}
        self._counts: dict[str, int] = {}
        self._lock = threading.Lock()
        self._waiting = threading.local()  # each thread's Watch
        self._closed = False
        for topic, count in self._partitions.items():
            _check_topic(topic)
            if count < 1:
                raise ValueError(f"topic {topic!r}: partitions must be at least 1, got {count}")

    def append(
        self,
        topic: str,
        values: Sequence[bytes],
        *,
        key: bytes = b"",
        producer: str | None = None,
        sequence: int | None = None,
    ) -> Appended:
        """See ``Log.append``. Returns after the records were forced to disk."""
        if not values:
            raise ValueError(f"append to {topic!r}: values must not be empty")
        if (producer is None) != (sequence is None):
            raise ValueError(f"append to {topic!r}: producer and sequence come together or not at all")
        chunks = list(_packed(values))
        self._make(topic)
        partition = partition_of(key, self.partitions(topic))
        store = self._store(topic, partition)
        assert store is not None, "the topic was made above"
        retention = self._retention.get(topic)

        def work(txn: Transaction) -> Appended:
            head = _head(store, txn)
            if producer is not None and sequence is not None:
                earlier = _earlier(txn, producer, sequence)
                if earlier is not None:
                    return Appended(partition, *earlier, repeated=True)
                _remember(txn, producer, sequence, head.next, head.next + len(values))
            now_us = self._clock.now_us()
            head = _retain(txn, head, retention, now_us, lambda: self._floor(topic, partition))
            grown = _put(txn, head, chunks, now_us)
            txn.put(_HEAD_KEY, _HEAD.pack(_MAGIC, *grown))
            return Appended(partition, head.next, grown.next)

        return store.write(work)

    def read(
        self,
        topic: str,
        partition: int,
        offset: int,
        *,
        max_records: int = 1000,
        max_bytes: int = 16 << 20,
        wait_seconds: float = 0.0,
    ) -> list[Record]:
        """See ``Log.read``."""
        if max_records < 1 or offset < 0:
            raise ValueError(f"read of {topic!r}: max_records >= 1 and offset >= 0, got {max_records}, {offset}")
        records = self._read_now(topic, partition, offset, max_records, max_bytes)
        if not records and wait_seconds > 0 and self.wait({(topic, partition): offset}, wait_seconds):
            records = self._read_now(topic, partition, offset, max_records, max_bytes)
        return records

    def _read_now(self, topic: str, partition: int, offset: int, max_records: int, max_bytes: int) -> list[Record]:
        store = self._store(topic, partition)
        if store is None:
            return _nothing_at(topic, partition, offset)

        def work(txn: Transaction) -> list[Record]:
            head = _head(store, txn)
            if offset < head.first:
                raise OffsetGoneError(f"{topic}/{partition}: offset {offset} was deleted, the first is {head.first}")
            if offset > head.next:
                raise LogError(
                    f"{topic}/{partition}: offset {offset} lies beyond the end {head.next}; was the log replaced?"
                )
            return _records(store, txn, offset, max_records, max_bytes) if offset < head.next else []

        return store.read(work)

    def wait(self, positions: Mapping[tuple[str, int], int], wait_seconds: float) -> bool:
        """See ``Log.wait``. Other processes' appends are noticed within about 1 ms (see ``watch.py``)."""
        end = time.monotonic() + wait_seconds
        watch = self._watch()
        while True:
            missing = False
            for place, offset in positions.items():
                store = self._store(*place)
                if store is None:
                    missing = True
                    continue
                watch.add(store.file)  # before the look, so that nothing falls between the two
                if offset != self.bounds(*place)[1]:
                    return True  # a record, or an error that the read will tell
            left = end - time.monotonic()
            if left <= 0:
                return False
            watch.wait(min(left, _MISSING_SECONDS) if missing else left)

    def _watch(self) -> Watch:
        watch: Watch | None = getattr(self._waiting, "watch", None)
        if watch is None or not watch.is_usable:
            watch = self._waiting.watch = Watch()
        return watch

    def bounds(self, topic: str, partition: int = 0) -> tuple[int, int]:
        """See ``Log.bounds``; (0, 0) where nothing was written yet."""
        store = self._store(topic, partition)
        if store is None:
            return (0, 0)
        head = store.read(lambda txn: _head(store, txn))
        return (head.first, head.next)

    def commit(self, group: str, positions: Mapping[tuple[str, int], int]) -> None:
        """See ``Log.commit``."""
        rows = [(_group_key(group, *place), _OFFSET.pack(offset)) for place, offset in positions.items()]

        def work(txn: Transaction) -> None:
            for key, value in rows:
                txn.put(key, value)

        self._groups().write(work)

    def committed(self, group: str, topic: str, partition: int = 0) -> int | None:
        """See ``Log.committed``."""
        if not (self.folder / "_groups").exists():
            return None
        key = _group_key(group, topic, partition)
        value = self._groups().read(lambda txn: txn.get(key))
        return int(_OFFSET.unpack(value)[0]) if value is not None else None

    def awaited(self, topic: str, partition: int = 0) -> dict[str, int]:
        """By reader that retention waits for, the offset that it has committed; 0 where it has committed nothing."""
        retention = self._retention.get(topic)
        readers = retention.readers if retention is not None else ()
        return {group: self.committed(group, topic, partition) or 0 for group in readers}

    def _floor(self, topic: str, partition: int) -> int:
        """The offset below which every reader that retention waits for is done. Positions only grow: old ones do."""
        return min(self.awaited(topic, partition).values(), default=_NO_FLOOR)

    def truncate(self, topic: str, partition: int, before: int) -> None:
        """See ``Log.truncate``. Space is freed by whole chunks, and used again by later appends."""
        store = self._store(topic, partition)
        if store is None:
            return

        def work(txn: Transaction) -> bool:
            head = _head(store, txn)
            first = min(max(before, head.first), head.next)
            head, done = _deleted(txn, head._replace(first=first), limit=4096)
            txn.put(_HEAD_KEY, _HEAD.pack(_MAGIC, *head))
            return done

        while not store.write(work):
            pass  # in slices, so that one transaction stays small

    def compact(self, topic: str, partition: int, key: Callable[[bytes], Hashable | None]) -> int:
        """See ``Log.compact``. One transaction: it holds the records in memory, and appends to the partition wait."""
        store = self._store(topic, partition)
        if store is None:
            return 0

        def work(txn: Transaction) -> int:
            head = _head(store, txn)
            newest: dict[Hashable, bytes] = {}
            for record in _records(store, txn, head.first, _NO_LIMIT, _NO_LIMIT) if head.first < head.next else []:
                name = key(record.value)
                newest.pop(name, None)  # in the order of the newest records
                if name is not None:
                    newest[name] = record.value
            head, _ = _deleted(txn, head._replace(first=head.next), limit=_NO_LIMIT)
            head = _put(txn, head, list(_packed(list(newest.values()))) if newest else [], self._clock.now_us())
            txn.put(_HEAD_KEY, _HEAD.pack(_MAGIC, *head))
            return len(newest)

        return store.write(work)

    def identity(self) -> str:
        """See ``Log.identity``."""

        def named(txn: Transaction) -> bytes:
            txn.put(_IDENTITY_KEY, uuid.uuid4().hex.encode(), overwrite=False)  # another process may be quicker
            return bytes(txn.get(_IDENTITY_KEY))

        groups = self._groups()
        known = groups.read(lambda txn: txn.get(_IDENTITY_KEY))
        return (bytes(known) if known is not None else groups.write(named)).decode()

    def partitions(self, topic: str) -> int:
        """See ``Log.partitions``; what a new topic would get where there is none yet."""
        _check_topic(topic)
        count = self._count(topic)
        return count if count > 0 else self._partitions.get(topic, 1)

    def topics(self) -> list[str]:
        """See ``Log.topics``."""
        if not self.folder.exists():
            return []
        return sorted(path.name for path in self.folder.iterdir() if path.is_dir() and _NAME.fullmatch(path.name))

    def close(self) -> None:
        """See ``Log.close``."""
        with self._lock:
            self._closed = True
            for store in self._stores.values():
                store.close()
            self._stores.clear()

    def __enter__(self) -> EmbeddedLog:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _count(self, topic: str) -> int:
        """How many partitions an existing topic has, 0 where there is no such topic."""
        if topic not in self._counts:
            try:
                self._counts[topic] = sum(1 for path in (self.folder / topic).iterdir() if path.name.isdigit())
            except FileNotFoundError:
                return 0
        return self._counts[topic]  # fixed when the topic was made

    def _make(self, topic: str) -> None:
        """Make the topic's folders unless they are there, whole or not at all: their count is the topic's for good."""
        _check_topic(topic)
        folder = self.folder / topic
        if topic in self._counts or folder.exists():
            return
        if self._read_only:
            raise LogError(f"{self.folder}: the log was opened to be read only")
        draft = self.folder / f"_new-{topic}-{uuid.uuid4().hex}"
        for partition in range(self._partitions.get(topic, 1)):
            (draft / str(partition)).mkdir(parents=True)
        try:
            draft.rename(folder)
        except OSError:
            shutil.rmtree(draft)
            if not folder.exists():  # else another process was quicker
                raise

    def _store(self, topic: str, partition: int) -> Store | None:
        store = self._stores.get((topic, partition))
        if store is not None:
            return store
        _check_topic(topic)
        folder = self.folder / topic / str(partition)
        if not folder.exists():
            if partition >= self.partitions(topic):
                raise LogError(f"topic {topic!r} has {self.partitions(topic)} partitions, there is no {partition}")
            return None
        return self._opened((topic, partition), folder)

    def _groups(self) -> Store:
        place = ("_groups", 0)
        return self._stores.get(place) or self._opened(place, self.folder / "_groups")

    def _opened(self, place: tuple[str, int], folder: Path) -> Store:
        with self._lock:
            if self._closed:
                raise LogError(f"{self.folder}: the log was used after close()")
            if place not in self._stores:
                self._stores[place] = Store(folder, map_size=self._map_size, read_only=self._read_only)
            return self._stores[place]


def _check_topic(topic: str) -> None:
    if not _NAME.fullmatch(topic):
        raise ValueError(f"a topic is named by lower-case letters, digits, '-' and '_', at most 64, got {topic!r}")


def _group_key(group: str, topic: str, partition: int) -> bytes:
    _check_topic(topic)
    return b"\x00".join([group.encode(), topic.encode(), str(partition).encode()])


def _nothing_at(topic: str, partition: int, offset: int) -> list[Record]:
    if offset > 0:
        raise LogError(f"{topic}/{partition}: offset {offset} lies beyond the end 0; was the log replaced?")
    return []


def _packed(values: Sequence[bytes]) -> Iterator[tuple[int, bytes]]:
    """(count, lengths and values) of each chunk of an append."""
    start, size = 0, 0
    for place, value in enumerate(values):
        if len(value) > VALUE_BYTES_MAX:
            raise ValueError(f"value {place} has {len(value)} bytes; a record holds at most {VALUE_BYTES_MAX}")
        if place > start and (size + len(value) > _CHUNK_BYTES or place - start == _CHUNK_RECORDS):
            yield place - start, _body(values[start:place])
            start, size = place, 0
        size += len(value)
    yield len(values) - start, _body(values[start:])


def _put(txn: Transaction, head: _Head, chunks: Sequence[tuple[int, bytes]], now_us: int) -> _Head:
    """Write ``chunks`` behind what is there; the head of it all, which is still to be written."""
    offset, stored = head.next, head.stored_bytes
    for count, body in chunks:
        chunk = _CHUNK.pack(count, now_us) + body
        txn.put(_chunk_key(offset), _CHECKSUM.pack(zlib.crc32(chunk)) + chunk, append=True)
        offset, stored = offset + count, stored + len(chunk)
    return _Head(head.first, offset, stored)


def _body(values: Sequence[bytes]) -> bytes:
    return struct.pack(f"<{len(values)}I", *map(len, values)) + b"".join(values)


def _chunk_key(offset: int) -> bytes:
    return b"\x02" + _OFFSET.pack(offset)


def _head(store: Store, txn: Transaction) -> _Head:
    value = txn.get(_HEAD_KEY)
    if value is None:
        return _Head(0, 0, 0)
    if len(value) != _HEAD.size or value[: len(_MAGIC)] != _MAGIC:
        raise LogError(f"{store.folder}: no log of this version of dolmen lies here")
    return _Head(*_HEAD.unpack(value)[1:])


def _records(store: Store, txn: Transaction, offset: int, max_records: int, max_bytes: int) -> list[Record]:
    records: list[Record] = []
    size = 0
    with txn.cursor() as cursor:
        # The chunk that holds `offset` is the last one that starts at or below it.
        if not cursor.set_range(_chunk_key(offset)) or cursor.key() != _chunk_key(offset):
            cursor.prev() if cursor.key() else cursor.last()
        for key, chunk in cursor.iternext():
            base = int.from_bytes(key[1:], "big")
            if _CHECKSUM.unpack_from(chunk)[0] != zlib.crc32(memoryview(chunk)[_CHECKSUM.size :]):
                raise LogError(f"{store.folder}: the records from offset {base} are damaged (checksum)")
            count, time_us = _CHUNK.unpack_from(chunk, _CHECKSUM.size)
            lengths = struct.unpack_from(f"<{count}I", chunk, _CHECKSUM.size + _CHUNK.size)
            ends = list(accumulate(lengths, initial=_CHECKSUM.size + _CHUNK.size + 4 * count))
            start = max(offset - base, 0)
            # As many as both limits allow, by bisection; the very first one comes whatever its size.
            fit = bisect_right(ends, ends[start] + max_bytes - size) - 1
            stop = min(count, start + max_records - len(records), max(fit, start + (not records)))
            values = [chunk[left:right] for left, right in pairwise(ends[start : stop + 1])]
            records += map(Record, range(base + start, base + stop), repeat(time_us), values)
            size += ends[stop] - ends[start]
            if stop < count or len(records) == max_records:
                break
    return records
    return records


def _producer_key(producer: str, sequence: int) -> bytes:
    return b"\x01" + producer.encode() + b"\x00" + _OFFSET.pack(sequence)


def _earlier(txn: Transaction, producer: str, sequence: int) -> tuple[int, int] | None:
    """Where this append went the first time, if it is a retry."""
    value = txn.get(_producer_key(producer, sequence))
    if value is not None:
        first, following = _PAIR.unpack(value)
        return first, following
    with txn.cursor() as cursor:
        prefix = _producer_key(producer, 0)[:-8]
        if cursor.set_range(_producer_key(producer, sequence)) and cursor.key().startswith(prefix):
            oldest = int.from_bytes(cursor.key()[-8:], "big")
            raise ValueError(
                f"producer {producer!r}: sequence {sequence} is older than {oldest}, the oldest remembered"
            )
    return None


def _remember(txn: Transaction, producer: str, sequence: int, first: int, following: int) -> None:
    txn.put(_producer_key(producer, sequence), _PAIR.pack(first, following))
    prefix = _producer_key(producer, 0)[:-8]
    with txn.cursor() as cursor:
        while cursor.set_range(_producer_key(producer, 0)) and cursor.key().startswith(prefix):
            if int.from_bytes(cursor.key()[-8:], "big") > sequence - _REMEMBERED:
                return
            cursor.delete()


def _retain(txn: Transaction, head: _Head, retention: Retention | None, now_us: int, floor: Callable[[], int]) -> _Head:
    """Delete what retention no longer keeps, a few chunks at a time; nothing from offset ``floor()`` on.

    ``floor`` is asked only where something is due: on most appends nothing is.
    """
    if retention is None or head.first == head.next:
        return head
    oldest_us = now_us - retention.max_age_us if retention.max_age_us is not None else None
    first, stored = head.first, head.stored_bytes
    end: int | None = None
    with txn.cursor() as cursor:
        cursor.set_range(_chunk_key(0))
        for _ in range(_DELETED_MAX):
            chunk = cursor.value()
            count, time_us = _CHUNK.unpack_from(chunk, _CHECKSUM.size)
            too_much = retention.max_bytes is not None and stored > retention.max_bytes
            too_old = oldest_us is not None and time_us < oldest_us
            base = int.from_bytes(cursor.key()[1:], "big")
            if not (too_much or too_old):
                break
            end = floor() if end is None else end
            if base + count > end:
                break
            first, stored = max(first, base + count), stored - (len(chunk) - _CHECKSUM.size)
            if not cursor.delete() or not cursor.key():
                break
    return _Head(first, head.next, stored)


def _deleted(txn: Transaction, head: _Head, limit: int) -> tuple[_Head, bool]:
    """Delete at most ``limit`` chunks that end at or below ``head.first``; true where none is left to delete."""
    stored = head.stored_bytes
    with txn.cursor() as cursor:
        if not cursor.set_range(_chunk_key(0)):
            return head, True
        for _ in range(limit):
            chunk = cursor.value()
            count, _time_us = _CHUNK.unpack_from(chunk, _CHECKSUM.size)
            if int.from_bytes(cursor.key()[1:], "big") + count > head.first:
                return head._replace(stored_bytes=stored), True
            stored -= len(chunk) - _CHECKSUM.size
            if not cursor.delete() or not cursor.key():
                return head._replace(stored_bytes=stored), True
    return head._replace(stored_bytes=stored), False

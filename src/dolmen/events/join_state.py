"""What the joiner remembers, on disk: slates and how far their items are, actions that came early, and the outbox.

Everything a step changes is committed in one transaction, together with the positions up to which the inputs were read.
Slates are numbered in order of arrival, so that what lies on disk is written and deleted in order; only the index from
request id to number is touched in random places.
"""

from __future__ import annotations

import struct
from collections import OrderedDict
from collections.abc import Callable
from enum import IntEnum
from pathlib import Path
from typing import Any, Final, final

import msgspec

from dolmen.errors import LogError
from dolmen.events.event import Impression, decode
from dolmen.events.store import Store, Transaction
from dolmen.features import RawId

__all__ = ["Counts", "Due", "Early", "Item", "JoinState", "Ledger", "Slate"]

_DATABASES: Final = ("ledger", "index", "slates", "progress", "due", "early", "outbox")
_TIME: Final = struct.Struct("<q")
_NUMBER: Final = struct.Struct(">Q")
_DUE: Final = struct.Struct(">QBQ")  # time, what, number: LMDB keeps them in order of time
_MAGIC: Final = "dolmen join 1"
_DUE_NEVER_US: Final = 1 << 62


class Item(IntEnum):
    """How far an item of a slate is; each is first waiting and then exactly one of the others."""

    WAITING = 0
    POSITIVE = 1
    NEGATIVE_KEPT = 2
    NEGATIVE_DROPPED = 3


class Due(IntEnum):
    """What happens at a due time."""

    CLOSE = 0  # a slate's window ends: what still waits is negative
    FORGET = 1  # retention ends: the slate is deleted
    EXPIRE = 2  # retention ends: actions whose slate never came are deleted


class Counts(msgspec.Struct):
    """What has happened since the state was made. Two sums must hold at every commit:

    items_shown = positives + negatives_kept + negatives_dropped + items_waiting, and
    actions_read = examples of positives (positives + positives_again + positives_late) + actions_duplicate
    + actions_other + actions_unattributed + actions_unmatched + actions_waiting + actions_expired + actions_bad.
    """

    slates_shown: int = 0
    slates_duplicate: int = 0
    slates_bad: int = 0
    slates_unlearned: int = 0  # shown to nobody who could act: recorded, and no example
    items_shown: int = 0
    items_waiting: int = 0
    positives: int = 0  # items whose first action came in time
    positives_again: int = 0  # further examples of those: an action of another kind
    positives_late: int = 0  # examples of items that had left as negatives
    negatives_kept: int = 0
    negatives_dropped: int = 0
    actions_read: int = 0
    actions_duplicate: int = 0  # the same (request, item, kind) again
    actions_other: int = 0  # of a kind that no label asks for
    actions_unattributed: int = 0  # without a request id
    actions_unmatched: int = 0  # their item was not in their slate
    actions_waiting: int = 0  # came before their slate
    actions_expired: int = 0  # their slate never came
    actions_bad: int = 0
    records_gone: int = 0  # deleted by retention before they were read
    slates_from_disk: int = 0  # looked up after they had left the cache
    examples: int = 0
    batches: int = 0


class Ledger(msgspec.Struct):
    """The small part of the state, rewritten whole in each commit."""

    magic: str = _MAGIC
    identity: str = ""  # names this state as a producer: a new state must not take up another's sequences
    positions: dict[str, int] = {}
    stream_time_us: int = 0
    log_time_us: int = 0
    sequence: int = 0
    counts: Counts = msgspec.field(default_factory=Counts)
    specimens: list[str] = []  # the last few bad events, for people


class Early(msgspec.Struct, array_like=True):
    """Actions that came before their slate: (item, kind) in order of arrival, and when they are due to expire."""

    due_us: int
    number: int
    actions: list[tuple[RawId, str]]


class Slate:
    """One slate in memory. ``left``: an ``Item`` for each item. ``kinds``: bits of the labels each has got so far."""

    __slots__ = ("event_time_us", "impression", "kinds", "left", "number")

    def __init__(self, number: int, event_time_us: int, impression: Impression) -> None:
        self.number, self.event_time_us, self.impression = number, event_time_us, impression
        self.left = bytearray(len(impression.items))
        self.kinds = [0] * len(impression.items)


@final
class JoinState:
    """The state in a folder, with a cache of slates in front. For one thread, and one process at a time.

    Args:
        folder: where it lies.
        cache_max: slates kept in memory; the oldest leave first.
        map_size: bytes of address space to start with.

    Raises:
        LogError: the folder holds something else.
    """

    def __init__(self, folder: Path, *, cache_max: int, map_size: int) -> None:
        self._store = Store(folder, databases=_DATABASES, map_size=map_size)
        self._cache_max = cache_max
        self._cache: OrderedDict[str, Slate] = OrderedDict()
        self._changed: dict[str, Slate] = {}
        self._is_clean = True
        self._txn: Transaction = None
        self.ledger = Ledger()
        self.next_due_us = _DUE_NEVER_US

    def commit(self, work: Callable[[], None]) -> None:
        """Run ``work()``, which may call every method below, and commit what it did with the ledger; or nothing at all.

        Raises:
            LogError: the disk failed; state, cache and ledger are as before.
        """

        def whole(txn: Transaction) -> None:
            self._txn = txn
            self._load()
            self._is_clean = False
            work()
            for slate in self._changed.values():
                progress = msgspec.msgpack.encode((slate.left, slate.kinds))
                self._put("progress", _NUMBER.pack(slate.number), progress)
            self._put("ledger", b"ledger", msgspec.msgpack.encode(self.ledger))

        try:
            self._store.write(whole)
            self._changed.clear()
            self._is_clean = True
        except BaseException:
            self.reload()
            raise
        finally:
            self._txn = None

    def reload(self) -> None:
        """Read the ledger from disk."""

        def work(txn: Transaction) -> None:
            self._txn = txn
            self._load()

        try:
            self._store.read(work)
        finally:
            self._txn = None

    def _load(self) -> None:
        if not self._is_clean:  # an attempt was not committed: the disk failed, or the map was full and grew meanwhile
            self._cache.clear()
            self._changed.clear()
            self._is_clean = True
        value = self._get("ledger", b"ledger")
        try:
            self.ledger = msgspec.msgpack.decode(value, type=Ledger) if value is not None else Ledger()
        except msgspec.DecodeError as problem:
            raise LogError(f"{self._store.folder}: no joiner's state of this version of dolmen: {problem}") from None
        if self.ledger.magic != _MAGIC:
            raise LogError(f"{self._store.folder}: a joiner's state of version {self.ledger.magic!r}, not {_MAGIC!r}")
        with self._cursor("due") as cursor:
            self.next_due_us = _DUE.unpack(cursor.key())[0] if cursor.first() else _DUE_NEVER_US

    def add_slate(self, impression: Impression, value: bytes, event_time_us: int, close_us: int) -> Slate:
        """Keep a new slate until it is forgotten; ``value`` is the impression as it lies in the log."""
        number = self.ledger.counts.slates_shown
        slate = Slate(number, event_time_us, impression)
        key, name = _NUMBER.pack(number), impression.request_id
        self._put("index", name.encode(), key)
        self._put("slates", key, _TIME.pack(event_time_us) + value)
        self.add_due(close_us, Due.CLOSE, number, name)
        self._keep(name, slate)
        return slate

    def slate(self, request_id: str) -> Slate | None:
        """The slate with this request id, from memory or disk."""
        slate = self._cache.get(request_id) or self._changed.get(request_id)
        if slate is not None:
            return slate
        key = self._get("index", request_id.encode())
        if key is None:
            return None
        value = self._get("slates", key)
        assert value is not None, "index and slates are written and deleted together"
        slate = Slate(_NUMBER.unpack(key)[0], _TIME.unpack_from(value)[0], decode(Impression, value[_TIME.size :]))
        progress = self._get("progress", key)
        if progress is not None:
            slate.left, slate.kinds = msgspec.msgpack.decode(progress, type=tuple[bytearray, list[int]])
        self.ledger.counts.slates_from_disk += 1
        self._keep(request_id, slate)
        return slate

    def changed(self, slate: Slate) -> None:
        """Write this slate's progress when the step is committed."""
        self._changed[slate.impression.request_id] = slate

    def release(self, slate: Slate) -> None:
        """Its window has ended: it need not stay in memory."""
        self._cache.pop(slate.impression.request_id, None)

    def forget(self, number: int, request_id: str) -> None:
        """Delete a slate."""
        key = _NUMBER.pack(number)
        self._cache.pop(request_id, None)
        self._changed.pop(request_id, None)
        self._delete("index", request_id.encode())
        self._delete("slates", key)
        self._delete("progress", key)

    def add_due(self, time_us: int, what: Due, number: int, request_id: str) -> None:
        """Let ``what`` happen to a slate (or to early actions) when stream time reaches ``time_us``."""
        time_us = min(max(time_us, 0), _DUE_NEVER_US)
        self._put("due", _DUE.pack(time_us, what, number), request_id.encode())
        self.next_due_us = min(self.next_due_us, time_us)

    def take_due(self, now_us: int) -> tuple[int, Due, int, str] | None:
        """Remove and return the earliest (time, what, number, request id) that is due at ``now_us``."""
        if self.next_due_us > now_us:
            return None
        with self._cursor("due") as cursor:
            cursor.first()
            time_us, what, number = _DUE.unpack(cursor.key())
            request_id = cursor.value().decode()
            cursor.delete()
            self.next_due_us = _DUE.unpack(cursor.key())[0] if cursor.key() else _DUE_NEVER_US
        return time_us, Due(what), number, request_id

    def early(self, request_id: str) -> Early | None:
        """Actions that wait for this slate."""
        value = self._get("early", request_id.encode())
        return msgspec.msgpack.decode(value, type=Early) if value is not None else None

    def put_early(self, request_id: str, early: Early) -> None:
        """Let these actions wait."""
        self._put("early", request_id.encode(), msgspec.msgpack.encode(early))

    def drop_early(self, request_id: str, early: Early, *, is_due: bool = False) -> None:
        """They were joined, or their time is over (``is_due``: their due entry was taken)."""
        self._delete("early", request_id.encode())
        if not is_due:
            self._delete("due", _DUE.pack(early.due_us, Due.EXPIRE, early.number))

    def put_outbox(self, sequence: int, values: list[bytes]) -> None:
        """Records that the log must get, once, after this commit."""
        self._put("outbox", _NUMBER.pack(sequence), msgspec.msgpack.encode(values))

    def clear_outbox(self, through: int) -> None:
        """The log has the records up to and with this sequence."""
        with self._cursor("outbox") as cursor:
            while cursor.first() and _NUMBER.unpack(cursor.key())[0] <= through:
                cursor.delete()

    def outbox(self) -> list[tuple[int, list[bytes]]]:
        """(sequence, values) of the records that the log may not have yet, in order."""

        def work(txn: Transaction) -> list[tuple[int, list[bytes]]]:
            rows = txn.cursor(db=self._store.database("outbox")).iternext()
            return [(_NUMBER.unpack(key)[0], msgspec.msgpack.decode(value, type=list[bytes])) for key, value in rows]

        return self._store.read(work)

    def size_bytes(self) -> int:
        """Bytes on disk."""
        return self._store.size_bytes()

    def close(self) -> None:
        """Let go of the folder."""
        self._store.close()

    def _keep(self, request_id: str, slate: Slate) -> None:
        self._cache[request_id] = slate
        if len(self._cache) > self._cache_max:
            self._cache.popitem(last=False)

    def _get(self, database: str, key: bytes) -> bytes | None:
        value: bytes | None = self._txn.get(key, db=self._store.database(database))
        return value

    def _put(self, database: str, key: bytes, value: bytes) -> None:
        self._txn.put(key, value, db=self._store.database(database))

    def _delete(self, database: str, key: bytes) -> None:
        self._txn.delete(key, db=self._store.database(database))

    def _cursor(self, database: str) -> Any:
        return self._txn.cursor(db=self._store.database(database))

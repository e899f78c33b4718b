"""Items and people as the catalogue describes them, with their features computed once, when they change.

Items are numbered by *rows*, and the features of many rows are gathered from flat columns in a few NumPy calls: ranking
two hundred candidates touches no Python object of any item.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, final

import msgspec
import numpy as np
from numpy.typing import NDArray

from dolmen.errors import BadEventError, OffsetGoneError
from dolmen.events.event import CatalogueChange, decode
from dolmen.events.log import Log, Topic
from dolmen.features import Batch, RawId, Schema, Side, encode_values, extract_side, extract_usable
from dolmen.serving.columns import Columns, Rows
from dolmen.serving.ids import id_of, key_of, key_prefix
from dolmen.serving.settings import ServeSettings
from dolmen.serving.state import Changes, State
from dolmen.serving.tail import Tail
from dolmen.telemetry import logger
from dolmen.training.specimens import Specimens

__all__ = ["ITEMS_TABLE", "USERS_TABLE", "Catalogue", "Profile", "Rows", "check_attributes"]

_log = logger(__name__)
ITEMS_TABLE: Final = "items"
USERS_TABLE: Final = "users"
_TABLES: Final = {"item": ITEMS_TABLE, "user": USERS_TABLE}
# Records of the topic beyond twice what was kept last: to compact is to write all of it, so it must be worth it.
_REPLACED_MAX: Final = 100_000
_COUNTED: Final = 2_000  # records read in one go
_UNDER_WAY_SECONDS: Final = 60.0  # far longer than any request takes, or the index to hear of a removal
_NO_ATTRIBUTES: Final[Mapping[str, Any]] = {}


class _Stored(msgspec.Struct, array_like=True):
    id: RawId
    attributes: dict[str, Any]


_decoder: Final = msgspec.msgpack.Decoder(_Stored)


@final
@dataclass(frozen=True)
class Profile:
    """One person: attributes, and the features of them."""

    attributes: Mapping[str, Any]
    slots: Mapping[str, list[int]]
    dense: Mapping[str, float]


def check_attributes(schema: Schema, of: Side, rows: Sequence[tuple[RawId, Mapping[str, Any]]]) -> None:
    """Whether the attributes of these items or people can become features.

    Raises:
        SchemaError: a value does not fit its field; the message names row, field, value and mend.
    """
    extract_side(schema, of, rows)


@final
class Catalogue:
    """Every item, and the people who are about. Any thread may call anything.

    A removed item keeps its row for a while, so that a request under way still finds what it proposed, and histories
    the features of what they hold; then the row is another item's (``forget_removed``).
    """

    def __init__(self, settings: ServeSettings, log: Log, state: State) -> None:
        self._settings, self._state, self.schema = settings, state, settings.schema
        self.lock = threading.RLock()
        self.ids: list[RawId] = []
        self.attributes: list[Mapping[str, Any]] = []
        self._rows: dict[RawId, int] = {}
        self._features = Columns(self.schema)
        self._alive = np.zeros(16, dtype=np.bool_)
        self._alive_count = 0
        self._removed: OrderedDict[RawId, float] = OrderedDict()  # when each left, the oldest first
        self._free: list[int] = []
        self._changed_rows: set[int] = set()
        self._profiles: OrderedDict[RawId, Profile] = OrderedDict()
        self._nobody = _profile(self.schema, 0, _NO_ATTRIBUTES)
        self._dirty: dict[tuple[str, bytes], bytes | None] = {}
        self._saving: dict[tuple[str, bytes], bytes | None] = {}
        self._load()
        self.tail: Tail[CatalogueChange] = Tail(
            log,
            Topic.CATALOGUE,
            positions=state.positions(Topic.CATALOGUE),
            decode=lambda value: decode(CatalogueChange, value),
            prepare=self._prepare,
            lock=self.lock,
            aside=Specimens(settings.aside_folder),
            is_compacted=True,
        )
        self._log = log
        self._kept_counts: dict[int, int] = {}

    def __len__(self) -> int:
        """How many items can be shown."""
        return self._alive_count

    @property
    def row_count(self) -> int:
        """How many rows there are, those of removed items included."""
        return len(self.ids)

    def row_of(self, raw: RawId) -> int | None:
        """The row of an item that can be shown."""
        row = self._rows.get(raw)
        return row if row is not None and self._alive[row] else None

    def row_or_absent(self, raw: RawId) -> int:
        """As ``row_of``, with -1 for ``None``."""
        row = self._rows.get(raw, -1)
        return row if row >= 0 and self._alive[row] else -1

    def rows_of(self, ids: Iterable[RawId]) -> Rows:
        """The rows of those items that are known; order kept, unknown ones left out."""
        rows = [row for raw in ids if (row := self._rows.get(raw)) is not None]
        return np.array(rows, dtype=np.int64)

    def answered(self, row: int) -> Mapping[str, Any]:
        """What answers tell of the item in ``row``: those of its attributes that the settings let through."""
        return self._settings.answered(self.attributes[row])

    def alive(self) -> NDArray[np.bool_]:
        """By row, whether the item can be shown."""
        with self.lock:
            return self._alive[: len(self.ids)].copy()

    def items(self, rows: Rows) -> Batch:
        """The item side of the schema for these rows, in their order."""
        with self.lock:
            return self._features.take(rows)

    def fids(self, slot: str, rows: Rows) -> list[int]:
        """The FIDs of one item slot for these rows, one after the other."""
        with self.lock:
            taken = self._features.slots[slot].take(rows).values
        fids: list[int] = taken.tolist()
        return fids

    def fid_of_each(self, slot: str, ids: Sequence[RawId], absent: int) -> list[int]:
        """The FID of each of these items in an item slot of one value; ``absent`` where nobody knows it."""
        rows = np.array([self._rows.get(raw, -1) for raw in ids], dtype=np.int64)
        fids = np.full(len(rows), absent, dtype=np.int64)
        known = np.flatnonzero(rows >= 0)
        with self.lock:
            found = self._features.slots[slot].take(rows[known])
        fids[known[found.lengths.numpy() > 0]] = found.values.numpy()
        told: list[int] = fids.tolist()
        return told

    def take_changed_rows(self) -> Rows:
        """Rows added, changed or removed since the last call."""
        with self.lock:
            changed, self._changed_rows = self._changed_rows, set()
        return np.sort(np.fromiter(changed, dtype=np.int64, count=len(changed)))

    def profile_of(self, raw: RawId) -> Profile:
        """What is known of a person; of a stranger, the id."""
        with self.lock:
            profile = self._profiles.get(raw)
            if profile is not None:
                self._profiles.move_to_end(raw)
                return profile
            value = self._user_value(raw)
            profile = _profile(self.schema, raw, _decoder.decode(value).attributes) if value else self._stranger(raw)
            self._profiles[raw] = profile
            if len(self._profiles) > self._settings.people_in_memory:
                self._profiles.popitem(last=False)
            return profile

    def _stranger(self, raw: RawId) -> Profile:
        """Of whom only the id is known: there is no need to read features out of nothing, and most may be strangers."""
        own = str(Side.USER)
        if own not in self._nobody.slots:
            return self._nobody
        fids = encode_values(self.schema.slot_number(own), [raw]).tolist()
        return replace(self._nobody, slots={**self._nobody.slots, own: fids})

    def is_known_user(self, raw: RawId) -> bool:
        """Whether the catalogue describes this person."""
        with self.lock:
            return self._user_value(raw) is not None

    def is_known_item(self, raw: RawId) -> bool:
        """Whether the catalogue describes this item."""
        return self.row_of(raw) is not None

    def users(self, prefix: str, limit: int) -> list[tuple[RawId, Mapping[str, Any]]]:
        """The first people of the catalogue whose id, as text, starts with ``prefix``.

        Who was added within the last second may be missing.
        """
        found: list[tuple[RawId, Mapping[str, Any]]] = []
        for kind in (b"i", b"s"):
            start = key_prefix(kind, prefix)
            for key, value in self._state.scan(USERS_TABLE, start, limit):
                raw = id_of(key)
                if not key.startswith(start) or raw is None:
                    break
                found.append((raw, _decoder.decode(value).attributes))
        return found[:limit]

    def forget_removed(self, told: Callable[[Sequence[int], Sequence[RawId]], None]) -> None:
        """Let others have the rows of the items that were removed longest ago, beyond ``removed_items_max``.

        Args:
            told: must forget what it keeps by these rows, before they are given to others.
        """
        now = time.monotonic()
        rows, ids = [], []
        with self.lock:
            while len(self._removed) > self._settings.removed_items_max:
                raw, removed_at = next(iter(self._removed.items()))
                if now - removed_at < _UNDER_WAY_SECONDS:
                    break
                del self._removed[raw]
                rows.append(row := self._rows.pop(raw))
                ids.append(raw)
                self.attributes[row] = _NO_ATTRIBUTES
        if rows:
            told(rows, ids)
            with self.lock:
                self._free += rows

    def compact(self) -> None:
        """Let the log forget what later changes of the same item or person have replaced, where that is most of it.

        Of what was removed the removal stays, for servers that have not heard of it.

        Raises:
            LogError: the log failed; nothing was changed.
        """
        partition_count = self._log.partitions(Topic.CATALOGUE)
        for partition in range(partition_count):
            first, end = self._log.bounds(Topic.CATALOGUE, partition)
            count = end - first
            # Not counted since the start: there is something of every item at least.
            kept = self._kept_counts.get(partition, len(self) // partition_count)
            if count <= 2 * kept + _REPLACED_MAX:
                continue
            try:
                kept = self._count_kept(partition, first, end)
            except OffsetGoneError:  # another server has compacted it meanwhile
                continue
            if count > 2 * kept + _REPLACED_MAX:
                kept = self.tail.compact(partition, _whom)
                _log.info("catalogue compacted", partition=partition, records=count, kept=kept)
            self._kept_counts[partition] = kept

    def take_changes(self) -> Changes:
        """What changed since the last call, with the log positions that it includes."""
        with self.lock:
            self._saving, self._dirty = self._dirty, {}
            positions: dict[str, dict[int, int]] = {Topic.CATALOGUE: self.tail.positions}
        return Changes([(table, key, value) for (table, key), value in self._saving.items()], positions)

    def saved(self, *, on_disk: bool) -> None:
        """What was taken is on disk, or is not and must be taken again."""
        with self.lock:
            if not on_disk:
                self._dirty = {**self._saving, **self._dirty}
            done, self._saving = self._saving, {}
        del done  # a large one, and nobody waits for it

    def _user_value(self, raw: RawId) -> bytes | None:
        place = (USERS_TABLE, key_of(raw))
        with self.lock:
            for unsaved in (self._dirty, self._saving):
                if place in unsaved:
                    return unsaved[place]
        return self._state.get(*place)

    def _count_kept(self, partition: int, first: int, end: int) -> int:
        """Of how many items and people these records of a partition tell."""
        told: set[tuple[str, RawId] | None] = set()
        while first < end:
            records = self._log.read(Topic.CATALOGUE, partition, first, max_records=_COUNTED)
            told.update(_whom(record.value) for record in records)
            first = records[-1].offset + 1
        told.discard(None)
        return len(told)

    def _load(self) -> None:
        part: list[tuple[RawId, Mapping[str, Any]]] = []
        for _, value in self._state.scan(ITEMS_TABLE):
            stored = _decoder.decode(value)
            part.append((stored.id, stored.attributes))
            if len(part) == 1000:
                self._put_items(part, extract_usable(self.schema, Side.ITEM, part))
                part = []
        if part:
            self._put_items(part, extract_usable(self.schema, Side.ITEM, part))

    def _prepare(self, changes: Sequence[CatalogueChange]) -> Callable[[], None]:
        # Of what changes twice here the last change holds; a removal between them leaves no trace either.
        newest = {(change.of, change.id): change for change in changes}
        stored = {at: _stored(change) for at, change in newest.items()}
        # When another server compacts the topic, everything comes again: what is known already costs next to nothing.
        news = [change for at, change in newest.items() if stored[at] != self._stored_now(*at)]
        items = [change for change in news if change.of == "item"]
        kept = [(change.id, change.attributes) for change in items if not change.removed]
        features = extract_usable(self.schema, Side.ITEM, kept) if kept else None
        unsaved = {(_TABLES[change.of], key_of(change.id)): stored[change.of, change.id] for change in news}

        def change_all() -> None:
            if features is not None:
                self._put_items(kept, features)
            for change in news:
                if change.of == "user":
                    self._profiles.pop(change.id, None)
                elif change.removed:
                    self._remove_item(change.id)
            self._dirty |= unsaved

        return change_all

    def _stored_now(self, of: str, raw: RawId) -> bytes | None:
        if of == "user":
            return self._user_value(raw)
        row = self.row_of(raw)
        return _encoded(raw, self.attributes[row]) if row is not None else None

    def _put_items(self, items: Sequence[tuple[RawId, Mapping[str, Any]]], features: Batch) -> None:
        rows = np.empty(len(items), dtype=np.int64)
        for place, (raw, attributes) in enumerate(items):
            row = self._rows.get(raw)
            if row is None and self._free:
                row = self._free.pop()
                self.ids[row], self.attributes[row] = raw, attributes
                self._rows[raw] = row
            elif row is None:
                row = len(self.ids)
                self.ids.append(raw)
                self.attributes.append(attributes)
                if row == len(self._alive):
                    self._alive = np.concatenate([self._alive, np.zeros(row, dtype=np.bool_)])
                self._rows[raw] = row
            else:
                self.attributes[row] = attributes
                self._removed.pop(raw, None)
            self._alive_count += not self._alive[row]
            self._alive[row] = True
            rows[place] = row
        self._features.put(rows, features)
        self._changed_rows.update(rows.tolist())

    def _remove_item(self, raw: RawId) -> None:
        row = self._rows.get(raw)
        if row is not None and self._alive[row]:
            self._alive[row] = False
            self._alive_count -= 1
            self._removed[raw] = time.monotonic()
            self._changed_rows.add(row)


def _stored(change: CatalogueChange) -> bytes | None:
    return None if change.removed else _encoded(change.id, change.attributes)


def _encoded(raw: RawId, attributes: Mapping[str, Any]) -> bytes:
    """As ``_decoder`` reads it."""
    return msgspec.msgpack.encode((raw, attributes))


def _whom(value: bytes) -> tuple[str, RawId] | None:
    """Whom a record of the catalogue tells of; ``None`` of one that nobody can read."""
    try:
        change = decode(CatalogueChange, value)
    except BadEventError:
        return None
    return change.of, change.id


def _profile(schema: Schema, raw: RawId, attributes: Mapping[str, Any]) -> Profile:
    batch = extract_usable(schema, Side.USER, [(raw, attributes)])
    return Profile(
        attributes,
        {name: jagged.values.tolist() for name, jagged in batch.slots.items()},
        {name: column.item() for name, column in batch.dense.items()},
    )

"""What each person did: the history that models read, and the items that are not shown again.

People live in memory while they are about, and on disk for good. An action is here before it is acknowledged, so the
person's next slate knows of it, whether or not any parameter has learned from it yet.
"""

from __future__ import annotations

import itertools
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from typing import Final, final

import msgspec

from dolmen.events.event import Action
from dolmen.features import RawId, encode_values
from dolmen.serving.ids import key_of
from dolmen.serving.settings import ServeSettings
from dolmen.serving.state import Change, Changes, State
from dolmen.telemetry import logger

__all__ = ["PEOPLE_TABLE", "Act", "Behaviours", "Person"]

_log = logger(__name__)
PEOPLE_TABLE: Final = "people"
_SWEPT: Final = 50  # people looked at in one sweep: about 2 ms, and a million within six hours of a sweep a second

Listener = Callable[[RawId, RawId, Sequence[str]], None]
"""Told of a person, an item, and the history slots that it entered."""


class Act(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """One action of a person, as it is remembered."""

    item: RawId
    kind: str
    event_time_us: int
    value: float


class _Stored(msgspec.Struct, array_like=True):
    id: RawId
    acts: list[Act]
    hidden: dict[RawId, int]


_decoder: Final = msgspec.msgpack.Decoder(_Stored)
_encoder: Final = msgspec.msgpack.Encoder()


@final
class Person:
    """One person. ``acts``: newest last. ``hidden``: until when each item is not shown again.

    ``history``: for each history slot the FIDs of the items that belong in it, oldest first.
    """

    __slots__ = ("acts", "hidden", "history", "id")

    def __init__(self, raw: RawId, history_slots: Sequence[str]) -> None:
        self.id = raw
        self.acts: deque[Act] = deque()
        self.hidden: dict[RawId, int] = {}
        self.history: dict[str, list[int]] = {name: [] for name in history_slots}


@final
class Behaviours:
    """Everybody's actions. Any thread may call anything.

    ``lock`` is held while actions are remembered; what ``history_of`` and ``hidden_of`` return are copies.
    """

    def __init__(self, settings: ServeSettings, state: State) -> None:
        assert settings.history_slots is not None
        self._settings, self._state, self._schema = settings, state, settings.schema
        self._hide_us = settings.hide_us
        # Only the items themselves are remembered; what they are like is the catalogue's to say.
        self._slots = {name: some for name, some in settings.history_slots.items() if self._holds_items(name)}
        self._lengths = {name: self._schema.slot(name).max_len or settings.history_max for name in self._slots}
        self._item_number = self._schema.slot_number("item")
        self._people: OrderedDict[RawId, Person] = OrderedDict()
        self._dirty: set[RawId] = set()
        self._saving: set[RawId] = set()
        self._expired: set[RawId] = set()
        self._sweep_from = b""
        self._kept_us = settings.us("people_expire_after") if settings.people_expire_after is not None else None
        self._listener: Listener | None = None
        self.lock = threading.RLock()

    def tell(self, listener: Listener) -> None:
        """From here on call ``listener`` for each behaviour that enters a history: person, item, and which slots.

        It is called under ``lock``, so that whoever reads a history under it misses none and counts none twice. What it
        raises is logged: the behaviour is remembered all the same.
        """
        self._listener = listener

    def _holds_items(self, name: str) -> bool:
        return self._schema.history_slots[name] == "item"

    def is_known(self, raw: RawId) -> bool:
        """Whether this person ever did anything."""
        with self.lock:
            return self._find(raw) is not None

    def history_of(self, raw: RawId) -> dict[str, list[int]]:
        """For each history slot the FIDs of its items, oldest first; empty ones for a stranger."""
        with self.lock:
            person = self._find(raw)
            if person is None:
                return {name: [] for name in self._slots}
            return {name: fids.copy() for name, fids in person.history.items()}

    def hidden_of(self, raw: RawId, now_us: int) -> list[RawId]:
        """The items that this person is not shown now."""
        with self.lock:
            person = self._find(raw)
            return [] if person is None else [item for item, until_us in person.hidden.items() if until_us > now_us]

    def acts_of(self, raw: RawId) -> list[Act]:
        """What is remembered of this person's actions, oldest first."""
        with self.lock:
            person = self._find(raw)
            return [] if person is None else list(person.acts)

    def prepare(self, actions: Sequence[Action]) -> Callable[[], None]:
        """What remembers ``actions``, which are in order and none of which was taken before, when it is called.

        That happens at once and cannot fail: what may, such as reading from disk who is not in memory, is done here.
        One call at a time, until what it returns was called; for nobody else changes what people did.

        Raises:
            LogError: the disk failed; nothing has changed.
        """
        acts = [Act(action.item, action.kind, action.event_time_us, action.value) for action in actions]
        fids = encode_values(self._item_number, [act.item for act in acts]).tolist() if acts else []
        people: dict[RawId, Person] = {}
        for action in actions:
            if action.user not in people:
                people[action.user] = self._prepared(action.user)

        def remember() -> None:
            with self.lock:
                entered = []
                for action, act, fid in zip(actions, acts, fids, strict=True):
                    # Who was read meanwhile by somebody else, or forgotten, is what they were.
                    person = self._people.setdefault(action.user, people[action.user])
                    self._people.move_to_end(action.user)
                    self._do(person, act)
                    entered.append(self._remember(person, act.kind, fid))
                    self._dirty.add(action.user)
                self._tell(actions, entered)

        return remember

    def _prepared(self, raw: RawId) -> Person:
        """As ``_find``, a new one for a stranger, and memory stays as it is; without holding anybody up meanwhile."""
        with self.lock:
            person = self._people.get(raw)
        if person is None:
            value = self._state.get(PEOPLE_TABLE, key_of(raw))
            person = self._restored(_decoder.decode(value)) if value is not None else Person(raw, list(self._slots))
        return person

    def _tell(self, actions: Sequence[Action], entered: Sequence[Sequence[str]]) -> None:
        if self._listener is None:
            return
        for action, slots in zip(actions, entered, strict=True):
            if slots:
                try:
                    self._listener(action.user, action.item, slots)
                except Exception:  # a fault of ours, and no reason to take the action a second time
                    _log.exception("behaviour not told of", user=action.user, item=action.item)

    def sweep(self, now_us: int) -> None:
        """Look at the next few people on disk; those who did nothing for too long are forgotten with the next save."""
        if self._kept_us is None:
            return
        part = list(self._state.scan(PEOPLE_TABLE, self._sweep_from, _SWEPT))
        self._sweep_from = part[-1][0] + b"\x00" if len(part) == _SWEPT else b""
        people = [_decoder.decode(value) for _, value in part]
        before_us = now_us - self._kept_us
        gone = [one.id for one in people if max((act.event_time_us for act in one.acts), default=0) < before_us]
        with self.lock:
            for raw in gone:
                if raw not in self._dirty and raw not in self._saving:
                    self._people.pop(raw, None)
                    self._expired.add(raw)

    def take_changes(self) -> Changes:
        """The people who did something since the last call, and those who are forgotten. Nobody must act meanwhile."""
        with self.lock:
            self._saving, self._dirty = self._dirty, set()
            gone, self._expired = self._expired - self._saving, set()  # if this is not saved, a later sweep finds them
        # Who is being saved stays in memory, and as they are: readers need not wait while they are encoded.
        changes: list[Change] = []
        for raw in self._saving:
            with self.lock:
                one = self._people[raw]
            changes.append((PEOPLE_TABLE, key_of(raw), _encoder.encode(_Stored(one.id, list(one.acts), one.hidden))))
        changes += [(PEOPLE_TABLE, key_of(raw), None) for raw in gone]
        return Changes(changes, {})

    def saved(self, *, on_disk: bool) -> None:
        """What was taken is on disk, or is not and must be taken again."""
        with self.lock:
            if not on_disk:
                self._dirty |= self._saving
            self._saving = set()
        while self._forget():
            pass

    def _do(self, person: Person, act: Act) -> None:
        person.acts.append(act)
        if len(person.acts) > self._settings.history_max:
            person.acts.popleft()
        hide_us = self._hide_us.get(act.kind)
        if hide_us is not None:
            until_us = max(person.hidden.pop(act.item, 0), act.event_time_us + hide_us)
            person.hidden[act.item] = until_us  # at the end: the oldest leave first
            if len(person.hidden) > self._settings.hidden_max:
                del person.hidden[next(iter(person.hidden))]

    def _remember(self, person: Person, kind: str, fid: int) -> list[str]:
        """Put an item at the end of the histories that take this kind of action; returns which."""
        entered = [name for name, kinds in self._slots.items() if kind in kinds]
        for name in entered:
            history = person.history[name]
            history.append(fid)
            if len(history) > self._lengths[name]:
                del history[0]
        return entered

    def _find(self, raw: RawId) -> Person | None:
        person = self._people.get(raw)
        # 7 and 7.0 and True are equal keys; only ids that passed the border come here.
        if person is not None:
            self._people.move_to_end(raw)
            return person
        value = self._state.get(PEOPLE_TABLE, key_of(raw))
        if value is None:
            return None
        person = self._restored(_decoder.decode(value))
        self._people[raw] = person
        if len(self._people) > 2 * self._settings.people_in_memory:
            self._forget()  # between two saves, readers alone can fill memory
        return person

    def _forget(self) -> bool:
        """A few of the longest unused leave memory, unless they are not on disk yet; whether any did."""
        with self.lock:
            excess = min(len(self._people) - self._settings.people_in_memory, _SWEPT)
            oldest = itertools.islice(self._people, max(0, excess))
            gone = [raw for raw in oldest if raw not in self._dirty and raw not in self._saving]
            for raw in gone:
                del self._people[raw]
        return bool(gone)

    def _restored(self, stored: _Stored) -> Person:
        person = Person(stored.id, list(self._slots))
        person.acts.extend(stored.acts)
        person.hidden = stored.hidden
        if stored.acts:
            fids = encode_values(self._item_number, [act.item for act in stored.acts]).tolist()
            for act, fid in zip(stored.acts, fids, strict=True):
                self._remember(person, act.kind, fid)
        return person

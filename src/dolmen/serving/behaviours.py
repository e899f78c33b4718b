"""What each person did: the history that models read, and the items that are not shown again.

People live in memory while they are about, and on disk for good. An action is here before it is acknowledged, so the
person's next slate knows of it, whether or not any parameter has learned from it yet.
"""

from __future__ import annotations

import itertools
import threading
from collections import OrderedDict, deque
from collections.abc import Sequence
from typing import Final, final

import msgspec

from dolmen.events.event import Action, decode
from dolmen.events.log import Log, Topic
from dolmen.features import RawId, Schema, encode_values
from dolmen.serving.ids import key_of
from dolmen.serving.settings import ServeSettings
from dolmen.serving.state import Change, Changes, State
from dolmen.serving.tail import Tail

__all__ = ["PEOPLE_TABLE", "Act", "Behaviours", "Person"]

PEOPLE_TABLE: Final = "people"
_EVENT_IDS_MAX: Final = 64  # remembered for each person: a retry comes within a few events


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
    event_ids: list[str]


_decoder: Final = msgspec.msgpack.Decoder(_Stored)
_encoder: Final = msgspec.msgpack.Encoder()


@final
class Person:
    """One person. ``acts``: newest last. ``hidden``: until when each item is not shown again.

    ``history``: for each history slot the FIDs of the items that belong in it, oldest first.
    """

    __slots__ = ("acts", "event_ids", "hidden", "history", "id")

    def __init__(self, raw: RawId, history_slots: Sequence[str]) -> None:
        self.id = raw
        self.acts: deque[Act] = deque()
        self.hidden: dict[RawId, int] = {}
        self.event_ids: dict[str, None] = {}
        self.history: dict[str, list[int]] = {name: [] for name in history_slots}


@final
class Behaviours:
    """Everybody's actions. Any thread may call anything.

    ``lock`` is held while actions are applied; what ``history_of`` and ``hidden_of`` return are copies.
    """

    def __init__(self, settings: ServeSettings, log: Log, state: State) -> None:
        assert settings.history_slots is not None
        self._settings, self._state, self._schema = settings, state, settings.schema
        self._hide_us = settings.hide_us
        # Only the items themselves are remembered; what they are like is the catalogue's to say.
        self._slots = {name: some for name, some in settings.history_slots.items() if self._holds_items(name)}
        self._lengths = {name: self._schema.slot(name).max_len or settings.history_max for name in self._slots}
        self._item_number = _item_number(self._schema)
        self._people: OrderedDict[RawId, Person] = OrderedDict()
        self._dirty: set[RawId] = set()
        self._saving: set[RawId] = set()
        self.lock = threading.RLock()
        self.tail: Tail[Action] = Tail(
            log,
            Topic.ACTIONS,
            positions=state.positions(Topic.ACTIONS),
            decode=lambda value: decode(Action, value),
            apply=self._apply,
            lock=self.lock,
        )

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

    def take_changes(self) -> Changes:
        """What changed since the last call, with the log positions that it includes."""
        with self.lock:
            self._saving, self._dirty = self._dirty, set()
            people = [self._people[raw] for raw in self._saving]
            # Copied here and encoded outside, so that nobody's slate waits for it.
            copies = [_Stored(one.id, list(one.acts), one.hidden.copy(), list(one.event_ids)) for one in people]
            positions = self.tail.positions
        changes: list[Change] = [(PEOPLE_TABLE, key_of(one.id), _encoder.encode(one)) for one in copies]
        return Changes(changes, {Topic.ACTIONS: positions})

    def saved(self, *, on_disk: bool) -> None:
        """What was taken is on disk, or is not and must be taken again."""
        with self.lock:
            if not on_disk:
                self._dirty |= self._saving
            self._saving = set()
            self._forget()

    def _apply(self, actions: Sequence[Action]) -> None:
        fids: list[int] = []
        if self._item_number is not None:
            fids = encode_values(self._item_number, [action.item for action in actions]).tolist()
        for place, action in enumerate(actions):
            person = self._find(action.user)
            if person is None:
                person = Person(action.user, list(self._slots))
                self._people[action.user] = person
            if action.event_id is not None:
                if action.event_id in person.event_ids:
                    continue  # sent twice
                person.event_ids[action.event_id] = None
                if len(person.event_ids) > _EVENT_IDS_MAX:
                    del person.event_ids[next(iter(person.event_ids))]
            self._take(person, Act(action.item, action.kind, action.event_time_us, action.value))
            if fids:
                self._remember(person, action.kind, fids[place])
            self._dirty.add(action.user)

    def _take(self, person: Person, act: Act) -> None:
        person.acts.append(act)
        if len(person.acts) > self._settings.history_max:
            person.acts.popleft()
        hide_us = self._hide_us.get(act.kind)
        if hide_us is not None:
            until_us = max(person.hidden.pop(act.item, 0), act.event_time_us + hide_us)
            person.hidden[act.item] = until_us  # at the end: the oldest leave first
            if len(person.hidden) > self._settings.hidden_max:
                del person.hidden[next(iter(person.hidden))]

    def _remember(self, person: Person, kind: str, fid: int) -> None:
        for name, kinds in self._slots.items():
            if kind in kinds:
                history = person.history[name]
                history.append(fid)
                if len(history) > self._lengths[name]:
                    del history[0]

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

    def _forget(self) -> None:
        """The longest unused leave memory, unless they are not on disk yet."""
        for raw in list(itertools.islice(self._people, max(0, len(self._people) - self._settings.people_in_memory))):
            if raw not in self._dirty and raw not in self._saving:
                del self._people[raw]

    def _restored(self, stored: _Stored) -> Person:
        person = Person(stored.id, list(self._slots))
        person.acts.extend(stored.acts)
        person.hidden = stored.hidden
        person.event_ids = dict.fromkeys(stored.event_ids)
        if self._item_number is not None and stored.acts:
            fids = encode_values(self._item_number, [act.item for act in stored.acts]).tolist()
            for act, fid in zip(stored.acts, fids, strict=True):
                self._remember(person, act.kind, fid)
        return person


def _item_number(schema: Schema) -> int | None:
    return schema.slot_number("item") if "item" in schema.slots else None

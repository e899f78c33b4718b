"""What people did, each action once: remembered for its person, and counted for its item.

Both are saved together with the position that they include, so after a crash neither knows more than the other.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Final, final

import msgspec

from dolmen.errors import OffsetGoneError
from dolmen.events.event import Action, decode
from dolmen.events.log import Log, Topic
from dolmen.serving.behaviours import Behaviours
from dolmen.serving.exposure import Exposure
from dolmen.serving.repeats import Repeats
from dolmen.serving.settings import ServeSettings
from dolmen.serving.state import Changes, State
from dolmen.serving.tail import Tail
from dolmen.training.specimens import Specimens

__all__ = ["Actions"]

_READ_RECORDS: Final = 5_000
_TIME_MAX_US: Final = 1 << 61  # with what is added to it, such as for how long an item is hidden, it fits 64 bits


class _Named(msgspec.Struct, tag="action", array_like=True, frozen=True, gc=False):
    """What recalling needs of an action; the other fields are passed over."""

    event_id: str | None


_named_decoder: Final = msgspec.msgpack.Decoder(_Named)


@final
class Actions:
    """Follows the topic ``actions``. Any thread may call anything.

    Args:
        settings: how many event ids are remembered.
        log: has the topic.
        state: what was saved of it.
        behaviours: told of each new action.
        exposure: told of each new action.
    """

    def __init__(
        self, settings: ServeSettings, log: Log, state: State, behaviours: Behaviours, exposure: Exposure
    ) -> None:
        self._log, self._behaviours, self._exposure = log, behaviours, exposure
        self._repeats = Repeats(settings.event_ids_max)
        self.tail: Tail[Action] = Tail(
            log,
            Topic.ACTIONS,
            positions=state.positions(Topic.ACTIONS),
            decode=lambda value: decode(Action, value),
            prepare=self._prepare,
            lock=threading.RLock(),
            aside=Specimens(settings.aside_folder),
        )
        for partition, position in self.tail.positions.items():
            self._recall(partition, position)

    def take_changes(self) -> Changes:
        """What changed since the last call, with the log positions that it includes."""
        with self.tail.lock:  # no action between the two
            people, counts = self._behaviours.take_changes(), self._exposure.take_changes()
            positions = {Topic.ACTIONS: self.tail.positions, **counts.positions}
        return Changes([*people.changes, *counts.changes], positions)

    def saved(self, *, on_disk: bool) -> None:
        """What was taken is on disk, or is not and must be taken again."""
        self._behaviours.saved(on_disk=on_disk)
        self._exposure.saved(on_disk=on_disk)

    def _prepare(self, actions: Sequence[Action]) -> Callable[[], None]:
        for action in actions:
            if abs(action.event_time_us) > _TIME_MAX_US:
                raise ValueError(f"event_time_us must be within {_TIME_MAX_US} of 1970, got {action.event_time_us}")
        ids = [action.event_id for action in actions]
        fresh = [action for action, is_new in zip(actions, self._repeats.are_new(ids), strict=True) if is_new]
        remember, count = self._behaviours.prepare(fresh), self._exposure.prepare(fresh)

        def change_all() -> None:
            count()
            remember()
            self._repeats.remember(ids)

        return change_all

    def _recall(self, partition: int, end: int) -> None:
        """The ids of the actions just below ``end``, as if they had just been applied."""
        first, next_offset = self._log.bounds(Topic.ACTIONS, partition)
        position = max(first, end - self._repeats.count_max)
        while position < min(end, next_offset):
            try:
                records = self._log.read(
                    Topic.ACTIONS, partition, position, max_records=min(end - position, _READ_RECORDS)
                )
            except OffsetGoneError:  # retention was quicker
                position = self._log.bounds(Topic.ACTIONS, partition)[0]
                continue
            self._repeats.remember([_event_id(record.value) for record in records])
            position = records[-1].offset + 1


def _event_id(value: bytes) -> str | None:
    try:
        return _named_decoder.decode(value).event_id
    except (msgspec.DecodeError, UnicodeDecodeError):  # the tail has counted it
        return None

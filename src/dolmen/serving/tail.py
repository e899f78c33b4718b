"""Applies the records of one topic to this server's state, each once and in order.

What this server writes itself is applied from memory before it is acknowledged: the very next request sees it. What
other servers write, or what was written before a restart, is read from the log.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Generic, TypeVar

from dolmen.errors import BadEventError, OffsetGoneError
from dolmen.events.log import Appended, Log
from dolmen.telemetry import logger

__all__ = ["Tail"]

_log = logger(__name__)
_READ_RECORDS: Final = 2_000  # applied in one go while catching up

T = TypeVar("T")


class Tail(Generic[T]):
    """Follows ``topic`` from ``positions`` on. Any thread may call anything.

    Args:
        log: where the topic is.
        topic: what to follow.
        positions: next offset to apply, by partition; missing ones start at the first record there is.
        decode: a record's value as an event; ``BadEventError`` passes over it.
        apply: takes events into the state; called by one thread at a time, under ``lock``.
        lock: of the state, so that whoever holds it sees state and positions agree.
        is_compacted: records that are gone were replaced by later ones of the same thing, so nothing is lost with them.
    """

    def __init__(
        self,
        log: Log,
        topic: str,
        *,
        positions: Mapping[int, int],
        decode: Callable[[bytes], T],
        apply: Callable[[Sequence[T]], None],
        lock: threading.RLock,
        is_compacted: bool = False,
    ) -> None:
        self._log, self.topic, self._decode, self._apply, self.lock = log, topic, decode, apply, lock
        self._positions, self._is_compacted = dict(positions), is_compacted
        self.bad_count = 0
        self.lost_count = 0

    @property
    def positions(self) -> dict[int, int]:
        """Next offset to apply, by partition. Take it under the lock together with the state."""
        return dict(self._positions)

    def wrote(self, appended: Appended, events: Sequence[T]) -> None:
        """Apply what was just appended, and whatever others appended before it."""
        partition = appended.partition
        with self.lock:
            if self._positions.get(partition, 0) < appended.first_offset:
                self._read_to(partition, appended.first_offset)
            done = self._positions.get(partition, 0) - appended.first_offset
            if done < len(events):  # else the poll was quicker
                self._apply(events[max(0, done) :])
                self._positions[partition] = appended.next_offset

    def catch_up(self) -> int:
        """Apply everything that is in the log by now; returns how many records."""
        count = 0
        for partition in range(self._log.partitions(self.topic)):
            with self.lock:
                first, end = self._log.bounds(self.topic, partition)
                position = self._positions.get(partition, first)
                if position > end:
                    # Counting on would pass over everything that comes; nothing of this log was applied, so start over.
                    _log.warning("log replaced", topic=self.topic, position=position, end=end)
                    self._positions[partition] = first
                count += self._read_to(partition, end)
        return count

    def _read_to(self, partition: int, end: int) -> int:
        count = 0
        while (position := self._positions.get(partition, 0)) < end:
            try:
                records = self._log.read(
                    self.topic, partition, position, max_records=min(end - position, _READ_RECORDS)
                )
            except OffsetGoneError:
                first, _ = self._log.bounds(self.topic, partition)
                if not self._is_compacted:
                    self.lost_count += first - position
                    _log.warning("records deleted before they were read", topic=self.topic, count=first - position)
                self._positions[partition] = first
                continue
            if not records:
                break
            self._apply(self._decoded([record.value for record in records]))
            self._positions[partition] = records[-1].offset + 1
            count += len(records)
        return count

    def _decoded(self, values: Sequence[bytes]) -> list[T]:
        events: list[T] = []
        for value in values:
            try:
                events.append(self._decode(value))
            except BadEventError:
                self.bad_count += 1
        return events

"""Applies the records of one topic to this server's state, each once and in order.

What this server writes itself is applied from memory before it is acknowledged: the very next request sees it. What
other servers write, or what was written before a restart, is read from the log.

A few records together are applied whole or not at all: what may fail, or take its time, is done beside the state, and
only then does the state change, with its position. So what is tried again was not applied before, not even in part.

A record that cannot be applied must not keep back what comes after it for ever: when it has failed alone a few times,
for a reason that is no fault of disk or memory, it is set aside, counted, and passed over.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Final, Generic, TypeVar

from dolmen.errors import BadEventError, LogError, OffsetGoneError
from dolmen.events.log import Appended, Log, Record
from dolmen.telemetry import logger
from dolmen.training.specimens import Specimens

__all__ = ["Tail"]

_log = logger(__name__)
_READ_RECORDS: Final = 2_000  # in one go while catching up
_TOGETHER: Final = 100  # applied in one go: requests wait for about a millisecond at most
_ATTEMPTS_MAX: Final = 3  # of a record alone, one a second: what passes by itself has passed by then
_PASSING: Final = (OSError, LogError, MemoryError)  # says nothing of the record: it is tried again for ever

T = TypeVar("T")


class Tail(Generic[T]):
    """Follows ``topic`` from ``positions`` on. Any thread may call anything.

    Args:
        log: where the topic is.
        topic: what to follow.
        positions: next offset to apply, by partition; missing ones start at the first record there is.
        decode: a record's value as an event; ``BadEventError`` passes over it.
        prepare: of events, in order: does whatever may fail or takes long, changes nothing, and returns what then takes
            them into the state at once and cannot fail. One call at a time, until that was called.
        lock: of the state, so that whoever holds it sees state and positions agree. It is held while the state changes,
            and never while records are read, decoded or prepared.
        aside: keeps the records that could not be applied.
        is_compacted: records that are gone were replaced by later ones of the same thing, so nothing is lost with them.
    """

    def __init__(
        self,
        log: Log,
        topic: str,
        *,
        positions: Mapping[int, int],
        decode: Callable[[bytes], T],
        prepare: Callable[[Sequence[T]], Callable[[], None]],
        lock: threading.RLock,
        aside: Specimens,
        is_compacted: bool = False,
    ) -> None:
        self._log, self.topic, self._decode, self._prepare, self.lock = log, topic, decode, prepare, lock
        self._positions, self._aside, self._is_compacted = dict(positions), aside, is_compacted
        self._one_by_one: dict[int, int] = {}  # by partition: up to which offset, since a record before it has failed
        self._attempts: dict[int, int] = {}  # by partition: of the record at its position
        self._compacted: dict[int, tuple[int, int]] = {}  # by partition: where what compacting has left begins and ends
        self._turn = threading.Lock()  # one after the other; requests never wait for it
        self.bad_count = 0
        self.lost_count = 0
        self.aside_count = 0

    @property
    def positions(self) -> dict[int, int]:
        """Next offset to apply, by partition. Take it under the lock together with the state."""
        return dict(self._positions)

    def wrote(self, appended: Appended, events: Sequence[T]) -> None:
        """Apply what was just appended, and whatever others appended before it."""
        partition = appended.partition
        with self._turn:
            if self._positions.get(partition, 0) < appended.first_offset:
                self._read_to(partition, appended.first_offset)
            done = max(0, self._positions.get(partition, 0) - appended.first_offset)
            for start in range(done, len(events), _TOGETHER):  # none if the poll was quicker
                some = events[start : start + _TOGETHER]
                self._apply(partition, some, appended.first_offset + start + len(some))

    def catch_up(self) -> int:
        """Apply everything that is in the log by now; returns how many records.

        Raises:
            Exception: whatever applying has raised; the next call tries again, and may set the record aside.
        """
        count = 0
        for partition in range(self._log.partitions(self.topic)):
            with self._turn:
                first, end = self._log.bounds(self.topic, partition)
                position = self._positions.get(partition, first)
                if position > end:
                    # Counting on would pass over everything that comes; nothing of this log was applied, so start over.
                    _log.warning("log replaced", topic=self.topic, position=position, end=end)
                    self._start_at(partition, first)
                count += self._read_to(partition, end, may_set_aside=True)
        return count

    def recover(self) -> int:
        """As ``catch_up``, trying again at once: until this is done nobody is served.

        Raises:
            Exception: as ``catch_up``, where trying again changes nothing.
        """
        while True:
            before = dict(self._positions), dict(self._attempts), dict(self._one_by_one)
            try:
                return self.catch_up()
            except _PASSING:
                raise
            except Exception:
                if before == (self._positions, self._attempts, self._one_by_one):
                    raise
                _log.exception("log not applied; trying again", topic=self.topic)

    def compact(self, partition: int, key: Callable[[bytes], Hashable | None]) -> int:
        """Compact a partition of the log and pass over what is left, since all of it was applied; returns its count.

        Raises:
            LogError: the log failed; nothing was changed.
        """
        with self._turn:
            kept = self._log.compact(self.topic, partition, key)
            first, _ = self._log.bounds(self.topic, partition)
            # What stood before `first` and is not applied yet, another server has written; then all is read once more.
            self._compacted[partition] = first, first + kept
            with self.lock:
                self._move(partition, self._positions.get(partition, 0))
            return kept

    def _apply(self, partition: int, events: Sequence[T], next_offset: int) -> None:
        """All of ``events``, which end before ``next_offset``, or none."""
        change = self._prepare(events)
        with self.lock:
            change()
            self._move(partition, next_offset)

    def _move(self, partition: int, position: int) -> None:
        """Everything before ``position`` was applied."""
        first, end = self._compacted.get(partition, (-1, -1))
        self._positions[partition] = end if position == first else position

    def _start_at(self, partition: int, first: int) -> None:
        """From here on nothing was applied, not even what this server itself has compacted."""
        self._compacted.pop(partition, None)
        with self.lock:
            self._positions[partition] = first

    def _read_to(self, partition: int, end: int, *, may_set_aside: bool = False) -> int:
        count = 0
        while (position := self._positions.get(partition, 0)) < end:
            together = 1 if position < self._one_by_one.get(partition, 0) else _READ_RECORDS
            try:
                records = self._log.read(self.topic, partition, position, max_records=min(end - position, together))
            except OffsetGoneError:
                first, _ = self._log.bounds(self.topic, partition)
                if not self._is_compacted:
                    self.lost_count += first - position
                    _log.warning("records deleted before they were read", topic=self.topic, count=first - position)
                self._start_at(partition, first)
                continue
            if not records:
                break
            for start in range(0, len(records), _TOGETHER):
                self._take(partition, records[start : start + _TOGETHER], may_set_aside=may_set_aside)
            count += len(records)
        return count

    def _take(self, partition: int, records: Sequence[Record], *, may_set_aside: bool) -> None:
        """Apply ``records``, which come next, all or none; or set aside the one that they are."""
        next_offset = records[-1].offset + 1
        try:
            self._apply(partition, self._decoded([record.value for record in records]), next_offset)
        except _PASSING:
            raise
        except Exception as problem:
            self._one_by_one[partition] = max(self._one_by_one.get(partition, 0), next_offset)
            if not may_set_aside or not self._is_hopeless(partition, records):
                raise
            self._set_aside(partition, records[0], problem)
            with self.lock:
                self._move(partition, next_offset)
        self._attempts.pop(partition, None)

    def _is_hopeless(self, partition: int, records: Sequence[Record]) -> bool:
        """Whether it is one record alone that has failed, and often enough."""
        if len(records) > 1:
            return False
        self._attempts[partition] = self._attempts.get(partition, 0) + 1
        return self._attempts[partition] >= _ATTEMPTS_MAX

    def _set_aside(self, partition: int, record: Record, problem: Exception) -> None:
        self.aside_count += 1
        said = f"{type(problem).__name__}: {problem}"
        self._aside.keep(f"{self.topic}-{partition}", record.offset, record.value, said)
        _log.error(
            "record set aside; it cannot be applied",
            topic=self.topic,
            partition=partition,
            offset=record.offset,
            problem=said,
            folder=str(self._aside.folder),
            exc_info=problem,
        )

    def _decoded(self, values: Sequence[bytes]) -> list[T]:
        events: list[T] = []
        for value in values:
            try:
                events.append(self._decode(value))
            except BadEventError:
                self.bad_count += 1
        return events

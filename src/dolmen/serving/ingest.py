"""Events on their way into the log: many requests share one write to disk, and none is answered before it.

Each topic has a thread that takes everything that waits, appends it in one go, shows it to the server's own state, and
only then lets the requests go on. What may wait is bounded in bytes; more is refused at once.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, final

from dolmen.errors import DolmenError, LogError, OverloadedError
from dolmen.events.log import Appended, Log, partition_of
from dolmen.serving.worker import Worker
from dolmen.telemetry import logger

__all__ = ["Arrived", "Settle", "Submission", "Writer"]

_log = logger(__name__)
_TOGETHER_BYTES: Final = 4 << 20  # appended in one go: enough to fill a disk's queue, few enough to answer soon
_RETRY_AFTER_SECONDS: Final = 1.0


@final
@dataclass(frozen=True)
class Arrived:
    """Where events went: the position behind them, by ``topic/partition``."""

    positions: dict[str, int]


Settle = Callable[[Arrived | DolmenError], None]
"""Told once, in the writer's thread, that the events are in the log, or why they are not."""

Apply = Callable[[Appended, Sequence[Any]], None]
"""Takes what was appended into the server's state."""


@final
@dataclass(frozen=True)
class Submission:
    """``values`` for the log; ``events`` are the same decoded, ``keys`` say which belong in one partition."""

    values: Sequence[bytes]
    events: Sequence[Any]
    keys: Sequence[bytes]
    settle: Settle

    @cached_property
    def size(self) -> int:
        """Bytes of the values."""
        return sum(map(len, self.values))


@final
class Writer:
    """Appends to one topic. Any thread may ``submit``; what waits when the worker stops is still written.

    Args:
        log: where to.
        topic: of the log.
        apply: told of what was appended before the senders are. Where it fails the senders' events are in the log all
            the same; it must be able to take them from there later.
        bytes_max: of events that wait.
    """

    def __init__(self, log: Log, topic: str, apply: Apply, *, bytes_max: int) -> None:
        self._log, self.topic, self._apply, self._bytes_max = log, topic, apply, bytes_max
        self._waiting: deque[Submission] = deque()
        self._waiting_bytes = 0
        self.worker = Worker(f"log {topic}", self._run)
        self.written_count = 0
        self.append_count = 0
        self.failed_count = 0

    @property
    def waiting_bytes(self) -> int:
        """Of events that are not in the log yet."""
        return self._waiting_bytes

    def submit(self, *submissions: Submission) -> None:
        """Queue all of them, or none. What comes together is written together, with one wait for the disk.

        Raises:
            OverloadedError: too much waits already, or the server is stopping; nothing was queued.
        """
        size = sum(one.size for one in submissions)
        with self.worker.wake:
            if self.worker.is_stopping:
                raise OverloadedError("the server is stopping; try again in a moment", retry_after_seconds=2.0)
            if self._waiting_bytes and self._waiting_bytes + size > self._bytes_max:
                raise OverloadedError(
                    f"{self._waiting_bytes} bytes wait for the log already; send again a little later",
                    retry_after_seconds=_RETRY_AFTER_SECONDS,
                )
            self._waiting.extend(submissions)
            self._waiting_bytes += size
            self.worker.wake.notify()

    async def write(self, values: Sequence[bytes], events: Sequence[Any], keys: Sequence[bytes]) -> Arrived:
        """As ``submit``, and wait until the log has them.

        Raises:
            OverloadedError: see ``submit``.
            LogError: they could not be written; none of them is in the log.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Arrived] = loop.create_future()

        def settle(outcome: Arrived | DolmenError) -> None:
            loop.call_soon_threadsafe(_resolve, future, outcome)

        self.submit(Submission(values, events, keys, settle))
        return await future

    def _run(self) -> None:
        while True:
            with self.worker.wake:
                self.worker.wake.wait_for(lambda: self._waiting or self.worker.is_stopping)
                group = self._take()
            if not group:
                return
            self._write(group)

    def _take(self) -> list[Submission]:
        group: list[Submission] = []
        size = 0
        while self._waiting and (not group or size + self._waiting[0].size <= _TOGETHER_BYTES):
            one = self._waiting.popleft()
            size += one.size
            group.append(one)
        self._waiting_bytes -= size
        return group

    def _write(self, group: Sequence[Submission]) -> None:
        partition_count = self._partition_count()
        parts: list[_Part] = [_Part([], [], []) for _ in range(partition_count)]
        for number, one in enumerate(group):
            for value, event, key in zip(one.values, one.events, one.keys, strict=True):
                part = parts[partition_of(key, partition_count) if partition_count > 1 else 0]
                part.values.append(value)
                part.events.append(event)
                part.owners.append((number, key))
        positions: list[dict[str, int]] = [{} for _ in group]
        problems: dict[int, DolmenError] = {}
        for part in parts:
            if part.values:
                self._append(part, positions, problems)
        for number, one in enumerate(group):
            one.settle(problems.get(number, Arrived(positions[number])))

    def _append(self, part: _Part, positions: list[dict[str, int]], problems: dict[int, DolmenError]) -> None:
        try:
            appended = self._log.append(self.topic, part.values, key=part.owners[0][1])
        except Exception as problem:  # whatever it is, the senders wait to be told, and the next ones for their turn
            self.failed_count += len(part.values)
            _log.error("events not written", topic=self.topic, count=len(part.values), problem=str(problem))
            told = problem if isinstance(problem, DolmenError) else LogError(f"{type(problem).__name__}: {problem}")
            problems.update((number, told) for number, _ in part.owners)
            return
        self.append_count += 1
        self.written_count += len(part.values)
        try:
            self._apply(appended, part.events)
        except Exception:  # a fault of ours: they are in the log, which is what senders are told; the tail reads them
            _log.exception("events not applied yet", topic=self.topic, count=len(part.values))
        name = f"{self.topic}/{appended.partition}"
        for place, (number, _) in enumerate(part.owners):
            positions[number][name] = appended.first_offset + place + 1

    def _partition_count(self) -> int:
        try:
            return max(1, self._log.partitions(self.topic))
        except (LogError, OSError):
            return 1  # the append will tell what is wrong


@dataclass(frozen=True)
class _Part:
    values: list[bytes]
    events: list[Any]
    owners: list[tuple[int, bytes]]


def _resolve(future: asyncio.Future[Arrived], outcome: Arrived | DolmenError) -> None:
    if future.done():
        return  # the caller has gone
    if isinstance(outcome, DolmenError):
        future.set_exception(outcome)
    else:
        future.set_result(outcome)

"""Replays slates of the past through the public HTTP API, as the shop that showed them would have sent them.

For each slate the shop asks the server to rank its items (which records them as shown), then sends what the person did.
People are spread over a few workers; what one person saw and did keeps its order. Actions that came late in the data
come late in the replay: after all slates that were shown before them.
"""

from __future__ import annotations

import heapq
import itertools
import queue
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final, final

from dolmen.client import Client
from dolmen.datasets import Slate
from dolmen.demo.freshness import Freshness
from dolmen.errors import RemoteError
from dolmen.seeds import derive_seed

__all__ = ["Replay", "ReplayFigures"]

_WORKERS: Final = 8  # each waits for its answer most of the time; together they keep two cores busy
# Slates ready for one worker. A person's slates go out one after the other, and in the data an evening's lie next to
# each other; others must not wait for them. So one person may be this many slates behind the rest.
_QUEUE_SLATES: Final = 64
_ACTIONS_AT_ONCE: Final = 200


@final
@dataclass
class ReplayFigures:
    """What was sent and what the server acknowledged. An *event* is one item shown, or one action.

    ``failures``: requests that the server refused or never answered, after all retries.
    """

    slates: int = 0
    impressions_sent: int = 0
    impressions_acknowledged: int = 0
    actions_sent: int = 0
    actions_acknowledged: int = 0
    failures: int = 0
    first_failure: str | None = None
    started_at: float = field(default_factory=time.monotonic)
    finished_at: float | None = None

    @property
    def seconds(self) -> float:
        """How long the replay has run, or ran."""
        return (self.finished_at if self.finished_at is not None else time.monotonic()) - self.started_at


@final
class Replay:
    """One pass over ``slates``.

    Args:
        client: where the events go.
        slates: in the order of their time.
        freshness: told of each acknowledgement and each answer.
        events_per_second: items shown and actions a second, at most.
        event_count: stop after that many items shown; ``None`` for all.
        slate_count_done: slates that an earlier run has sent already.
        before_slate: called with each slate, in order, before it is sent: the moment to bring the catalogue up to date.
    """

    def __init__(
        self,
        client: Client,
        slates: Iterator[Slate],
        freshness: Freshness,
        *,
        events_per_second: float,
        event_count: int | None = None,
        slate_count_done: int = 0,
        before_slate: Callable[[Slate], None] | None = None,
    ) -> None:
        self._client, self._freshness = client, freshness
        self._slates = itertools.islice(slates, slate_count_done, None)
        self._rate, self._event_count = events_per_second, event_count
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._queues: list[queue.Queue[tuple[int, Slate] | None]] = [
            queue.Queue(_QUEUE_SLATES) for _ in range(_WORKERS)
        ]
        self._threads = [
            threading.Thread(target=self._work, args=(one,), name=f"shop {number}", daemon=True)
            for number, one in enumerate(self._queues)
        ]
        self._dispatcher = threading.Thread(target=self._dispatch, name="replay", daemon=True)
        self._next_number = slate_count_done
        self._open: set[int] = set()
        self._fault: Exception | None = None
        self._before_slate = before_slate if before_slate is not None else lambda _slate: None
        self.figures = ReplayFigures()

    def start(self) -> None:
        """Begin; returns at once."""
        self.figures.started_at = time.monotonic()
        for thread in (*self._threads, self._dispatcher):
            thread.start()

    def stop(self) -> None:
        """Stop after the slates under way; returns when they are done."""
        self._stop.set()
        self.join()

    def join(self, timeout_seconds: float | None = None) -> bool:
        """Wait until everything is sent; whether it is.

        Raises:
            Exception: what none of us foresaw and stopped the replay; the slates that it left open are not done.
        """
        self._dispatcher.join(timeout_seconds)
        if self._dispatcher.is_alive():
            return False
        if self._fault is not None:
            raise self._fault
        return True

    @property
    def slate_count_done(self) -> int:
        """Every slate before this one was sent, with all that its person did."""
        with self._lock:
            return min(self._open, default=self._next_number)

    def _dispatch(self) -> None:
        try:
            self._hand_out()
        except Exception as problem:  # of the data, say: told by ``join``, in the thread that can do something about it
            self._broke(problem)
        for one in self._queues:
            one.put(None)
        for thread in self._threads:
            thread.join()
        self.figures.finished_at = time.monotonic()

    def _hand_out(self) -> None:
        shown = sent = 0
        start = time.monotonic()
        for slate in self._slates:
            if self._stop.wait(max(0.0, start + sent / self._rate - time.monotonic())):
                break
            if self._event_count is not None and shown >= self._event_count:
                break
            try:
                self._before_slate(slate)
            except RemoteError as problem:
                self._failed(problem)
            shown += len(slate.items)
            sent += len(slate.items) + sum(slate.clicked)
            with self._lock:
                number, self._next_number = self._next_number, self._next_number + 1
                self._open.add(number)
            self._queues[derive_seed(0, slate.user) % _WORKERS].put((number, slate))

    def _work(self, slates: queue.Queue[tuple[int, Slate] | None]) -> None:
        try:
            self._send(slates)
        except Exception as problem:  # told by ``join``; but the dispatcher must not wait for room in this queue
            self._broke(problem)
            while slates.get() is not None:
                pass

    def _broke(self, problem: Exception) -> None:
        with self._lock:
            self._fault = self._fault or problem
        self._stop.set()

    def _send(self, slates: queue.Queue[tuple[int, Slate] | None]) -> None:
        # Actions that are not due yet, by their time in the data; the counter keeps equal times in order.
        late: list[tuple[int, int, dict[str, Any]]] = []
        numbers = itertools.count()
        shown: list[tuple[int, int]] = []  # slates whose actions may still be late: number, time of the last action
        while (task := slates.get()) is not None:
            number, slate = task
            request_id = self._show(slate)
            if request_id is not None:
                for item, clicked, delay_us in zip(slate.items, slate.clicked, slate.delays_us, strict=True):
                    if clicked:
                        action = {"user": slate.user, "item": item, "kind": "click", "request_id": request_id}
                        heapq.heappush(late, (slate.time_us + delay_us, next(numbers), action))
            shown.append((number, slate.time_us + max(slate.delays_us, default=0)))
            self._act(late, slate.time_us)
            shown = self._close(shown, slate.time_us)
        self._act(late, None)
        self._close(shown, None)

    def _close(self, shown: list[tuple[int, int]], until_us: int | None) -> list[tuple[int, int]]:
        """Those of ``shown`` whose last action was sent are done; the others are returned."""
        done = {number for number, last_us in shown if until_us is None or last_us <= until_us}
        with self._lock:
            self._open -= done
        return [one for one in shown if one[0] not in done]

    def _show(self, slate: Slate) -> str | None:
        with self._lock:
            self.figures.impressions_sent += len(slate.items)
        try:
            answer = self._client.rank(slate.user, slate.items, context=slate.context)
        except RemoteError as problem:
            self._failed(problem)
            return None
        self._freshness.answered(answer.parameters.positions)
        with self._lock:
            self.figures.slates += 1
            self.figures.impressions_acknowledged += len(answer.items)
        return answer.request_id

    def _act(self, late: list[tuple[int, int, dict[str, Any]]], until_us: int | None) -> None:
        """Send the actions of ``late`` that were done by ``until_us`` (all if ``None``)."""
        while late and (until_us is None or late[0][0] <= until_us):
            due: list[dict[str, Any]] = []
            while late and len(due) < _ACTIONS_AT_ONCE and (until_us is None or late[0][0] <= until_us):
                due.append(heapq.heappop(late)[2])
            with self._lock:
                self.figures.actions_sent += len(due)
            try:
                positions = self._client.send(due)
            except RemoteError as problem:
                self._failed(problem)
                continue
            self._freshness.acknowledged(positions, len(due))
            with self._lock:
                self.figures.actions_acknowledged += len(due)

    def _failed(self, problem: RemoteError) -> None:
        with self._lock:
            self.figures.failures += 1
            self.figures.first_failure = self.figures.first_failure or str(problem)

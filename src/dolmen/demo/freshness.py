"""Measures from outside how fresh the answers are: from "action acknowledged" to "first answer that has learned it".

Each acknowledgement names the log position behind its actions, each answer the position up to which its parameters
have learned. The first answer that reaches as far ends the wait. The clock is this process's own, so nothing depends
on clocks that agree.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, final

import numpy as np

from dolmen.client import Answer, Client
from dolmen.errors import RemoteError
from dolmen.seeds import generator

__all__ = ["PROBES_PER_SECOND", "Freshness", "Percentiles", "Prober"]

PROBES_PER_SECOND: Final = 25.0  # often enough to see staleness of a tenth of a second, and little load

_SAMPLES_MAX: Final = 200_000  # 1.6 MB of float64: more than an hour of replay


@final
@dataclass(frozen=True)
class Percentiles:
    """``count`` measurements, in the unit of what was measured; ``None`` where nothing was."""

    count: int
    p50: float | None
    p99: float | None
    max: float | None

    @classmethod
    def of(cls, samples: Iterable[float]) -> Percentiles:
        """The percentiles of ``samples``."""
        values = np.fromiter(samples, dtype=np.float64)
        if values.size == 0:
            return cls(0, None, None, None)
        p50, p99 = np.percentile(values, [50, 99])
        return cls(int(values.size), float(p50), float(p99), float(values.max()))

    def scaled(self, factor: float) -> Percentiles:
        """The same in another unit."""
        return Percentiles(
            self.count, *(None if value is None else value * factor for value in (self.p50, self.p99, self.max))
        )


@final
class Freshness:
    """Collects waits, in seconds. Any thread may call any method."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: dict[str, deque[tuple[int, int, float]]] = {}
        self._waits: deque[float] = deque(maxlen=_SAMPLES_MAX)

    def acknowledged(self, positions: dict[str, int], count: int) -> None:
        """``count`` actions are in the log, below ``positions``, as of now."""
        now = time.monotonic()
        with self._lock:
            for partition, position in positions.items():
                self._waiting.setdefault(partition, deque()).append((position, count, now))

    def answered(self, positions: dict[str, int]) -> None:
        """An answer came just now whose parameters have learned up to ``positions``."""
        now = time.monotonic()
        with self._lock:
            for partition, position in positions.items():
                waiting = self._waiting.get(partition)
                while waiting and waiting[0][0] <= position:
                    _, count, since = waiting.popleft()
                    self._waits.extend([now - since] * count)

    @property
    def waiting_count(self) -> int:
        """Acknowledged actions that no answer has learned from yet."""
        with self._lock:
            return sum(count for waiting in self._waiting.values() for _, count, _ in waiting)

    def percentiles(self) -> Percentiles:
        """Of all waits so far, in seconds."""
        with self._lock:
            return Percentiles.of(list(self._waits))


@final
class Prober:
    """Asks for slates as visitors do, ``rate`` times a second, and times each answer from outside.

    Args:
        client: where to ask.
        users: for whom, drawn evenly.
        freshness: told of each answer.
        rate: requests a second.
        seed: of the draw.
    """

    def __init__(
        self, client: Client, users: Sequence[int | str], freshness: Freshness, *, rate: float, seed: int
    ) -> None:
        self._client, self._users, self._freshness, self._rate = client, users, freshness, rate
        self._random = generator(seed, "prober")
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="prober", daemon=True)
        self._latencies: deque[float] = deque(maxlen=_SAMPLES_MAX)
        self.failure_count = 0
        self.first_failure: str | None = None

    def __enter__(self) -> Prober:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def latency_seconds(self) -> Percentiles:
        """Of all answers so far, as the visitor saw them."""
        return Percentiles.of(list(self._latencies))

    def _run(self) -> None:
        due = time.monotonic()
        while not self._stop.wait(max(0.0, due - time.monotonic())):
            due = max(due + 1 / self._rate, time.monotonic() - 1.0)
            self._ask(self._users[int(self._random.integers(len(self._users)))])

    def _ask(self, user: int | str) -> None:
        started = time.monotonic()
        try:
            answer: Answer = self._client.recommend(user, learn=False)
        except RemoteError as problem:
            self.failure_count += 1
            self.first_failure = self.first_failure or str(problem)
            return
        self._latencies.append(time.monotonic() - started)
        self._freshness.answered(answer.parameters.positions)

"""Measures from outside how fresh the answers are: from "action acknowledged" to "first answer that has learned it".

Each acknowledgement names the log position behind its actions, each answer the position up to which its parameters
have learned. The first answer that reaches as far ends the wait. The clock is the machine's monotonic one, which all
of its processes share, so nothing depends on clocks that agree.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, final

import numpy as np

__all__ = ["SAMPLES_MAX", "Freshness", "Percentiles"]

SAMPLES_MAX: Final = 200_000
"""Measurements kept of one kind: 1.6 MB of float64, more than an hour of replay."""


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
        self._waits: deque[float] = deque(maxlen=SAMPLES_MAX)

    def acknowledged(self, positions: dict[str, int], count: int) -> None:
        """``count`` actions are in the log, below ``positions``, as of now."""
        now = time.monotonic()
        with self._lock:
            for partition, position in positions.items():
                self._waiting.setdefault(partition, deque()).append((position, count, now))

    def answered(self, positions: dict[str, int], at: float | None = None) -> None:
        """An answer came whose parameters have learned up to ``positions``: at ``at`` by ``time.monotonic``, or now."""
        now = at if at is not None else time.monotonic()
        with self._lock:
            for partition, position in positions.items():
                waiting = self._waiting.get(partition)
                while waiting and waiting[0][0] <= position:
                    _, count, since = waiting.popleft()
                    # An answer told of late may have come before the acknowledgement that it reaches.
                    self._waits.extend([max(0.0, now - since)] * count)

    @property
    def waiting_count(self) -> int:
        """Acknowledged actions that no answer has learned from yet."""
        with self._lock:
            return sum(count for waiting in self._waiting.values() for _, count, _ in waiting)

    def percentiles(self) -> Percentiles:
        """Of all waits so far, in seconds."""
        with self._lock:
            return Percentiles.of(list(self._waits))

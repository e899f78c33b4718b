"""How long requests took lately, exactly: a window of the last measurements, not a guess from buckets."""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import Final, final

import numpy as np

__all__ = ["LatencyWindow"]

_WINDOW_SECONDS: Final = 30.0
_COUNT_MAX: Final = 20_000


@final
class LatencyWindow:
    """Measurements of the last 30 seconds, at most 20,000. Any thread may call anything."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._measured: deque[tuple[float, float]] = deque(maxlen=_COUNT_MAX)

    def add(self, seconds: float) -> None:
        """One request took so long."""
        with self._lock:
            self._measured.append((time.monotonic(), seconds))

    def percentile_ms(self, percent: float) -> float | None:
        """In milliseconds; ``None`` where nothing was measured lately."""
        oldest = time.monotonic() - _WINDOW_SECONDS
        with self._lock:
            while self._measured and self._measured[0][0] < oldest:
                self._measured.popleft()
            values = np.fromiter((seconds for _, seconds in self._measured), dtype=np.float64)
        return float(np.percentile(values, percent)) * 1e3 if len(values) else None

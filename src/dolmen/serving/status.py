"""The whole loop at a glance: what each stage told of itself last, the figures of now, and those of the last minutes.

Stages tell on the log's topic ``status`` once a second; the server does so too, and finds its own history there again
after a restart.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Final, final

import msgspec

from dolmen.clock import Clock
from dolmen.errors import LogError, OffsetGoneError
from dolmen.events import Log, Topic
from dolmen.serving.settings import ServeSettings
from dolmen.telemetry import logger

__all__ = ["FIGURES", "StageStatus", "StatusBoard"]

_log = logger(__name__)
_ALIVE_SECONDS: Final = 5.0  # a stage tells once a second; a busy machine may be late
_HISTORY_COUNT: Final = 600
_HISTORY_RECORDS: Final = 4_000  # of the log, read at the start: ten minutes of a handful of stages

FIGURES: Final = (
    "events_per_second",
    "joined_per_second",
    "examples_per_second",
    "staleness_seconds",
    "auc_online",
    "auc_frozen",
    "log_loss_online",
    "table_rows",
    "memory_bytes",
    "version",
    "events_total",
    "examples_total",
    "recommend_p99_ms",
)
"""The figures of ``now`` and of each entry of ``history``.

``joined_per_second``: examples that the joiner made; ``examples_per_second``: examples that the trainer learned.
``memory_bytes``: of the stages that are alive.
"""


class StageStatus(msgspec.Struct, frozen=True):
    """What a stage says of itself: the JSON of a record of the topic ``status``."""

    stage: str
    time_us: int
    pid: int | None = None
    figures: dict[str, Any] = {}


_status_decoder: Final = msgspec.json.Decoder(StageStatus)


@final
class StatusBoard:
    """Gathers status records. ``tick`` is called once a second by one thread; any thread may read.

    Args:
        settings: what is served.
        clock: this server's.
        log: has the topic ``status``.
        own: this server's own figures; the names of ``FIGURES`` among them go into ``now``.
    """

    def __init__(
        self, settings: ServeSettings, clock: Clock, log: Log, *, pid: int, own: Callable[[], Mapping[str, Any]]
    ) -> None:
        self._settings, self._clock, self._log, self._pid, self._own = settings, clock, log, pid, own
        self._lock = threading.Lock()
        self._stages: dict[str, StageStatus] = {}
        self._joined_per_second: float | None = None
        self._now: dict[str, float | None] = dict.fromkeys(FIGURES)
        self._history: deque[dict[str, float | None]] = deque(maxlen=_HISTORY_COUNT)
        self._position = -1
        self._stale_us = settings.us("stale_after")
        self.bad_count = 0

    def tick(self) -> None:
        """Read what the others told, add up, and tell."""
        try:
            self._read()
        except LogError as problem:
            _log.warning("status not read", problem=str(problem))
        time_us = self._clock.now_us()
        own = dict(self._own())
        now = self._sum_up(own)
        mine = StageStatus("serve", time_us, self._pid, {**own, "now": now})
        with self._lock:
            self._now = now
            self._history.append({"time_us": time_us, **now})
            self._stages["serve"] = mine
        try:
            self._log.append(Topic.STATUS, [msgspec.json.encode(mine)])
        except LogError as problem:
            _log.warning("status not written", problem=str(problem))

    def is_stale(self) -> bool:
        """Whether training was not heard of for ``stale_after``."""
        train = self._stages.get("train")
        return train is None or self._clock.now_us() - train.time_us > self._stale_us

    def figures_of(self, stage: str) -> Mapping[str, Any]:
        """What a stage told last; empty where it never did."""
        status = self._stages.get(stage)
        return status.figures if status is not None else {}

    def age_seconds_of(self, stage: str) -> float | None:
        """How long ago a stage told last; ``None`` where it never did."""
        status = self._stages.get(stage)
        return max(0.0, (self._clock.now_us() - status.time_us) / 1e6) if status is not None else None

    def answer(self) -> dict[str, Any]:
        """The body of ``GET /v1/status``."""
        time_us = self._clock.now_us()
        with self._lock:
            stages, now, history = dict(self._stages), self._now, list(self._history)
        return {
            "time_us": time_us,
            "simulated": self._settings.simulated,
            "dataset": self._settings.dataset,
            "stages": {name: _told(status, time_us) for name, status in stages.items()},
            "now": now,
            "history": history,
        }

    def _read(self) -> None:
        first, end = self._log.bounds(Topic.STATUS, 0)
        if not first <= self._position <= end:
            is_start = self._position < 0
            self._position = max(first, end - _HISTORY_RECORDS)
            if is_start:
                self._recall(end)
        while self._position < end:
            try:
                records = self._log.read(Topic.STATUS, 0, self._position)
            except OffsetGoneError:
                self._position = self._log.bounds(Topic.STATUS, 0)[0]
                continue
            if not records:
                return
            for record in records:
                self._take(record.value)
            self._position = records[-1].offset + 1

    def _recall(self, end: int) -> None:
        """What this server told before it was restarted."""
        position = self._position
        while position < end and (records := self._log.read(Topic.STATUS, 0, position)):
            for record in records:
                status = self._decoded(record.value)
                if status is not None and status.stage == "serve" and isinstance(status.figures.get("now"), dict):
                    told = status.figures["now"]
                    now = {name: _number(told.get(name)) for name in FIGURES}
                    self._history.append({"time_us": status.time_us, **now})
            position = records[-1].offset + 1

    def _take(self, value: bytes) -> None:
        status = self._decoded(value)
        if status is None or (status.stage == "serve" and status.pid == self._pid):
            return
        with self._lock:
            before, self._stages[status.stage] = self._stages.get(status.stage), status
        if status.stage == "join":
            self._joined_per_second = _rate(before, status, "examples")

    def _decoded(self, value: bytes) -> StageStatus | None:
        try:
            return _status_decoder.decode(value)
        except (msgspec.DecodeError, UnicodeDecodeError):
            self.bad_count += 1
            return None

    def _sum_up(self, own: Mapping[str, Any]) -> dict[str, float | None]:
        train = self.figures_of("train")
        # What was answered before anybody acted; where nothing was (examples from elsewhere), what would have been.
        online = "served" if _number(train.get("auc_served")) is not None else "online"
        # Against the frozen copy the same examples must be judged, or the comparison says nothing.
        if _number(train.get("auc_frozen")) is not None:
            online += "_since"
        others = [self.figures_of(name) for name in ("train", "join") if self._is_alive(name)]
        known = [size for one in (own, *others) if (size := _number(one.get("memory_bytes"))) is not None]
        now: dict[str, float | None] = {name: _number(own.get(name)) for name in FIGURES}
        now |= {
            "joined_per_second": self._joined_per_second if self._is_alive("join") else 0.0,
            "examples_per_second": _number(train.get("examples_per_second")) if self._is_alive("train") else 0.0,
            "auc_online": _number(train.get(f"auc_{online}")),
            "auc_frozen": _number(train.get("auc_frozen")),
            "log_loss_online": _number(train.get(f"log_loss_{online}")),
            "table_rows": _number(train.get("table_rows")),
            "examples_total": _number(train.get("examples_total")),
            "memory_bytes": sum(known) if known else None,
        }
        return now

    def _is_alive(self, stage: str) -> bool:
        status = self._stages.get(stage)
        return status is not None and (self._clock.now_us() - status.time_us) / 1e6 < _ALIVE_SECONDS


def _rate(before: StageStatus | None, status: StageStatus, name: str) -> float | None:
    """By how much a count of a stage grew, a second; ``None`` where that cannot be told."""
    if before is None or status.time_us <= before.time_us:
        return None
    counts = [_number(one.figures.get(name)) for one in (before, status)]
    if counts[0] is None or counts[1] is None:
        return None
    return max(0.0, counts[1] - counts[0]) / ((status.time_us - before.time_us) / 1e6)


def _told(status: StageStatus, time_us: int) -> dict[str, Any]:
    age_seconds = max(0.0, (time_us - status.time_us) / 1e6)
    figures = {name: value for name, value in status.figures.items() if name != "now"}
    return {"alive": age_seconds < _ALIVE_SECONDS, "age_seconds": age_seconds, "pid": status.pid, "figures": figures}


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return None
    return value

"""The serving copy of the parameters: a snapshot, then every delta after it. It never learns and never writes.

When training is away nothing comes, and what is here goes on being served; when a delta is missing, the copy starts
again from the newest snapshot while the old one answers.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Final, final

import numpy as np
from numpy.typing import NDArray

from dolmen.compute import Compute
from dolmen.errors import LogError, SnapshotError
from dolmen.events.log import Log, Topic
from dolmen.features import Schema, slot_numbers
from dolmen.serving.settings import ServeSettings
from dolmen.serving.worker import Worker
from dolmen.telemetry import logger
from dolmen.training.snapshot import Parameters, SnapshotFolder, load_snapshot
from dolmen.training.sync import DeltaFollower, Fed, decode_parts

__all__ = ["Replica", "Touched"]

_log = logger(__name__)
_LOOK_SECONDS: Final = 0.5  # for a first snapshot, or a newer one after a gap
_PATIENCE_SECONDS: Final = 2.0  # where the newest snapshot did not help: the trainer writes another in its own time
_WAIT_SECONDS: Final = 0.2  # for the next delta; also how soon ``stop`` is noticed

Touched = Callable[[Parameters, NDArray[np.int64] | None], None]
"""Told of new parameters and which item FIDs changed; ``None``: all of them."""


@final
class Replica:
    """Follows the trainer in a thread of its own. Take ``parameters`` once for each request.

    Args:
        settings: where snapshots are, and of which schema they must be.
        log: has the deltas.
        touched: called in the replica's thread after each change.
    """

    def __init__(self, settings: ServeSettings, log: Log, touched: Touched) -> None:
        self._schema: Schema = settings.schema
        self._snapshots = SnapshotFolder(settings.snapshot_folder)
        self._log, self._touched = log, touched
        self._precision = settings.precision
        self._compute = Compute.of(settings.device, settings.arithmetic, section="serving")
        self._item_number = self._schema.slot_number("item")
        self.worker = Worker("replica", self._run)
        self.parameters: Parameters | None = None
        self.bootstrap_count = 0
        self.delta_count = 0
        self.delta_bytes = 0
        self.published_time_us = 0
        self.problem: str | None = None

    def _run(self) -> None:
        while not self.worker.is_stopping:
            pause = _LOOK_SECONDS
            try:
                self._follow()
            except (SnapshotError, LogError, OSError) as problem:
                pause = self._told(problem)
            except Exception as problem:  # a fault of ours: people are served from the old copy while a new one is made
                _log.exception("replica failed")
                pause = self._told(problem)
            self.worker.rest(pause)

    def _told(self, problem: Exception) -> float:
        """Note a problem; returns how long to wait before the next attempt, longer where it is still the same one."""
        if str(problem) == self.problem:
            return _PATIENCE_SECONDS
        _log.warning("replica starts again from the newest snapshot", problem=str(problem))
        self.problem = str(problem)
        return _LOOK_SECONDS

    def _follow(self) -> None:
        path = self._snapshots.newest(self._schema)
        if path is None:
            return
        started = time.perf_counter()
        snapshot = load_snapshot(path, for_serving=True, precision=self._precision, compute=self._compute)
        follower = DeltaFollower(snapshot.parameters)
        offset = self._start_of(snapshot.manifest.parameters_offset)
        # Serve only what is no older than before: a person must not see an answer unlearn what they did.
        offset = self._catch_up(follower, offset)
        self.parameters = follower.parameters
        self.problem = None
        self.bootstrap_count += 1
        _log.info(
            "replica ready",
            version=follower.parameters.version,
            rows=len(follower.parameters.embeddings),
            seconds=round(time.perf_counter() - started, 3),
        )
        self._touched(follower.parameters, None)
        self._stay(follower, offset)

    def _start_of(self, offset: int) -> int:
        """Where the deltas after a snapshot begin: at ``offset``, if this is the log that it was taken beside.

        A snapshot that is served alone, say, has a log of its own, which never held the deltas before it.
        """
        first, end = self._log.bounds(Topic.PARAMETERS, 0)
        if offset > end:
            _log.warning("the log ends before this snapshot: it is served as it is", offset=offset, end=end)
        return max(first, min(offset, end))

    def _catch_up(self, follower: DeltaFollower, offset: int) -> int:
        while records := self._log.read(Topic.PARAMETERS, 0, offset):
            for record in records:
                follower.feed(record.value)
                offset = record.offset + 1
        return offset

    def _stay(self, follower: DeltaFollower, offset: int) -> None:
        parts: list[bytes] = []
        while not self.worker.is_stopping:
            for record in self._log.read(Topic.PARAMETERS, 0, offset, max_records=64, wait_seconds=_WAIT_SECONDS):
                fed = follower.feed(record.value)
                parts.append(record.value)
                offset = record.offset + 1
                if fed is Fed.APPLIED:
                    self._applied(follower.parameters, parts)
                if fed is not Fed.WAITING:
                    parts = []

    def _applied(self, parameters: Parameters, parts: list[bytes]) -> None:
        self.parameters = parameters
        self.delta_count += 1
        try:
            delta = decode_parts(parts)
        except SnapshotError:  # parts of an unfinished delta stood before it
            self._touched(parameters, None)
            return
        self.delta_bytes += sum(part.vectors.nbytes for part in delta.tables.values())
        self.published_time_us = delta.published_time_us
        fids = [part.fids for part in delta.tables.values()] + [part.removed for part in delta.tables.values()]
        self._touched(parameters, _of_slot(fids, self._item_number))


def _of_slot(parts: Sequence[NDArray[np.int64]], number: int) -> NDArray[np.int64]:
    fids = np.concatenate([np.asarray(part, dtype=np.int64) for part in parts]) if parts else np.empty(0, np.int64)
    of_slot: NDArray[np.int64] = fids[slot_numbers(fids) == number]
    return of_slot

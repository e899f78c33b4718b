"""The trainer as a stage of the loop: follows the examples, publishes deltas, writes snapshots, tells how it goes.

Everything that depends on data comes from the log; the clock here only says when to ship and when to write. So it may
be killed at any instant: it comes back at its newest snapshot and replays the examples since.
"""

from __future__ import annotations

import fcntl
import gc
import json
import os
import time
from collections.abc import Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import Final, final

from dolmen.clock import Clock, SystemClock, parse_duration_us
from dolmen.compute import torch_threads
from dolmen.errors import ConfigError, LogError, SnapshotError
from dolmen.events import Group, Log, Topic
from dolmen.telemetry import logger
from dolmen.training.figures import StageFigures
from dolmen.training.frozen import Frozen
from dolmen.training.opening import open_trainer
from dolmen.training.publish import Publisher
from dolmen.training.settings import TrainerSettings
from dolmen.training.snapshot import Copied, SnapshotFolder, read_manifest

__all__ = ["run_trainer"]

_log = logger(__name__)

_DRAIN_SECONDS: Final = 3.0  # of a supervisor's grace of fifteen; the snapshot needs some of it too
_DRAIN_RECORDS: Final = 100
_IDLE_SECONDS: Final = (
    0.02  # a record that comes while there is none is seen at once; this bounds the wait for a due time
)


def run_trainer(settings: TrainerSettings, log: Log, stop: Event, *, clock: Clock | None = None) -> None:
    """Be the trainer until ``stop`` is set; then learn what is there already (for a moment at most), publish what is
    left, write a last snapshot and return.

    Raises:
        ConfigError: another trainer works in the folder, or its snapshots are of another model.
        SnapshotError: there are snapshots, and none can be used.
        LogError: the log cannot be read or written.
    """
    settings.folder.mkdir(parents=True, exist_ok=True)
    with (
        torch_threads(settings.threads),
        _alone_in(settings.folder),
        ThreadPoolExecutor(1, thread_name_prefix="snapshot") as sealer,
        ThreadPoolExecutor(1, thread_name_prefix="publish") as shipper,
    ):
        stage = _TrainerStage(settings, log, clock if clock is not None else SystemClock(), sealer, shipper)
        # What exists now lives as long as the process: without this, the collector looks through all of torch now and
        # then, and a step waits for it.
        gc.collect()
        gc.freeze()
        try:
            stage.trainer.follow(log, stop, between=stage.between, wait_seconds=_IDLE_SECONDS)
            stage.drain()
            stage.close()
        finally:
            gc.unfreeze()


@final
class _TrainerStage:
    """Learning happens in this thread, whatever waits for a disk in the two executors."""

    def __init__(self, settings: TrainerSettings, log: Log, clock: Clock, sealer: Executor, shipper: Executor) -> None:
        self._log, self._clock, self._sealer, self._shipper = log, clock, sealer, shipper
        self._snapshots = SnapshotFolder(settings.folder / "snapshots", keep=settings.keep_snapshots)
        self._snapshots.sweep()
        self.trainer, written_lineage = open_trainer(settings, log)
        self.trainer.embeddings.threads = settings.threads
        self._lineage = written_lineage
        self._publisher = Publisher(self.trainer, log, clock)
        self._frozen = Frozen(settings.folder / "frozen", settings.freeze_after_examples)
        self._frozen.recall(self.trainer)
        self._sealing: Future[None] | None = None
        self._owes_dense = False  # they were due when no delta could be begun, or the log refused it
        self._sync_due, self._dense_due = _Due(settings.sync_every), _Due(settings.dense_every)
        self._snapshot_due, self._status_due = _Due(settings.snapshot_every), _Due(settings.status_every)
        self._figures = StageFigures(self.trainer, log, settings.dataset)
        if written_lineage == self.trainer.lineage.name:
            self._figures.snapshot_version = self.trainer.version
        self._write_snapshot_of_new_lineage()
        _log.info(
            "trainer ready", version=self.trainer.version, offset=self.trainer.offset, rows=len(self.trainer.embeddings)
        )

    def between(self) -> None:
        """What happens between two records, when it is due."""
        self._frozen.freeze_when_due(self.trainer)
        if self._sync_due():
            self._finish_publishing(wait=False)
            self._begin_publishing(with_dense=self._dense_due())
        if self._snapshot_due():
            self._write_snapshot()
        if self._status_due():
            self._tell()

    def drain(self) -> None:
        """Learn what the joiner wrote last; what does not fit into a moment is learned by the next start."""
        end = time.monotonic() + _DRAIN_SECONDS
        try:
            while records := self._log.read(Topic.EXAMPLES, 0, self.trainer.offset, max_records=_DRAIN_RECORDS):
                for record in records:
                    if time.monotonic() >= end:
                        return
                    self.trainer.learn(record)
                    self._frozen.freeze_when_due(self.trainer)
        except LogError as problem:
            _log.warning("the last examples were not read; the next start learns them", problem=str(problem))

    def close(self) -> None:
        """Ship and write what is left."""
        self._finish_publishing(wait=True)
        self._begin_publishing(with_dense=True)
        self._finish_publishing(wait=True)
        self._finish_sealing()
        self._write_snapshot()
        self._finish_sealing()
        self._tell()
        _log.info("trainer stopped", version=self.trainer.version)

    def _begin_publishing(self, *, with_dense: bool) -> None:
        self._write_snapshot_of_new_lineage()
        with_dense = with_dense or self._owes_dense
        is_begun = self._publisher.begin(self._shipper, with_dense=with_dense)
        self._owes_dense = with_dense and not is_begun

    def _finish_publishing(self, *, wait: bool) -> None:
        try:
            published = self._publisher.finish(wait=wait)
        except LogError as problem:
            if not problem.retry:
                raise
            self._owes_dense = True
            _log.error("delta not published, will be with the next", problem=str(problem))
            return
        if published is not None:
            self._figures.published(published)

    def _write_snapshot_of_new_lineage(self) -> None:
        # Before anything of it is published, so that replicas can start from there, and learning can be repeated.
        if self.trainer.lineage.name != self._lineage:
            self._finish_sealing()
            self._write_snapshot(must=True)
            self._finish_sealing()
            self._lineage = self.trainer.lineage.name

    def _write_snapshot(self, *, must: bool = False) -> None:
        """Copy the parameters now; the rest is done in the background, where a failure is told and not raised."""
        if self._sealing is not None and not self._sealing.done():
            return  # the disk is slow; the next one will be newer
        if self.trainer.version == self._figures.snapshot_version and not must:
            return
        started = time.perf_counter()
        contents = self.trainer.contents(
            created_time_us=self._clock.now_us(), parameters_offset=self._publisher.next_offset
        )
        try:
            copied = self._snapshots.copy(contents)
        except OSError as problem:
            if must:
                raise
            _log.error("snapshot not written", version=self.trainer.version, problem=str(problem))
            return
        self._figures.snapshot_pause_ms = (time.perf_counter() - started) * 1e3
        self._sealing = self._sealer.submit(self._seal, copied, must=must)

    def _seal(self, copied: Copied, *, must: bool) -> None:
        started = time.perf_counter()
        try:
            self._snapshots.seal(copied)
            oldest = read_manifest(self._snapshots.paths()[-1])
            # Replicas start from a kept snapshot at worst, so nobody needs older deltas or examples.
            self._log.truncate(Topic.PARAMETERS, 0, oldest.parameters_offset)
            self._log.commit(Group.TRAINER, {(Topic.EXAMPLES, 0): oldest.offset})
        except (OSError, LogError, SnapshotError) as problem:
            if must:
                raise
            _log.error("snapshot not finished", version=copied.manifest.version, problem=str(problem))
            return
        except Exception:  # a mistake of ours: nobody asks the future, so it is told here or never
            if must:
                raise
            _log.exception("snapshot not finished", version=copied.manifest.version)
            return
        self._figures.snapshot_version = copied.manifest.version
        self._figures.snapshot_seconds = time.perf_counter() - started
        _log.info(
            "snapshot written",
            version=copied.manifest.version,
            rows=copied.row_count,
            pause_ms=round(self._figures.snapshot_pause_ms, 1),
            seconds=round(self._figures.snapshot_seconds, 3),
        )

    def _finish_sealing(self) -> None:
        if self._sealing is not None:
            self._sealing.result()

    def _tell(self) -> None:
        status = {
            "stage": "train",
            "time_us": self._clock.now_us(),
            "pid": os.getpid(),
            "figures": self._figures.now(self._clock.now_us()),
        }
        self._shipper.submit(self._append_status, json.dumps(status).encode())

    def _append_status(self, status: bytes) -> None:
        try:
            self._log.append(Topic.STATUS, [status])
        except LogError as problem:
            _log.error("status not written", problem=str(problem))


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Hold the folder's lock; the system lets go of it when this process ends, however it ends."""
    with (folder / "trainer.lock").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.seek(0)
            raise ConfigError(
                f"another trainer (process {file.read().strip() or 'unknown'}) works in {folder}; stop it, or choose"
                " another folder"
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


class _Due:
    """Says when something that happens every so often is due. Late by more than one time, it does not catch up."""

    def __init__(self, every: str) -> None:
        self._seconds = parse_duration_us(every) / 1e6
        self._next = time.monotonic() + self._seconds

    def __call__(self) -> bool:
        now = time.monotonic()
        if now < self._next:
            return False
        self._next = now + self._seconds
        return True

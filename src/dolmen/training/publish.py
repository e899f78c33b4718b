"""The trainer's side of sync: what changed since the last delta, onto the topic ``parameters``."""

from __future__ import annotations

from concurrent.futures import Executor, Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, final

from dolmen.clock import Clock
from dolmen.events import Log, Topic
from dolmen.training.sync import PART_BYTES_MAX, ParameterDelta, encode_delta

if TYPE_CHECKING:
    from dolmen.training.trainer import Trainer

__all__ = ["Published", "Publisher"]


@final
@dataclass(frozen=True, kw_only=True)
class Published:
    """What one delta carried."""

    version: int
    row_count: int
    bytes: int
    parts: int
    has_dense: bool


@final
class Publisher:
    """Publishes a trainer's changes, beginning with those after its present version.

    A trainer that was restarted begins at its snapshot, so its first delta spans everything since; replicas that have
    it already pass it over.

    Publishing has two halves, so that learning waits for the first only: what changed is copied, then encoded and
    written, which takes as long as the log's disk. ``begin`` does the first and hands the second to an executor.
    """

    def __init__(self, trainer: Trainer, log: Log, clock: Clock, *, part_bytes_max: int = PART_BYTES_MAX) -> None:
        self._trainer, self._log, self._clock, self._part_bytes_max = trainer, log, clock, part_bytes_max
        self.version = self._dense_version = trainer.version
        # Changes that others have: the snapshot that the trainer came from.
        self._epoch = trainer.embeddings.advance_epoch()
        trainer.embeddings.forget_epochs(self._epoch)
        self._under_way: tuple[Future[Published], int] | None = None

    @property
    def next_offset(self) -> int:
        """Of the topic ``parameters``: what goes beyond the trainer's present version will lie here or later."""
        return self._log.bounds(Topic.PARAMETERS, 0)[1]

    def publish(self, *, with_dense: bool) -> Published | None:
        """Ship what changed since the last time, and wait for it; ``None`` where nothing did.

        With dense layers that were learned after they were shipped last, a delta may carry them alone.

        Raises:
            LogError: the log took nothing; the next call ships these changes too.
        """
        delta = self._changes(with_dense=with_dense)
        return self._take_over(self._ship(delta), self._trainer.embeddings.epoch) if delta is not None else None

    def begin(self, executor: Executor, *, with_dense: bool) -> bool:
        """Ship what changed since the last time, the slow half in ``executor``; then ``finish`` tells how it went.

        False where nothing did, or the last delta is still on its way: what comes since travels with the next.
        """
        if self._under_way is not None:
            return False
        delta = self._changes(with_dense=with_dense)
        if delta is None:
            return False
        self._under_way = executor.submit(self._ship, delta), self._trainer.embeddings.epoch
        return True

    def finish(self, *, wait: bool) -> Published | None:
        """What was begun, once it is written; ``None`` where nothing is under way or, without ``wait``, not done yet.

        Raises:
            LogError: the log took nothing; the next delta ships these changes too.
        """
        if self._under_way is None or not (wait or self._under_way[0].done()):
            return None
        (future, epoch), self._under_way = self._under_way, None
        return self._take_over(future.result(), epoch)

    def _changes(self, *, with_dense: bool) -> ParameterDelta | None:
        trainer = self._trainer
        owes_dense = with_dense and self._dense_version < trainer.version
        if trainer.version == self.version and not owes_dense:
            return None
        dense = {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()} if with_dense else None
        return ParameterDelta(
            lineage=trainer.lineage.name,
            schema=trainer.schema.fingerprint,
            from_version=self.version,
            to_version=trainer.version,
            newest_event_time_us=trainer.newest_event_time_us,
            positions=dict(trainer.positions),
            published_time_us=self._clock.now_us(),
            tables=trainer.embeddings.delta_since(self._epoch),  # which closes the epoch: later changes are the next's
            dense=dense,
        )

    def _ship(self, delta: ParameterDelta) -> Published:
        records = encode_delta(delta, part_bytes_max=self._part_bytes_max)
        self._log.append(Topic.PARAMETERS, records)
        return Published(
            version=delta.to_version,
            row_count=delta.row_count,
            bytes=sum(map(len, records)),
            parts=len(records),
            has_dense=delta.dense is not None,
        )

    def _take_over(self, published: Published, epoch: int) -> Published:
        # Only now: had the log refused, the next delta would begin where this one did.
        self.version, self._epoch = published.version, epoch
        if published.has_dense:
            self._dense_version = published.version
        self._trainer.embeddings.forget_epochs(epoch)
        return published

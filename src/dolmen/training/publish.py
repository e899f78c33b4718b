"""The trainer's side of sync: what changed since the last delta, onto the topic ``parameters``."""

from __future__ import annotations

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
    """

    def __init__(self, trainer: Trainer, log: Log, clock: Clock, *, part_bytes_max: int = PART_BYTES_MAX) -> None:
        self._trainer, self._log, self._clock, self._part_bytes_max = trainer, log, clock, part_bytes_max
        self.version = trainer.version
        # Changes that others have: the snapshot that the trainer came from.
        self._epoch = trainer.embeddings.advance_epoch()
        trainer.embeddings.forget_epochs(self._epoch)

    @property
    def next_offset(self) -> int:
        """Of the topic ``parameters``: whatever goes beyond the version published last will lie here or later."""
        return self._log.bounds(Topic.PARAMETERS, 0)[1]

    def publish(self, *, with_dense: bool) -> Published | None:
        """Ship what changed since the last time; ``None`` where nothing was learned since.

        Raises:
            LogError: the log took nothing; the next call ships these changes too.
        """
        trainer = self._trainer
        if trainer.version == self.version:
            return None
        # The epoch is closed before the rows are read: what changes later belongs to the next delta.
        following = trainer.embeddings.advance_epoch()
        delta = ParameterDelta(
            lineage=trainer.lineage,
            schema=trainer.schema.fingerprint,
            from_version=self.version,
            to_version=trainer.version,
            newest_event_time_us=trainer.newest_event_time_us,
            positions=trainer.positions,
            published_time_us=self._clock.now_us(),
            tables=trainer.embeddings.delta_since(self._epoch),
            dense=trainer.model.state_dict() if with_dense else None,
        )
        records = encode_delta(delta, part_bytes_max=self._part_bytes_max)
        self._log.append(Topic.PARAMETERS, records)
        self.version, self._epoch = trainer.version, following
        trainer.embeddings.forget_epochs(following)
        return Published(
            version=self.version,
            row_count=delta.row_count,
            bytes=sum(map(len, records)),
            parts=len(records),
            has_dense=with_dense,
        )

"""A copy of the parameters that stopped learning at some moment, to be judged beside the ones that went on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, final

from dolmen.errors import SnapshotError
from dolmen.models import Model
from dolmen.telemetry import logger
from dolmen.training.snapshot import SnapshotFolder, load_snapshot

if TYPE_CHECKING:
    from dolmen.training.trainer import Trainer

__all__ = ["Frozen"]

_log = logger(__name__)


@final
class Frozen:
    """Keeps the copy in ``folder`` as a snapshot, so that it survives restarts.

    It is taken after the first record with which ``after_examples`` are learned (never, if ``None``): a place in the
    log, not a moment, so that a replay takes the same copy.
    """

    def __init__(self, folder: Path, after_examples: int | None) -> None:
        self._snapshots = SnapshotFolder(folder, keep=1)
        self._snapshots.sweep()
        self._after_examples = after_examples
        self._is_frozen = False

    def recall(self, trainer: Trainer) -> None:
        """Judge the kept copy again, if the trainer has come by the place where it was taken. It has not, if its own
        snapshots were deleted and it learns anew: that is another course of learning, of the same versions.
        """
        if not self._snapshots.paths() or trainer.judge is None:
            return
        try:
            kept = load_snapshot(
                self._snapshots.folder, schema=trainer.schema, for_serving=True, compute=trainer.compute
            )
        except SnapshotError as problem:
            _log.warning("frozen copy passed over", problem=str(problem))
            return
        if trainer.has_been_at(kept.manifest.lineage, kept.manifest.version):
            self._take(trainer, kept.parameters.model, kept.manifest.version)

    def freeze_when_due(self, trainer: Trainer) -> None:
        """Take the copy, if this is the place."""
        if self._is_frozen or self._after_examples is None or trainer.judge is None:
            return
        if trainer.counters["examples"] < self._after_examples:
            return
        # A replay comes by this place again: what was kept the first time is the same bits.
        self.recall(trainer)
        if not self._is_frozen:
            self._snapshots.clear()  # of another course, perhaps of a later version: it would be kept for the newest
            path = self._snapshots.write(trainer.contents(created_time_us=0))
            kept = load_snapshot(path, for_serving=True, compute=trainer.compute)
            self._take(trainer, kept.parameters.model, trainer.version)

    def _take(self, trainer: Trainer, model: Model, version: int) -> None:
        assert trainer.judge is not None
        trainer.judge.frozen = model
        self._is_frozen = True
        _log.info("frozen copy is judged", version=version)

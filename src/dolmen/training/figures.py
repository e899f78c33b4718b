"""What the trainer tells of itself once a second."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any, final

import psutil

from dolmen.events import Log, Topic

if TYPE_CHECKING:
    from dolmen.training.publish import Published
    from dolmen.training.trainer import Trainer

__all__ = ["StageFigures"]


@final
class StageFigures:
    """Gathers a trainer's figures. Rates are over the time since they were asked for last."""

    def __init__(self, trainer: Trainer, log: Log, dataset: str) -> None:
        self._trainer, self._log, self._dataset = trainer, log, dataset
        self._process = psutil.Process()
        self._asked_at, self._examples, self._loss_sum = (
            time.monotonic(),
            trainer.counters["examples"],
            trainer.loss_sum,
        )
        self._steps, self._step_seconds = trainer.step_count, trainer.step_seconds
        self._deltas = {"deltas_total": 0, "delta_rows_total": 0, "delta_bytes_total": 0}
        self._last: Published | None = None
        self.snapshot_version = -1
        self.snapshot_pause_ms = self.snapshot_seconds = 0.0

    def published(self, published: Published) -> None:
        """A delta went out."""
        self._last = published
        self._deltas["deltas_total"] += 1
        self._deltas["delta_rows_total"] += published.row_count
        self._deltas["delta_bytes_total"] += published.bytes

    def now(self, now_us: int) -> dict[str, Any]:
        """Figures by name, ready for JSON; what is not known is ``None``."""
        trainer = self._trainer
        asked_at = time.monotonic()
        seconds = max(asked_at - self._asked_at, 1e-9)
        examples = trainer.counters["examples"] - self._examples
        steps = trainer.step_count - self._steps
        loss = (trainer.loss_sum - self._loss_sum) / examples if examples else None
        step_ms = (trainer.step_seconds - self._step_seconds) / steps * 1e3 if steps else None
        self._asked_at, self._examples, self._loss_sum = asked_at, trainer.counters["examples"], trainer.loss_sum
        self._steps, self._step_seconds = trainer.step_count, trainer.step_seconds
        backlog = self._log.bounds(Topic.EXAMPLES, 0)[1] - trainer.offset
        figures: dict[str, Any] = {
            "dataset": self._dataset,
            "version": trainer.version,
            "published_version": self._last.version if self._last is not None else None,
            "snapshot_version": self.snapshot_version if self.snapshot_version >= 0 else None,
            "examples_per_second": examples / seconds,
            "loss": loss,
            "step_ms": step_ms,
            "backlog_records": backlog,
            "lag_seconds": max(0, now_us - trainer.logged_us) / 1e6 if backlog > 0 and trainer.logged_us else 0.0,
            "newest_event_time_us": trainer.newest_event_time_us,
            "positions": trainer.positions,
            "table_rows": len(trainer.embeddings),
            "rows_by_slot": trainer.embeddings.rows_by_slot(),
            "table_bytes": trainer.embeddings.memory().total_bytes,
            "memory_bytes": self._process.memory_info().rss,
            "delta_bytes": self._last.bytes if self._last is not None else None,
            "delta_rows": self._last.row_count if self._last is not None else None,
            "snapshot_pause_ms": self.snapshot_pause_ms,
            "snapshot_seconds": self.snapshot_seconds,
            **self._deltas,
            **{f"{name}_total": count for name, count in trainer.counters.items()},
        }
        if trainer.judge is not None:
            figures |= trainer.judge.figures()
        return {name: _plain(value) for name, value in figures.items()}


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value

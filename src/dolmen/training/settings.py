"""What a trainer process is told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, final

from dolmen.clock import Duration, parse_duration_us
from dolmen.embedding import Optimizer
from dolmen.errors import ConfigError
from dolmen.features import Schema
from dolmen.training.config import TrainConfig

__all__ = ["TrainerSettings"]


@final
@dataclass(frozen=True, kw_only=True)
class TrainerSettings:
    """One trainer process.

    Args:
        folder: its state: ``snapshots/``, ``frozen/``, ``bad/``. One trainer at a time works in it.
        schema: of the examples.
        model: a name that ``dolmen.models.build`` knows.
        model_options: that model's options.
        train: settings of learning.
        optimizer: of the tables' rows; AdaGrad if ``None``.
        start_from: a snapshot (of a batch run, say) to begin with where ``folder`` has none yet.
        sync_every: how often deltas are published; what a person does is in the answers about this much later.
        dense_every: how often a delta carries the dense layers too. They are few megabytes at most and move slowly.
        snapshot_every: how often a snapshot is written; a restart replays at most this much of the stream.
        keep_snapshots: older ones are deleted; three, so that two may be bad.
        freeze_after_examples: keep a copy of the parameters as of then and judge it beside the learning ones.
        status_every: how often figures go to the topic ``status``.
        threads: of torch, and of the tables' batches. Steps are small: one thread is fastest, and bits do not depend on
            the machine's cores.
        dataset: what is being learned, for people.
    """

    folder: Path
    schema: Schema
    model: str = "joint"
    model_options: Mapping[str, Any] = field(default_factory=dict)
    train: TrainConfig = field(default_factory=TrainConfig)
    optimizer: Optimizer | None = None
    start_from: Path | None = None
    sync_every: Duration = "250ms"
    dense_every: Duration = "1s"
    snapshot_every: Duration = "30s"
    keep_snapshots: int = 3
    freeze_after_examples: int | None = None
    status_every: Duration = "1s"
    threads: int = 1
    dataset: str = ""

    def __post_init__(self) -> None:
        for name in ("sync_every", "dense_every", "snapshot_every", "status_every"):
            try:
                duration_us = parse_duration_us(getattr(self, name))
            except ValueError as problem:
                raise ConfigError(f"trainer.{name}: {problem}") from None
            if duration_us == 0:
                raise ConfigError(f"trainer.{name} must be above 0, got {getattr(self, name)!r}")
        for name, least in (("keep_snapshots", 1), ("threads", 1), ("freeze_after_examples", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ConfigError(f"trainer.{name} must be at least {least}, got {value}")

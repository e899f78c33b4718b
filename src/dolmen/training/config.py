"""How a model is trained: everything here changes the parameters, so all of it is kept in each snapshot.

What only changes when things are shipped or written (sync, snapshots, status) is in ``stage.TrainerSettings``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

from dolmen.clock import parse_duration_us
from dolmen.errors import ConfigError

__all__ = ["TrainConfig"]


@final
@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Settings of learning.

    Args:
        learning_rate: of the dense layers (Adam), for a batch of ``full_batch`` examples or more.
        full_batch: a smaller batch moves the dense layers by ``size / full_batch`` of that rate. Adam's step does not
            shrink with its gradient, so without this a stream cut into many tiny records would move them many times as
            far.
        weight_decay: of the dense layers, decoupled (AdamW).
        gradient_norm_max: longer gradients of the dense layers are cut to this length, so that one odd record cannot
            throw the network off; ``None`` cuts nothing.
        embedding_rate_scale: factor on the learning rate of the tables' optimiser.
        warmup_steps: all rates grow evenly over this many first steps.
        decay_steps: after that they fall along half a cosine for this many steps; ``None`` leaves them.
        final_rate: to this share of themselves, where they stay.
        expire_every: how often, in the data's time, rows past their slot's ``expire_after`` leave; ``None``: fifty
            times in the shortest ``expire_after``.
        future_max: an event time may lie this far behind the moment its record was logged; what claims to be later
            counts as that moment, so that one wrong clock cannot expire every row.
        label: what progressive evaluation judges; the schema's first label if ``None``.
        evaluate_every: progressive evaluation looks at every n-th record (or batch); 0 switches it off.
        seed: of dropout and every other draw; step n draws from ``seed`` and n alone.
    """

    learning_rate: float = 0.001
    full_batch: int = 64
    weight_decay: float = 0.0
    gradient_norm_max: float | None = 10.0
    embedding_rate_scale: float = 1.0
    warmup_steps: int = 0
    decay_steps: int | None = None
    final_rate: float = 0.1
    expire_every: str | None = None
    future_max: str = "1d"
    label: str | None = None
    evaluate_every: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.learning_rate > 0:
            raise ConfigError(f"train.learning_rate must be above 0, got {self.learning_rate}")
        if self.full_batch < 1:
            raise ConfigError(f"train.full_batch must be at least 1, got {self.full_batch}")
        if self.weight_decay < 0:
            raise ConfigError(f"train.weight_decay must be at least 0, got {self.weight_decay}")
        if self.gradient_norm_max is not None and not self.gradient_norm_max > 0:
            raise ConfigError(f"train.gradient_norm_max must be above 0 or left out, got {self.gradient_norm_max}")
        if not self.embedding_rate_scale > 0:
            raise ConfigError(f"train.embedding_rate_scale must be above 0, got {self.embedding_rate_scale}")
        self._check_schedule()
        if self.evaluate_every < 0:
            raise ConfigError(f"train.evaluate_every must be at least 0 (0 is off), got {self.evaluate_every}")
        for name in ("expire_every", "future_max"):
            if getattr(self, name) is None:
                continue
            try:
                duration_us = parse_duration_us(getattr(self, name))
            except ValueError as problem:
                raise ConfigError(f"train.{name}: {problem}") from None
            if duration_us == 0:
                raise ConfigError(f"train.{name} must be above 0, got {getattr(self, name)!r}")

    def _check_schedule(self) -> None:
        if self.warmup_steps < 0:
            raise ConfigError(f"train.warmup_steps must be at least 0, got {self.warmup_steps}")
        if self.decay_steps is not None and self.decay_steps < 1:
            raise ConfigError(f"train.decay_steps must be at least 1 or left out, got {self.decay_steps}")
        if not 0 < self.final_rate <= 1:
            raise ConfigError(f"train.final_rate must be above 0 and at most 1, got {self.final_rate}")

    def rate_factor(self, step: int) -> float:
        """What all learning rates are multiplied by at a step, counted from 1.

        >>> config = TrainConfig(warmup_steps=4, decay_steps=10, final_rate=0.2)
        >>> [round(config.rate_factor(step), 3) for step in (1, 4, 9, 14, 1000)]
        [0.25, 1.0, 0.6, 0.2, 0.2]
        """
        if step <= self.warmup_steps:
            return step / self.warmup_steps
        if self.decay_steps is None:
            return 1.0
        share = min(1.0, (step - self.warmup_steps) / self.decay_steps)
        return self.final_rate + (1.0 - self.final_rate) * (1.0 + math.cos(math.pi * share)) / 2.0

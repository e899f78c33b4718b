"""How a model is trained: everything here changes the parameters, so all of it is kept in each snapshot.

What only changes when things are shipped or written (sync, snapshots, status) is in ``stage.TrainerSettings``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import final

from dolmen.clock import Duration, parse_duration_us
from dolmen.devices import Arithmetic, Device
from dolmen.embedding import Capacity
from dolmen.errors import ConfigError
from dolmen.features import Eviction
from dolmen.seeds import SEED_MAX
from dolmen.settings import SCALE_MAX, chosen

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
        table_capacity: how many rows each table (there is one for each width) keeps at most, of all slots together;
            ``None`` sets no bound but those of the slots.
        table_eviction: which row leaves beyond that: ``lru``, ``lfu`` or ``score``, as for a slot.
        table_half_life: of ``score``, in the data's time (``"7d"``).
        warmup_steps: all rates grow evenly over this many first steps.
        decay_steps: after that they fall along half a cosine for this many steps; ``None`` leaves them.
        final_rate: to this share of themselves, where they stay.
        expire_every: how often, in the data's time, rows past their slot's ``expire_after`` leave; ``None``: fifty
            times in the shortest ``expire_after``.
        future_max: an event time may lie this far behind the moment its record was logged; what claims to be later
            counts as that moment, so that one wrong clock cannot expire every row.
        read_catalogue: whether, following a stream, the trainer also reads what the catalogue tells of items, and
            learns of each as of an example that counts nothing (``Trainer.meet``): for models that learn from items
            nobody was shown, such as ``ssl_two_tower``. Each item gets its rows then, shown or not.
        label: what progressive evaluation judges; the schema's first label if ``None``.
        evaluate_every: progressive evaluation looks at every n-th record (or batch); 0 switches it off.
        device: where the layers are computed: ``cpu``, ``cuda``, or ``auto`` for what is there. The tables stay in main
            memory.
        arithmetic: of products of matrices: ``float32``, or ``bfloat16`` with parameters, sums and losses in float32.
        seed: of dropout and every other draw, 0 or more; step n draws from ``seed`` and n alone.
    """

    learning_rate: float = 0.001
    full_batch: int = 64
    weight_decay: float = 0.0
    gradient_norm_max: float | None = 10.0
    embedding_rate_scale: float = 1.0
    table_capacity: int | None = None
    table_eviction: Eviction = Eviction.LRU
    table_half_life: Duration | None = None
    warmup_steps: int = 0
    decay_steps: int | None = None
    final_rate: float = 0.1
    expire_every: Duration | None = None
    future_max: Duration = "1d"
    read_catalogue: bool = False
    label: str | None = None
    evaluate_every: int = 1
    device: Device = Device.CPU
    arithmetic: Arithmetic = Arithmetic.FLOAT32
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
        if not 0 < self.embedding_rate_scale <= SCALE_MAX:
            raise ConfigError(
                f"train.embedding_rate_scale must be above 0 and at most {SCALE_MAX:g}, got {self.embedding_rate_scale}"
            )
        self._check_kinds()
        self._check_capacity()
        self._check_schedule()
        if self.evaluate_every < 0:
            raise ConfigError(f"train.evaluate_every must be at least 0 (0 is off), got {self.evaluate_every}")
        if not 0 <= self.seed <= SEED_MAX:
            raise ConfigError(f"train.seed must be between 0 and {SEED_MAX}, got {self.seed}")
        for name in ("expire_every", "future_max"):
            if getattr(self, name) is None:
                continue
            try:
                duration_us = parse_duration_us(getattr(self, name))
            except ValueError as problem:
                raise ConfigError(f"train.{name}: {problem}") from None
            if duration_us == 0:
                raise ConfigError(f"train.{name} must be above 0, got {getattr(self, name)!r}")

    @property
    def capacity(self) -> Capacity | None:
        """Of each table."""
        if self.table_capacity is None:
            return None
        half_life_us = 0 if self.table_half_life is None else parse_duration_us(self.table_half_life)
        return Capacity(self.table_capacity, self.table_eviction, half_life_us)

    def _check_kinds(self) -> None:
        kinds: dict[str, type[StrEnum]] = {"table_eviction": Eviction, "device": Device, "arithmetic": Arithmetic}
        for name, kind in kinds.items():
            object.__setattr__(self, name, chosen(kind, getattr(self, name), f"train.{name}"))

    def _check_capacity(self) -> None:
        if self.table_capacity is None and (
            self.table_eviction is not Eviction.LRU or self.table_half_life is not None
        ):
            raise ConfigError("train.table_eviction and train.table_half_life need train.table_capacity; set it")
        if self.table_capacity is not None and self.table_capacity < 1:
            raise ConfigError(f"train.table_capacity must be at least 1 or left out, got {self.table_capacity}")
        if (self.table_half_life is not None) != (self.table_eviction is Eviction.SCORE):
            raise ConfigError(
                f"train.table_eviction 'score' and train.table_half_life go together, got {str(self.table_eviction)!r} "
                f"and {self.table_half_life!r}"
            )
        try:
            half_life_us = 1 if self.table_half_life is None else parse_duration_us(self.table_half_life)
        except ValueError as problem:
            raise ConfigError(f"train.table_half_life: {problem}") from None
        if half_life_us < 1:
            raise ConfigError(f"train.table_half_life must be above 0, got {self.table_half_life!r}")

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

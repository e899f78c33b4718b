"""The trainer: one batch, one step, whether the batches come from a data set (``fit``) or a stream (``follow``).

One record of the topic ``examples`` is one step, in the log's order. All that a step does follows from the record, the
parameters before it and the number of the step: rows age by event time, random draws come from (seed, step), expiry
happens between two records. So a trainer that was killed and started again from a snapshot walks the same road, bit for
bit.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Event
from typing import Any, Final, Self, final

import torch
from torch import Tensor

from dolmen.clock import parse_duration_us
from dolmen.compute import Compute, torch_threads
from dolmen.devices import Device
from dolmen.embedding import Embed, Embeddings, Tape
from dolmen.errors import BadEventError, ConfigError, OffsetGoneError, SchemaError, SnapshotError
from dolmen.events import Examples, Log, Record, Topic, decode_examples
from dolmen.features import Batch, Jagged, Schema
from dolmen.lineage import Lineage
from dolmen.models import Ability, Model, describe
from dolmen.seeds import derive_seed
from dolmen.settings import read_settings, write_settings
from dolmen.telemetry import logger
from dolmen.training.adam import FlatAdam
from dolmen.training.config import TrainConfig
from dolmen.training.fit import FitReport, fit
from dolmen.training.judge import Judge
from dolmen.training.meeting import silent_examples, tell_items
from dolmen.training.mode import set_mode
from dolmen.training.snapshot import Contents, Parameters, Snapshot, SnapshotFolder
from dolmen.training.specimens import Specimens

__all__ = ["StepReport", "Trainer"]

_log = logger(__name__)

_READ_RECORDS_MAX: Final = 64  # small, so that what happens between records (sync, stop) never waits for long
_EXPIRIES_IN_A_LIFE: Final = 50  # by default a row outlives its time by 2 % at most


@final
@dataclass(frozen=True, slots=True)
class StepReport:
    """What one step did. ``is_learned`` is false where the batch was empty or its loss was no number."""

    loss: float
    example_count: int
    is_learned: bool


@final
@dataclass(frozen=True, kw_only=True)
class Kept:
    """What ``Trainer.keep`` copied."""

    embeddings: Embeddings
    dense: Mapping[str, Tensor]
    optimizer: Mapping[str, Tensor]
    newest_event_time_us: int


@final
class Trainer:
    """Trains one model on one set of tables. Not thread-safe: one thread steps, publishes and writes snapshots.

    Args:
        model: anything with a ``loss``; scored before it learns if it declares ``Scores``.
        embed: the look-up that the model was built with.
        config: see ``TrainConfig``.
        description: ``name`` and ``options`` of the model, kept in snapshots to build it again; ``None``: as the
            registry of models describes it, which knows our own models only.
        specimens: keeps examples of records that cannot be used; none are kept if ``None``.
        dataset: what is learned, such as the name of a data set; snapshots keep it.

    Attributes:
        version: steps since the beginning; what parameters are called by.
        offset: of the next record of ``examples``.
        compute: where and how the model's layers are computed.
        lineage: which course of learning this is, see ``sync``; its ancestors were left at versions.
        newest_event_time_us: the data's time so far.
        positions: what of the log's other topics the records so far include.
        counters: whole numbers for people; they are in snapshots, so that they stay true over restarts.
        loss_sum, step_seconds, step_count: of all steps of this process, over examples, time and count.
        logged_us: when the newest record that was learned had been written.
    """

    def __init__(
        self,
        model: Model,
        embed: Embed,
        config: TrainConfig | None = None,
        *,
        description: Mapping[str, Any] | None = None,
        specimens: Specimens | None = None,
        dataset: str = "",
    ) -> None:
        self.model, self.embed, self.dataset = model, embed, dataset
        config = config if config is not None else TrainConfig()
        self.compute = Compute.of(config.device, config.arithmetic, section="train")
        # What "auto" came to decides the bits, so it is what snapshots keep.
        self.config = config if config.device is self.compute.device else replace(config, device=self.compute.device)
        model.to(str(self.compute.device))
        embed.device = str(self.compute.device)
        for table in embed.embeddings.tables.values():
            table.require_scale(config.embedding_rate_scale, "train.embedding_rate_scale")
        self._description = description
        self.specimens = specimens
        self.version = self.offset = 0
        self.lineage = Lineage()
        self.newest_event_time_us = 0
        self.positions: dict[str, int] = {}
        self.counters = {
            "examples": 0,
            "examples_refused": 0,
            "records": 0,
            "records_bad": 0,
            "records_gone": 0,
            "steps_refused": 0,
            "expired": 0,
            "evicted": 0,
        }
        self.loss_sum = self.step_seconds = 0.0
        self.step_count = self.logged_us = 0
        self.judge = Judge(self.schema, self.config.label, self.compute) if Ability.SCORES in model.abilities else None
        self._optimizer = FlatAdam(model.named_parameters(), weight_decay=self.config.weight_decay)
        self._future_us = parse_duration_us(self.config.future_max)
        self._expire_every_us = _expire_every_us(self.schema, self.config)

    @property
    def schema(self) -> Schema:
        """What the examples hold."""
        return self.embed.schema

    @property
    def embeddings(self) -> Embeddings:
        """The tables that are trained."""
        return self.embed.embeddings

    def step(self, batch: Batch, *, logged_us: int | None = None) -> StepReport:
        """Judge the model on ``batch``, then learn from it.

        A row's step does not depend on how many strangers share its batch: its gradient is that of the summed loss. The
        dense layers follow the mean.

        Args:
            batch: examples with labels.
            logged_us: when the batch was written, if that is known; event times much later are not believed.

        Raises:
            SchemaError: the model cannot take ``batch``. Where slots do not go together (``Embed.align``) nothing has
                moved. A model that finds out by itself, later, has learned nothing; but the data's time has come to
                this batch, and its ids may have been seen.
        """
        self.embed.check(batch)
        self.version += 1
        if batch.size == 0:
            return StepReport(0.0, 0, is_learned=False)
        self._advance_time(batch, logged_us)
        every = self.config.evaluate_every
        if self.judge is not None and every and self.version % every == 0:
            self.judge.see(self.model, batch)
        batch = batch.to(str(self.compute.device))
        # torch's generator is the process's own; seeding it by step makes a step independent of all draws before.
        seed = derive_seed(self.config.seed, "step", self.version)
        torch.default_generator.manual_seed(seed)
        if self.compute.device is Device.CUDA:
            torch.cuda.manual_seed(seed)
        set_mode(self.model, is_training=True)
        with self.embed.recording(self.newest_event_time_us) as tape:
            with self.compute.running():
                loss = self.model.loss(batch)
            value = loss.item()
            is_learned = math.isfinite(value)
            scale = self.config.embedding_rate_scale * self.config.rate_factor(self.version)
            if is_learned:
                self._optimizer.begin()
                torch.autograd.backward(loss * batch.size)
                is_learned = _are_sound(tape, scale) and self._step_dense(batch.size)
            if is_learned:
                tape.apply(scale)
        self.counters["examples"] += batch.size
        if not is_learned:
            self.counters["steps_refused"] += 1
            self.counters["examples_refused"] += batch.size
        return StepReport(value, batch.size, is_learned)

    def meet(self, items: Batch) -> StepReport:
        """Learn of ``items``, which nobody was shown: a step on examples that count nothing.

        Their ids get rows as those of any example do, and a model that keeps items to learn from keeps these too.

        Args:
            items: slots and dense features of items; those that are missing are empty, or the schema's default.
        """
        return self.step(silent_examples(self.schema, items))

    def learn(self, record: Record) -> StepReport | None:
        """One record of the topic ``examples``: decode, step, and note its place. ``None``: it cannot be used.

        A bad record is counted, a specimen is kept, and it is passed over; it is a version like any other. Of a record
        in which the model can take some examples and others not, it learns those.

        Raises:
            ConfigError: the model cannot take an example of this schema at all, an empty one included.
        """
        report: StepReport | None = None
        version = self.version
        try:
            report = self._learn(record)
        except (BadEventError, SchemaError) as problem:
            self.version = version + 1
            self.counters["records_bad"] += 1
            self._keep_specimen(record, str(problem))
        self.counters["records"] += 1
        self.logged_us = record.time_us
        self.offset = record.offset + 1
        self.positions[f"{Topic.EXAMPLES}/0"] = self.offset
        return report

    def follow(
        self,
        log: Log,
        stop: Event,
        *,
        between: Callable[[], None] | None = None,
        wait_seconds: float = 0.05,
    ) -> None:
        """Learn from the topic ``examples`` as it grows, until ``stop`` is set.

        With ``read_catalogue``, whenever all of it is learned, what the catalogue tells of items is added to it.

        Args:
            log: where the examples are.
            stop: set it to return after the current record.
            between: called after each record, and at least every ``wait_seconds`` while there is none.
            wait_seconds: how long to wait for a record at a time.
        """
        with torch_threads(self.embeddings.threads):
            while not stop.is_set():
                try:
                    records = log.read(
                        Topic.EXAMPLES, 0, self.offset, max_records=_READ_RECORDS_MAX, wait_seconds=wait_seconds
                    )
                except OffsetGoneError as problem:
                    self._pass_over_gone(log, problem)
                    continue
                for record in records:
                    self.learn(record)
                    if between is not None:
                        between()
                    if stop.is_set():
                        return
                if not records:
                    if self.config.read_catalogue and tell_items(log, self.schema, self.positions):
                        continue
                    if between is not None:
                        between()

    def fit(
        self,
        batches: Iterable[Batch],
        *,
        epochs: int = 1,
        validation: Iterable[Batch] | None = None,
        patience: int | None = None,
        progress: bool | None = None,
    ) -> FitReport:
        """Learn from a data set: ``epochs`` passes over ``batches``. See ``dolmen.training.fit``."""
        return fit(self, batches, epochs=epochs, validation=validation, patience=patience, progress=progress)

    def parameters(self) -> Parameters:
        """The parameters as they are, shared and not copied."""
        return Parameters(
            schema=self.schema,
            model=self.model,
            embed=self.embed,
            embeddings=self.embeddings,
            version=self.version,
            dense_version=self.version,
            lineage=self.lineage.name,
            newest_event_time_us=self.newest_event_time_us,
            positions=dict(self.positions),
            compute=self.compute,
        )

    def contents(self, *, created_time_us: int, parameters_offset: int = 0) -> Contents:
        """What a snapshot of this moment holds; write it before the next step.

        Raises:
            ConfigError: the model is not of the registry, and the trainer was given no ``description``.
        """
        description = self._description if self._description is not None else describe(self.model)
        return Contents(
            schema=self.schema,
            model=self.model,
            embeddings=self.embeddings,
            model_name=description["name"],
            model_options=description["options"],
            train=write_settings(self.config),
            version=self.version,
            offset=self.offset,
            lineage=self.lineage,
            created_time_us=created_time_us,
            newest_event_time_us=self.newest_event_time_us,
            positions=dict(self.positions),
            parameters_offset=parameters_offset,
            counters=dict(self.counters),
            evaluation=self.judge.state_dict() if self.judge is not None else {},
            optimizer=self._optimizer.state_dict(),
            dataset=self.dataset,
        )

    def save(self, folder: Path | str, *, created_time_us: int = 0) -> Path:
        """Write a snapshot into ``folder`` (of snapshots); returns its own folder."""
        return SnapshotFolder(folder).write(self.contents(created_time_us=created_time_us))

    @classmethod
    def resume(
        cls, snapshot: Snapshot, config: TrainConfig | None = None, *, specimens: Specimens | None = None
    ) -> Self:
        """A trainer that goes on where ``snapshot`` was taken.

        With a ``config`` that differs from the snapshot's, it goes on under a new lineage: the same version will not
        mean the same bits any more, so replicas must start again.

        Raises:
            SnapshotError: the optimiser's state does not fit the model.
        """
        manifest, parameters = snapshot.manifest, snapshot.parameters
        written = read_settings(TrainConfig, manifest.train, "train")
        trainer = cls(
            parameters.model,
            parameters.embed,
            config if config is not None else written,
            description={"name": manifest.model, "options": manifest.model_options},
            specimens=specimens,
            dataset=manifest.dataset,
        )
        if trainer.config.capacity != written.capacity:
            parameters.embeddings.capacity = trainer.config.capacity
        trainer.version, trainer.offset = manifest.version, manifest.offset
        trainer.lineage = Lineage(manifest.lineage, dict(manifest.ancestors))
        if trainer.config != written:
            trainer.begin_lineage()
        trainer.newest_event_time_us = manifest.newest_event_time_us
        trainer.positions = dict(manifest.positions)
        trainer.counters.update(manifest.counters)
        if trainer.judge is not None and snapshot.evaluation:
            trainer.judge.load_state_dict(snapshot.evaluation)
        try:
            trainer._optimizer.load_state_dict(snapshot.optimizer)
        except SnapshotError as problem:
            raise SnapshotError(f"snapshot {snapshot.path.name}: {problem}") from None
        return trainer

    def begin_lineage(self) -> None:
        """From here on the same version does not mean the same bits as before; what was published under it ends."""
        self.lineage = self.lineage.branch(self.version)

    def has_been_at(self, lineage: str, version: int) -> bool:
        """Whether this course of learning leads through the parameters that ``lineage`` had at ``version``."""
        return version <= self.version and self.lineage.leads_through(lineage, version)

    def keep(self) -> Kept:
        """A copy of everything that learning changes, to come back to with ``restore``."""
        return Kept(
            embeddings=self.embeddings.clone(),
            dense={name: tensor.clone() for name, tensor in self.model.state_dict().items()},
            optimizer=self._optimizer.state_dict(),
            newest_event_time_us=self.newest_event_time_us,
        )

    def restore(self, kept: Kept) -> None:
        """Go back to what ``keep`` gave. ``embeddings`` is another object then; ``version`` goes on counting."""
        self.embed.embeddings = kept.embeddings
        self.model.load_state_dict(kept.dense)
        self._optimizer.load_state_dict(kept.optimizer)
        self.newest_event_time_us = kept.newest_event_time_us

    def _learn(self, record: Record) -> StepReport:
        """One step.

        Raises:
            SchemaError: the record does not decode, or the model can take none of its examples.
            ConfigError: it cannot take an empty example either.
        """
        examples = _sound_examples(self.schema, record.value)
        batch, version, started = examples.batch, self.version, time.perf_counter()
        try:
            report = self.step(batch, logged_us=record.time_us)
        except SchemaError as problem:
            usable = self._usable(batch, problem)
            refused = batch.size - len(usable)
            if len(usable) == 0 or refused == 0:
                raise
            self.version = version
            report = self.step(batch.take(usable), logged_us=record.time_us)
            self.counters["examples"] += refused
            self.counters["examples_refused"] += refused
            self._keep_specimen(record, f"{refused} of {batch.size} examples: {problem}")
        self.step_seconds += time.perf_counter() - started
        self.step_count += 1
        self.loss_sum += report.loss * report.example_count if report.is_learned else 0.0
        self.positions.update(examples.positions)
        if batch.size and not report.is_learned:
            self._keep_specimen(record, f"its loss is {report.loss}, or its gradients are not finite")
        return report

    def _usable(self, batch: Batch, problem: SchemaError) -> Tensor:
        """Which examples the model can take, ascending: tried in halves, down to single ones.

        Raises:
            ConfigError: none, nor an empty one, so ``problem`` is not of the data.
        """
        usable: list[Tensor] = []
        parts = [torch.arange(batch.size)]
        while parts:
            rows = parts.pop()
            if self._takes(batch.take(rows)):
                usable.append(rows)
            elif len(rows) > 1:
                parts += reversed(torch.tensor_split(rows, 2))
        if usable:
            return torch.cat(usable)
        if not self._takes(_empty_example(self.schema)):
            raise ConfigError(f"the model cannot work with this schema: {problem}") from problem
        return torch.arange(0)

    def _takes(self, batch: Batch) -> bool:
        """Whether the model can compute its loss. Rows are read only, and in evaluation mode nothing moves."""
        set_mode(self.model, is_training=False)
        try:
            self.embed.check(batch)
            with torch.no_grad(), self.compute.running():
                self.model.loss(batch.to(str(self.compute.device)))
        except SchemaError:
            return False
        return True

    def _advance_time(self, batch: Batch, logged_us: int | None) -> None:
        newest_us = int(batch.event_times_us.max())
        if logged_us is not None:
            newest_us = min(newest_us, logged_us + self._future_us)
        before_us, self.newest_event_time_us = self.newest_event_time_us, max(self.newest_event_time_us, newest_us)
        every_us = self._expire_every_us
        if every_us and before_us and before_us // every_us != self.newest_event_time_us // every_us:
            self.embeddings.begin_expiry(self.newest_event_time_us)
        # A turn at each step, so that none waits long; it is part of the step, so that a replay repeats it.
        upkeep = self.embeddings.maintain()
        self.counters["expired"] += upkeep.expired
        self.counters["evicted"] += upkeep.evicted

    def _step_dense(self, size: int) -> bool:
        """Move the dense layers by the mean gradient; false, and nothing moved, where it is not finite."""
        rate = self.config.learning_rate * self.config.rate_factor(self.version)
        rate *= min(1.0, size / self.config.full_batch)
        return self._optimizer.step(rate, gradient_scale=1 / size, norm_max=self.config.gradient_norm_max)

    def _keep_specimen(self, record: Record, problem: str) -> None:
        _log.warning("record passed over", topic=Topic.EXAMPLES, offset=record.offset, problem=problem)
        if self.specimens is not None:
            self.specimens.keep(Topic.EXAMPLES, record.offset, record.value, problem)

    def _pass_over_gone(self, log: Log, problem: OffsetGoneError) -> None:
        first, _ = log.bounds(Topic.EXAMPLES, 0)
        _log.error(
            "examples were deleted before they were learned", offset=self.offset, first=first, problem=str(problem)
        )
        self.counters["records_gone"] += first - self.offset
        self.offset = first
        self.begin_lineage()  # a replay from an older snapshot could meet another hole


def _are_sound(tape: Tape, scale: float) -> bool:
    """Whether the rows' gradients can be learned: looked at before the dense layers move."""
    try:
        tape.check(scale)
    except ValueError as problem:
        _log.warning("step refused", problem=str(problem))
        return False
    return True


def _sound_examples(schema: Schema, value: bytes) -> Examples:
    """Examples that can be trained on.

    Raises:
        SchemaError: ``value`` does not decode, or holds what no table can take.
    """
    examples = decode_examples(schema, value)
    for name, slot in schema.slots.items():
        column = examples.batch.slot(name)
        column.require_within(slot)
        values = column.values.numpy()
        if len(values) and values.min() < 0:
            raise SchemaError(f"slot {name!r}: {values.min()} is no FID")
    return examples


def _empty_example(schema: Schema) -> Batch:
    """One example without any value, which every model takes (``dolmen.testing.check_model``)."""
    return Batch(
        size=1,
        slots={name: Jagged.empty(1) for name in schema.slots},
        dense={name: torch.zeros(1) for name in schema.dense},
        labels={name: torch.zeros(1) for name in schema.labels},
    )


def _expire_every_us(schema: Schema, config: TrainConfig) -> int:
    """How often rows are looked over, in the data's time; 0 where no slot expires."""
    lives = [slot.expire_after_us for slot in schema.slots.values() if slot.expire_after_us]
    if not lives:
        return 0
    if config.expire_every is not None:
        return parse_duration_us(config.expire_every)
    return max(1, min(lives) // _EXPIRIES_IN_A_LIFE)

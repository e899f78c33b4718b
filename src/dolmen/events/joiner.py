"""The joiner: impressions ⨝ actions → examples, each exactly once, whatever happens to the process.

The rules, and why they are so, stand in docs/concepts/log-and-join.md. In short: impressions and actions are taken in
the order in which they were logged, and meet by (request id, item). An item with an action leaves at once as a
positive; when its window closes in stream time, an item without one leaves as a negative, or is dropped by negative
sampling.

Exactness: one transaction commits positions, pending slates and the finished batches (the outbox) together. Only then
are the batches appended to the log, named by producer and sequence: repeated after a crash, the append adds nothing.

Source: "Monolith" (ORSUM 2022, arXiv 2209.07663), section 2.3, the online joiner. Departs from the paper: state is
always on disk with the memory as its cache; an action after its negative has left yields a positive, which is counted.
"""

from __future__ import annotations

import fcntl
import json
import os
import threading
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import Final, final

import msgspec
import psutil

from dolmen.clock import Clock, SystemClock, parse_duration_us
from dolmen.errors import BadEventError, ConfigError, LogError, OffsetGoneError
from dolmen.events.assembly import Row, assembled
from dolmen.events.event import Action, Impression, decode
from dolmen.events.examples import encode_examples
from dolmen.events.join_state import Due, Early, Item, JoinState, Slate
from dolmen.events.log import Log, Record, Topic
from dolmen.events.sampling import check_rate, is_kept
from dolmen.events.store import MAP_SIZE
from dolmen.features import Schema
from dolmen.telemetry import logger

__all__ = ["JoinConfig", "Joiner"]

_log = logger(__name__)

_INPUTS: Final = (Topic.IMPRESSIONS, Topic.ACTIONS)  # at equal times impressions come first
_READ_BYTES_MAX: Final = 8 << 20
_STEP_ROWS_MAX: Final = 1 << 16  # examples of one step: bounds memory
_EARLY_MAX: Final = 1000  # actions that may wait for one slate
_SPECIMENS_MAX: Final = 5
_STATUS_SECONDS: Final = 1.0
_IDLE_SECONDS: Final = 0.25
_RETRY_SECONDS: Final = 0.5


@final
@dataclass(frozen=True, kw_only=True)
class JoinConfig:
    """How impressions and actions meet.

    Args:
        window: how long an item may wait for its action before it is a negative, in stream time.
        retention: how long a slate (or an action without one) is remembered after that, so that a late action is seen.
        negative_rate: the odds with which a negative is kept, in (0, 1].
        flush_every: the shortest time between two steps of ``run``; longer makes larger batches and staler parameters.
        batch_max: examples in one record, which is one training step.
        read_max: records of each input taken in one step.
        cache_max: slates in memory; those of one window should fit, the others are read from disk.
        ahead_max: how far an impression's event time may lie ahead of its log time; beyond, it is cut (a bad clock).
        seed: decides, with request id and item, which negatives are kept.
    """

    window: str = "10s"
    retention: str = "7d"
    negative_rate: float = 1.0
    flush_every: str = "50ms"
    batch_max: int = 2048
    read_max: int = 2000
    cache_max: int = 50_000
    ahead_max: str = "1s"
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("window", "retention", "flush_every", "ahead_max"):
            try:
                parse_duration_us(getattr(self, name))
            except ValueError as problem:
                raise ConfigError(f"join.{name}: {problem}") from None
        for name in ("batch_max", "read_max", "cache_max"):
            if getattr(self, name) < 1:
                raise ConfigError(f"join.{name} must be at least 1, got {getattr(self, name)}")
        check_rate(self.negative_rate)


@final
class Joiner:
    """Joins one partition of the inputs. For one thread; a second joiner on the same folder is refused.

    Args:
        schema: what examples hold; its labels say which kinds of action count.
        log: where impressions and actions are read and examples are written.
        folder: of the state. Without it the joiner starts anew with the first record that the log still has.
        config: how to join.
        clock: tells time while no events come.
        partition: of both inputs.

    Raises:
        LogError: the folder cannot be used, or another joiner uses it.
    """

    def __init__(
        self,
        schema: Schema,
        log: Log,
        folder: Path | str,
        config: JoinConfig | None = None,
        clock: Clock | None = None,
        *,
        partition: int = 0,
        map_size: int = MAP_SIZE,
    ) -> None:
        self.schema, self.log, self.partition = schema, log, partition
        self.config = config if config is not None else JoinConfig()
        self._clock: Clock = clock if clock is not None else SystemClock()
        self._window_us = parse_duration_us(self.config.window)
        self._retention_us = parse_duration_us(self.config.retention)
        self._ahead_us = parse_duration_us(self.config.ahead_max)
        self._bits = {label.action_kind: 0 for label in schema.labels.values()}
        for place, label in enumerate(schema.labels.values()):
            self._bits[label.action_kind] |= 1 << place
        self._lock = _locked(Path(folder))
        self._state = JoinState(Path(folder), cache_max=self.config.cache_max, map_size=map_size)
        self._rows: list[Row] = []
        self._sent = -1
        self._is_behind = False
        self._begin()

    def _begin(self) -> None:
        self._state.reload()
        if not self._state.ledger.identity:

            def work() -> None:
                ledger = self._state.ledger
                ledger.identity = uuid.uuid4().hex
                ledger.positions = {f"{topic}/{self.partition}": 0 for topic in _INPUTS}

            self._state.commit(work)
        self._producer = f"joiner/{self.partition}/{self._state.ledger.identity}"
        # After a crash nobody knows which of these the log has got: it knows, by producer and sequence.
        self._unsent = self._state.outbox()

    # One step ------------------------------------------------------------------------------------------------------

    def step(self, wait_seconds: float = 0.0) -> int:
        """Take in what there is (wait for it up to ``wait_seconds``), emit what is ready; how many records were taken.

        Raises:
            LogError: log or state could not be read or written. Nothing is lost; call again when ``retry``.
        """
        self._send()
        self._wait(wait_seconds)
        records, is_all = self._read()
        if not records and not (is_all and self._is_due()):
            return 0
        taken = 0

        def work() -> None:
            nonlocal taken
            ledger, self._rows = self._state.ledger, []
            self._state.clear_outbox(self._sent)
            before = dict(ledger.positions)
            taken = self._take_in(records, is_all)
            values = self._batches(before)
            if values:
                self._unsent = [(ledger.sequence, values)]
                self._state.put_outbox(ledger.sequence, values)
                ledger.sequence += 1

        try:
            self._state.commit(work)
        except BaseException:
            self._unsent = self._state.outbox()  # whether the commit came through decides what is still to be sent
            raise
        finally:
            self._rows = []
        self._is_behind = taken < len(records) or not is_all
        self._send()
        return taken

    def run(self, stop: threading.Event) -> None:
        """Step until ``stop`` is set, and put figures on the topic ``status`` once a second.

        Raises:
            LogError: log or state failed for good; a passing failure is waited out.
        """
        flush_seconds = parse_duration_us(self.config.flush_every) / 1e6
        status_at = time.monotonic()
        while not stop.is_set():
            try:
                self._wait(_IDLE_SECONDS)
                began = time.monotonic()
                self.step()
                if began >= status_at:
                    self._tell()
                    status_at = began + _STATUS_SECONDS
            except LogError as problem:
                if not problem.retry:
                    raise
                _log.warning("join step failed, trying again", problem=str(problem))
                stop.wait(_RETRY_SECONDS)
                continue
            if not self._is_behind:
                stop.wait(max(flush_seconds - (time.monotonic() - began), 0.0))

    def figures(self) -> dict[str, int | float]:
        """What was done since the state was made (see ``Counts``), and how things stand now."""
        ledger = self._state.ledger
        unread = sum(self.log.bounds(topic, self.partition)[1] - self._position(topic) for topic in _INPUTS)
        return {
            **msgspec.structs.asdict(ledger.counts),
            "records_unread": max(unread, 0),
            "watermark_us": ledger.stream_time_us if unread > 0 else self._flowed_us(),
            "negative_rate": self.config.negative_rate,
            "state_bytes": self._state.size_bytes(),
            "memory_bytes": psutil.Process().memory_info().rss,
        }

    @property
    def specimens(self) -> list[str]:
        """The last few events that could not be used, and why."""
        return list(self._state.ledger.specimens)

    def close(self) -> None:
        """Let go of the folder. What was committed stays; nothing needs to be finished first."""
        self._state.close()
        os.close(self._lock)

    def _tell(self) -> None:
        status = {"stage": "join", "time_us": self._clock.now_us(), "pid": os.getpid(), "figures": self.figures()}
        self.log.append(Topic.STATUS, [json.dumps(status).encode()])

    def _wait(self, seconds: float) -> None:
        """Wait for a record or for a window to close, at most ``seconds``."""
        due_us = self._state.next_due_us - self._flowed_us()
        if seconds > 0 and due_us > 0 and not self._is_behind:
            places: dict[tuple[str, int], int] = {(topic, self.partition): self._position(topic) for topic in _INPUTS}
            self.log.wait(places, min(seconds, due_us / 1e6))

    def _position(self, topic: str) -> int:
        return self._state.ledger.positions.get(f"{topic}/{self.partition}", 0)

    def _send(self) -> None:
        """Append the outbox to the log; it is emptied in the next commit."""
        for sequence, values in self._unsent:
            self.log.append(Topic.EXAMPLES, values, producer=self._producer, sequence=sequence)
            self._sent = sequence
        self._unsent = []

    def _read(self) -> tuple[list[tuple[int, int, Record]], bool]:
        """Records of both inputs as (log time, input, record) in the order of log time; whether these are all."""
        rows: list[tuple[int, int, Record]] = []
        ends: list[int] = []
        for number, topic in enumerate(_INPUTS):
            records = self._read_topic(topic)
            rows += [(record.time_us, number, record) for record in records]
            ends.append(records[-1].offset + 1 if records else self._position(topic))
        # Looked at after both reads: what one input got meanwhile must not be overtaken by the other.
        frontier_us: int | None = None
        for number, topic in enumerate(_INPUTS):
            if self.log.bounds(topic, self.partition)[1] > ends[number]:
                newest = max((time_us for time_us, one, _ in rows if one == number), default=-1)
                frontier_us = newest if frontier_us is None else min(frontier_us, newest)
        rows.sort(key=itemgetter(0, 1))  # stable: offsets stay in order
        if frontier_us is None:
            return rows, True
        return [row for row in rows if row[0] <= frontier_us], False

    def _read_topic(self, topic: str) -> list[Record]:
        position = self._position(topic)
        while True:
            try:
                return self.log.read(
                    topic, self.partition, position, max_records=self.config.read_max, max_bytes=_READ_BYTES_MAX
                )
            except OffsetGoneError:
                first = self.log.bounds(topic, self.partition)[0]
                _log.warning("events lost to retention", topic=topic, first_lost=position, first_kept=first)
                position = first

    def _take_in(self, records: Sequence[tuple[int, int, Record]], is_all: bool) -> int:
        """Handle records in order, closing windows in between just as if each had come alone; how many were handled."""
        ledger = self._state.ledger
        now_us = self._clock.now_us()
        for place, (time_us, number, record) in enumerate(records):
            topic = _INPUTS[number]
            event = self._decoded(topic, record)
            self._flow(min(time_us, now_us))
            event_us = 0
            if isinstance(event, Impression):
                event_us = min(event.event_time_us, min(time_us, now_us) + self._ahead_us)
                ledger.stream_time_us = max(ledger.stream_time_us, event_us)
            if not self._meet_due():
                return place  # enough for one step: go on with this record in the next
            key = f"{topic}/{self.partition}"
            ledger.counts.records_gone += record.offset - ledger.positions.get(key, 0)
            ledger.positions[key] = record.offset + 1
            match event:
                case Impression():
                    self._take_impression(event, record.value, event_us)
                case Action():
                    self._take_action(event)
                case BadEventError():
                    self._take_bad(topic, record, event)
        if is_all:
            self._flow(now_us)
            ledger.log_time_us = min(ledger.log_time_us, now_us)  # if the clock was set back, go on from there
            self._meet_due()
        return len(records)

    def _decoded(self, topic: str, record: Record) -> Impression | Action | BadEventError:
        try:
            if topic == Topic.IMPRESSIONS:
                return decode(Impression, record.value)
            return decode(Action, record.value)
        except BadEventError as problem:
            return problem

    # Time ----------------------------------------------------------------------------------------------------------

    def _flow(self, time_us: int) -> None:
        """Stream time never runs slower than the log's clock, so that windows close when no impressions come."""
        ledger = self._state.ledger
        if time_us > ledger.log_time_us:
            if ledger.log_time_us > 0:
                ledger.stream_time_us += time_us - ledger.log_time_us
            ledger.log_time_us = time_us

    def _flowed_us(self) -> int:
        """Stream time now, if no event comes."""
        ledger = self._state.ledger
        return ledger.stream_time_us + max(self._clock.now_us() - ledger.log_time_us, 0)

    def _is_due(self) -> bool:
        return self._state.next_due_us <= self._flowed_us()

    def _meet_due(self) -> bool:
        """Do what is due at stream time; false if the step is full before all is done."""
        while (due := self._state.take_due(self._state.ledger.stream_time_us)) is not None:
            time_us, what, number, request_id = due
            match what:
                case Due.CLOSE:
                    self._close_window(request_id)
                    self._state.add_due(time_us + self._retention_us, Due.FORGET, number, request_id)
                case Due.FORGET:
                    self._state.forget(number, request_id)
                case Due.EXPIRE:
                    self._expire(request_id)
            if len(self._rows) >= _STEP_ROWS_MAX:
                return False
        return True

    # Events --------------------------------------------------------------------------------------------------------

    def _take_impression(self, impression: Impression, value: bytes, event_us: int) -> None:
        ledger = self._state.ledger
        counts = ledger.counts
        if not impression.learn:
            counts.slates_unlearned += 1
            return
        if self._state.slate(impression.request_id) is not None:
            counts.slates_duplicate += 1
            return
        # The window counts from stream time: a slate that is logged late still gets a whole one.
        slate = self._state.add_slate(impression, value, event_us, ledger.stream_time_us + self._window_us)
        counts.slates_shown += 1
        counts.items_shown += len(impression.items)
        counts.items_waiting += len(impression.items)
        early = self._state.early(impression.request_id) if counts.actions_waiting > 0 else None
        if early is not None:
            counts.actions_waiting -= len(early.actions)
            self._state.drop_early(impression.request_id, early)
            for item, kind in early.actions:
                self._join(slate, item, kind)

    def _take_action(self, action: Action) -> None:
        counts = self._state.ledger.counts
        counts.actions_read += 1
        if action.kind not in self._bits:
            counts.actions_other += 1
        elif action.request_id is None:
            counts.actions_unattributed += 1
        elif (slate := self._state.slate(action.request_id)) is not None:
            self._join(slate, action.item, action.kind)
        else:
            self._take_early(action.request_id, action)

    def _take_early(self, request_id: str, action: Action) -> None:
        counts = self._state.ledger.counts
        early = self._state.early(request_id)
        if early is None:
            due_us = self._state.ledger.stream_time_us + self._retention_us
            early = Early(due_us, counts.actions_read, [])
            self._state.add_due(due_us, Due.EXPIRE, early.number, request_id)
        if (action.item, action.kind) in early.actions:
            counts.actions_duplicate += 1
        elif len(early.actions) >= _EARLY_MAX:
            counts.actions_expired += 1
        else:
            early.actions.append((action.item, action.kind))
            counts.actions_waiting += 1
            self._state.put_early(request_id, early)

    def _join(self, slate: Slate, item: int | str, kind: str) -> None:
        """An action meets its slate: its item leaves at once, as a positive."""
        counts, bits = self._state.ledger.counts, self._bits[kind]
        try:
            place = slate.impression.items.index(item)
        except ValueError:
            counts.actions_unmatched += 1
            return
        if slate.kinds[place] & bits == bits:
            counts.actions_duplicate += 1
            return
        slate.kinds[place] |= bits
        match slate.left[place]:
            case Item.WAITING:
                slate.left[place] = Item.POSITIVE
                counts.items_waiting -= 1
                counts.positives += 1
            case Item.POSITIVE:
                counts.positives_again += 1
            case _:
                counts.positives_late += 1
        self._state.changed(slate)
        self._rows.append((slate.impression, place, slate.event_time_us, slate.kinds[place], 1.0))

    def _close_window(self, request_id: str) -> None:
        """What still waits is negative: kept or dropped."""
        slate = self._state.slate(request_id)
        assert slate is not None, "a slate is forgotten only after its window was closed"
        counts, config = self._state.ledger.counts, self.config
        for place, item in enumerate(slate.impression.items):
            if slate.left[place] != Item.WAITING:
                continue
            counts.items_waiting -= 1
            if is_kept(config.seed, request_id, item, config.negative_rate):
                slate.left[place] = Item.NEGATIVE_KEPT
                counts.negatives_kept += 1
                self._rows.append((slate.impression, place, slate.event_time_us, 0, config.negative_rate))
            else:
                slate.left[place] = Item.NEGATIVE_DROPPED
                counts.negatives_dropped += 1
        self._state.changed(slate)
        self._state.release(slate)

    def _expire(self, request_id: str) -> None:
        early = self._state.early(request_id)
        if early is not None:
            self._state.drop_early(request_id, early, is_due=True)
            counts = self._state.ledger.counts
            counts.actions_waiting -= len(early.actions)
            counts.actions_expired += len(early.actions)

    def _take_bad(self, topic: str, record: Record, problem: BadEventError) -> None:
        ledger = self._state.ledger
        if topic == Topic.ACTIONS:
            ledger.counts.actions_read += 1
            ledger.counts.actions_bad += 1
        else:
            ledger.counts.slates_bad += 1
        specimen = f"{topic}/{self.partition} offset {record.offset}: {problem}"
        ledger.specimens = [*ledger.specimens, specimen[:500]][-_SPECIMENS_MAX:]

    # Out -----------------------------------------------------------------------------------------------------------

    def _batches(self, before: dict[str, int]) -> list[bytes]:
        """The records of this step's examples. The last includes all that was read, the others what was ``before``."""
        ledger, size, values = self._state.ledger, self.config.batch_max, []
        for start in range(0, len(self._rows), size):
            rows = self._rows[start : start + size]
            values.append(
                encode_examples(
                    self.schema,
                    assembled(self.schema, rows),
                    dict(ledger.positions) if start + size >= len(self._rows) else before,
                    negative_rate=self.config.negative_rate,
                    request_ids=[row[0].request_id for row in rows],
                )
            )
        ledger.counts.batches += len(values)
        ledger.counts.examples += len(self._rows)
        return values


def _locked(folder: Path) -> int:
    """A descriptor that holds the folder's lock; the kernel lets go of it however this process ends."""
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder / "joiner.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise LogError(f"{folder}: another joiner works on this state; stop it first") from None
    return descriptor

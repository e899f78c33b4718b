"""The rules by which impressions and actions meet: what each event does to the state, and when windows close.

Everything here happens inside one transaction of ``JoinState``, in the order of the inputs, so that the outcome depends
on the log and not on when it ran. The rules are numbered in docs/concepts/log-and-join.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, final

from dolmen.clock import Duration, parse_duration_us
from dolmen.errors import BadEventError, ConfigError
from dolmen.events.assembly import Row
from dolmen.events.event import Action, Impression, decode
from dolmen.events.join_inputs import Input
from dolmen.events.join_state import Due, Early, Item, JoinState, Slate
from dolmen.events.log import Topic
from dolmen.events.sampling import check_rate, is_kept
from dolmen.features import Schema

__all__ = ["JoinConfig", "JoinRules"]

_STEP_ROWS_MAX: Final = 1 << 16  # examples of one step: bounds memory
_EARLY_MAX: Final = 1000  # actions that may wait for one slate
_SPECIMENS_MAX: Final = 5


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

    window: Duration = "10s"
    retention: Duration = "7d"
    negative_rate: float = 1.0
    flush_every: Duration = "200ms"
    batch_max: int = 2048
    read_max: int = 2000
    cache_max: int = 50_000
    ahead_max: Duration = "1s"
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
class JoinRules:
    """Applies events to ``state`` and gathers the items that leave, as ``rows``, in the order in which they do.

    Args:
        schema: its labels say which kinds of action count.
        config: how to join.
        state: what is remembered. ``take_in`` may be called within its ``commit`` only.
        partition: of the inputs, for people.
    """

    def __init__(self, schema: Schema, config: JoinConfig, state: JoinState, partition: int) -> None:
        self.config, self._state, self._partition = config, state, partition
        self.rows: list[Row] = []
        self._window_us = parse_duration_us(config.window)
        self._retention_us = parse_duration_us(config.retention)
        self._ahead_us = parse_duration_us(config.ahead_max)
        self._bits = {label.action_kind: 0 for label in schema.labels.values()}
        for place, label in enumerate(schema.labels.values()):
            self._bits[label.action_kind] |= 1 << place

    def take_in(self, inputs: Sequence[Input], *, is_all: bool, now_us: int) -> int:
        """Handle inputs in order, closing windows in between just as if each had come alone; how many were handled."""
        ledger = self._state.ledger
        for place, (topic, record) in enumerate(inputs):
            event = _decoded(topic, record.value)
            logged_us = min(record.time_us, now_us)
            self._flow(logged_us)
            event_us = 0
            if isinstance(event, Impression):
                event_us = min(event.event_time_us, logged_us + self._ahead_us)
                ledger.stream_time_us = max(ledger.stream_time_us, event_us)
            if not self._meet_due():
                return place  # enough for one step: go on with this record in the next
            key = f"{topic}/{self._partition}"
            ledger.counts.records_gone += record.offset - ledger.positions.get(key, 0)
            ledger.positions[key] = record.offset + 1
            match event:
                case Impression():
                    self._take_impression(event, record.value, event_us)
                case Action():
                    self._take_action(event)
                case BadEventError():
                    self._take_bad(topic, record.offset, event)
        if is_all:
            self._flow(now_us)
            ledger.log_time_us = min(ledger.log_time_us, now_us)  # if the clock was set back, go on from there
            self._meet_due()
        return len(inputs)

    # Time ----------------------------------------------------------------------------------------------------------

    def flowed_us(self, now_us: int) -> int:
        """Stream time at ``now_us``, if no event comes."""
        ledger = self._state.ledger
        return ledger.stream_time_us + max(now_us - ledger.log_time_us, 0)

    def until_due_us(self, now_us: int) -> int:
        """How long until something is due; 0 or less if something is."""
        return self._state.next_due_us - self.flowed_us(now_us)

    def _flow(self, time_us: int) -> None:
        """Stream time never runs slower than the log's clock, so that windows close when no impressions come."""
        ledger = self._state.ledger
        if time_us > ledger.log_time_us:
            if ledger.log_time_us > 0:
                ledger.stream_time_us += time_us - ledger.log_time_us
            ledger.log_time_us = time_us

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
            if len(self.rows) >= _STEP_ROWS_MAX:
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
        self.rows.append((slate.impression, place, slate.event_time_us, slate.kinds[place], 1.0))

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
                self.rows.append((slate.impression, place, slate.event_time_us, 0, config.negative_rate))
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

    def _take_bad(self, topic: Topic, offset: int, problem: BadEventError) -> None:
        ledger = self._state.ledger
        if topic == Topic.ACTIONS:
            ledger.counts.actions_read += 1
            ledger.counts.actions_bad += 1
        else:
            ledger.counts.slates_bad += 1
        specimen = f"{topic}/{self._partition} offset {offset}: {problem}"
        ledger.specimens = [*ledger.specimens, specimen[:500]][-_SPECIMENS_MAX:]


def _decoded(topic: Topic, value: bytes) -> Impression | Action | BadEventError:
    try:
        if topic == Topic.IMPRESSIONS:
            return decode(Impression, value)
        return decode(Action, value)
    except BadEventError as problem:
        return problem

"""The joiner: impressions ⨝ actions → examples, each exactly once, whatever happens to the process.

The rules, and why they are so, stand in docs/concepts/log-and-join.md. In short: impressions and actions are taken in
the order in which they were logged (``join_inputs``), and meet by (request id, item) (``join_rules``). An item with an
action leaves at once as a positive; when its window closes in stream time, an item without one leaves as a negative, or
is dropped by negative sampling.

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
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final, final

import msgspec
import psutil

from dolmen.clock import Clock, SystemClock, parse_duration_us
from dolmen.errors import ConfigError, LogError
from dolmen.events.assembly import assembled
from dolmen.events.examples import encode_examples
from dolmen.events.identity import check_identity
from dolmen.events.join_inputs import INPUTS, Inputs
from dolmen.events.join_rules import JoinConfig, JoinRules
from dolmen.events.join_state import JoinState
from dolmen.events.log import Group, Log, Topic
from dolmen.events.store import MAP_SIZE
from dolmen.features import Schema
from dolmen.telemetry import logger

__all__ = ["JoinConfig", "Joiner"]

_log = logger(__name__)

_STATUS_SECONDS: Final = 1.0
_COMMIT_SECONDS: Final = 60.0  # retention thinks in hours, and each commit is a forced write
_IDLE_SECONDS: Final = 0.25
_RETRY_SECONDS: Final = 0.5
_DRAIN_SECONDS: Final = 2.0  # far less than a supervisor's grace; what is left then is joined by the next process


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
        ConfigError: the folder's state is of another log.
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
        self._lock = _locked(Path(folder))
        self._state = JoinState(Path(folder), cache_max=self.config.cache_max, map_size=map_size)
        self._rules = JoinRules(schema, self.config, self._state, partition)
        self._inputs = Inputs(log, partition, self.config.read_max)
        self._sent = -1
        self._is_behind = False
        with ExitStack() as on_failure:
            on_failure.callback(self.close)
            self._begin(Path(folder))
            on_failure.pop_all()

    def _begin(self, folder: Path) -> None:
        self._state.reload()
        for topic, (joined, end) in self._inputs.beyond(self._state.ledger.positions).items():
            raise ConfigError(
                f"{folder} has joined {topic}/{self.partition} up to offset {joined}, and the log ends at {end}: it was"
                f" replaced; put that log back, or {_anew(folder)}"
            )
        check_identity(self.log, folder, has_read=any(self._state.ledger.positions.values()), mend=_anew(folder))
        if not self._state.ledger.identity:

            def work() -> None:
                ledger = self._state.ledger
                ledger.identity = uuid.uuid4().hex
                ledger.positions = {self._inputs.key(topic): 0 for topic in INPUTS}

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
        inputs, is_all = self._inputs.read(self._state.ledger.positions)
        if not inputs and not (is_all and self._rules.until_due_us(self._clock.now_us()) <= 0):
            return 0
        taken = 0

        def work() -> None:
            nonlocal taken
            ledger, self._rules.rows = self._state.ledger, []
            self._state.clear_outbox(self._sent)
            before = dict(ledger.positions)
            taken = self._rules.take_in(inputs, is_all=is_all, now_us=self._clock.now_us())
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
            self._rules.rows = []
        self._is_behind = taken < len(inputs) or not is_all
        self._send()
        return taken

    def run(self, stop: threading.Event) -> None:
        """Step until ``stop`` is set, and put figures on the topic ``status`` once a second.

        Then join what is in the log already, for a moment at most, and tell the last figures.

        Raises:
            LogError: log or state failed for good; a passing failure is waited out.
        """
        flush_seconds = parse_duration_us(self.config.flush_every) / 1e6
        status_at = time.monotonic()
        commit_at = status_at + _COMMIT_SECONDS
        while not stop.is_set():
            try:
                self._wait(_IDLE_SECONDS)
                began = time.monotonic()
                self.step()
                if began >= status_at:
                    self._tell()
                    status_at = began + _STATUS_SECONDS
                if began >= commit_at:
                    self._inputs.commit(Group.JOINER, self._state.ledger.positions)
                    commit_at = began + _COMMIT_SECONDS
            except LogError as problem:
                if not problem.retry:
                    raise
                _log.warning("join step failed, trying again", problem=str(problem))
                stop.wait(_RETRY_SECONDS)
                continue
            if not self._is_behind:
                stop.wait(max(flush_seconds - (time.monotonic() - began), 0.0))
        self._drain()

    def _drain(self) -> None:
        """The last steps. A disk that fails now costs nothing: the state is as the last commit left it."""
        end = time.monotonic() + _DRAIN_SECONDS
        try:
            while self.step() and time.monotonic() < end:
                pass
            self._inputs.commit(Group.JOINER, self._state.ledger.positions)
            self._tell()
        except LogError as problem:
            _log.warning("the last step failed; the next start goes on from the one before", problem=str(problem))

    def figures(self) -> dict[str, int | float]:
        """What was done since the state was made (see ``Counts``), and how things stand now.

        ``slates_unread`` and ``actions_unread``: records that were acknowledged, and not joined yet.
        """
        ledger = self._state.ledger
        unread = self._inputs.unread(ledger.positions)
        is_behind = any(unread.values())
        return {
            **msgspec.structs.asdict(ledger.counts),
            "slates_unread": unread[Topic.IMPRESSIONS],
            "actions_unread": unread[Topic.ACTIONS],
            "watermark_us": ledger.stream_time_us if is_behind else self._rules.flowed_us(self._clock.now_us()),
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
        status: dict[str, Any] = {
            "stage": "join",
            "time_us": self._clock.now_us(),
            "pid": os.getpid(),
            "figures": self.figures(),
        }
        self.log.append(Topic.STATUS, [json.dumps(status).encode()])

    def _wait(self, seconds: float) -> None:
        """Wait for a record or for a window to close, at most ``seconds``."""
        due_us = self._rules.until_due_us(self._clock.now_us())
        if seconds > 0 and due_us > 0 and not self._is_behind:
            self._inputs.wait(self._state.ledger.positions, min(seconds, due_us / 1e6))

    def _send(self) -> None:
        """Append the outbox to the log; it is emptied in the next commit."""
        for sequence, values in self._unsent:
            self.log.append(Topic.EXAMPLES, values, producer=self._producer, sequence=sequence)
            self._sent = sequence
        self._unsent = []

    # Out -----------------------------------------------------------------------------------------------------------

    def _batches(self, before: dict[str, int]) -> list[bytes]:
        """The records of this step's examples. The last includes all that was read, the others what was ``before``."""
        ledger, size, values = self._state.ledger, self.config.batch_max, []
        left = self._rules.rows
        for start in range(0, len(left), size):
            rows = left[start : start + size]
            values.append(
                encode_examples(
                    self.schema,
                    assembled(self.schema, rows),
                    dict(ledger.positions) if start + size >= len(left) else before,
                    negative_rate=self.config.negative_rate,
                    request_ids=[row[0].request_id for row in rows],
                )
            )
        ledger.counts.batches += len(values)
        ledger.counts.examples += len(left)
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


def _anew(folder: Path) -> str:
    return f"delete {folder} and the topic {Topic.EXAMPLES} to join anew"

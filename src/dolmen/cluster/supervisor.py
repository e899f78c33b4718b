"""Keeps the stages of one machine alive: starts each as a process, restarts one that dies, stops all of them in order.

A stage recovers from its own state, so a restart needs nothing from here but patience: the wait before a restart
doubles with each quick death and falls back once the stage has lived for a while. Stages do not share the terminal's
process group (Ctrl-C reaches the supervisor alone), and each holds the read end of a pipe whose write end only the
supervisor has: if the supervisor itself is killed, the pipe closes and the stages stop by themselves. Until they have,
the lock of the state folder, which they inherit, keeps others out.

A stage that says that its configuration cannot be used is not started again: that could not help, and would only hide
what it said. The supervisor tells it as ``failure`` instead, and whoever runs it stops. So it does, where its policy
sets a bound, with a stage that dies again and again before it has settled.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Final, final

from dolmen.cluster.lifetime import PARENT_PIPE
from dolmen.errors import CONFIG_STATUS, ConfigError, DolmenError, StageError
from dolmen.telemetry import BoundedLines, logger

__all__ = ["ERROR_MARK", "Death", "RestartPolicy", "Stage", "Supervisor", "stage_command"]

_log = logger(__name__)
_LOG_BYTES_MAX: Final = 8 << 20  # of each of two files; a stage logs changes of state only: weeks of them
_LINE_BYTES_MAX: Final = 64 << 10
ERROR_MARK: Final = "error: "
"""How the line begins in which a command says with which error it ends."""
_LAST_LINES: Final = 20
_PUMP_SECONDS: Final = 5.0  # for what a stage wrote last to reach its file


@final
@dataclass(frozen=True, kw_only=True)
class Stage:
    """One process: ``name`` for people, ``command`` as for ``subprocess``."""

    name: str
    command: Sequence[str]


@final
@dataclass(frozen=True, kw_only=True)
class RestartPolicy:
    """How long to wait before a restart, and how long to let a stage finish its work when asked to stop.

    ``wait_seconds_min`` doubles up to ``wait_seconds_max`` while the stage dies sooner than ``settled_seconds``.
    ``grace_seconds``: between the polite signal and the certain one; a trainer writes a snapshot in it.
    ``deaths_max``: so many deaths in a row, none of which came after ``settled_seconds``, and a stage is given up;
    ``None``: never.
    """

    wait_seconds_min: float = 0.2
    wait_seconds_max: float = 10.0
    settled_seconds: float = 10.0
    grace_seconds: float = 15.0
    deaths_max: int | None = None

    def __post_init__(self) -> None:
        if not 0 < self.wait_seconds_min <= self.wait_seconds_max:
            raise ConfigError(
                "RestartPolicy.wait_seconds_min must be above 0 and at most wait_seconds_max"
                f" ({self.wait_seconds_max}), got {self.wait_seconds_min}"
            )
        if self.deaths_max is not None and self.deaths_max < 1:
            raise ConfigError(f"RestartPolicy.deaths_max must be at least 1 or None, got {self.deaths_max}")


@final
@dataclass(frozen=True, kw_only=True)
class Death:
    """A stage that has died and will be started again.

    ``status``: such as ``exit 1``. ``said``: its error, or where to find it if what it writes is not kept here.
    ``count``: deaths in a row, this one included, that came before the stage had settled.
    """

    name: str
    status: str
    said: str
    lived_seconds: float
    wait_seconds: float
    count: int


@final
@dataclass
class _Running:
    """What is known of one stage while it is supervised."""

    stage: Stage
    process: subprocess.Popen[bytes] | None = None
    pump: threading.Thread | None = None
    last_lines: deque[str] = field(default_factory=lambda: deque(maxlen=_LAST_LINES))
    started_at: float = 0.0
    wait_seconds: float = 0.0
    restart_at: float = 0.0
    restart_count: int = 0
    death_count: int = 0  # in a row, each before it had settled
    is_given_up: bool = False


@final
class Supervisor:
    """Runs ``stages`` until stopped. ``start``, ``stop`` and the readers may be called from any thread.

    Args:
        stages: in the order of the data's flow; they are stopped in that order, so that what one stage wrote last
            still reaches the next.
        policy: waits, grace and patience. Another may take its place while stages run: it holds from then on.
        log_folder: where each stage's output goes, as ``<stage>.log``, with the part before in ``<stage>.log.1``; the
            supervisor's own stderr if ``None``.
        held: descriptors that the stages inherit, such as that of ``hold_folder``.
        failed: called once, from a thread, when a stage is given up; see ``failure``.
        died: called from a thread when a stage has died and will be started again.
    """

    def __init__(
        self,
        stages: Sequence[Stage],
        *,
        policy: RestartPolicy | None = None,
        log_folder: Path | None = None,
        held: Sequence[int] = (),
        failed: Callable[[], None] | None = None,
        died: Callable[[Death], None] | None = None,
    ) -> None:
        self.policy = policy if policy is not None else RestartPolicy()
        self._held, self._failed = tuple(held), failed if failed is not None else lambda: None
        self._died = died if died is not None else lambda _: None
        self._failure: DolmenError | None = None
        self._running = [_Running(stage) for stage in stages]
        self._log_folder = log_folder
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._wake = threading.Event()
        self._read_end, self._write_end = os.pipe()
        self._watcher = threading.Thread(target=self._watch, name="supervisor", daemon=True)

    def __enter__(self) -> Supervisor:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start every stage, then return; a stage that dies from now on is restarted."""
        for one in self._running:
            self._spawn(one)
        self._watcher.start()

    def stop(self) -> None:
        """Ask each stage in turn to finish, end those that do not within the grace, then return. May be repeated."""
        if self._stopping.is_set():
            return
        self._stopping.set()
        self._wake.set()
        if self._watcher.ident is not None:
            self._watcher.join()
        for one in self._running:
            self._finish(one)
        for end in (self._write_end, self._read_end):
            os.close(end)

    def process_ids(self) -> dict[str, int]:
        """Process id of each stage that runs now."""
        with self._lock:
            processes = {one.stage.name: one.process for one in self._running}
        return {
            name: process.pid for name, process in processes.items() if process is not None and process.poll() is None
        }

    def restart_counts(self) -> dict[str, int]:
        """How often each stage was restarted."""
        with self._lock:
            return {one.stage.name: one.restart_count for one in self._running}

    @property
    def failure(self) -> DolmenError | None:
        """Why a stage is given up: a ``ConfigError`` where it said that it cannot run with its configuration, else a
        ``StageError``; ``None`` while all run.
        """
        return self._failure

    def _spawn(self, one: _Running) -> None:
        if one.pump is not None:
            one.pump.join(_PUMP_SECONDS)  # one at a time writes the file
        with ExitStack() as on_failure:
            lines: BoundedLines | None = None
            if self._log_folder is not None:
                lines = BoundedLines(self._log_folder / f"{one.stage.name}.log", bytes_max=_LOG_BYTES_MAX)
                on_failure.enter_context(lines)
            process = subprocess.Popen(
                list(one.stage.command),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE if lines is not None else None,
                stderr=subprocess.STDOUT if lines is not None else None,
                start_new_session=True,
                pass_fds=(self._read_end, *self._held),
                env={**os.environ, PARENT_PIPE: str(self._read_end)},
            )
            # Without its threads nobody would see it end or empty its pipe: it must not run then.
            on_failure.callback(_end, process)
            threading.Thread(
                target=self._await_end, args=(process,), name=f"wait {one.stage.name}", daemon=True
            ).start()
            if lines is not None and process.stdout is not None:
                one.last_lines.clear()
                arguments = (process.stdout, lines, one.last_lines)
                pump = threading.Thread(target=_pump, args=arguments, name=f"log {one.stage.name}", daemon=True)
                pump.start()
                one.pump = pump
            on_failure.pop_all()
        with self._lock:
            one.process, one.started_at = process, time.monotonic()
        _log.info("stage started", name=one.stage.name, pid=process.pid)

    def _await_end(self, process: subprocess.Popen[bytes]) -> None:
        process.wait()
        self._wake.set()

    def _watch(self) -> None:
        while not self._stopping.is_set():
            now = time.monotonic()
            waits = [self._tend(one, now) for one in self._running]
            self._wake.wait(min((wait for wait in waits if wait is not None), default=None))
            self._wake.clear()

    def _tend(self, one: _Running, now: float) -> float | None:
        """Look after one stage; returns the seconds until it wants to be looked at again, if it does."""
        if one.is_given_up or _is_alive(one.process):
            return None
        if one.process is not None and one.process.returncode == CONFIG_STATUS:
            self._give_up(one, ConfigError(f"{one.stage.name} cannot run with this configuration: {self._said(one)}"))
            return None
        if one.process is not None and not self._plan_restart(one, one.process, now):
            return None
        if now < one.restart_at:
            return one.restart_at - now
        try:
            self._spawn(one)
        except Exception:  # no memory, no disk, no thread, no such file: the others must still be looked after
            _log.exception("stage not started; trying again", name=one.stage.name)
            one.restart_at = now + self.policy.wait_seconds_max
            return self.policy.wait_seconds_max
        with self._lock:
            one.restart_count += 1
        return None

    def _plan_restart(self, one: _Running, process: subprocess.Popen[bytes], now: float) -> bool:
        """Say when the stage is started again; false where it has died too often for that."""
        policy = self.policy
        lived = now - one.started_at
        if lived >= policy.settled_seconds:
            one.wait_seconds, one.death_count = 0.0, 0
        one.death_count += 1
        status, said = _describe_status(process.returncode), self._said(one)
        if policy.deaths_max is not None and one.death_count >= policy.deaths_max:
            times = "once" if one.death_count == 1 else f"{one.death_count} times in a row, each time"
            told = f"{one.stage.name} died {times} within {policy.settled_seconds:g} seconds of its start"
            self._give_up(one, StageError(f"{told}; it ended with {status}: {said}"))
            return False
        one.wait_seconds = min(max(2 * one.wait_seconds, policy.wait_seconds_min), policy.wait_seconds_max)
        one.restart_at = now + one.wait_seconds
        with self._lock:
            one.process = None
        tell = _log.error if one.death_count > 1 else _log.warning
        tell(
            "stage keeps dying; restarting" if one.death_count > 1 else "stage died; restarting",
            name=one.stage.name,
            status=status,
            said=said,
            deaths_in_a_row=one.death_count,
            lived_seconds=round(lived, 1),
            wait_seconds=one.wait_seconds,
        )
        self._died(
            Death(
                name=one.stage.name,
                status=status,
                said=said,
                lived_seconds=lived,
                wait_seconds=one.wait_seconds,
                count=one.death_count,
            )
        )
        return True

    def _said(self, one: _Running) -> str:
        """The error with which a stage that has ended did so: what a command of ours marks as one, else its last line,
        which is what Python ends a traceback with.
        """
        if one.pump is not None:
            one.pump.join(_PUMP_SECONDS)
        errors = [line.removeprefix(ERROR_MARK) for line in one.last_lines if line.startswith(ERROR_MARK)]
        told = errors or [line for line in one.last_lines if line.strip()]
        return told[-1] if told else "what it said stands above"

    def _give_up(self, one: _Running, why: DolmenError) -> None:
        """Tell, once, that this stage will not come back."""
        one.is_given_up = True
        if self._failure is not None:
            return
        self._failure = why
        _log.error("stage given up", name=one.stage.name, problem=str(why))
        self._failed()

    def _finish(self, one: _Running) -> None:
        process = one.process
        if process is None:
            return
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(self.policy.grace_seconds)
            except subprocess.TimeoutExpired:
                _log.warning("stage did not stop in time; ending it", name=one.stage.name, pid=process.pid)
                process.kill()
                process.wait()
        if one.pump is not None:
            one.pump.join(_PUMP_SECONDS)
        _log.info("stage stopped", name=one.stage.name, status=_describe_status(process.returncode))
        with self._lock:
            one.process = None


def stage_command(*arguments: str) -> list[str]:
    """The command that runs a verb of this very installation of dolmen."""
    return [sys.executable, "-m", "dolmen", *arguments]


def _pump(output: IO[bytes], lines: BoundedLines, last_lines: deque[str]) -> None:
    """Carry what a stage writes to its file, until it ends."""
    with output, lines:
        for line in iter(lambda: output.readline(_LINE_BYTES_MAX), b""):
            text = line.decode(errors="replace").rstrip("\n")
            last_lines.append(text)
            lines.write(text)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    if process.stdout is not None:
        process.stdout.close()


def _is_alive(process: subprocess.Popen[bytes] | None) -> bool:
    return process is not None and process.poll() is None


def _describe_status(status: int | None) -> str:
    if status is None:
        return "running"
    return f"signal {signal.Signals(-status).name}" if status < 0 else f"exit {status}"

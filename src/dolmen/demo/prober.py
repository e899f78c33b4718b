"""A visitor who asks for slates and times each answer from outside, in a process of its own.

What times answers must not share an interpreter with what makes the load: each would wait for the other, and the wait
would be counted as the server's. This file is both sides: ``Prober`` starts the process and reads what it tells, one
JSON line an answer; ``python -m dolmen.demo.prober`` is that process, which ends when its input does.
"""

from __future__ import annotations

import contextlib
import select
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Sequence
from signal import SIG_IGN, SIGINT, SIGTERM, signal
from typing import Final, final

import msgspec

from dolmen.client import Client
from dolmen.demo.freshness import SAMPLES_MAX, Freshness, Percentiles
from dolmen.errors import RemoteError
from dolmen.seeds import generator

__all__ = ["PROBES_PER_SECOND", "Prober"]

PROBES_PER_SECOND: Final = 25.0  # often enough to see staleness of a tenth of a second, and little load

_BEHIND_SECONDS: Final = 1.0  # what a slow server made it miss is asked for later, but not more than this


class _Plan(msgspec.Struct, frozen=True):
    address: str
    users: list[int | str]
    rate: float
    seed: int


class _Probe(msgspec.Struct, frozen=True):
    """One answer: when it came, by the machine's monotonic clock, how long it took, and up to where it had learned."""

    at: float
    seconds: float
    positions: dict[str, int]
    problem: str | None = None


@final
class Prober:
    """Asks for slates as visitors do, ``rate`` times a second, while the ``with`` block runs.

    Args:
        address: of the server.
        users: for whom, drawn evenly.
        freshness: told of each answer.
        rate: requests a second.
        seed: of the draw.
    """

    def __init__(
        self,
        address: str,
        users: Sequence[int | str],
        freshness: Freshness,
        *,
        rate: float = PROBES_PER_SECOND,
        seed: int = 0,
    ) -> None:
        self._plan = _Plan(address, list(users), rate, seed)
        self._freshness = freshness
        self._latencies: deque[float] = deque(maxlen=SAMPLES_MAX)
        self.failure_count = 0
        self.first_failure: str | None = None

    def __enter__(self) -> Prober:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "dolmen.demo.prober"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert self._process.stdin is not None, "a pipe was asked for"
        self._input = self._process.stdin
        self._input.write(msgspec.json.encode(self._plan) + b"\n")
        self._input.flush()
        self._reader = threading.Thread(target=self._read, name="prober", daemon=True)
        self._reader.start()
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(BrokenPipeError):  # the process is gone: its status tells
            self._input.close()
        self._reader.join()
        if self._process.stdout is not None:
            self._process.stdout.close()
        status = self._process.wait()
        if status != 0:
            self._failed(f"the process that asks for slates ended with status {status}")

    def latency_seconds(self) -> Percentiles:
        """Of all answers so far, as the visitor saw them."""
        return Percentiles.of(list(self._latencies))

    def _read(self) -> None:
        assert self._process.stdout is not None, "a pipe was asked for"
        decoder = msgspec.json.Decoder(_Probe)
        for line in self._process.stdout:
            probe = decoder.decode(line)
            if probe.problem is not None:
                self._failed(probe.problem)
                continue
            self._latencies.append(probe.seconds)
            self._freshness.answered(probe.positions, probe.at)

    def _failed(self, problem: str) -> None:
        self.failure_count += 1
        self.first_failure = self.first_failure or problem


def _main() -> None:
    for one in (SIGINT, SIGTERM):
        signal(one, SIG_IGN)  # a Ctrl-C reaches the whole group; the demo ends this process in its own time
    plan = msgspec.json.decode(sys.stdin.buffer.readline(), type=_Plan)
    random = generator(plan.seed, "prober")
    due = time.monotonic()
    with Client(plan.address, attempts_max=1, connection_count=1) as client:
        # Nothing is sent after the plan: input that can be read has ended.
        while not select.select([sys.stdin], [], [], max(0.0, due - time.monotonic()))[0]:
            due = max(due + 1 / plan.rate, time.monotonic() - _BEHIND_SECONDS)
            probe = _asked(client, plan.users[int(random.integers(len(plan.users)))])
            sys.stdout.buffer.write(msgspec.json.encode(probe) + b"\n")
            sys.stdout.buffer.flush()


def _asked(client: Client, user: int | str) -> _Probe:
    started = time.monotonic()
    try:
        answer = client.recommend(user, learn=False)
    except RemoteError as problem:
        return _Probe(time.monotonic(), 0.0, {}, str(problem))
    ended = time.monotonic()
    return _Probe(ended, ended - started, answer.parameters.positions)


if __name__ == "__main__":
    _main()

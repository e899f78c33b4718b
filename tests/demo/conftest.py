"""A demo as a user starts it: real processes, the public HTTP API, real signals."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import psutil
import pytest

from dolmen.client import Client
from dolmen.errors import RemoteError

SECONDS = 90.0


def await_true(what: str, condition: Any, seconds: float = SECONDS) -> Any:
    """Poll ``condition`` until it returns something true; that is what is returned."""
    tick = threading.Event()
    for _ in range(int(seconds / 0.05)):
        found = condition()
        if found:
            return found
        tick.wait(0.05)
    raise AssertionError(f"{what}: not within {seconds} s")


@dataclass
class Demo:
    """One demo that runs, and what is asked of it. ``process``: of the command; ``state``: its folder."""

    process: subprocess.Popen[str]
    state: Path
    report_path: Path

    @cached_property
    def client(self) -> Client:
        """A client of its server; waits until the configuration is written that says where that is."""

        def port() -> str | None:
            try:
                lines = (self.state / "dolmen.toml").read_text().splitlines()
            except FileNotFoundError:
                return None
            return next((line.split("=")[1].strip() for line in lines if line.startswith("port =")), None)

        return Client(f"http://127.0.0.1:{await_true('configuration', port)}")

    def shown_count(self) -> int:
        """How many shown items the joiner knows of; 0 while there is nobody to ask."""
        try:
            return (
                int(self.client.status()["stages"]["join"]["figures"]["items_shown"]) if self.client.is_ready() else 0
            )
        except (RemoteError, KeyError, TypeError):
            return 0

    def await_shown(self, goal: int, seconds: float = 60.0) -> None:
        """Wait until so many items are shown, however slow the machine; fails when the count has rested so long."""
        newest, since = self.shown_count(), time.monotonic()
        tick = threading.Event()
        while newest < goal:
            tick.wait(0.05)
            now = self.shown_count()
            if now != newest:
                newest, since = now, time.monotonic()
            assert time.monotonic() - since < seconds, f"shown items: rests at {newest} of {goal}"

    def stages(self) -> dict[str, psutil.Process]:
        """The processes of the stages that run, by name."""
        found = {}
        for child in psutil.Process(self.process.pid).children():
            try:
                words = child.cmdline()
            except (psutil.NoSuchProcess, psutil.ZombieProcess):  # it was just killed
                continue
            found.update({name: child for name in ("serve", "join", "train") if name in words})
        return found

    def report(self) -> dict[str, Any]:
        """What it reports once it has ended by itself, without an error."""
        output, _ = self.process.communicate(timeout=SECONDS * 2)
        assert self.process.returncode == 0, output
        report: dict[str, Any] = json.loads(self.report_path.read_text())
        return report


RunningDemo = Callable[..., AbstractContextManager[Demo]]


@contextmanager
def _running_demo(folder: Path, *arguments: str) -> Iterator[Demo]:
    state, report_path = folder / "state", folder / "report.json"
    options = ["--state", str(state), "--port", "0", "--report", str(report_path)]
    with subprocess.Popen(
        [sys.executable, "-m", "dolmen", "demo", *options, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        demo = Demo(process, state, report_path)
        try:
            yield demo
        finally:
            if "client" in vars(demo):
                demo.client.close()
            if process.poll() is None:
                process.kill()


@pytest.fixture(scope="session")
def running_demo() -> RunningDemo:
    """``running_demo(folder, *arguments)`` runs a demo in ``folder`` within a block; nothing of it survives that."""
    return _running_demo


@pytest.fixture(scope="session")
def assert_books_balance() -> Callable[[dict[str, Any]], None]:
    """Of a report: whether everything that was sent is accounted for, and nothing is left over."""

    def check(report: dict[str, Any]) -> None:
        events = report["events"]
        assert report["accounts_close"], report["accounts"]
        assert events["waiting"] == events["slates_unread"] == events["actions_unread"] == 0, events
        assert events["impressions_sent"] == events["impressions_acknowledged"], events
        assert events["actions_sent"] == events["actions_acknowledged"] == events["actions_joined"], events
        assert events["trained"] == events["positives"] + events["negatives_kept"], events

    return check


@pytest.fixture(scope="session", name="await_true")
def _await_true() -> Callable[..., Any]:
    """``await_true(what, condition)`` polls ``condition`` until it returns something true, and returns that."""
    return await_true

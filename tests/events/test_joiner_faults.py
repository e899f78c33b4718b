"""The joiner killed anywhere makes the same examples as one that was never killed."""

import contextlib
import multiprocessing
import random
import shutil
import time
from collections import Counter
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

from dolmen.clock import ManualClock
from dolmen.errors import LogError
from dolmen.events import (
    Action,
    Appended,
    EmbeddedLog,
    Features,
    Impression,
    JoinConfig,
    Joiner,
    Store,
    decode_examples,
    encode,
)
from dolmen.features import Label, Schema, Slot

pytestmark = pytest.mark.fault

SCHEMA = Schema(Slot("user"), Slot("item"), Label("click"))
CONFIG = JoinConfig(negative_rate=0.5, retention="1h", batch_max=16, read_max=5, cache_max=20)
SECOND = 1_000_000


def fill(folder: Path, slate_count: int) -> None:
    """Slates of the past with actions that are early, in time, late, and twice; in the order of a seed."""
    odds = random.Random(11)
    clock = ManualClock(1_700_000_000 * SECOND)
    events: list[tuple[int, str, bytes]] = []
    for number in range(slate_count):
        shown_us = 1_000_000_000 * SECOND + number * SECOND
        items = odds.sample(range(100), 8)
        impression = Impression(
            f"r{number}",
            shown_us,
            number,
            1,
            "",
            Features({"user": [number]}),
            list(items),
            {"item": [[i] for i in items]},
        )
        events.append((shown_us, "impressions", encode(impression)))
        for item in odds.sample(items, odds.randrange(4)):
            at_us = shown_us + odds.choice([-3, 1, 5, 9, 20, 60]) * SECOND
            value = encode(Action(None, f"r{number}", number, item, "click"))
            events += [(at_us, "actions", value)] * odds.choice([1, 1, 2])
    with EmbeddedLog(folder, clock=clock) as log:
        for _, topic, value in sorted(events):
            clock.advance("1ms")
            log.append(topic, [value])


def examples_of(folder: Path) -> Counter[tuple[str, int, float, float]]:
    rows: Counter[tuple[str, int, float, float]] = Counter()
    with EmbeddedLog(folder) as log:
        for record in log.read("examples", 0, 0, max_records=1 << 30, max_bytes=1 << 30):
            examples = decode_examples(SCHEMA, record.value)
            batch = examples.batch
            rows.update(
                zip(
                    examples.request_ids,
                    batch.slot("item").values.tolist(),
                    batch.labels["click"].tolist(),
                    batch.sampling_rates.tolist(),
                    strict=True,
                )
            )
    return rows


def join_all(log: Any, folder: Path) -> dict[str, Any]:
    with contextlib.closing(Joiner(SCHEMA, log, folder, CONFIG, ManualClock(1_800_000_000 * SECOND))) as joiner:
        while joiner.step():
            pass
        joiner.step()  # what the first step after the last record closed
        return joiner.figures()


def join_in_child(log_folder: Path, state_folder: Path, told: Connection) -> None:
    told.send("ready")
    with EmbeddedLog(log_folder) as log:
        told.send(join_all(log, state_folder))


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("filled") / "log"
    fill(folder, slate_count=300)
    return folder


@pytest.fixture(scope="module")
def unkilled(filled: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Counter[Any], dict[str, Any]]:
    folder = tmp_path_factory.mktemp("unkilled")
    shutil.copytree(filled, folder / "log")
    with EmbeddedLog(folder / "log") as log:
        figures = join_all(log, folder / "join")
    return examples_of(folder / "log"), figures


def same_but_for_caching(figures: dict[str, Any], expected: dict[str, Any]) -> bool:
    told = {"slates_from_disk", "batches", "state_bytes", "memory_bytes"}  # depend on where the steps fell
    return all(figures[name] == expected[name] for name in expected if name not in told)


def test_joiner_killed_at_random_moments_makes_the_same_examples(
    filled: Path, unkilled: tuple[Counter[Any], dict[str, Any]], tmp_path: Path
) -> None:
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(["dolmen.events", "dolmen.events.joiner"])
    shutil.copytree(filled, tmp_path / "log")
    odds = random.Random(7)
    kills = 0
    end = time.monotonic() + 100
    while True:
        assert time.monotonic() < end
        here, there = processes.Pipe(duplex=False)
        process = processes.Process(target=join_in_child, args=(tmp_path / "log", tmp_path / "join", there))
        process.start()
        there.close()
        assert here.poll(60)
        assert here.recv() == "ready"
        # Late kills become rarer, so that slow machines come to an end too.
        if here.poll(odds.uniform(0.0, 0.06) * 1.1**kills):
            break
        process.kill()
        process.join()
        kills += 1
    figures = here.recv()
    process.join()
    expected, expected_figures = unkilled
    assert kills >= 5
    assert examples_of(tmp_path / "log") == expected
    assert same_but_for_caching(figures, expected_figures)


class CrashError(Exception):
    """Stands for the end of the process."""


class CrashingLog:
    """A real log whose ``append`` ends the process before or after it worked, at one call of many."""

    def __init__(self, log: EmbeddedLog, crash_at: int, *, worked: bool) -> None:
        self._log, self._left, self._worked = log, crash_at, worked

    def append(self, topic: str, values: Sequence[bytes], **named: Any) -> Appended:
        self._left -= 1
        if self._left == 0 and not self._worked:
            raise CrashError
        appended = self._log.append(topic, values, **named)
        if self._left == 0:
            raise CrashError
        return appended

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)


@pytest.mark.parametrize("worked", [False, True], ids=["before it was sent", "after it was sent"])
def test_crash_between_commit_and_send_neither_loses_nor_doubles(
    filled: Path, unkilled: tuple[Counter[Any], dict[str, Any]], tmp_path: Path, worked: bool
) -> None:
    shutil.copytree(filled, tmp_path / "log")
    crashes = 0
    with EmbeddedLog(tmp_path / "log") as log:
        while True:
            try:
                figures = join_all(CrashingLog(log, crash_at=7, worked=worked), tmp_path / "join")
                break
            except CrashError:
                crashes += 1
    expected, expected_figures = unkilled
    assert crashes >= 5
    assert examples_of(tmp_path / "log") == expected
    assert same_but_for_caching(figures, expected_figures)


@pytest.mark.parametrize("committed", [False, True], ids=["before the commit", "after the commit"])
def test_failed_commit_is_tried_again_by_the_same_joiner(
    filled: Path,
    unkilled: tuple[Counter[Any], dict[str, Any]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    committed: bool,
) -> None:
    """The disk fails at every fifth commit, and the joiner is simply called again: its memory must follow its disk."""
    shutil.copytree(filled, tmp_path / "log")
    write = Store.write
    calls = failures = 0

    def failing_write(store: Store, work: Any) -> Any:
        nonlocal calls, failures
        if store.folder.name != "join":
            return write(store, work)
        calls += 1
        if calls % 5 == 0 and not committed:

            def cut_short(txn: Any) -> None:
                work(txn)
                raise LogError("the disk is full")

            failures += 1
            return write(store, cut_short)
        answer = write(store, work)
        if calls % 5 == 0:
            failures += 1
            raise LogError("the disk failed after it had written")
        return answer

    monkeypatch.setattr(Store, "write", failing_write)
    clock = ManualClock(1_800_000_000 * SECOND)
    with (
        EmbeddedLog(tmp_path / "log") as log,
        contextlib.closing(Joiner(SCHEMA, log, tmp_path / "join", CONFIG, clock)) as joiner,
    ):
        idle = 0
        while idle < 3:
            try:
                idle = 0 if joiner.step() else idle + 1
            except LogError:
                idle = 0
        figures = joiner.figures()
    expected, expected_figures = unkilled
    assert failures >= 5
    assert examples_of(tmp_path / "log") == expected
    assert same_but_for_caching(figures, expected_figures)


def test_batches_of_a_failed_commit_are_not_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the next step, with more input, would make other batches of the same sequence, and the log refuse them."""
    clock = ManualClock(1_700_000_000 * SECOND)
    impression = Impression("r", clock.now_us(), 1, 1, "", Features(), [1, 2], {"item": [[1], [2]]})
    clicks = [encode(Action(None, "r", 1, item, "click")) for item in (1, 2)]
    with (
        EmbeddedLog(tmp_path / "log", clock=clock) as log,
        contextlib.closing(Joiner(SCHEMA, log, tmp_path / "join", CONFIG, clock)) as joiner,
    ):
        log.append("impressions", [encode(impression)])
        log.append("actions", clicks[:1])
        write = Store.write

        def cut_short(store: Store, work: Any) -> Any:
            def whole(txn: Any) -> None:
                work(txn)
                raise LogError("the disk is full")

            return write(store, whole)

        with monkeypatch.context() as patched:
            patched.setattr(Store, "write", cut_short)
            with pytest.raises(LogError, match="full"):
                joiner.step()
        log.append("actions", clicks[1:])
        joiner.step()
    assert examples_of(tmp_path / "log") == {("r", 1, 1.0, 1.0): 1, ("r", 2, 1.0, 1.0): 1}

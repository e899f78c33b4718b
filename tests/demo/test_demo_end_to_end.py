"""The whole loop as a user runs it: real processes, the public HTTP API, real signals."""

import json
import os
import random
import resource
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from dolmen import datasets
from dolmen.client import Client
from dolmen.errors import DataError, RemoteError

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]

SECONDS = 90.0
# Of all cores, on average over a run, that something else than the run kept busy. The system's own work for a run (the
# network's interrupts, the disk) counts as others' and takes 0.02 to 0.04; half a core of two is far beyond it.
QUIET_SHARE = 0.1
# With less than half of its two cores left, a run is measured by what it waits for.
CROWDED_SHARE = 0.5


def demo_command(state: Path, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "dolmen", "demo", "--state", str(state), "--port", "0", *arguments]


@contextmanager
def running_demo(state: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A demo in its own process group's terminal-less session; whatever happens, nothing of it survives."""
    with subprocess.Popen(
        demo_command(state, *arguments), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()


def await_true(what: str, condition: Any, seconds: float = SECONDS) -> Any:
    """Poll ``condition`` until it returns something true; that is what is returned."""
    tick = threading.Event()
    for _ in range(int(seconds / 0.05)):
        found = condition()
        if found:
            return found
        tick.wait(0.05)
    raise AssertionError(f"{what}: not within {seconds} s")


def client_of(state: Path) -> Client:
    """A client of the demo whose state is in ``state``, once its configuration is written."""

    def address() -> str | None:
        try:
            lines = (state / "dolmen.toml").read_text().splitlines()
        except FileNotFoundError:
            return None
        port = next((line.split("=")[1].strip() for line in lines if line.startswith("port =")), None)
        return f"http://127.0.0.1:{port}" if port else None

    return Client(await_true("configuration", address))


def await_growth(what: str, figure: Any, goal: int, seconds: float = 60.0) -> None:
    """Poll ``figure`` until it reaches ``goal``, however slow the machine; fails when it has rested for ``seconds``."""
    newest, since = figure(), time.monotonic()
    tick = threading.Event()
    while newest < goal:
        tick.wait(0.05)
        now = figure()
        if now != newest:
            newest, since = now, time.monotonic()
        assert time.monotonic() - since < seconds, f"{what}: rests at {newest} of {goal}"


def acknowledged(client: Client) -> int:
    """How many shown items the joiner knows of; 0 while there is nobody to ask."""
    try:
        return int(client.status()["stages"]["join"]["figures"]["items_shown"]) if client.is_ready() else 0
    except (RemoteError, KeyError, TypeError):
        return 0


def stage_processes(demo: subprocess.Popen[str]) -> dict[str, psutil.Process]:
    found = {}
    for child in psutil.Process(demo.pid).children():
        try:
            words = child.cmdline()
        except (psutil.NoSuchProcess, psutil.ZombieProcess):  # it was just killed
            continue
        found.update({name: child for name in ("serve", "join", "train") if name in words})
    return found


def report_of(demo: subprocess.Popen[str], path: Path) -> dict[str, Any]:
    output, _ = demo.communicate(timeout=SECONDS * 2)
    assert demo.returncode == 0, output
    report: dict[str, Any] = json.loads(path.read_text())
    return report


def assert_books_balance(report: dict[str, Any]) -> None:
    events = report["events"]
    assert report["accounts_close"], report["accounts"]
    assert events["waiting"] == events["slates_unread"] == events["actions_unread"] == 0, events
    assert events["impressions_sent"] == events["impressions_acknowledged"], events
    assert events["actions_sent"] == events["actions_acknowledged"] == events["actions_joined"], events
    assert events["trained"] == events["positives"] + events["negatives_kept"], events


@dataclass(frozen=True)
class HeadlessRun:
    """``others_share``: how busy the machine was with something else meanwhile, in shares of all its cores."""

    report: dict[str, Any]
    others_share: float


@pytest.fixture(scope="module")
def drifting(tmp_path_factory: pytest.TempPathFactory) -> HeadlessRun:
    """One headless run on the drifting world, as fast as the command goes by itself."""
    return headless_run(tmp_path_factory.mktemp("drifting"), "--data", "world-drifting", "--events", "60000")


def headless_run(folder: Path, *arguments: str) -> HeadlessRun:
    report_path = folder / "report.json"
    started, all_before, own_before = time.monotonic(), busy_seconds(), children_seconds()
    with running_demo(folder / "state", "--headless", "--report", str(report_path), *arguments) as demo:
        report = report_of(demo, report_path)
    core_seconds = (time.monotonic() - started) * (os.cpu_count() or 1)
    others = (busy_seconds() - all_before) - (children_seconds() - own_before)
    return HeadlessRun(report, others / core_seconds)


def busy_seconds() -> float:
    """What all cores together have worked since the machine started, or were kept from working by its host."""
    times = psutil.cpu_times()
    return float(sum(times) - times.idle - getattr(times, "iowait", 0.0))


def children_seconds() -> float:
    """Processor time of the processes that this one started and that have ended, with all of theirs."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def test_a_headless_run_on_the_drifting_world_closes_its_books_and_beats_the_frozen_copy(drifting: HeadlessRun) -> None:
    report = drifting.report
    assert_books_balance(report)
    assert report["simulated"]
    assert report["failures"] == {"replay": 0, "recommend": 0, "first": None}
    # Over 100,000 items the gap was 0.09; over these 60,000 tastes have drifted less. Chance moves an AUC of 30,000
    # examples with a tenth of clicks by about 0.005.
    assert report["progressive"]["online"]["auc"] > report["progressive"]["frozen"]["auc"] + 0.015
    assert report["progressive"]["online"]["count"] == report["progressive"]["frozen"]["count"] > 0
    assert report["staleness_seconds"]["count"] == report["events"]["actions_acknowledged"]


def test_two_quiet_cores_take_a_thousand_events_a_second_and_stay_fresh(drifting: HeadlessRun) -> None:
    """How quick an answer is depends on how fast a core is: docs/results tells it, beside the machine."""
    skip_unless_free(drifting, QUIET_SHARE)
    report = drifting.report
    assert report["events_per_second"] >= 1000, report["events_per_second"]
    assert_fresh(report)


def test_at_a_gentle_rate_an_action_is_learned_within_a_second_even_beside_other_work(tmp_path: Path) -> None:
    run = headless_run(tmp_path, "--data", "world", "--events", "3000", "--rate", "200")
    skip_unless_free(run, CROWDED_SHARE)
    assert_books_balance(run.report)
    assert_fresh(run.report)


def skip_unless_free(run: HeadlessRun, share: float) -> None:
    if (os.cpu_count() or 1) < 2 or run.others_share > share:
        pytest.skip(f"something else took {run.others_share:.0%} of the machine's cores meanwhile")


def assert_fresh(report: dict[str, Any]) -> None:
    # What dolmen promises. Measured on two quiet cores: 0.17 and 0.32 s.
    assert report["staleness_seconds"]["p50"] <= 1.0, report["staleness_seconds"]
    assert report["staleness_seconds"]["p99"] <= 5.0, report["staleness_seconds"]


@pytest.mark.fault
def test_killing_the_trainer_fails_no_request_and_loses_no_example(tmp_path: Path) -> None:
    state, report_path = tmp_path / "state", tmp_path / "report.json"
    arguments = ["--data", "world", "--headless", "--events", "12000", "--rate", "600", "--report", str(report_path)]
    with running_demo(state, *arguments) as demo:
        with client_of(state) as client:
            for threshold in (2_000, 6_000):
                await_true("events", lambda at=threshold: acknowledged(client) > at)
                stage_processes(demo)["train"].kill()
                await_true("a new trainer", lambda: "train" in stage_processes(demo))
        report = report_of(demo, report_path)
    assert report["restarts"]["train"] == 2
    assert report["restarts"]["serve"] == report["restarts"]["join"] == 0
    assert report["failures"] == {"replay": 0, "recommend": 0, "first": None}
    assert_books_balance(report)


@pytest.mark.fault
def test_killing_joiner_and_server_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    state, report_path = tmp_path / "state", tmp_path / "report.json"
    arguments = ["--data", "world", "--headless", "--events", "9000", "--rate", "600", "--report", str(report_path)]
    with running_demo(state, *arguments) as demo:
        with client_of(state) as client:
            await_true("events", lambda: acknowledged(client) > 1_500)
            stage_processes(demo)["join"].kill()
            await_true("events", lambda: acknowledged(client) > 4_000)
            stage_processes(demo)["serve"].kill()
        report = report_of(demo, report_path)
    assert report["restarts"] == {"serve": 1, "join": 1, "train": 0}
    # The replay asks again while the server is away, so it fails nothing; the visitors ask once, and may fail.
    assert report["failures"]["replay"] == 0
    events = report["events"]
    assert report["accounts_close"], report["accounts"]
    # A slate whose answer was lost with the server came again under its own request id, and counts once.
    assert events["impressions_joined"] == events["impressions_acknowledged"] == events["impressions_sent"]
    assert events["actions_joined"] >= events["actions_acknowledged"] == events["actions_sent"]


def test_control_c_leaves_no_process_and_no_lock_and_the_next_start_goes_on(tmp_path: Path) -> None:
    state = tmp_path / "state"
    arguments = ["--data", "world", "--rate", "300"]
    with running_demo(state, *arguments) as demo:
        with client_of(state) as client:
            await_true("events", lambda: acknowledged(client) > 500)
        stages = stage_processes(demo)
        assert set(stages) == {"serve", "join", "train"}
        demo.send_signal(signal.SIGINT)
        output, _ = demo.communicate(timeout=SECONDS)
    assert demo.returncode == 0, output
    assert not any(one.is_running() for one in stages.values())
    done = slate_count_done(state)
    assert done > 0
    with running_demo(state, *arguments) as demo:
        with client_of(state) as client:
            await_true("a server", client.is_ready)
            await_true("progress", lambda: slate_count_done(state) > done)
        demo.send_signal(signal.SIGINT)
        output, _ = demo.communicate(timeout=SECONDS)
    assert f"after slate {done:,}" in output
    assert slate_count_done(state) > done


@pytest.mark.fault
def test_a_killed_demo_takes_its_stages_with_it(tmp_path: Path) -> None:
    state = tmp_path / "state"
    with running_demo(state, "--data", "world") as demo:
        stages = await_true("three stages", lambda: len(found := stage_processes(demo)) == 3 and found)
        with client_of(state) as client:
            await_true("a server", client.is_ready)
        os.kill(demo.pid, signal.SIGKILL)
        gone, alive = psutil.wait_procs(list(stages.values()), timeout=30)
    assert not alive, [one.cmdline() for one in alive]
    assert len(gone) == 3


@pytest.mark.timeout(480)
@pytest.mark.data
def test_five_clicks_on_one_genre_raise_its_share_of_a_new_persons_next_slate(tmp_path: Path) -> None:
    try:
        dataset = datasets.load("movielens-100k", download=False)
    except DataError as problem:
        pytest.skip(f"movielens-100k is missing: {problem}")
    genres = dict(zip(dataset.items["id"].to_pylist(), dataset.items["genres"].to_pylist(), strict=True))
    clicks = Counter(dataset.interactions["item"].to_pylist())
    state = tmp_path / "state"
    with running_demo(state, "--data", "movielens-100k", "--rate", "2000", "--events", "30000") as demo:
        with client_of(state) as client:
            await_growth("a taught model", lambda: acknowledged(client), 30_000)
            await_true("nothing unread", lambda: is_caught_up(client))
            rises = []
            draw = random.Random(0)
            for genre, count in sorted(Counter(one for told in genres.values() for one in told).items()):
                known = sorted((item for item in genres if genre in genres[item]), key=lambda item: -clicks[item])[:60]
                for person in (f"fan {number} of {genre}" for number in range(2 if count >= 50 else 0)):
                    before = client.recommend(person, count=20)
                    liked = draw.sample(known, 5)
                    page = client.rank(person, liked)  # as a shop's page of one genre, of which they take every film
                    clicks_sent = [{"user": person, "item": item, "kind": "click"} for item in liked]
                    client.send([{**click, "request_id": page.request_id} for click in clicks_sent])
                    after = client.recommend(person, count=20)
                    shares = [sum(genre in genres[shown.item] for shown in one.items) / 20 for one in (before, after)]
                    rises.append((genre, shares[1] - shares[0]))
        demo.send_signal(signal.SIGINT)
        demo.communicate(timeout=SECONDS)
    # Films have several genres, and what was clicked is not shown again: not each person's share can rise. Measured in
    # one run of 30,000 shown items: it rose for 23 of 28 people, fell for 3, and rose by 0.26 on average.
    assert len(rises) >= 20
    assert sum(rise > 0 for _, rise in rises) >= 0.6 * len(rises), rises
    assert sum(rise < 0 for _, rise in rises) <= 0.25 * len(rises), rises
    assert sum(rise for _, rise in rises) / len(rises) >= 0.1, rises


def slate_count_done(state: Path) -> int:
    return int(json.loads((state / "demo.json").read_text())["slate_count_done"])


def is_caught_up(client: Client) -> bool:
    figures = client.status()["stages"]
    join, train = figures["join"]["figures"], figures["train"]["figures"]
    return bool(join["slates_unread"] == join["actions_unread"] == 0 and join["examples"] == train["examples_total"])

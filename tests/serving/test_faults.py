"""What happens when too much comes, the disk fails, or the process is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from dolmen.clock import SystemClock
from dolmen.errors import ConfigError, LogError
from dolmen.events import (
    Action,
    Appended,
    CatalogueChange,
    EmbeddedLog,
    Features,
    Group,
    Impression,
    Topic,
    decode,
    encode,
)
from dolmen.serving import create_app, run_server
from dolmen.serving.exposure import Exposure
from dolmen.serving.parts import Parts
from dolmen.serving.state import Changes, State

Serve = Callable[..., Any]
pytestmark = pytest.mark.fault


class Gate:
    """A real log whose appends to some topics wait, or fail, when told to."""

    def __init__(self, log: EmbeddedLog) -> None:
        self._log = log
        self.open = threading.Event()
        self.open.set()
        self.entered = threading.Semaphore(0)
        self.failing: set[str] = set()

    def append(self, topic: str, values: Sequence[bytes], **more: Any) -> Appended:
        if topic in (Topic.IMPRESSIONS, Topic.ACTIONS):
            self.entered.release()
            self.open.wait(30)
        if topic in self.failing:
            raise LogError(f"{topic}: no space left on device")
        return self._log.append(topic, values, **more)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)


def test_too_many_requests_are_refused_early_and_the_rest_answered(serve: Serve, log: EmbeddedLog) -> None:
    served = serve(queue_max=4, score_together_max=2)
    served.add_items(range(300))

    def ask(number: int) -> tuple[int, str | None]:
        answer = served.post("/v1/rank", {"user": number, "items": list(range(300))})
        return answer.status_code, answer.headers.get("Retry-After")

    with ThreadPoolExecutor(64) as pool:
        answers = list(pool.map(ask, range(200)))
    counted = Counter(status for status, _ in answers)
    assert set(counted) <= {200, 503}
    assert counted[200] > 0
    assert counted[503] > 0
    assert all(wait is not None and int(wait) >= 1 for status, wait in answers if status == 503)
    assert log.bounds(Topic.IMPRESSIONS)[1] == counted[200]  # what was refused was never shown
    assert served.post("/v1/rank", {"user": 1, "items": [1]}).status_code == 200


def test_events_beyond_what_may_wait_for_the_disk_are_refused(
    serve: Serve, log: EmbeddedLog, wait: Callable[..., Any]
) -> None:
    gate = Gate(log)
    served = serve(log=gate, log_queue_bytes_max=1 << 16)
    events = {"events": [{"user": 1, "item": "x" * 200, "kind": "click"}] * 200}  # some 45 kB
    gate.open.clear()
    with ThreadPoolExecutor(4) as pool:
        try:
            first = pool.submit(served.post, "/v1/events", events)
            assert gate.entered.acquire(timeout=10)  # it is being written; what comes now must wait
            second = pool.submit(served.post, "/v1/events", events)
            wait(lambda: waiting_bytes(served) > 0)
            refused = served.post("/v1/events", events)
        finally:
            gate.open.set()
        assert (first.result().status_code, second.result().status_code) == (202, 202)
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "overloaded")
    assert log.bounds(Topic.ACTIONS)[1] == 400


def waiting_bytes(served: Any) -> float:
    text = served.get("/metrics").text
    return float(next(line for line in text.splitlines() if line.startswith("dolmen_ingest_waiting_bytes")).split()[1])


def test_many_requests_share_one_write(serve: Serve, log: EmbeddedLog, wait: Callable[..., Any]) -> None:
    gate = Gate(log)
    served = serve(log=gate)
    gate.open.clear()
    with ThreadPoolExecutor(16) as pool:
        try:
            answers = [pool.submit(served.click, number, 1) for number in range(16)]
            assert gate.entered.acquire(timeout=10)
            wait(lambda: waiting_bytes(served) > 0)
        finally:
            gate.open.set()
        positions = sorted(answer.result()["positions"]["actions/0"] for answer in answers)
    assert positions == list(range(1, 17))  # each is told the position behind its own event
    records = log.read(Topic.ACTIONS, 0, 0)
    assert len(records) == 16
    assert len({record.time_us for record in records}) < 16


def test_an_unwritable_log_is_told_and_nothing_unlogged_is_shown_or_remembered(serve: Serve, log: EmbeddedLog) -> None:
    gate = Gate(log)
    served = serve(log=gate, explore_share=0.0)
    served.add_items(range(5))
    gate.failing = {Topic.IMPRESSIONS, Topic.ACTIONS}
    for answer in (
        served.post("/v1/recommend", {"user": 1}),
        served.post("/v1/events", {"events": [{"user": 1, "item": 2, "kind": "click"}]}),
    ):
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "log_unavailable")
        assert answer.json()["error"]["retry"] is True
    assert served.get("/v1/users/1").status_code == 404
    gate.failing = set()
    assert len(served.recommend(1, 5)["items"]) == 5
    served.click(1, 2)
    assert served.get("/v1/users/1").json()["history"][0]["item"] == 2


def test_a_visitor_who_left_costs_nothing(serve: Serve, log: EmbeddedLog) -> None:
    gate = Gate(log)
    served = serve(log=gate)
    served.add_items(range(5))
    gate.open.clear()
    with httpx.Client(base_url=served.address, timeout=0.2) as hasty, pytest.raises(httpx.ReadTimeout):
        hasty.post("/v1/recommend", json={"user": 1})
    gate.open.set()
    assert len(served.recommend(2, 5)["items"]) == 5
    assert served.get("/healthz").status_code == 200


_SERVER = """
import sys, threading
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from conftest import settings_in
from dolmen.serving import create_app, run_server
from dolmen.serving.behaviours import Behaviours
settings = settings_in(Path(sys.argv[1]))
run_server(create_app(settings), settings, threading.Event(), listening=lambda address: print(address, flush=True))
"""


def test_after_kill_9_everything_acknowledged_is_there(
    tmp_path: Path, serve: Serve, await_up: Callable[[httpx.Client], None]
) -> None:
    command = [sys.executable, "-c", _SERVER, str(tmp_path), str(Path(__file__).parent)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    address = process.stdout.readline().strip()
    acknowledged: list[tuple[int, int]] = []
    shown: list[str] = []
    enough, killed = threading.Event(), threading.Event()

    def shop(number: int) -> None:
        try:
            with httpx.Client(base_url=address, timeout=10) as client:
                for step in range(100_000):
                    slate = client.post("/v1/recommend", json={"user": number, "count": 5})
                    slate.raise_for_status()
                    shown.append(slate.json()["request_id"])
                    event = {"user": number, "item": step % 40, "kind": "click", "event_id": f"{number}-{step}"}
                    client.post("/v1/events", json={"events": [event]}).raise_for_status()
                    acknowledged.append((number, step))
                    if len(acknowledged) > 150:
                        enough.set()
        except httpx.HTTPError:
            assert killed.wait(10)

    with httpx.Client(base_url=address) as client:
        await_up(client)
        for start in (0, 200):  # the first part is saved behind the second's back, or not: both must be there
            items = [{"id": item, "attributes": {"genres": ["drama"]}} for item in range(start, start + 200)]
            assert client.post("/v1/items", json={"items": items}).status_code == 202
        people = {"users": [{"id": number, "attributes": {"age": 30 + number}} for number in range(4)]}
        assert client.post("/v1/users", json=people).status_code == 202
    threads = [threading.Thread(target=shop, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    assert enough.wait(60)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    killed.set()
    for thread in threads:
        thread.join()
    process.stdout.close()

    with EmbeddedLog(tmp_path / "log") as log:
        actions = [decode(Action, record.value) for record in log.read(Topic.ACTIONS, 0, 0, max_records=100_000)]
        slates = [decode(Impression, record.value) for record in log.read(Topic.IMPRESSIONS, 0, 0, max_records=100_000)]
    assert {f"{number}-{step}" for number, step in acknowledged} <= {action.event_id for action in actions}
    assert set(shown) <= {slate.request_id for slate in slates}
    again = serve()
    for number in range(4):
        person = again.get(f"/v1/users/{number}").json()
        assert person["attributes"] == {"age": 30 + number}
        expected = [action.item for action in actions if action.user == number][-200:]
        assert [act["item"] for act in person["history"]] == expected
    status = again.get("/v1/status").json()
    assert status["stages"]["serve"]["figures"]["item_count"] == 400
    assert status["now"]["events_total"] == len(actions) + sum(len(slate.items) for slate in slates)
    assert len(status["history"]) >= 1


def test_state_that_is_lost_is_made_again_from_the_log(serve: Serve, tmp_path: Path) -> None:
    served = serve()
    served.add_items(range(10))
    served.click(1, 4)
    before = served.get("/v1/users/1").json()
    served.end()
    again = serve(state_folder=tmp_path / "elsewhere")
    assert again.get("/v1/users/1").json() == before
    assert len(again.recommend(1, 10)["items"]) == 9


def test_a_stopped_server_tells_the_log_what_it_has_on_disk(serve: Serve, log: EmbeddedLog) -> None:
    """Else retention would keep, or delete, what it must not."""
    served = serve()
    served.add_items(range(5))
    served.click(1, 3, request_id=served.recommend(1, 5)["request_id"])
    served.end()
    for topic in (Topic.IMPRESSIONS, Topic.ACTIONS):
        assert log.committed(Group.SERVER, topic) == log.bounds(topic)[1] > 0


def test_two_servers_on_one_log_know_of_each_other(serve: Serve, tmp_path: Path, wait: Callable[..., Any]) -> None:
    first, second = serve(), serve(state_folder=tmp_path / "second")
    first.add_items(range(10))
    first.click(7, 3)
    second.click(8, 4)
    wait(lambda: second.get("/v1/users/7").status_code == 200)
    wait(lambda: first.get("/v1/users/8").status_code == 200)
    assert first.get("/v1/users/8").json()["history"][0]["attributes"]["title"] == "Title 4"
    first.click(8, 5)
    wait(lambda: len(second.get("/v1/users/8").json()["history"]) == 2)


def test_the_stopped_server_leaves_no_thread_behind(serve: Serve) -> None:
    before = {thread.name for thread in threading.enumerate()}
    served = serve()
    served.add_items(range(3))
    served.recommend(1, 2)
    served.end()
    left = {thread.name for thread in threading.enumerate()} - before
    assert not left & {"keeper", "replica", "shelf", "log actions", "log impressions", "log catalogue"}


def test_slates_come_while_the_catalogue_grows(serve: Serve) -> None:
    # A pool of new items was once made for fewer rows than there were by then.
    served = serve()
    served.add_items(range(10))
    done = threading.Event()

    def grow() -> None:
        for start in range(10, 1200, 17):
            served.add_items(range(start, start + 17))
        done.set()

    grower = threading.Thread(target=grow)
    grower.start()
    while not done.is_set():
        assert len(served.recommend(1, 10)["items"]) == 10
    grower.join()


def test_a_fault_of_ours_is_answered_in_the_one_shape(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise ZeroDivisionError("a fault")

    served = serve()
    with monkeypatch.context() as patch:
        patch.setattr("dolmen.serving.recommender.Recommender.answer", fail)
        patch.setattr("dolmen.serving.status.StatusBoard.answer", fail)
        for answer in (served.post("/v1/rank", {"user": 1, "items": [1]}), served.get("/v1/status")):
            assert (answer.status_code, answer.json()["error"]["code"]) == (500, "internal")
            assert "a fault" not in answer.text
    assert served.post("/v1/rank", {"user": 1, "items": [1]}).status_code == 200


def test_what_is_logged_but_could_not_be_applied_is_accepted_and_applied_later(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, wait: Callable[..., Any]
) -> None:
    served = serve()
    served.add_items(range(3))

    def fail(*_: Any) -> None:
        raise ZeroDivisionError("a fault")

    with monkeypatch.context() as patch:
        patch.setattr("dolmen.serving.behaviours.Behaviours.prepare", fail)
        assert served.click(1, 2, event_id="e")["positions"] == {"actions/0": 1}
    wait(lambda: served.get("/v1/users/1").status_code == 200)  # not taken for a repeat of itself
    served.click(1, 2, event_id="e")  # and this one is a repeat
    served.click(1, 0, event_id="f")
    assert [one["item"] for one in served.get("/v1/users/1").json()["history"]] == [2, 0]


def test_a_server_that_lost_a_thread_ends_with_an_error(settings: Any) -> None:
    def fail(*_: Any) -> None:
        raise ZeroDivisionError("a fault")

    app = create_app(settings)
    app.state.parts.shelf.worker._work = fail
    with pytest.raises(RuntimeError, match="a fault ended the threads shelf"):
        run_server(app, settings, threading.Event())


def test_what_cannot_be_applied_does_not_keep_the_rest_from_being_saved(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, wait: Callable[..., Any]
) -> None:
    calls: list[str] = []

    def fail(*_: Any) -> None:
        calls.append("read")
        raise ZeroDivisionError("a fault")

    served = serve()
    with monkeypatch.context() as patch:
        patch.setattr("dolmen.serving.tail.Tail.catch_up", fail)
        patch.setattr("dolmen.serving.parts.Parts.save", lambda _: calls.append("saved"))
        wait(lambda: len(calls) >= 8)
    assert calls[:8] == [*["read"] * 3, "saved"] * 2, "all three topics are tried, then what was applied is saved"
    assert served.get("/readyz").status_code == 200


def test_a_record_that_can_never_be_applied_is_set_aside_and_the_rest_goes_on(
    serve: Serve, log: EmbeddedLog, settings: Any, monkeypatch: pytest.MonkeyPatch, wait: Callable[..., Any]
) -> None:
    """Else everything after it would wait for ever, and a restart would never end."""
    prepare = Exposure.prepare

    def fail_at_poison(self: Exposure, actions: Sequence[Action]) -> Callable[[], None]:
        if any(action.kind == "poison" for action in actions):
            raise ZeroDivisionError("a fault")  # when all is ready for the people who acted
        return prepare(self, actions)

    def kinds() -> list[str]:
        answer = served.get("/v1/users/1")
        return [act["kind"] for act in answer.json()["history"]] if answer.status_code == 200 else []

    monkeypatch.setattr(Exposure, "prepare", fail_at_poison)
    now_us = SystemClock().now_us()  # or who acts is forgotten, for having done nothing since 1970
    values = [
        encode(Action(None, None, user=1, item=2, kind=kind, event_time_us=now_us)) for kind in ("a", "poison", "b")
    ]
    log.append(Topic.ACTIONS, values)
    served = serve()  # recovers from it
    assert kinds() == ["a", "b"]
    log.append(Topic.ACTIONS, values[1:])  # and meets it while it runs
    wait(lambda: kinds() == ["a", "b", "b"], seconds=60.0)  # five tries, at least a second apart
    assert "dolmen_state_set_aside_records_total 2.0" in served.get("/metrics").text
    kept = settings.aside_folder
    assert (kept / "actions-0-000000000001.bin").read_bytes() == values[1]
    assert "ZeroDivisionError: a fault" in (kept / "actions-0-000000000003.txt").read_text()


def test_counts_of_new_items_outlive_a_failed_save_and_a_crash_whenever_the_items_came(
    settings: Any, log: EmbeddedLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counts on disk of an item that the catalogue on disk does not know would be deleted as those of one that left."""

    def add_and_show(parts: Parts, item: int) -> None:
        change = CatalogueChange("item", item)
        parts.catalogue.tail.wrote(log.append(Topic.CATALOGUE, [encode(change)]), [change])
        slate = Impression("r", 1, 1, 0, "rank", Features(), [item])
        parts.exposure.shown_tail.wrote(log.append(Topic.IMPRESSIONS, [encode(slate)]), [slate.items])

    parts = Parts(settings, log, SystemClock())
    parts._recover()
    add_and_show(parts, 1)
    commit, failures = State._commit, iter([LogError("the disk is full")])

    def fail_once(self: State, taken: Any) -> None:
        for failure in failures:
            raise failure
        commit(self, taken)

    with monkeypatch.context() as patch:
        patch.setattr(State, "_commit", fail_once)
        parts.save()
        parts.state.close()  # killed
        parts = Parts(settings, log, SystemClock())
        parts._recover()
    assert parts.exposure._shown[parts.catalogue.rows_of([1])].tolist() == [1]

    came = iter([2])

    def and_then(take: Callable[[], Changes]) -> Callable[[], Changes]:
        def take_and_go_on() -> Changes:
            taken = take()
            for item in came:
                add_and_show(parts, item)
            return taken

        return take_and_go_on

    for part in (parts.catalogue, parts.acted):  # after whichever is taken first
        monkeypatch.setattr(part, "take_changes", and_then(part.take_changes))
    parts.save()
    monkeypatch.undo()
    parts.state.close()
    parts = Parts(settings, log, SystemClock())
    parts._recover()
    assert parts.exposure._shown[parts.catalogue.rows_of([1, 2])].tolist() == [1, 1]
    parts.state.close()


def test_another_log_is_refused_even_where_it_is_longer(serve: Serve, tmp_path: Path) -> None:
    served = serve()
    served.click(1, 2)
    served.end()
    with EmbeddedLog(tmp_path / "another") as other:
        other.append(Topic.ACTIONS, [encode(Action(None, None, user=9, item=2, kind="click"))] * 3)
        with pytest.raises(ConfigError, match=r"it was replaced; put that one back, or move .*serving.* away"):
            create_app(served.settings, log=other)
    again = serve()
    assert again.get("/v1/users/1").status_code == 200

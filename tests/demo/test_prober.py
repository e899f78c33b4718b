"""The process that asks for slates: what it tells, what it is told of failures, and that it ends with the demo."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import psutil
import pytest

from dolmen.demo.freshness import Freshness
from dolmen.demo.prober import Prober

POSITIONS = {"actions/0": 7}


class _Server(ThreadingHTTPServer):
    """Answers slates; ``asked`` grows, and from ``broken_from`` on every answer is a failure."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.asked: list[dict[str, object]] = []
        self.broken_from = 1 << 30
        self.changed = threading.Condition()

    def await_asked(self, count: int) -> None:
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.asked) >= count, timeout=30), len(self.asked)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        is_broken = len(self.server.asked) >= self.server.broken_from
        answer = {"request_id": body["request_id"], "items": [], "parameters": {"positions": POSITIONS}}
        told = json.dumps({"error": {"code": "x", "message": "broken on purpose"}} if is_broken else answer).encode()
        self.send_response(500 if is_broken else 200)
        self.send_header("content-length", str(len(told)))
        self.end_headers()
        self.wfile.write(told)
        with self.server.changed:
            self.server.asked.append(body)
            self.server.changed.notify_all()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[_Server]:
    server = _Server()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def prober(server: _Server, freshness: Freshness) -> Prober:
    return Prober(f"http://127.0.0.1:{server.server_port}", [1, "two"], freshness, rate=200.0)


def test_each_answer_is_timed_ends_the_waits_that_it_reaches_and_is_not_learned_from(server: _Server) -> None:
    freshness = Freshness()
    freshness.acknowledged({"actions/0": 7}, 3)
    freshness.acknowledged({"actions/0": 8}, 1)
    with prober(server, freshness) as asking:
        server.await_asked(20)
    latency, waits = asking.latency_seconds(), freshness.percentiles()
    assert latency.count >= 19  # the last answer may have been on its way
    assert latency.p50 is not None
    assert 0 < latency.p50 < 30
    assert (waits.count, freshness.waiting_count) == (3, 1)
    assert {body["user"] for body in server.asked} == {1, "two"}
    assert all(body["learn"] is False for body in server.asked)
    assert (asking.failure_count, asking.first_failure) == (0, None)


def test_a_refused_request_is_a_failure_with_its_reason_and_no_latency(server: _Server) -> None:
    server.broken_from = 5
    with prober(server, Freshness()) as asking:
        server.await_asked(9)
    assert asking.latency_seconds().count == 5
    assert asking.failure_count >= 3
    assert "broken on purpose" in str(asking.first_failure)


def test_a_prober_that_dies_is_told_rather_than_taken_for_silence(server: _Server) -> None:
    with prober(server, Freshness()) as asking:
        server.await_asked(1)
        (process,) = [one for one in psutil.Process().children() if "dolmen.demo.prober" in one.cmdline()]
        process.kill()
    assert asking.failure_count == 1
    assert "ended with status -9" in str(asking.first_failure)

"""What a connection may cost before a request of it is whole."""

from __future__ import annotations

import json
import resource
import socket
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import httpx
import psutil
import pytest

from dolmen.serving import connections

Serve = Callable[..., Any]
pytestmark = pytest.mark.fault

REQUEST = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"


def connected(served: Any) -> socket.socket:
    host, port = served.address.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=10)


def is_ended(one: socket.socket) -> bool:
    """Whether the other side has closed; waits for it, or for bytes."""
    try:
        return one.recv(1 << 16) == b""
    except ConnectionError:
        return True


@pytest.mark.parametrize(
    "begun",
    [b"GET /healthz?", b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-Much: ", b"GET /healthz HTTP/1.1\r\n"],
    ids=["address", "header", "headers"],
)
def test_a_head_without_an_end_is_cut_off_early(shared: Any, begun: bytes) -> None:
    """The parser keeps a head whole, so one without an end would take memory until there is none."""
    piece = b"X: y\r\n" * 2_000 if begun.endswith(b"\n") else b"x" * 12_000
    before = psutil.Process().memory_info().rss
    with connected(shared) as one:
        one.sendall(begun)
        with pytest.raises(ConnectionError):
            one.sendall(piece * 4_000)  # 48 MB
    assert psutil.Process().memory_info().rss - before < 16 << 20
    assert shared.get("/healthz").status_code == 200


def test_too_large_a_head_is_answered_in_our_shape(shared: Any) -> None:
    answer = shared.client.get("/healthz", headers={"X-Much": "x" * 80_000})
    assert (answer.status_code, answer.json()["error"]["code"]) == (431, "too_large")
    assert shared.client.get("/healthz", headers={"X-Much": "x" * 30_000}).status_code == 200


def test_what_is_no_request_is_told_in_our_shape(shared: Any) -> None:
    with connected(shared) as one:
        one.sendall(b"\x16\x03\x01\x02\x00 is the beginning of another protocol\r\n\r\n")
        told = b""
        while part := one.recv(1 << 16):
            told += part
    assert told.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert json.loads(told.partition(b"\r\n\r\n")[2])["error"]["code"] == "bad_request"


def test_whoever_sends_no_whole_head_is_let_go(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "_HEAD_SECONDS", 0.3)
    served = serve()
    with connected(served) as silent, connected(served) as slow, connected(served) as late:
        slow.sendall(REQUEST[:20])
        late.sendall(REQUEST)
        assert late.recv(1 << 16).startswith(b"HTTP/1.1 200")
        late.sendall(REQUEST[:20])  # of its second request
        assert all(is_ended(one) for one in (silent, slow, late))


def test_requests_of_one_connection_are_each_bounded_alone(shared: Any) -> None:
    head = REQUEST[:-2] + b"X-Much: " + b"x" * 30_000 + b"\r\n\r\n"
    with connected(shared) as one:
        for _ in range(5):  # 150 kB together
            one.sendall(head)
            assert one.recv(1 << 16).startswith(b"HTTP/1.1 200")
        one.sendall(REQUEST * 3)
        told = b""
        while told.count(b"HTTP/1.1 200") < 3:
            told += one.recv(1 << 16)


def test_more_connections_than_there_may_be_are_closed_and_the_others_served(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "_CONNECTIONS_MAX", 20)
    served = serve()
    with ExitStack() as opened:
        assert served.get("/healthz").status_code == 200  # its connection is kept
        many = [opened.enter_context(connected(served)) for _ in range(40)]
        for one in many:
            one.setblocking(True)
        assert sum(is_ended(one) for one in many[19:]) == 21
        assert served.get("/healthz").status_code == 200
    with httpx.Client(base_url=served.address) as other:
        assert other.get("/healthz").status_code == 200


def test_the_limit_of_open_files_leaves_some_for_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = {"now": (1024, 4096)}
    monkeypatch.setattr(resource, "getrlimit", lambda _: limits["now"])
    monkeypatch.setattr(resource, "setrlimit", lambda _, new: limits.update(now=new))
    assert connections.connections_max() == 2048
    assert limits["now"][0] >= 2048 + 256
    limits["now"] = (1024, 1024)
    assert connections.connections_max() == 768
    limits["now"] = (-1, -1)
    assert connections.connections_max() == 2048


def test_whoever_leaves_in_the_middle_of_a_body_is_no_fault_of_ours(
    serve: Serve, wait: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    served = serve()
    with caplog.at_level("WARNING", "dolmen"):
        with connected(served) as one:
            one.sendall(b"POST /v1/events HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n")
            one.sendall(b"Content-Length: 4000\r\n\r\n{")
            wait(lambda: served.get("/healthz").status_code == 200)
        wait(lambda: 'requests_total{route="/v1/events",status="499"} 1.0' in served.get("/metrics").text)
    assert not caplog.records

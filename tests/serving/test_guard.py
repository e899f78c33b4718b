"""Who may ask, from where, and how much."""

from __future__ import annotations

import dataclasses
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from dolmen.errors import ConfigError
from dolmen.serving import create_app, run_server

Serve = Callable[..., Any]
TOKEN = "correct-horse-battery"


def test_a_token_is_asked_for_wherever_data_is(serve: Serve) -> None:
    served = serve(token=TOKEN)
    with httpx.Client(base_url=served.address) as stranger:
        for path in ("/v1/status", "/v1/recommend?user=1", "/metrics", "/openapi.json", "/v1/nothing"):
            answer = stranger.get(path)
            assert (answer.status_code, answer.json()["error"]["code"]) == (401, "unauthorized"), path
            assert answer.headers["WWW-Authenticate"] == "Bearer"
        for wrong in ("Bearer wrong", f"Basic {TOKEN}", f"Bearer {TOKEN}x", "Bearer", TOKEN, "Bearer ü"):
            answer = stranger.get("/v1/status", headers={"Authorization": wrong.encode()})
            assert answer.status_code == 401, wrong
        assert stranger.get("/healthz").status_code == 200
        assert stranger.get("/readyz").status_code == 200
        assert TOKEN not in stranger.get("/v1/status").text
    assert served.get("/v1/status").status_code == 200


def test_the_token_stands_in_no_text_of_the_settings(serve: Serve) -> None:
    served = serve(token=TOKEN)
    assert TOKEN not in repr(served.settings)


def test_without_a_token_only_this_machine_is_answered(shared: Any) -> None:
    assert shared.client.get("/v1/status", headers={"Host": "evil.example"}).status_code == 403
    assert shared.client.get("/v1/status", headers={"Host": "127.0.0.1.evil.example:80"}).status_code == 403
    assert shared.client.get("/v1/status", headers={"Host": "localhost:1"}).status_code == 200
    assert shared.client.get("/v1/status", headers={"Host": "[::1]:8080"}).status_code == 200
    assert shared.client.get("/v1/status", headers={"Host": ""}).status_code == 403


def test_a_page_of_another_origin_may_not_ask_by_any_method(shared: Any) -> None:
    body = {"user": 1, "items": [1]}
    refused = shared.client.post("/v1/rank", json=body, headers={"Origin": "http://evil.example"})
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "forbidden")
    assert shared.client.post("/v1/rank", json=body, headers={"Origin": shared.address}).status_code == 200
    # A slate that is asked for is learned from. An image's address comes without Origin.
    foreign = [{"Origin": "http://evil.example"}, {"Origin": "null"}, {"Origin": "http://[x"}]
    foreign += [{"Sec-Fetch-Site": site} for site in ("cross-site", "same-site")]
    for headers in foreign:
        refused = shared.client.get("/v1/recommend?user=1", headers=headers)
        assert (refused.status_code, refused.json()["error"]["code"]) == (403, "forbidden"), headers
    for site in ("same-origin", "none"):
        assert shared.client.get("/v1/recommend?user=1", headers={"Sec-Fetch-Site": site}).status_code == 200
    assert shared.client.get("/healthz", headers={"Sec-Fetch-Site": "cross-site"}).status_code == 200


@pytest.mark.fault
def test_a_body_is_refused_by_its_declared_size_and_cut_off_by_its_real_one(serve: Serve) -> None:
    served = serve(body_bytes_max=2000)
    declared = served.client.post("/v1/events", content=b"x" * 2001, headers={"Content-Type": "application/json"})
    assert (declared.status_code, declared.json()["error"]["code"]) == (413, "too_large")

    def endless() -> Iterator[bytes]:
        for _ in range(1000):
            yield b'{"events": [' * 100

    streamed = served.client.post("/v1/events", content=endless(), headers={"Content-Type": "application/json"})
    assert (streamed.status_code, streamed.json()["error"]["code"]) == (413, "too_large")
    host, port = served.address.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as raw:
        raw.sendall(b"POST /v1/events HTTP/1.1\r\nHost: localhost\r\nContent-Length: -5\r\n\r\n")
        assert raw.recv(100).startswith(b"HTTP/1.1 400")
    assert served.get("/healthz").status_code == 200


def test_a_link_may_lead_to_what_only_reads(shared: Any) -> None:
    link = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
    for path in ("/v1/status", "/metrics", "/openapi.json"):
        assert shared.client.get(path, headers=link).status_code == 200
        framed = shared.client.get(path, headers={**link, "Sec-Fetch-Dest": "iframe"})
        assert framed.status_code == 403, "a frame is part of the page"
    assert shared.client.get("/v1/recommend?user=1", headers=link).status_code == 403, "that is learned from"
    assert shared.client.post("/v1/rank", json={"user": 1, "items": [1]}, headers=link).status_code == 403


@pytest.mark.fault
def test_bodies_of_all_requests_together_are_bounded(serve: Serve, wait: Callable[..., Any]) -> None:
    """Else as many as there may be connections, each with a large body, would take all memory."""
    served = serve(body_bytes_max=4096, bodies_bytes_max=8192)
    host, port = served.address.removeprefix("http://").split(":")
    event = {"events": [{"user": 1, "item": "x" * 200, "kind": "click"}] * 10}  # some 2.5 kB
    assert served.post("/v1/events", event).status_code == 202
    slow = [socket.create_connection((host, int(port)), timeout=10) for _ in range(2)]
    try:
        for one in slow:
            one.sendall(b"POST /v1/events HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n")
            one.sendall(b"Content-Length: 4000\r\n\r\n" + b" " * 3500)  # and no more for now
        wait(lambda: served.post("/v1/events", event).status_code == 503)
        refused = served.post("/v1/events", event)
        assert (refused.json()["error"]["code"], refused.headers["Retry-After"]) == ("overloaded", "1")
        assert served.get("/v1/status").status_code == 200
    finally:
        for one in slow:
            one.close()
    wait(lambda: served.post("/v1/events", event).status_code == 202)


def test_an_address_that_is_taken_is_told_in_one_line(serve: Serve, tmp_path: Path) -> None:
    served = serve()
    port = int(served.address.rpartition(":")[2])
    other = dataclasses.replace(served.settings, port=port, state_folder=tmp_path / "other")
    with pytest.raises(ConfigError, match=rf"cannot listen on 127\.0\.0\.1:{port}"):
        run_server(create_app(other), other, threading.Event())

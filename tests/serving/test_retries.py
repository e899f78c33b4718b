"""What a sender repeats because an answer was lost counts once: slates, and what people did."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import pytest

from dolmen.client import Client
from dolmen.events import EmbeddedLog, Impression, Topic, decode
from dolmen.serving.answers import Answers
from dolmen.serving.recommender import Ask

Serve = Callable[..., Any]
pytestmark = pytest.mark.fault


@contextmanager
def losing_answers(address: str, lost_count: int) -> Iterator[str]:
    """The address of a relay that hands each request on, and breaks the first connections when the answer comes."""
    target = (urlsplit(address).hostname, urlsplit(address).port)
    losses = iter(range(lost_count))
    with contextlib.ExitStack() as ends, socket.create_server(("127.0.0.1", 0)) as listener:

        def carry(source: socket.socket, sink: socket.socket, *, is_answer: bool) -> None:
            with contextlib.suppress(OSError):  # broken off by the other direction, or at the end
                while part := source.recv(1 << 16):
                    if is_answer and next(losses, None) is not None:
                        break
                    sink.sendall(part)
            for one in (source, sink):
                _shut(one)

        def accept() -> None:
            with contextlib.suppress(OSError):  # the listener is shut: the end
                while True:
                    visitor, server = listener.accept()[0], socket.create_connection(target)
                    for source, sink in ((visitor, server), (server, visitor)):
                        thread = threading.Thread(
                            target=carry, args=(source, sink), kwargs={"is_answer": source is server}
                        )
                        thread.start()
                        ends.callback(thread.join, 10)
                        ends.callback(source.close)
                        ends.callback(_shut, source)

        thread = threading.Thread(target=accept)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            _shut(listener)
            thread.join(10)


def _shut(one: socket.socket) -> None:
    with contextlib.suppress(OSError):  # the other end was quicker
        one.shutdown(socket.SHUT_RDWR)


def slates(log: EmbeddedLog) -> list[Impression]:
    return [decode(Impression, record.value) for record in log.read(Topic.IMPRESSIONS, 0, 0)]


@pytest.mark.parametrize("ask", ["recommend", "rank"])
def test_a_slate_whose_answer_was_lost_comes_again_and_is_logged_once(serve: Serve, log: EmbeddedLog, ask: str) -> None:
    served = serve()
    served.add_items(range(200))
    with losing_answers(served.address, 2) as address, Client(address) as shop:
        answer = shop.recommend(1, 10) if ask == "recommend" else shop.rank(1, list(range(10)))
    (logged,) = slates(log)
    assert (logged.request_id, logged.items) == (answer.request_id, [shown.item for shown in answer.items])


def test_actions_whose_answer_was_lost_count_once_for_person_and_item(
    serve: Serve, log: EmbeddedLog, caplog: pytest.LogCaptureFixture
) -> None:
    served = serve(explore_share=0.0)
    served.add_items(range(3))
    with losing_answers(served.address, 1) as address, Client(address) as shop, caplog.at_level("WARNING", "dolmen"):
        # As many as a request may carry, all one person's: whoever remembers fewer ids takes the first ones for new.
        shop.send([{"user": 7, "item": 1, "kind": "click"}] * 600 + [{"user": 7, "item": 1, "kind": "view"}] * 400)
        shop.send([{"user": 8, "item": 2, "kind": "click"}] * 900)
    assert [record.getMessage() for record in caplog.records if "asked again" in record.getMessage()], caplog.records
    assert log.bounds(Topic.ACTIONS)[1] == 2900  # the first request came twice
    assert {act["kind"] for act in served.get("/v1/users/7").json()["history"]} == {"view"}
    assert [one["item"] for one in served.recommend("somebody else", 2)["items"]] == [2, 1]


def test_the_same_request_asked_twice_at_once_is_ranked_once(serve: Serve, log: EmbeddedLog) -> None:
    served = serve()
    served.add_items(range(200))
    body = {"user": 1, "count": 10, "request_id": "mine"}
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: served.post("/v1/recommend", body), range(8)))
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.content for answer in answers}) == 1
    assert [one.request_id for one in slates(log)] == ["mine"]


def test_a_request_id_names_one_request(serve: Serve, log: EmbeddedLog) -> None:
    served = serve()
    served.add_items(range(5))
    assert served.get("/v1/recommend", user="anna", request_id="r").json()["request_id"] == "r"
    for path, body in (
        ("/v1/recommend", {"user": "anna", "count": 4}),
        ("/v1/recommend", {"user": "bob", "count": 10}),
        ("/v1/rank", {"user": "anna", "items": [1, 2]}),
    ):
        refused = served.post(path, {**body, "request_id": "r"})
        assert (refused.status_code, refused.json()["error"]["field"]) == (422, "request_id")
        assert "choose a new one" in refused.json()["error"]["message"]
    assert len(slates(log)) == 1


def test_what_failed_may_be_asked_again_under_the_same_id(serve: Serve) -> None:
    served = serve()
    body = {"user": 1, "count": 2, "request_id": "r"}
    assert served.post("/v1/recommend", body).status_code == 503  # no items yet
    served.add_items(range(5))
    assert len(served.post("/v1/recommend", body).json()["items"]) == 2


def test_only_the_newest_answers_are_kept(serve: Serve, log: EmbeddedLog) -> None:
    served = serve(answers_bytes_max=20_000)
    served.add_items(range(50))
    for number in range(20):
        assert served.post("/v1/recommend", {"user": 1, "request_id": f"r{number}"}).status_code == 200
    assert served.post("/v1/recommend", {"user": 1, "request_id": "r19"}).status_code == 200
    assert len(slates(log)) == 20
    assert served.post("/v1/recommend", {"user": 1, "request_id": "r0"}).status_code == 200
    assert len(slates(log)) == 21  # the joiner knows the id, and takes the first slate only


def test_answers_done_together_are_forgotten_one_by_one() -> None:
    faults: list[dict[str, Any]] = []
    answers = Answers(0)
    asks = [Ask(user=1, count=2, request_id=name) for name in ("a", "b", "c")]

    async def answer_all() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, fault: faults.append(fault))
        futures = [loop.create_future() for _ in asks]
        for ask, future in zip(asks, futures, strict=True):
            answers.add(ask, future)
        for future in futures:
            future.set_result(b"slate")
        await asyncio.gather(*futures)

    asyncio.run(answer_all())
    assert faults == []
    assert [answers.find(ask) for ask in asks] == [None, None, None]

"""A client of the HTTP API, for shops written in Python: send what happens, ask what to show.

Connections are kept and shared between threads. A server that is overloaded, restarting or out of reach for a moment
is asked again, after the wait that it names. That is safe: each event carries an ``event_id`` and each request for a
slate a ``request_id``, so what arrives twice counts once, and the second answer is the first one (unless the server
itself was started anew in between: then it is a new slate, and counts once all the same).
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping, Sequence
from typing import Any, Final, final

import msgspec
import urllib3

from dolmen.errors import RemoteError
from dolmen.request_ids import new_request_id
from dolmen.telemetry import logger

__all__ = ["Answer", "Client", "Parameters", "Shown"]

_log = logger(__name__)
_CHUNK = 500  # catalogue entries in one request: well below the server's limit, and few enough to answer quickly


@final
class Shown(msgspec.Struct, frozen=True):
    """One item of an answer. ``probability`` is calibrated; ``propensity`` is the odds with which it stands here."""

    item: int | str
    probability: float | None = None
    propensity: float | None = None
    position: int = 0
    attributes: dict[str, Any] = {}
    explored: bool = False


@final
class Parameters(msgspec.Struct, frozen=True):
    """What an answer knew: version, and how far into each input of the log its parameters reach.

    ``stale``: training was not heard of for a while.
    """

    version: int = 0
    newest_event_time_us: int = 0
    staleness_seconds: float | None = None
    stale: bool = False
    positions: dict[str, int] = {}


@final
class Answer(msgspec.Struct, frozen=True):
    """A slate. ``request_id`` goes with each action on it, so that the action meets what was shown.

    ``ranked_by``: ``model``, or ``popularity`` while nothing is learned yet.
    """

    request_id: str
    items: list[Shown]
    parameters: Parameters
    ranked_by: str = "model"


@final
class Client:
    """Talks to the server at ``address`` (``http://127.0.0.1:8080``). Any thread may call any method.

    Args:
        address: scheme, host and port.
        token: sent as a bearer token, where the server asks for one.
        timeout_seconds: for one attempt.
        attempts_max: how often a request is tried, at least 1, while the server is away or overloaded.
        connection_count: kept connections; as many as threads use this client at once.
    """

    def __init__(
        self,
        address: str,
        *,
        token: str | None = None,
        timeout_seconds: float = 10.0,
        attempts_max: int = 8,
        connection_count: int = 8,
    ) -> None:
        self.address = address.rstrip("/")
        headers = {"content-type": "application/json"}
        if token is not None:
            headers["authorization"] = f"Bearer {token}"
        retries = urllib3.Retry(
            total=attempts_max - 1,
            backoff_factor=0.1,
            backoff_max=2.0,
            status_forcelist=(429, 503),
            allowed_methods=None,
            raise_on_status=False,
        )
        self._pool = urllib3.PoolManager(
            num_pools=1,
            maxsize=connection_count,
            block=True,
            headers=headers,
            retries=retries,
            timeout=timeout_seconds,
        )

    def close(self) -> None:
        """Close all connections."""
        self._pool.clear()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def add_items(self, items: Sequence[Mapping[str, Any]]) -> None:
        """Add or replace catalogue items: ``{"id": 5, "attributes": {"title": "…", "genres": ["Drama"]}}``."""
        for start in range(0, len(items), _CHUNK):
            self._send("POST", "/v1/items", {"items": items[start : start + _CHUNK]})

    def add_users(self, users: Sequence[Mapping[str, Any]]) -> None:
        """Add or replace what is known of people: ``{"id": 7, "attributes": {"age": 31}}``."""
        for start in range(0, len(users), _CHUNK):
            self._send("POST", "/v1/users", {"users": users[start : start + _CHUNK]})

    def recommend(
        self, user: int | str, count: int = 10, *, context: Mapping[str, Any] | None = None, learn: bool = True
    ) -> Answer:
        """The next slate for ``user``: ``count`` items, best first.

        ``learn``: false where nobody will act on the answer, such as a probe: it is recorded, and not learned from.
        """
        return self._slate("/v1/recommend", {"user": user, "count": count, "context": context or {}, "learn": learn})

    def rank(self, user: int | str, items: Sequence[int | str], *, context: Mapping[str, Any] | None = None) -> Answer:
        """``items`` in the order in which ``user`` should see them; they count as shown."""
        return self._slate("/v1/rank", {"user": user, "items": items, "context": context or {}})

    def send(self, actions: Sequence[Mapping[str, Any]]) -> dict[str, int]:
        """Send actions: ``{"user": 7, "item": 5, "kind": "click", "request_id": "…"}``.

        Returns:
            The log positions behind them: an answer whose ``parameters.positions`` reach as far has learned from them.
        """
        events = [{"event_id": uuid.uuid4().hex, **action} for action in actions]
        positions: dict[str, int] = self._send("POST", "/v1/events", {"events": events})["positions"]
        return positions

    def status(self) -> dict[str, Any]:
        """The figures that the console shows."""
        answer: dict[str, Any] = self._send("GET", "/v1/status")
        return answer

    def is_ready(self) -> bool:
        """Whether the server answers and has parameters to serve; asks once."""
        try:
            return self._pool.request("GET", f"{self.address}/readyz", retries=False, timeout=2.0).status == 200
        except urllib3.exceptions.HTTPError:
            return False

    def _slate(self, path: str, body: Mapping[str, Any]) -> Answer:
        request_id = new_request_id(time.time_ns() // 1_000)
        answer: Answer = _decoded(self._raw("POST", path, {**body, "request_id": request_id}), _answer_decoder)
        return answer

    def _send(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        return _decoded(self._raw(method, path, body), _any_decoder)

    def _raw(self, method: str, path: str, body: Mapping[str, Any] | None) -> bytes:
        try:
            answer = self._pool.request(
                method, self.address + path, body=None if body is None else msgspec.json.encode(body)
            )
        except urllib3.exceptions.HTTPError as problem:
            raise RemoteError(
                f"{self.address}{path} cannot be reached: {problem}", status=0, code="unreachable", retry=True
            ) from problem
        tries = answer.retries.history if answer.retries is not None else ()
        if tries:
            first = tries[0].error if tries[0].error is not None else f"status {tries[0].status}"
            _log.warning("asked again", path=path, attempts=len(tries) + 1, first_problem=str(first))
        if answer.status >= 400:
            raise _refusal(path, answer.status, answer.data)
        return answer.data


# Made here and not at the first call: threads that read a kind of struct for the first time at once crash msgspec.
_answer_decoder: Final = msgspec.json.Decoder(Answer)
_any_decoder: Final = msgspec.json.Decoder()


def _decoded(data: bytes, decoder: msgspec.json.Decoder[Any]) -> Any:
    try:
        return decoder.decode(data)
    except msgspec.DecodeError as problem:  # a ValidationError is one
        message = f"what answers is no dolmen server, or another version: {problem}"
        raise RemoteError(message, status=0, code="unreadable", retry=False) from problem


def _refusal(path: str, status: int, data: bytes) -> RemoteError:
    try:
        error = msgspec.json.decode(data)["error"]
        message, code, retry = str(error["message"]), str(error["code"]), bool(error.get("retry"))
    except (msgspec.DecodeError, KeyError, TypeError):
        message, code, retry = data[:200].decode(errors="replace"), "unknown", status >= 500
    return RemoteError(f"{path} answered {status}: {message}", status=status, code=code, retry=retry)

"""What every request passes before a handler sees it: who may ask, from where, how much; and how long it took.

Plain ASGI, since it stands in the way of every request.
"""

from __future__ import annotations

import asyncio
import functools
import hmac
import time
from collections.abc import Callable, Mapping
from typing import Final, final
from urllib.parse import urlsplit

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dolmen.errors import OverloadedError
from dolmen.serving.problems import broken, refusal
from dolmen.serving.settings import ServeSettings, is_loopback
from dolmen.telemetry import logger

__all__ = ["Guard", "Timed"]

_log = logger(__name__)
_GUARDED: Final = ("/v1/", "/metrics", "/openapi.json")
_OWN_SITES: Final = (b"", b"same-origin", b"none")  # no browser, a page of this server, an address typed by hand
_LEARNED_FROM: Final = "/v1/recommend"  # whoever asks for a slate, with GET too, has it logged and learned from
_LEFT: Final = 499  # the status, for the figures alone, of a request whose sender left before it was whole
_BODY_SECONDS: Final = 30.0  # for all of a body: who sends slower keeps a connection for nothing

Timed = Callable[[str, int, float], None]
"""Told of each request: its route's path, the status, and the seconds it took."""


@final
class Guard:
    """Middleware around the whole app.

    - With a token: guarded paths need it as bearer token; it is compared in constant time.
    - Without one, on loopback: the ``Host`` must be this machine too, and a page of another origin may ask for no
      guarded path, by any method, or any web page that somebody opens here could use the server. To ask for a slate
      with GET is to have it logged and learned from, and an image's address is enough for that: it comes without
      ``Origin``, so what browsers say in ``Sec-Fetch-Site`` counts too. ``same-site`` is foreign as well: every port
      of this machine is of one site, and may be anybody's. Links that a person follows to what only reads are let in.
    - A body is refused by its declared size, and cut off when it grows past the limit; so is one that would take the
      bodies of all requests under way past their common limit.
    """

    def __init__(self, app: ASGIApp, *, settings: ServeSettings, timed: Timed) -> None:
        self._app, self._timed = app, timed
        self._token = settings.token.encode() if settings.token is not None else None
        self._body_bytes_max, self._bodies_bytes_max = settings.body_bytes_max, settings.bodies_bytes_max
        self._bodies_bytes = 0  # of all requests that are not answered yet; one thread serves them all

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        status, is_begun = 500, False
        body = _Body(self, receive)

        async def watched(message: Message) -> None:
            nonlocal status, is_begun
            if message["type"] == "http.response.start":
                status, is_begun = message["status"], True
            await send(message)

        try:
            answer = self._refused(scope)
            if answer is not None:
                await answer(scope, receive, watched)
            else:
                await self._app(scope, body.receive, watched)
        except ClientDisconnect:
            status = _LEFT
        except Exception as problem:
            _log.error("request failed", path=scope["path"][:200], problem=repr(problem), exc_info=problem)
            if is_begun:
                raise  # half an answer cannot be taken back: the connection is cut
            await broken()(scope, receive, watched)
        finally:
            self._bodies_bytes -= body.size
            route = scope.get("route")
            self._timed(getattr(route, "path", "other"), status, time.perf_counter() - started)

    def _refused(self, scope: Scope) -> ASGIApp | None:
        headers = {name: value for name, value in scope["headers"] if name in _READ_HEADERS}
        path: str = scope["path"]
        if self._token is not None:
            if path.startswith(_GUARDED) and not self._has_token(headers.get(b"authorization", b"")):
                return refusal(
                    401,
                    "unauthorized",
                    "this server asks for a token; send it as 'Authorization: Bearer …'",
                    headers={"WWW-Authenticate": "Bearer"},
                )
        else:
            host = headers.get(b"host", b"").decode("latin-1")
            if not _names_loopback(host):
                return refusal(403, "forbidden", f"this server answers on loopback only, not as host {host[:100]!r}")
            origin = headers.get(b"origin", b"").decode("latin-1")
            is_foreign = headers.get(b"sec-fetch-site", b"") not in _OWN_SITES or (origin and _netloc(origin) != host)
            if is_foreign and path.startswith(_GUARDED) and not _is_link(scope, headers):
                asker = repr(origin[:100]) if origin else "another origin"
                return refusal(403, "forbidden", f"pages of {asker} may not ask here")
        length = headers.get(b"content-length", b"0")
        if not length.isdigit():
            return refusal(400, "bad_request", "Content-Length must be a number")
        if int(length) > self._body_bytes_max:
            return refusal(413, "too_large", self._too_large())
        return None

    def _has_token(self, header: bytes) -> bool:
        assert self._token is not None
        scheme, _, given = header.partition(b" ")
        return hmac.compare_digest(given.strip(), self._token) and scheme.lower() == b"bearer"

    def take(self, count: int, size: int) -> None:
        """``count`` more bytes of a body that has ``size`` of them now have come.

        Raises:
            HTTPException: that body is too large.
            OverloadedError: all bodies together are.
        """
        self._bodies_bytes += count
        if size > self._body_bytes_max:
            raise HTTPException(413, self._too_large())
        if self._bodies_bytes > self._bodies_bytes_max:
            raise OverloadedError(
                f"the bodies of all requests under way have more than {self._bodies_bytes_max} bytes; send it again"
                " a little later"
            )

    def _too_large(self) -> str:
        return f"a body has at most {self._body_bytes_max} bytes; send fewer entries at a time"


@final
class _Body:
    """What has come of one request's body. It counts until the request is answered, for so long it is in memory."""

    __slots__ = ("_ends", "_guard", "_is_whole", "_receive", "size")

    def __init__(self, guard: Guard, receive: Receive) -> None:
        self._guard, self._receive = guard, receive
        self._ends, self._is_whole, self.size = time.monotonic() + _BODY_SECONDS, False, 0

    async def receive(self) -> Message:
        if self._is_whole:
            return await self._receive()  # from here on: whether the client has gone
        try:
            async with asyncio.timeout(max(0.0, self._ends - time.monotonic())):
                message = await self._receive()
        except TimeoutError:
            raise HTTPException(408, f"the body did not arrive within {_BODY_SECONDS:g} s") from None
        if message["type"] == "http.request":
            count = len(message.get("body", b""))
            self.size += count
            self._guard.take(count, self.size)
            self._is_whole = not message.get("more_body", False)
        return message


def _is_link(scope: Scope, headers: Mapping[bytes, bytes]) -> bool:
    """Whether somebody followed a link to what only reads. The page that has the link learns nothing of the answer."""
    return (
        scope["method"] == "GET"
        and headers.get(b"sec-fetch-mode") == b"navigate"
        and headers.get(b"sec-fetch-dest") == b"document"
        and b"origin" not in headers
        and not scope["path"].startswith(_LEARNED_FROM)
    )


_READ_HEADERS: Final = frozenset(
    {b"authorization", b"host", b"origin", b"sec-fetch-site", b"sec-fetch-mode", b"sec-fetch-dest", b"content-length"}
)


@functools.lru_cache(maxsize=64)
def _names_loopback(host: str) -> bool:
    return is_loopback(_host_name(host))


def _netloc(origin: str) -> str:
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return ""


def _host_name(host: str) -> str:
    """``127.0.0.1:8080`` → ``127.0.0.1``; ``[::1]:8080`` → ``::1``."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""

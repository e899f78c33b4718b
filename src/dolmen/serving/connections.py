"""What a connection may cost before a request of it is whole: bytes, seconds and sockets.

The parser keeps what comes until a request's head ends, and who sends nothing keeps a socket. Both happen before any
token is asked for, so both are bounded here.
"""

from __future__ import annotations

import asyncio
import resource
from typing import Final, cast, final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from dolmen.serving.problems import refusal

__all__ = ["BoundedHttp", "connections_max"]

_HEAD_BYTES_MAX: Final = 64 << 10  # of a request's line and headers; proxies let through 8 to 32 KiB
_TOO_LARGE: Final = f"a request's line and headers have at most {_HEAD_BYTES_MAX} bytes together"
_HEAD_SECONDS: Final = 15.0  # for a head: from the connection, or from the first byte of a later request
_CONNECTIONS_MAX: Final = 2048  # far above what the queues let in
_OTHER_FILES: Final = 256  # what else this process may have open: log, state, snapshots, libraries


@final
class BoundedHttp(HttpToolsProtocol):
    """uvicorn's HTTP/1.1, for ``uvicorn.Config(http=…)``. Who goes past a bound loses the connection."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """One connection more than there may be is closed at once: the files that are left belong to the log."""
        super().connection_made(cast("asyncio.Transport", transport))  # a server's connections are read and written
        self._head_bytes, self._is_in_head = 0, True
        self._timer: asyncio.TimerHandle | None = None
        if self.limit_concurrency is not None and len(self.connections) >= self.limit_concurrency:
            self.transport.abort()
            return
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone."""
        self._end_wait()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Some bytes, at most a few hundred KiB at once."""
        if self._is_in_head:
            self._await_head()
            self._head_bytes += len(data)
        super().data_received(data)
        if self._is_in_head and self._head_bytes > _HEAD_BYTES_MAX and not self.transport.is_closing():
            self.send_400_response(_TOO_LARGE)

    def on_headers_complete(self) -> None:
        """The head of a request is whole."""
        if len(self.url) + sum(len(name) + len(value) for name, value in self.headers) > _HEAD_BYTES_MAX:
            self.send_400_response(_TOO_LARGE)
            raise ValueError(_TOO_LARGE)  # so that the parser goes no further
        self._is_in_head = False
        self._end_wait()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """The request is whole: what comes now is the next one's head."""
        self._is_in_head, self._head_bytes = True, 0
        super().on_message_complete()

    def _await_head(self) -> None:
        if self._timer is None:
            self._timer = self.loop.call_later(_HEAD_SECONDS, self.transport.close)

    def _end_wait(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def send_400_response(self, msg: str) -> None:
        """What came is no request: say so, in the shape of all our errors, and close. Only the first time counts."""
        if self.transport.is_closing():
            return
        if msg == _TOO_LARGE:
            status, answer = b"431 Request Header Fields Too Large", refusal(431, "too_large", msg)
        else:
            status, answer = b"400 Bad Request", refusal(400, "bad_request", "this is no HTTP/1.1 request")
        headers = b"".join(b"%s: %s\r\n" % pair for pair in answer.raw_headers)
        self.transport.write(
            b"HTTP/1.1 " + status + b"\r\n" + headers + b"connection: close\r\n\r\n" + bytes(answer.body)
        )
        self.transport.close()


def connections_max() -> int:
    """How many connections leave this process files enough for everything else. Raises its soft limit if that helps."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _CONNECTIONS_MAX + _OTHER_FILES
    if 0 <= soft < wanted:  # what is not limited is negative
        soft = min(wanted, hard) if hard >= 0 else wanted
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return min(_CONNECTIONS_MAX, max(16, soft - _OTHER_FILES)) if soft >= 0 else _CONNECTIONS_MAX

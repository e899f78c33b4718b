"""Slates by the request id that their askers chose: who asks again because an answer was lost gets the same one.

Without this, a retry would be ranked and logged as another slate, and nobody would ever have seen the first.
"""

from __future__ import annotations

import asyncio
import functools
import hashlib
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final, final

import msgspec

from dolmen.serving.problems import Refusal
from dolmen.serving.recommender import Ask

__all__ = ["Answers"]

_ENTRY_BYTES: Final = 1_000  # what Python needs beside the answer itself
_encoder: Final = msgspec.msgpack.Encoder()


@dataclass
class _Entry:
    digest: bytes
    future: asyncio.Future[bytes]
    size: int = 0


@final
class Answers:
    """The answers under way, and the newest ``bytes_max`` bytes of those given. For the event loop's thread."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._entries: OrderedDict[str, _Entry] = OrderedDict()
        self._bytes = 0

    def find(self, ask: Ask) -> asyncio.Future[bytes] | None:
        """What was answered, or will be, to the same request; ``None`` where it is asked for the first time.

        Raises:
            Refusal: the id was chosen for another request.
        """
        entry = self._entries.get(ask.request_id) if ask.request_id is not None else None
        if entry is None:
            return None
        if entry.digest != _digest(ask):
            message = f"{ask.request_id!r} was chosen for another request already; choose a new one for each"
            raise Refusal(422, "invalid", f"request_id: {message}", field="request_id")
        return entry.future

    def add(self, ask: Ask, future: asyncio.Future[bytes]) -> None:
        """``future`` answers ``ask``. A failure is forgotten, so that it can be asked again."""
        if ask.request_id is None:
            return  # nobody can ask for it again
        self._entries[ask.request_id] = _Entry(_digest(ask), future)
        future.add_done_callback(functools.partial(self._settled, ask.request_id))

    def _settled(self, request_id: str, future: asyncio.Future[bytes]) -> None:
        if future.cancelled() or future.exception() is not None:
            self._entries.pop(request_id, None)
            return
        entry = self._entries[request_id]
        entry.size = len(future.result()) + _ENTRY_BYTES
        self._entries.move_to_end(request_id)
        self._bytes += entry.size
        while self._bytes > self._bytes_max:
            # Done is not enough: of what was done together with this one, the size is not counted yet.
            oldest = next(one for one, entry in self._entries.items() if entry.size > 0)
            self._bytes -= self._entries.pop(oldest).size


def _digest(ask: Ask) -> bytes:
    asked = _encoder.encode((ask.user, ask.count, ask.items, ask.context, ask.learn))
    return hashlib.blake2b(asked, digest_size=16).digest()

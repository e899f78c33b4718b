"""Who waits for a slate, and the turns in which they get one: a pass takes what waits and answers it together; an
answer is let go once its impression is in the log.

Passes run in the event loop itself, between requests. A thread of its own would wait for the interpreter, and the loop
for it, at each of some dozen calls of torch a pass: under load that wait was longer than the pass (decision 3).

What may wait is bounded: a request that finds the queue full is refused at once, and one that waited too long is
refused when its turn comes. Both are cheap, so an overloaded server keeps answering as many people as it can. A pass is
bounded too, in requests and in rows: so long nothing else is answered.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, final

import msgspec
import torch

from dolmen.clock import Clock
from dolmen.errors import DolmenError, OverloadedError
from dolmen.events import encode
from dolmen.serving.answers import Answers
from dolmen.serving.ingest import Arrived, Submission, Writer
from dolmen.serving.recommender import Ask, Recommender, Slate
from dolmen.serving.settings import ServeSettings
from dolmen.telemetry import logger
from dolmen.training.snapshot import Parameters

__all__ = ["Scoring", "told_parameters"]

_log = logger(__name__)
_RETRY_AFTER_SECONDS: Final = 1.0
_ROWS_MAX: Final = 1_024  # of one pass, unless one request alone asks for more
_TURNS: Final = 4  # of the loop before a pass: as many as an answer takes from the log's thread to its socket

_encoder: Final = msgspec.json.Encoder()


@dataclass(frozen=True)
class _Waiting:
    ask: Ask
    since: float
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[bytes]

    def settle(self, outcome: bytes | BaseException) -> None:
        self.loop.call_soon_threadsafe(_resolve, self.future, outcome)


@final
class Scoring:
    """A bounded queue and the turns that empty it. Everything here belongs to the event loop's thread.

    Args:
        settings: the queue's limits.
        clock: for staleness.
        recommender: makes slates.
        writer: of the topic ``impressions``.
        is_stale: whether training is away.
    """

    def __init__(
        self,
        settings: ServeSettings,
        clock: Clock,
        recommender: Recommender,
        writer: Writer,
        is_stale: Callable[[], bool],
    ) -> None:
        self._clock, self._recommender, self._writer, self._is_stale = clock, recommender, writer, is_stale
        self._queue_max, self._together_max = settings.queue_max, settings.score_together_max
        self._candidates = settings.candidate_count + settings.popular_count
        self._wait_seconds_max = settings.us("queue_wait_max") / 1e6
        self._waiting: deque[_Waiting] = deque()
        self._answers = Answers(settings.answers_bytes_max)
        self._is_stopping = False
        self.recommend_count = 0
        self.slate_count = 0
        self.shown_count = 0
        self.pass_count = 0
        self.refused_count = 0

    @property
    def waiting_count(self) -> int:
        """Requests that wait."""
        return len(self._waiting)

    async def answer(self, ask: Ask) -> bytes:
        """The JSON of the slate for ``ask``; its impression is in the log, once for each request id.

        Raises:
            OverloadedError: too many wait already, or this one waited too long.
            DolmenError: the request cannot be answered, or its impression not written.
            Refusal: the request id was chosen for another request.
        """
        answer = self._answers.find(ask)
        if answer is None:
            answer = self._submit(ask)
            self._answers.add(ask, answer)
        return await asyncio.shield(answer)  # whoever leaves does not take it from others who ask the same

    def start(self) -> None:
        """Before the first request."""
        # Torch keeps this number for each thread. Passes are small: helpers cost more than they save, and while they
        # spin for the next piece of work they take a core from who waits.
        torch.set_num_threads(1)

    def stop(self) -> None:
        """Answer who waits; who comes now is refused."""
        self._is_stopping = True
        while self._waiting:
            self._pass()

    def _submit(self, ask: Ask) -> asyncio.Future[bytes]:
        if len(self._waiting) >= self._queue_max or self._is_stopping:
            self.refused_count += 1
            raise OverloadedError(
                f"{len(self._waiting)} requests wait for ranking already; ask again a little later",
                retry_after_seconds=_RETRY_AFTER_SECONDS,
            )
        loop = asyncio.get_running_loop()
        waiting = _Waiting(ask, time.monotonic(), loop, loop.create_future())
        self._waiting.append(waiting)
        if len(self._waiting) == 1:
            loop.call_soon(self._turn, loop, _TURNS)
        return waiting.future

    def _turn(self, loop: asyncio.AbstractEventLoop, turns_left: int) -> None:
        """A pass, after the answers and requests that are on their way: else each of their steps waits for a pass."""
        if turns_left > 0:
            loop.call_soon(self._turn, loop, turns_left - 1)
            return
        try:
            self._pass()
        finally:
            if self._waiting:
                loop.call_soon(self._turn, loop, _TURNS)

    def _pass(self) -> None:
        group = self._take()
        try:
            self._answer([one for one in group if self._is_wanted(one)])
        except Exception:  # a fault of ours, such as a model that cannot take its batch: the next requests go on
            _log.exception("requests not answered", count=len(group))
            for one in group:
                one.settle(DolmenError("ranking failed"))

    def _take(self) -> list[_Waiting]:
        """The first who wait, as many as go into a pass."""
        group: list[_Waiting] = []
        row_count = 0
        while self._waiting and len(group) < self._together_max:
            asked = self._waiting[0].ask
            row_count += len(asked.items) if asked.items is not None else self._candidates
            if group and row_count > _ROWS_MAX:
                break
            group.append(self._waiting.popleft())
        return group

    def _is_wanted(self, waiting: _Waiting) -> bool:
        if time.monotonic() - waiting.since <= self._wait_seconds_max:
            return True
        self.refused_count += 1
        problem = OverloadedError(
            "this request waited too long for ranking; ask again a little later",
            retry_after_seconds=_RETRY_AFTER_SECONDS,
        )
        waiting.settle(problem)
        return False

    def _answer(self, group: Sequence[_Waiting]) -> None:
        if not group:
            return
        outcomes = self._recommender.answer([one.ask for one in group])
        self.pass_count += 1
        shown: list[Submission] = []
        for one, outcome in zip(group, outcomes, strict=True):
            try:
                if isinstance(outcome, DolmenError):
                    one.settle(outcome)
                elif outcome.impression.items:
                    shown.append(self._shown(one, outcome))
                else:
                    one.settle(self._told(outcome))  # nothing is left to show to this person: nothing was shown
            except Exception as problem:  # one answer is at fault: the others go on
                one.settle(problem)
        try:
            self._writer.submit(*shown)
        except DolmenError as problem:
            for submission in shown:
                submission.settle(problem)

    def _told(self, slate: Slate) -> bytes:
        return _encoder.encode(_told(slate, self._clock.now_us(), is_stale=self._is_stale()))

    def _shown(self, waiting: _Waiting, slate: Slate) -> Submission:
        """What the log must have before the answer is let go."""
        impression, answer = slate.impression, self._told(slate)

        def settle(outcome: Arrived | DolmenError) -> None:
            if isinstance(outcome, DolmenError):
                waiting.settle(outcome)
                return
            self.recommend_count += waiting.ask.items is None
            self.slate_count += 1
            self.shown_count += len(impression.items)
            waiting.settle(answer)

        counted = impression.items if impression.learn else ()
        return Submission([encode(impression)], [counted], [impression.request_id.encode()], settle)


def told_parameters(parameters: Parameters | None, now_us: int, *, is_stale: bool) -> dict[str, Any]:
    """What an answer says of the parameters that made it; version 0 where there were none."""
    newest_us = parameters.newest_event_time_us if parameters is not None else 0
    return {
        "version": parameters.version if parameters is not None else 0,
        "newest_event_time_us": newest_us,
        "staleness_seconds": max(0, now_us - newest_us) / 1e6 if newest_us > 0 else None,
        "stale": is_stale,
        "positions": dict(parameters.positions) if parameters is not None else {},
    }


def _told(slate: Slate, now_us: int, *, is_stale: bool) -> dict[str, Any]:
    shown = slate.impression
    columns = zip(shown.items, shown.probabilities, shown.propensities, slate.explored, slate.attributes, strict=True)
    return {
        "request_id": shown.request_id,
        "items": [
            {
                "item": item,
                "position": position,
                "probability": probability,
                "propensity": propensity,
                "explored": explored,
                "attributes": attributes if attributes is not None else {},
            }
            for position, (item, probability, propensity, explored, attributes) in enumerate(columns)
        ],
        "ranked_by": "model" if slate.parameters is not None else "popularity",
        "parameters": told_parameters(slate.parameters, now_us, is_stale=is_stale),
    }


def _resolve(future: asyncio.Future[bytes], outcome: bytes | BaseException) -> None:
    if future.done():
        return
    if isinstance(outcome, BaseException):
        future.set_exception(outcome)
    else:
        future.set_result(outcome)

"""Who waits for a slate gets an answer or is told why not, whatever fails in the pass that they are in."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator, Sequence
from typing import Any

import pytest

from dolmen.clock import SystemClock
from dolmen.errors import DolmenError, NotReadyError, OverloadedError
from dolmen.events import EmbeddedLog
from dolmen.serving.parts import Parts
from dolmen.serving.recommender import Ask, Slate
from dolmen.serving.scoring import Scoring
from dolmen.serving.settings import ServeSettings


class Passes:
    """In a recommender's place: tells each person their name, and which passes it was asked for."""

    def __init__(self) -> None:
        self.groups: list[list[int]] = []
        self.fault: Callable[[], list[Slate | DolmenError]] | None = None

    def answer(self, asks: Sequence[Ask]) -> list[Slate | DolmenError]:
        self.groups.append([int(ask.user) for ask in asks])
        if self.fault is not None:
            return self.fault()
        return [NotReadyError(f"told {ask.user}") for ask in asks]


@pytest.fixture
def passes() -> Passes:
    return Passes()


@pytest.fixture
def scoring(
    settings: ServeSettings, log: EmbeddedLog, passes: Passes, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Scoring]:
    """Of a server whose recommender answers as ``passes`` does."""
    parts = Parts(settings, log, SystemClock())
    monkeypatch.setattr(parts.recommender, "answer", passes.answer)
    parts.scoring.start()
    yield parts.scoring
    parts.state.close()


def in_loop(work: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(asyncio.wait_for(work, 20))


async def told(scoring: Scoring, *asks: Ask) -> list[str]:
    """What each is told; all ask at once."""
    outcomes = await asyncio.gather(*(scoring.answer(ask) for ask in asks), return_exceptions=True)
    return [str(outcome) for outcome in outcomes]


def test_who_asks_together_is_answered_in_as_few_passes_as_bounds_allow(scoring: Scoring, passes: Passes) -> None:
    few = [Ask(user, items=[1, 2]) for user in range(10)]
    many = [Ask(user, items=range(400)) for user in range(10, 15)]
    huge = Ask(15, items=range(5_000))
    answers = in_loop(told(scoring, *few, *many, huge))
    assert answers == [f"told {user}" for user in range(16)]
    assert passes.groups == [list(range(8)), [8, 9, 10, 11], [12, 13], [14], [15]]  # 8 requests or 1,024 rows


@pytest.mark.fault
def test_a_pass_that_fails_in_any_way_is_told_to_its_people_and_the_next_ones_are_answered(
    scoring: Scoring, passes: Passes
) -> None:
    def broken() -> list[Slate | DolmenError]:
        passes.fault = None
        raise ZeroDivisionError

    def too_few() -> list[Slate | DolmenError]:
        passes.fault = broken
        return []

    passes.fault = too_few
    answers = in_loop(told(scoring, *(Ask(user) for user in range(18))))  # of 150 rows each: six go into a pass
    assert answers == ["ranking failed"] * 12 + [f"told {user}" for user in range(12, 18)]


def test_who_waits_when_the_server_stops_is_answered_and_who_comes_then_is_refused(scoring: Scoring) -> None:
    waiting_counts: list[int] = []

    def stop() -> None:
        waiting_counts.append(scoring.waiting_count)
        scoring.stop()
        waiting_counts.append(scoring.waiting_count)

    async def work() -> list[BaseException | bytes]:
        waiting = asyncio.gather(*(scoring.answer(Ask(user)) for user in range(20)), return_exceptions=True)
        asyncio.get_running_loop().call_soon(stop)  # once all of them have asked, and before any pass
        outcomes = await waiting
        with pytest.raises(OverloadedError):
            await scoring.answer(Ask(20))
        return outcomes

    assert [str(outcome) for outcome in in_loop(work())] == [f"told {user}" for user in range(20)]
    assert waiting_counts == [20, 0]


def test_an_answer_on_its_way_goes_out_before_the_next_pass(scoring: Scoring, passes: Passes) -> None:
    """Else each of its steps through the loop would wait for a pass, and so would all of them under load."""
    seen: list[list[int]] = []

    async def ask() -> None:
        with pytest.raises(NotReadyError):
            await scoring.answer(Ask(1))

    async def work() -> None:
        loop = asyncio.get_running_loop()
        ready = loop.create_future()

        async def answer() -> None:
            await asyncio.shield(ready)  # as an answer awaits the log
            seen.extend(passes.groups)

        both = asyncio.gather(ask(), answer())
        loop.call_soon(ready.set_result, None)
        await both

    in_loop(work())
    assert seen == []  # the answer came to its end before there was a pass
    assert passes.groups == [[1]]

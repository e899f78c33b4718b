"""Who waits for a slate gets an answer or is told why not, whatever fails in the pass that they are in."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest

from dolmen.clock import SystemClock
from dolmen.errors import DolmenError, NotReadyError, OverloadedError
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


def in_loop(settings: ServeSettings, passes: Passes, work: Callable[[Scoring], Awaitable[Any]]) -> Any:
    async def run() -> Any:
        scoring = Scoring(settings, SystemClock(), passes, None, lambda: False)  # type: ignore[arg-type]
        scoring.start()
        return await asyncio.wait_for(work(scoring), 20)

    return asyncio.run(run())


async def told(scoring: Scoring, *asks: Ask) -> list[str]:
    """What each is told; all ask at once."""
    outcomes = await asyncio.gather(*(scoring.answer(ask) for ask in asks), return_exceptions=True)
    return [str(outcome) for outcome in outcomes]


def test_who_asks_together_is_answered_in_as_few_passes_as_bounds_allow(
    settings: ServeSettings, passes: Passes
) -> None:
    few = [Ask(user, items=[1, 2]) for user in range(10)]
    many = [Ask(user, items=range(400)) for user in range(10, 15)]
    huge = Ask(15, items=range(5_000))
    answers = in_loop(settings, passes, lambda scoring: told(scoring, *few, *many, huge))
    assert answers == [f"told {user}" for user in range(16)]
    assert passes.groups == [list(range(8)), [8, 9, 10, 11], [12, 13], [14], [15]]  # 8 requests or 1,024 rows


@pytest.mark.fault
def test_a_pass_that_fails_in_any_way_is_told_to_its_people_and_the_next_ones_are_answered(
    settings: ServeSettings, passes: Passes
) -> None:
    def broken() -> list[Slate | DolmenError]:
        passes.fault = None
        raise ZeroDivisionError

    def too_few() -> list[Slate | DolmenError]:
        passes.fault = broken
        return []

    async def work(scoring: Scoring) -> list[str]:
        passes.fault = too_few
        return await told(scoring, *(Ask(user) for user in range(18)))  # of 150 rows each: six go into a pass

    assert in_loop(settings, passes, work) == ["ranking failed"] * 12 + [f"told {user}" for user in range(12, 18)]


def test_who_waits_when_the_server_stops_is_answered_and_who_comes_then_is_refused(
    settings: ServeSettings, passes: Passes
) -> None:
    async def work(scoring: Scoring) -> list[str]:
        waiting = asyncio.ensure_future(told(scoring, *(Ask(user) for user in range(20))))
        await asyncio.sleep(0)  # to where they wait
        await asyncio.sleep(0)
        assert scoring.waiting_count == 20
        scoring.stop()
        assert scoring.waiting_count == 0
        with pytest.raises(OverloadedError):
            await scoring.answer(Ask(20))
        return await waiting

    assert in_loop(settings, passes, work) == [f"told {user}" for user in range(20)]


def test_an_answer_on_its_way_goes_out_before_the_next_pass(settings: ServeSettings, passes: Passes) -> None:
    """Else each of its steps through the loop would wait for a pass, and so would all of them under load."""

    async def work(scoring: Scoring) -> list[list[int]]:
        seen: list[list[int]] = []
        ready = asyncio.get_running_loop().create_future()

        async def ask() -> None:
            with pytest.raises(NotReadyError):
                await scoring.answer(Ask(1))

        async def answer() -> None:
            await asyncio.shield(ready)  # as an answer awaits the log
            seen.extend(passes.groups)

        waiting = asyncio.gather(ask(), answer())
        await asyncio.sleep(0)
        ready.set_result(None)
        await waiting
        return seen

    assert in_loop(settings, passes, work) == []  # the answer came to its end before there was a pass
    assert passes.groups == [[1]]

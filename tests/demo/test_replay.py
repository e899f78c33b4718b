"""The replay's threads: what is sent, and what happens when one of them fails in a way that nobody foresaw."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

import pytest

from dolmen.client import Answer, Client, Parameters, Shown
from dolmen.datasets import Slate
from dolmen.demo.freshness import Freshness
from dolmen.demo.replay import Replay

PATIENCE_SECONDS = 20.0


class Shop:
    """Stands for the server: answers at once, and writes down what came; ``breaks_at`` is the slate it chokes on."""

    def __init__(self, breaks_at: int | None = None) -> None:
        self.breaks_at = breaks_at
        self.lock = threading.Lock()
        self.shown: list[tuple[Any, list[Any]]] = []
        self.acted: list[Mapping[str, Any]] = []

    def rank(self, user: Any, items: Sequence[Any], **_: Any) -> Answer:
        with self.lock:
            if len(self.shown) == self.breaks_at:
                raise ZeroDivisionError("nobody foresaw this")
            self.shown.append((user, list(items)))
            return Answer(f"r{len(self.shown)}", [Shown(item) for item in items], Parameters())

    def send(self, actions: Sequence[Mapping[str, Any]]) -> dict[str, int]:
        with self.lock:
            self.acted += actions
            return {"actions/0": len(self.acted)}


def slates(count: int) -> Iterator[Slate]:
    for number in range(count):
        yield Slate(number % 3, number * 1000, [number, -number - 1], [True, False], [2500, 0])


def replay_of(some: Iterator[Slate], shop: Shop) -> Replay:
    replay = Replay(cast("Client", shop), some, Freshness(), events_per_second=1e9)
    replay.start()
    return replay


def test_every_slate_and_every_action_is_sent_once() -> None:
    shop = Shop()
    replay = replay_of(slates(500), shop)
    assert replay.join(PATIENCE_SECONDS)
    assert sorted(items[0] for _, items in shop.shown) == list(range(500))
    assert sorted(action["item"] for action in shop.acted) == list(range(500))
    assert replay.slate_count_done == 500
    assert (replay.figures.impressions_acknowledged, replay.figures.actions_acknowledged) == (1000, 500)


@pytest.mark.fault
def test_a_worker_that_dies_stops_the_replay_and_is_told_of() -> None:
    # Far more slates than the queues hold: the dispatcher once waited for ever for room in the dead worker's queue.
    shop = Shop(breaks_at=50)
    replay = replay_of(slates(100_000), shop)
    with pytest.raises(ZeroDivisionError, match="foresaw"):
        assert replay.join(PATIENCE_SECONDS), "the replay hangs"
    assert len(shop.shown) < 100_000
    assert replay.slate_count_done < len(shop.shown) + 1
    assert replay.figures.finished_at is not None


@pytest.mark.fault
def test_data_that_break_off_stop_the_replay_and_are_told_of() -> None:
    def torn() -> Iterator[Slate]:
        yield from slates(20)
        raise ValueError("the file is torn")

    shop = Shop()
    replay = replay_of(itertools.chain(torn()), shop)
    with pytest.raises(ValueError, match="torn"):
        assert replay.join(PATIENCE_SECONDS), "the replay hangs"
    assert len(shop.acted) == 20  # what was shown before is finished

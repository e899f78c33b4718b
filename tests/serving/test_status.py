"""What the status says of the loop, from what the stages told of themselves."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from dolmen.clock import ManualClock
from dolmen.events import EmbeddedLog, Topic
from dolmen.serving.metrics import Metrics
from dolmen.serving.stage_metrics import MEANINGS, stage_readings
from dolmen.serving.status import StageStatus, StatusBoard

_START_US = 1_700_000_000_000_000


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(_START_US)


@pytest.fixture
def board(settings: Any, log: EmbeddedLog, clock: ManualClock) -> StatusBoard:
    return StatusBoard(settings, clock, log, pid=1, own=lambda: {"memory_bytes": 100})


def tell(log: EmbeddedLog, clock: ManualClock, stage: str, **figures: float) -> None:
    log.append(Topic.STATUS, [msgspec.json.encode(StageStatus(stage, clock.now_us(), 2, figures))])


def now_of(board: StatusBoard) -> dict[str, Any]:
    board.tick()
    now: dict[str, Any] = board.answer()["now"]
    return now


def test_the_joiners_rate_is_what_the_joiner_made_and_not_what_was_learned(
    board: StatusBoard, log: EmbeddedLog, clock: ManualClock
) -> None:
    tell(log, clock, "join", examples=1000)
    assert now_of(board)["joined_per_second"] is None  # one count says nothing of a rate
    clock.advance("2s")
    tell(log, clock, "join", examples=1600)
    tell(log, clock, "train", examples_per_second=7.0)
    now = now_of(board)
    assert (now["joined_per_second"], now["examples_per_second"]) == (300.0, 7.0)
    clock.advance("1s")
    tell(log, clock, "join", examples=10)  # another joiner, whose count began anew
    assert now_of(board)["joined_per_second"] == 0.0


def test_a_stage_that_died_neither_makes_examples_nor_takes_memory(
    board: StatusBoard, log: EmbeddedLog, clock: ManualClock
) -> None:
    tell(log, clock, "join", examples=1000, memory_bytes=20)
    clock.advance("1s")
    tell(log, clock, "join", examples=2000, memory_bytes=20)
    tell(log, clock, "train", examples_per_second=900.0, memory_bytes=3)
    now = now_of(board)
    assert (now["joined_per_second"], now["memory_bytes"]) == (1000.0, 123)
    clock.advance("1m")
    tell(log, clock, "train", examples_per_second=0.0, memory_bytes=3)
    now = now_of(board)
    assert (now["joined_per_second"], now["memory_bytes"]) == (0.0, 103)


def test_figures_of_the_other_stages_are_metrics_with_the_time_since_they_were_told(
    board: StatusBoard, log: EmbeddedLog, clock: ManualClock
) -> None:
    tell(log, clock, "join", actions_unread=7, positives=40, negative_rate=0.5)
    clock.advance("9s")
    board.tick()
    told = {name: value for name, value in stage_readings(board).items() if value is not None}
    assert told == {
        "dolmen_joiner_actions_unread_count": 7,
        "dolmen_joiner_positives_total": 40,
        "dolmen_joiner_status_age_seconds": 9.0,
    }
    assert stage_readings(board).keys() == MEANINGS.keys()
    text = Metrics(lambda: stage_readings(board)).text().decode()
    assert "dolmen_joiner_positives_total 40.0" in text
    assert "# HELP dolmen_joiner_actions_unread_count Actions that were acknowledged and not joined yet." in text

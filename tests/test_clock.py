"""Durations and clocks."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dolmen.clock import ManualClock, SystemClock, format_duration, parse_duration_us


@given(st.integers(min_value=0, max_value=10**15))
def test_every_duration_survives_writing_and_reading(duration_us: int) -> None:
    assert parse_duration_us(format_duration(duration_us)) == duration_us


@pytest.mark.parametrize("text", ["", "5", "d", "-5s", "5 weeks", "1e3s", "5s later"])
def test_what_is_no_duration_is_refused_with_the_mend(text: str) -> None:
    with pytest.raises(ValueError, match=r"a number and one of us, ms, s, m, h, d .* got"):
        parse_duration_us(text)


def test_the_system_clock_does_not_go_back_when_the_machine_is_set_back(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SystemClock()
    before = clock.now_us()
    monkeypatch.setattr("dolmen.clock.time.time_ns", lambda: 0)
    assert clock.now_us() == before


def test_a_manual_clock_moves_only_when_told() -> None:
    clock = ManualClock(now_us=10)
    assert (clock.now_us(), clock.now_us()) == (10, 10)
    clock.advance("1s")
    assert clock.now_us() == 1_000_010

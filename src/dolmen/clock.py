"""Time, passed in wherever it is needed, so that a test can run days in seconds.

Inside dolmen every instant is an ``int``: microseconds since 1970-01-01 UTC, in names that end in ``_us``.
Durations in declarations and settings are written as people say them (``"30d"``, ``"250ms"``).
"""

from __future__ import annotations

import re
import time
from typing import Annotated, Final, Protocol, final

__all__ = [
    "DURATION",
    "TIME_US_MAX",
    "TIME_US_MIN",
    "Clock",
    "Duration",
    "ManualClock",
    "SystemClock",
    "format_duration",
    "parse_duration_us",
    "time_mend",
]

TIME_US_MAX: Final = 4_102_444_800_000_000
"""The year 2100: no data's time is later. Whoever mistakes nanoseconds for microseconds is far beyond it."""
TIME_US_MIN: Final = 631_152_000_000_000
"""The year 1990: a time of today's data in seconds or milliseconds would lie before."""
DURATION: Final = "a duration with its unit"
Duration = Annotated[str, DURATION]
"""The type of settings that say how long, such as ``"30s"``: a bare number is refused with that as the mend."""

_UNIT_US: Final = {
    "us": 1,
    "ms": 1_000,
    "s": 1_000_000,
    "m": 60_000_000,
    "h": 3_600_000_000,
    "d": 86_400_000_000,
}
_DURATION: Final = re.compile(r"^\s*(\d+(?:\.\d+)?)\s*(us|ms|s|m|h|d)\s*$")


class Clock(Protocol):
    """What a stage asks for the time."""

    def now_us(self) -> int:
        """Microseconds since the epoch, UTC. Never goes backwards within one clock."""
        ...


@final
class SystemClock:
    """The machine's clock, held so that it never goes backwards when the machine's time is set back."""

    def __init__(self) -> None:
        self._latest_us = 0

    def now_us(self) -> int:
        """Microseconds since the epoch, UTC."""
        self._latest_us = max(self._latest_us, time.time_ns() // 1_000)
        return self._latest_us


@final
class ManualClock:
    """A clock that moves only when told to.

    >>> clock = ManualClock(now_us=5)
    >>> clock.advance("2ms")
    >>> clock.now_us()
    2005
    """

    def __init__(self, now_us: int = 0) -> None:
        self._now_us = now_us

    def now_us(self) -> int:
        """The time that was set last."""
        return self._now_us

    def advance(self, duration: str) -> None:
        """Move on by ``duration``, for example ``"250ms"``."""
        self._now_us += parse_duration_us(duration)


def parse_duration_us(text: str) -> int:
    """Microseconds in a duration such as ``"250ms"``, ``"1.5h"`` or ``"30d"``.

    Raises:
        ValueError: the text is no number followed by one of us, ms, s, m, h, d.

    >>> parse_duration_us("1.5s")
    1500000
    """
    match = _DURATION.match(text) if isinstance(text, str) else None  # a file may say 30
    if match is None:
        raise ValueError(f"a duration is a number and one of {', '.join(_UNIT_US)} (such as '30s'), got {text!r}")
    return round(float(match[1]) * _UNIT_US[match[2]])


def format_duration(duration_us: int) -> str:
    """The shortest exact way to write a duration.

    >>> format_duration(86_400_000_000), format_duration(90_000_000)
    ('1d', '90s')
    """
    for unit, size in reversed(_UNIT_US.items()):
        if duration_us and duration_us % size == 0:
            return f"{duration_us // size}{unit}"
    return "0s"


def time_mend(time: int, latest_us: int = TIME_US_MAX) -> str:
    """What to do with a time that is not between 1990 and ``latest_us`` in microseconds.

    The years since 1990 span less than a factor of ten and units lie a thousand apart, so at most one of them fits.

    >>> time_mend(1_700_000_000)
    'these are seconds, it seems: multiply by 1,000,000'
    """
    for unit, factor in (("seconds", 1_000_000), ("milliseconds", 1_000)):
        if TIME_US_MIN <= time * factor <= latest_us:
            return f"these are {unit}, it seems: multiply by {factor:,}"
    if TIME_US_MIN <= time // 1_000 <= latest_us:
        return "these are nanoseconds, it seems: divide by 1,000"
    return "send microseconds since 1970 UTC, not in the future"

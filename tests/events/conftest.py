from collections.abc import Iterator
from pathlib import Path

import pytest

from dolmen.clock import ManualClock
from dolmen.events import EmbeddedLog


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(now_us=1_700_000_000_000_000)


@pytest.fixture
def log(tmp_path: Path, clock: ManualClock) -> Iterator[EmbeddedLog]:
    with EmbeddedLog(tmp_path / "log", clock=clock, map_size=1 << 20) as opened:
        yield opened

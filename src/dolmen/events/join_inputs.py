"""What the joiner reads: impressions and actions of one partition, together, in the order in which they were logged."""

from __future__ import annotations

from collections.abc import Mapping
from operator import itemgetter
from typing import Final, NamedTuple, final

from dolmen.errors import OffsetGoneError
from dolmen.events.log import Log, Record, Topic
from dolmen.telemetry import logger

__all__ = ["INPUTS", "Input", "Inputs"]

_log = logger(__name__)

INPUTS: Final = (Topic.IMPRESSIONS, Topic.ACTIONS)
"""At equal times impressions come first: an action answers what was shown."""

_READ_BYTES_MAX: Final = 8 << 20


class Input(NamedTuple):
    """One record, and the topic it comes from."""

    topic: Topic
    record: Record


@final
class Inputs:
    """Reads both inputs. It keeps no positions: each call is told them, as ``"topic/partition"`` → next offset.

    Args:
        log: where the inputs are.
        partition: of both.
        read_max: records of each input that one call takes.
    """

    def __init__(self, log: Log, partition: int, read_max: int) -> None:
        self._log, self._partition, self._read_max = log, partition, read_max

    def key(self, topic: str) -> str:
        """What an input is called in positions."""
        return f"{topic}/{self._partition}"

    def read(self, positions: Mapping[str, int]) -> tuple[list[Input], bool]:
        """Records in the order of log time; whether these are all that there are.

        Raises:
            LogError: the log cannot be read.
        """
        rows: list[tuple[int, int, Record]] = []
        ends: list[int] = []
        for number, topic in enumerate(INPUTS):
            records = self._read_topic(topic, positions.get(self.key(topic), 0))
            rows += [(record.time_us, number, record) for record in records]
            ends.append(records[-1].offset + 1 if records else positions.get(self.key(topic), 0))
        # Looked at after both reads: what one input got meanwhile must not be overtaken by the other.
        frontier_us: int | None = None
        for number, topic in enumerate(INPUTS):
            if self._log.bounds(topic, self._partition)[1] > ends[number]:
                newest = max((time_us for time_us, one, _ in rows if one == number), default=-1)
                frontier_us = newest if frontier_us is None else min(frontier_us, newest)
        rows.sort(key=itemgetter(0, 1))  # stable: offsets stay in order
        found = [
            Input(INPUTS[number], record)
            for time_us, number, record in rows
            if frontier_us is None or time_us <= frontier_us
        ]
        return found, frontier_us is None

    def wait(self, positions: Mapping[str, int], seconds: float) -> bool:
        """Wait until there is a record at either position; false if time ran out."""
        places: dict[tuple[str, int], int] = {
            (topic, self._partition): positions.get(self.key(topic), 0) for topic in INPUTS
        }
        return self._log.wait(places, seconds)

    def unread(self, positions: Mapping[str, int]) -> dict[str, int]:
        """By topic, how many records lie beyond the positions."""
        return {
            topic: max(self._log.bounds(topic, self._partition)[1] - positions.get(self.key(topic), 0), 0)
            for topic in INPUTS
        }

    def beyond(self, positions: Mapping[str, int]) -> dict[str, tuple[int, int]]:
        """By topic, the position and the end of those inputs that end before their position: of another log."""
        ends = {topic: self._log.bounds(topic, self._partition)[1] for topic in INPUTS}
        read = {topic: positions.get(self.key(topic), 0) for topic in INPUTS}
        return {topic: (read[topic], end) for topic, end in ends.items() if read[topic] > end}

    def commit(self, group: str, positions: Mapping[str, int]) -> None:
        """Tell the log that what lies below ``positions`` is on this reader's own disk, so that it may delete it."""
        self._log.commit(group, {(topic, self._partition): positions.get(self.key(topic), 0) for topic in INPUTS})

    def _read_topic(self, topic: str, position: int) -> list[Record]:
        while True:
            try:
                return self._log.read(
                    topic, self._partition, position, max_records=self._read_max, max_bytes=_READ_BYTES_MAX
                )
            except OffsetGoneError:
                first = self._log.bounds(topic, self._partition)[0]
                _log.warning("events lost to retention", topic=topic, first_lost=position, first_kept=first)
                position = first

"""Which events come again: a sender that got no answer cannot know whether they arrived, and sends them once more.

What is remembered is the newest part of the log and nothing else, so it is the same on every server and after every
restart, and needs no room on disk.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import final

__all__ = ["Repeats"]


@final
class Repeats:
    """The ids of the newest ``count_max`` events. For one thread at a time."""

    def __init__(self, count_max: int) -> None:
        self.count_max = count_max
        self._newest: deque[str | None] = deque()
        self._last: dict[str, int] = {}  # the place of the newest event with an id, among all events ever
        self._next = 0

    def are_new(self, event_ids: Sequence[str | None]) -> list[bool]:
        """If they come next: whether none of the ``count_max`` events before each has its id. Without one it is new.

        They are not remembered by that.
        """
        own: dict[str, int] = {}
        are_new = []
        for place, event_id in enumerate(event_ids, self._next):
            if event_id is None:
                are_new.append(True)
                continue
            last = own.get(event_id, self._last.get(event_id))
            are_new.append(last is None or place - last > self.count_max)
            own[event_id] = place
        return are_new

    def remember(self, event_ids: Sequence[str | None]) -> None:
        """They came, in this order."""
        for event_id in event_ids:
            self._newest.append(event_id)
            if event_id is not None:
                self._last[event_id] = self._next
            self._next += 1
            if len(self._newest) > self.count_max:
                oldest = self._newest.popleft()
                if oldest is not None and self._last[oldest] == self._next - 1 - self.count_max:
                    del self._last[oldest]

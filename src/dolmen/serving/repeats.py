"""Which events come again: a sender that got no answer cannot know whether they arrived, and sends them once more.

What is remembered is the newest part of the log and nothing else, so it is the same on every server and after every
restart, and needs no room on disk.
"""

from __future__ import annotations

from collections import Counter, deque
from typing import final

__all__ = ["Repeats"]


@final
class Repeats:
    """The ids of the newest ``count_max`` events. For one thread at a time."""

    def __init__(self, count_max: int) -> None:
        self.count_max = count_max
        self._newest: deque[str | None] = deque()
        self._counts: Counter[str] = Counter()

    def is_new(self, event_id: str | None) -> bool:
        """The next event: whether none of the newest before it has its id. One without an id is always new."""
        is_new = event_id is None or event_id not in self._counts
        self._newest.append(event_id)
        if event_id is not None:
            self._counts[event_id] += 1
        if len(self._newest) > self.count_max:
            self._forget(self._newest.popleft())
        return is_new

    def _forget(self, event_id: str | None) -> None:
        if event_id is None:
            return
        self._counts[event_id] -= 1
        if not self._counts[event_id]:
            del self._counts[event_id]

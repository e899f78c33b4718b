"""A lock that knows its process.

A forked child has the memory of its parent but only one of its threads. Where another thread held a lock at that
moment, nobody ever opens it in the child, and what it was changing stays half changed. So the child is refused, and
does not wait for ever.
"""

from __future__ import annotations

import os
import threading
from typing import final

__all__ = ["ProcessLock"]


@final
class ProcessLock:
    """As ``threading.RLock``, by ``with`` alone, and for the process that made it.

    Raises:
        RuntimeError: on entering, in a child that was forked from that process.
    """

    def __init__(self) -> None:
        self._lock, self._process = threading.RLock(), os.getpid()

    def __enter__(self) -> None:
        if os.getpid() != self._process:
            raise RuntimeError(
                f"these rows are of process {self._process}, from which this one was forked: here they can only be "
                "looked up; change and save them there, or start workers by spawn and let them load their own"
            )
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()

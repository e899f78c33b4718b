"""Waiting for a file to change: told by the kernel where it can (Linux: inotify), by looking again and again elsewhere.

With inotify, waiting costs no processor time and a write is noticed in under a millisecond. Polling every 4 ms costs
2 to 4 % of a core in each waiting process (measured on a 2-core Linux VM), so it is only the fallback.
"""

from __future__ import annotations

import ctypes
import os
import select
import sys
import time
from pathlib import Path
from typing import Final, final

__all__ = ["Watch"]

_IN_MODIFY: Final = 0x2
_IN_NONBLOCK_CLOEXEC: Final = 0o2004000
_POLL_SECONDS: Final = 0.004
_LOOK_SECONDS_MIN: Final = 0.001
_LOOK_SECONDS_MAX: Final = 0.1  # look at least this often: a network file system may tell nothing


@final
class Watch:
    """Waits for writes to files, by any process. For one thread; every change since the last ``wait`` counts."""

    def __init__(self) -> None:
        self._pid = os.getpid()
        self._watched: set[Path] = set()
        self._libc: ctypes.CDLL | None = None
        self._descriptor = -1
        if sys.platform == "linux":
            libc = ctypes.CDLL(None, use_errno=True)
            self._descriptor = libc.inotify_init1(_IN_NONBLOCK_CLOEXEC)
            self._libc = libc if self._descriptor >= 0 else None  # none left of this user's: fall back to polling
        self._look_seconds = _LOOK_SECONDS_MAX
        self._poll = select.poll()
        if self._libc is not None:
            self._poll.register(self._descriptor, select.POLLIN)

    @property
    def is_usable(self) -> bool:
        """False in a forked child, which must make its own: parent and child would take each other's news."""
        return self._pid == os.getpid()

    def add(self, path: Path) -> bool:
        """Watch ``path`` from now on; true if it was not watched before, so that what it held should be looked at."""
        if path in self._watched:
            return False
        if self._libc is not None and self._libc.inotify_add_watch(self._descriptor, bytes(path), _IN_MODIFY) < 0:
            self.close()  # too many watches, or a file system without them
        self._watched.add(path)
        return True

    def wait(self, seconds: float) -> None:
        """Return when a watched file was written, or after ``seconds``, or now and then in between."""
        if self._libc is None:
            time.sleep(min(seconds, _POLL_SECONDS))
        elif self._poll.poll(min(seconds, self._look_seconds) * 1000):
            os.read(self._descriptor, 1 << 16)  # that there is news is all we need
            # LMDB writes the file a moment before it lets readers see the transaction: look again soon.
            self._look_seconds = _LOOK_SECONDS_MIN
        else:
            self._look_seconds = min(self._look_seconds * 2, _LOOK_SECONDS_MAX)

    def close(self) -> None:
        """Give the descriptor back; later waits poll."""
        if self._libc is not None:
            self._libc = None
            os.close(self._descriptor)

    def __del__(self) -> None:
        self.close()

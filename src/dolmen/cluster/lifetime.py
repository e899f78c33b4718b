"""How a process of ours ends: on a signal, with its supervisor, and without leaving a lock behind."""

from __future__ import annotations

import fcntl
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Final

from dolmen.errors import ConfigError

__all__ = ["PARENT_PIPE", "hold_folder", "stop_on_signals", "stop_with_parent"]

PARENT_PIPE: Final = "DOLMEN_PARENT_PIPE"
"""Environment variable with which a supervisor tells a process the number of the pipe that closes when it ends."""


def stop_on_signals() -> threading.Event:
    """An event that SIGTERM and SIGINT (Ctrl-C) set from now on. For the main thread."""
    stop = threading.Event()

    def handle(_number: int, _frame: FrameType | None) -> None:
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, handle)
    return stop


@contextmanager
def hold_folder(folder: Path) -> Iterator[int]:
    """Hold ``folder`` for this process alone. The lock lives in the kernel: however we end, nothing stays behind.

    Yields the descriptor that has the lock. A process that inherits it holds the folder too, until it ends as well.

    Raises:
        ConfigError: another process holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(
                f"the state folder {folder} is in use by another dolmen; stop that one (the stages of one that was"
                " killed need a few seconds to finish), or name another folder"
            ) from None
        yield handle
    finally:
        os.close(handle)


def stop_with_parent(stop: Callable[[], None]) -> None:
    """In a supervised process: call ``stop`` (once, from a thread) when the supervisor is gone. Elsewhere: nothing."""
    handle = os.environ.pop(PARENT_PIPE, None)
    if handle is None:
        return

    def wait() -> None:
        os.read(int(handle), 1)  # nobody ever writes: this returns when the last write end is closed
        stop()

    threading.Thread(target=wait, name="parent", daemon=True).start()

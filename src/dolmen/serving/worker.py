"""A thread of the server: how it starts, is woken, and is told to stop. Each part that works by itself has one."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import final

import torch

from dolmen.telemetry import logger

__all__ = ["Worker"]

_log = logger(__name__)


@final
class Worker:
    """Runs ``work`` in a thread called ``name``, which returns soon once ``is_stopping``. Any thread may call anything.

    ``on_fault``: told the name, in the thread, when ``work`` raised; the thread ends, and is not begun again.
    ``wake``: the lock of what the part shares with its callers; notified when there is work, and when it must stop.
    """

    def __init__(self, name: str, work: Callable[[], None]) -> None:
        self.name = name
        self.wake = threading.Condition()
        self.is_stopping = False
        self.on_fault: Callable[[str], None] | None = None
        self._work = work
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Begin. Once only."""
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    def stop(self) -> None:
        """Tell it to finish, and wait until it has; at once where it never began."""
        with self.wake:
            self.is_stopping = True
            self.wake.notify_all()
        if self._thread.is_alive():
            self._thread.join()

    def rest(self, seconds: float) -> bool:
        """Wait so long, or until told to stop; whether it was told. Called by ``work``."""
        with self.wake:
            return self.wake.wait_for(lambda: self.is_stopping, seconds)

    def _run(self) -> None:
        # Torch and the libraries below it keep this number for each thread. Passes of the model are small here: helpers
        # cost more than they save, and while they spin for the next piece of work they take a core from who waits.
        torch.set_num_threads(1)
        try:
            self._work()
        except Exception:
            _log.exception("thread ended by a fault", thread=self.name)
            if self.on_fault is not None:
                self.on_fault(self.name)

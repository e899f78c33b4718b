"""What a forked child may do with rows.

The child has its parent's memory and only one of its threads. Were another thread in the middle of a change at that
moment, its locks would never open in the child, and the row under its hands would stay half changed. So a fork waits
until no row is being changed, and the child may look rows up; what takes a lock is refused there.
"""

from __future__ import annotations

import os
import threading
import weakref
from contextlib import AbstractContextManager, ExitStack
from typing import Any, Final, NoReturn, TypeAlias, final

__all__ = ["Lock", "lock_of"]

Lock: TypeAlias = AbstractContextManager[Any]

_owners: Final[dict[str, weakref.WeakSet[Any]]] = {"_moving": weakref.WeakSet(), "_writing": weakref.WeakSet()}
"""Whose locks a fork takes, by the locks' name, in the order in which all take them."""
_forking: Final = threading.Lock()
_held: Final = ExitStack()


def lock_of(owner: object, name: str) -> Lock:
    """The lock that ``owner`` keeps as its attribute ``name``; forks see to it from now on.

    It is Python's own, whose ``with`` no interrupt leaves shut.
    """
    _owners[name].add(owner)
    return threading.RLock()


@final
class _Refusal(AbstractContextManager[Any]):
    def __init__(self, process: int) -> None:
        self._process = process

    def __enter__(self) -> NoReturn:
        raise RuntimeError(
            f"these rows are of process {self._process}, from which this one was forked: here they can only be looked "
            "up; change and save them there, or start workers by spawn and let them load their own"
        )

    def __exit__(self, *_: object) -> None:
        """Nothing was entered."""


def _wait_for_writers() -> None:
    _forking.acquire()
    for name, owners in _owners.items():
        for owner in list(owners):
            lock = getattr(owner, name, None)  # None: it is still being made, so nobody changes it yet.
            if lock is not None and not isinstance(lock, _Refusal):
                _held.enter_context(lock)


def _go_on() -> None:
    _held.close()
    _forking.release()


def _refuse() -> None:
    _held.pop_all()
    refusal = _Refusal(os.getppid())
    for name, owners in _owners.items():
        for owner in list(owners):
            setattr(owner, name, refusal)
    _forking.release()


os.register_at_fork(before=_wait_for_writers, after_in_parent=_go_on, after_in_child=_refuse)

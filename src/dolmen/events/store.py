"""One LMDB environment of this process: shared by all who open its folder, grows by itself, safe across fork and kill.

Others' processes may have the same folder open; LMDB lets one of them write at a time and never makes a reader wait.
A transaction is durable when ``write`` returns, and if the process is killed inside it, it never happened.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, TypeVar, final

import lmdb

from dolmen.errors import LogError

__all__ = ["MAP_SIZE", "Store", "Transaction"]

MAP_SIZE: Final = 1 << 30
"""Bytes of address space (not of memory or disk) that an environment starts with; it doubles when it is full."""

_READERS_MAX: Final = 512  # slots for read transactions of all processes together, 64 bytes each
_ATTEMPTS_MAX: Final = 64  # doublings and reader checks within one call; 2^64 bytes end before that

Transaction = Any
"""An ``lmdb.Transaction``: the library has no types that the strict checker accepts."""

T = TypeVar("T")


@final
class Store:
    """A folder with an LMDB environment. Any thread may call anything; ``work`` must not use any store
    but through its transaction, and may be run more than once.

    Args:
        folder: where ``data.mdb`` and ``lock.mdb`` lie; made if missing.
        databases: names of the databases inside; none means the one without a name.
        map_size: bytes of address space to start with.
        read_only: ``write`` is refused, and nothing is made that is missing.

    Raises:
        LogError: the folder cannot be opened.
    """

    def __init__(
        self,
        folder: Path | str,
        *,
        databases: Sequence[str] = (),
        map_size: int = MAP_SIZE,
        read_only: bool = False,
    ) -> None:
        self.folder = Path(folder).resolve()
        self.file = self.folder / "data.mdb"
        self.databases = tuple(databases)
        self._map_size, self._read_only = map_size, read_only
        self._pid = -1
        self._environment: _Environment | None = None
        self._closed = False
        self._opened()

    def write(self, work: Callable[[Transaction], T]) -> T:
        """Run ``work`` in a write transaction; what it put is on disk when this returns. It may be run more than once.

        Raises:
            LogError: the disk is full or failed; nothing of ``work`` was applied.
        """
        if self._read_only:
            raise LogError(f"{self.folder}: was opened to be read only")
        return self._opened().run(work, write=True)

    def read(self, work: Callable[[Transaction], T]) -> T:
        """Run ``work`` on one consistent state. Keep it short: pages freed meanwhile cannot be used again.

        Raises:
            LogError: the environment cannot be read.
        """
        return self._opened().run(work, write=False)

    def database(self, name: str) -> Any:
        """The handle of a database, for ``txn.get(key, db=handle)``. Ask again after a fork, or simply each time."""
        return self._opened().handles[name]

    def size_bytes(self) -> int:
        """Bytes on disk. Space freed by deletions is used again, but not given back."""
        return self.file.stat().st_size

    def close(self) -> None:
        """Let go of the environment; the last one to do so in this process closes it. Again is harmless."""
        if self._environment is not None and not self._closed and self._pid == os.getpid():
            _let_go(self._environment)
        self._closed = True
        self._environment = None

    def _opened(self) -> _Environment:
        if self._environment is None or self._pid != os.getpid():
            if self._closed:
                raise LogError(f"{self.folder}: used after close()")
            # The first use, or the first in a forked child: LMDB must not be used across fork.
            self._environment = _take(self.folder, self.databases, self._map_size, read_only=self._read_only)
            self._pid = os.getpid()
        return self._environment


@final
class _Environment:
    """The one handle of this process for a folder. ``uses`` counts the stores that share it."""

    def __init__(self, folder: Path, databases: Sequence[str], map_size: int, *, read_only: bool) -> None:
        self.folder, self.uses, self._map_size, self.is_read_only = folder, 0, map_size, read_only
        self._databases: list[str] = list(databases)
        self.handles: dict[str, Any] = {}
        self._gate = threading.Condition()
        self._inside = 0  # transactions that are open now: the map may change only when there are none
        self._exclusive = False
        self._lmdb: Any = None
        self._open()

    def _open(self) -> None:
        try:
            if not self.is_read_only:
                self.folder.mkdir(parents=True, exist_ok=True)
            self._lmdb = lmdb.open(
                str(self.folder),
                map_size=self._map_size,
                max_dbs=64,
                max_readers=_READERS_MAX,
                readahead=False,
                readonly=self.is_read_only,
                create=not self.is_read_only,
            )
            self._lmdb.reader_check()  # frees the slots of readers that were killed
        except (OSError, lmdb.Error) as problem:
            raise LogError(f"{self.folder}: cannot be opened: {problem}") from problem
        self.handles.clear()
        self._open_databases()

    def _open_databases(self) -> None:
        for name in self._databases:
            if name not in self.handles:
                self.handles[name] = self._lmdb.open_db(name.encode())

    def add_databases(self, names: Sequence[str]) -> None:
        self._databases += [name for name in names if name not in self._databases]
        with self.alone():
            self._open_databases()

    def run(self, work: Callable[[Transaction], T], *, write: bool) -> T:
        for _ in range(_ATTEMPTS_MAX):
            try:
                with self._within(), self._lmdb.begin(write=write) as txn:
                    return work(txn)
            except lmdb.MapFullError:
                self._grow()
            except lmdb.MapResizedError:  # another process has grown it
                with self.alone():
                    self._lmdb.set_mapsize(0)
            except lmdb.ReadersFullError as problem:
                if self._lmdb.reader_check() == 0:
                    raise LogError(f"{self.folder}: {_READERS_MAX} read transactions are open; close some") from problem
            except (lmdb.PanicError, lmdb.CorruptedError) as problem:
                self._reopen()
                raise LogError(
                    f"{self.folder}: {problem}; the write was not applied, and may be tried again"
                ) from problem
            except lmdb.Error as problem:
                raise LogError(f"{self.folder}: {problem}; nothing was applied") from problem
        raise LogError(f"{self.folder}: the map cannot grow beyond {self._lmdb.info()['map_size']} bytes")

    def _grow(self) -> None:
        with self.alone():
            self._lmdb.reader_check()  # a killed reader's slot keeps freed pages from being used again
            size = max(self._map_size, int(self._lmdb.info()["map_size"])) * 2
            try:
                self._lmdb.set_mapsize(size)
            except lmdb.Error as problem:
                raise LogError(f"{self.folder}: cannot map {size} bytes: {problem}") from problem
            self._map_size = size

    def _reopen(self) -> None:
        with self.alone():
            self._lmdb.close()
            self._open()

    @contextmanager
    def _within(self) -> Iterator[None]:
        with self._gate:
            while self._exclusive:
                self._gate.wait()
            self._inside += 1
        try:
            yield
        finally:
            with self._gate:
                self._inside -= 1
                if self._inside == 0:
                    self._gate.notify_all()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """No transaction of this process is open inside this block."""
        self.enter_alone()
        try:
            yield
        finally:
            self.leave_alone()

    def enter_alone(self) -> None:
        with self._gate:
            while self._exclusive:
                self._gate.wait()
            self._exclusive = True
            while self._inside:
                self._gate.wait()

    def leave_alone(self) -> None:
        with self._gate:
            self._exclusive = False
            self._gate.notify_all()

    def close(self) -> None:
        with self.alone():
            self._lmdb.close()

    def close_in_child(self) -> None:
        # The forking thread stood alone, so nothing is half done; closing touches only what belongs to this process.
        self._lmdb.close()


# LMDB's locks belong to (process, file): opening a folder twice and closing it once would drop the locks of both.
_environments: dict[Path, _Environment] = {}
_environments_lock = threading.Lock()


def _take(folder: Path, databases: Sequence[str], map_size: int, *, read_only: bool) -> _Environment:
    with _environments_lock:
        environment = _environments.get(folder)
        if environment is None:
            environment = _environments[folder] = _Environment(folder, databases, map_size, read_only=read_only)
        elif environment.is_read_only and not read_only:
            raise LogError(f"{folder}: this process has it open to be read only; close that first")
        else:
            environment.add_databases(databases)
        environment.uses += 1
        return environment


def _let_go(environment: _Environment) -> None:
    with _environments_lock:
        environment.uses -= 1
        if environment.uses == 0:
            _environments.pop(environment.folder, None)
            environment.close()


def _before_fork() -> None:
    _environments_lock.acquire()
    for environment in _environments.values():
        environment.enter_alone()


def _after_fork_in_parent() -> None:
    for environment in _environments.values():
        environment.leave_alone()
    _environments_lock.release()


def _after_fork_in_child() -> None:
    for environment in _environments.values():
        environment.close_in_child()
    _environments.clear()
    _environments_lock.release()


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)

"""Folders that appear under their name whole or not at all, though who writes them may be killed at any instant.

A folder is written beside its place, under a name that nobody else has, and renamed when all of it is on disk. While it
is written its writer holds a lock on it, which the system lets go of when the process ends, however it ends. So what is
not locked belongs to nobody, and whoever writes there next deletes it. Where a file system has no locks, as between the
machines that share some network folders, nothing is deleted: better a leftover than another's work.

Whether anything can be written somewhere is asked here, too: before the work whose outcome is to go there.
"""

from __future__ import annotations

import fcntl
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from dolmen.errors import ConfigError

__all__ = ["clear_unfinished", "require_file", "require_folder", "unfinished"]

_MARK: Final = ".unfinished-"
_DRAWN_BYTES: Final = 8
_LEFTOVER: Final = re.compile(rf"\.(?P<name>.+){re.escape(_MARK)}[0-9a-f]{{{2 * _DRAWN_BYTES}}}")


def require_folder(folder: Path, option: str) -> None:
    """Whether files can be written into ``folder``, or it could be made: asked before long work begins. Makes nothing.

    Args:
        folder: where the work's outcome is to go.
        option: what named it, for messages.

    Raises:
        ConfigError: it is no folder, cannot be made, or nothing can be written there.
    """
    _require_place(folder, f"{option} {folder}")


def require_file(path: Path, option: str) -> None:
    """The same for one file, which may be there already and is not changed, and is not made.

    Raises:
        ConfigError: it is a folder, or cannot be written.
    """
    if path.is_dir():
        raise ConfigError(f"{option} {path} is a folder; name a file in it")
    _require_place(path.parent, f"{option} {path}")
    if path.exists() and not os.access(path, os.W_OK):
        raise ConfigError(f"{option} {path}: it is there and cannot be written; name another")


def _require_place(folder: Path, told: str) -> None:
    there = next(one for one in (folder, *folder.absolute().parents) if os.path.lexists(one))
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as problem:
        why = problem.strerror or type(problem).__name__
        raise ConfigError(f"{told}: nothing can be written to {there} ({why}); name another") from None


@contextmanager
def unfinished(folder: Path) -> Iterator[Path]:
    """A new folder to be written and then renamed to ``folder``; gone at the end if it was not. Makes parents.

    First deletes what killed writers of the same ``folder`` left. Threads and processes may write for one name at once;
    whoever renames first has it.

    Raises:
        OSError: the folder could not be made.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    clear_unfinished(folder.parent, folder.name)
    path, descriptor = _locked_new(folder)
    try:
        try:
            yield path
        finally:
            shutil.rmtree(path, ignore_errors=True)  # Nothing is there once it was renamed.
    finally:
        os.close(descriptor)


def clear_unfinished(parent: Path, name: str = "") -> None:
    """Delete what killed writers left in ``parent``: of the folder ``name``, or of all.

    What is still being written stays.
    """
    for path in list(parent.iterdir()):
        found = _LEFTOVER.fullmatch(path.name)
        if found is None or (name and found["name"] != name):
            continue
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        except OSError:
            continue  # It was renamed or deleted meanwhile, or is no folder.
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(path, ignore_errors=True)
        except OSError:
            continue  # Its writer is at it, or there are no locks here.
        finally:
            os.close(descriptor)


def _locked_new(folder: Path) -> tuple[Path, int]:
    """A folder that nobody else has, and what holds its lock."""
    while True:
        path = folder.with_name(f".{folder.name}{_MARK}{secrets.token_hex(_DRAWN_BYTES)}")
        path.mkdir()
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:
            continue  # Somebody who clears came before the lock.
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        except OSError:
            return path, descriptor  # No locks here: then nobody clears either.
        if path.exists():
            return path, descriptor
        os.close(descriptor)

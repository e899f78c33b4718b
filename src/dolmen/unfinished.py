"""Folders that appear under their name whole or not at all, though who writes them may be killed at any instant.

A folder is written beside its place, under a name that nobody else has, and renamed when all of it is on disk. While it
is written its writer holds a lock on it, which the system lets go of when the process ends, however it ends. So what is
not locked belongs to nobody, and whoever writes there next deletes it. Where a file system has no locks, as between the
machines that share some network folders, nothing is deleted: better a leftover than another's work.
"""

from __future__ import annotations

import fcntl
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

__all__ = ["clear_unfinished", "unfinished"]

_MARK: Final = ".unfinished-"
_DRAWN_BYTES: Final = 8
_LEFTOVER: Final = re.compile(rf"\.(?P<name>.+){re.escape(_MARK)}[0-9a-f]{{{2 * _DRAWN_BYTES}}}")


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

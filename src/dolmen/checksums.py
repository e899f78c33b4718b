"""One checksum for everything that is written to be read again: XXH64.

It finds torn copies and flipped bits; it is no defence against somebody who wants to be believed.
"""

from __future__ import annotations

import mmap
import os
from pathlib import Path
from typing import Final, final

import msgspec
import numpy as np

from dolmen._core import checksum

__all__ = ["NO_CHECKSUM", "FileEntry", "checksum_of", "checksum_of_file", "entry_of", "flush", "is_sealed", "sealed"]

NO_CHECKSUM: Final = "0" * 16
"""What stands in a text in place of its own checksum while that is computed."""

_SEED: Final = 0x646F6C6D656E  # "dolmen"


def checksum_of(data: bytes | memoryview) -> int:
    """The checksum of ``data``, in [0, 2^64).

    >>> checksum_of(b"dolmen") == checksum_of(memoryview(b"dolmen")) != checksum_of(b"dolmem")
    True
    """
    return int(checksum(np.frombuffer(data, dtype=np.uint8), _SEED))


def checksum_of_file(path: Path) -> int:
    """The checksum of a file's bytes, read through the page cache and not into this process."""
    if path.stat().st_size == 0:
        return checksum_of(b"")
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view:
        octets = np.frombuffer(view, dtype=np.uint8)
        try:
            return int(checksum(octets, _SEED))
        finally:
            del octets  # the map cannot close while an array looks into it


@final
class FileEntry(msgspec.Struct, frozen=True):
    """Size and checksum of one file."""

    bytes: int
    checksum: int

    def problem_of(self, path: Path) -> str | None:
        """What is wrong with the file at ``path``, for people, after its name; ``None`` if it is as it was written."""
        try:
            size = path.stat().st_size
        except OSError:
            return "is missing; fetch the whole folder again"
        if size != self.bytes:
            return f"has {size} bytes, {self.bytes} were written; the copy was cut short, fetch it again"
        if checksum_of_file(path) != self.checksum:
            return "fails its checksum; its bytes were changed, fetch it again"
        return None


def entry_of(path: Path) -> FileEntry:
    """The entry of a file as it is."""
    return FileEntry(bytes=path.stat().st_size, checksum=checksum_of_file(path))


def flush(path: Path) -> None:
    """Return when a file, or a folder's list of names, is on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sealed(text: bytes) -> bytes:
    """``text`` with its checksum in place of the first ``NO_CHECKSUM``; so a JSON file stays plain JSON."""
    return text.replace(NO_CHECKSUM.encode(), b"%016x" % checksum_of(text), 1)


def is_sealed(text: bytes, checksum: str) -> bool:
    """Whether ``text`` was made by ``sealed`` and says ``checksum`` of itself.

    >>> text = sealed(b'{"checksum": "0000000000000000"}')
    >>> is_sealed(text, text[14:30].decode()), is_sealed(text + b" ", text[14:30].decode())
    (True, False)
    """
    plain = text.replace(checksum.encode(), NO_CHECKSUM.encode(), 1)
    return f"{checksum_of(plain):016x}" == checksum

"""Whose positions: a reader's folder remembers the identity of the log that its positions are of.

Offsets of another log mean nothing, and one that is longer than what was read would otherwise pass for the same.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from dolmen.checksums import flush
from dolmen.errors import ConfigError
from dolmen.events.log import Log

__all__ = ["check_identity"]

_FILE: Final = "log-identity"


def check_identity(log: Log, folder: Path, *, has_read: bool, mend: str) -> None:
    """Note in ``folder`` which log its reader follows; one that has read nothing yet may follow any.

    Args:
        log: that is to be read.
        folder: the reader's own, which has its positions.
        has_read: whether it has positions above 0.
        mend: what else to do than to put the other log back, for people.

    Raises:
        ConfigError: the positions are of another log.
    """
    path, found = folder / _FILE, log.identity()
    known = path.read_text(encoding="ascii") if path.exists() else ""
    if known == found:
        return
    if known and has_read:  # a file that a power cut left empty says nothing
        raise ConfigError(
            f"{folder} has read log {known}, and this is log {found}: it was replaced; put that one back, or {mend}"
        )
    folder.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".tmp")
    draft.write_text(found, encoding="ascii")
    flush(draft)
    draft.replace(path)
    flush(folder)

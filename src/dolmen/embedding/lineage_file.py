"""Which course of learning the tables of a folder are of: ``lineage.json`` beside them, with its own checksum."""

from __future__ import annotations

from pathlib import Path
from typing import Final, final

import msgspec

from dolmen.checksums import NO_CHECKSUM, flush, is_sealed, sealed
from dolmen.errors import SnapshotError
from dolmen.lineage import Lineage

__all__ = ["read", "write"]

_NAME: Final = "lineage.json"


@final
class _Written(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    checksum: str
    lineage: str
    ancestors: dict[str, int]


def write(folder: Path, lineage: Lineage) -> None:
    """Put it into ``folder``, whole or not at all.

    Raises:
        OSError: it cannot be written.
    """
    written = _Written(checksum=NO_CHECKSUM, lineage=lineage.name, ancestors=dict(lineage.ancestors))
    beside = folder / f".{_NAME}"
    beside.write_bytes(sealed(msgspec.json.encode(written)))
    flush(beside)
    beside.rename(folder / _NAME)
    flush(folder)


def read(folder: Path) -> Lineage | None:
    """What ``write`` put there; ``None`` where nothing is, as in a snapshot, whose manifest has the trainer's.

    Raises:
        SnapshotError: it is torn or damaged.
    """
    path = folder / _NAME
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as problem:
        raise SnapshotError(f"{path} cannot be read: {problem}") from problem
    try:
        written = msgspec.json.decode(text, type=_Written)
    except msgspec.MsgspecError as problem:
        raise SnapshotError(f"{path} is no lineage: {problem}; fetch the folder again") from None
    if not is_sealed(text, written.checksum):
        raise SnapshotError(f"{path} fails its checksum; fetch the folder again")
    return Lineage(written.lineage, written.ancestors)

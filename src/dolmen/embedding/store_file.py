"""What holds the tables of a folder together: ``embeddings.json``, written when all of them are there.

It names each table's manifest by size and checksum, so a save that was cut off, and tables of two saves in one folder,
are told; and it says which course of learning they are of.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final, final

import msgspec

from dolmen.checksums import NO_CHECKSUM, FileEntry, entry_of, flush, is_sealed, sealed
from dolmen.embedding import table_file
from dolmen.errors import SnapshotError
from dolmen.lineage import Lineage

__all__ = ["NAME", "read", "write"]

NAME: Final = "embeddings.json"


@final
class _Manifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    checksum: str
    lineage: str
    ancestors: dict[str, int]
    tables: dict[str, FileEntry]


_decoder: Final = msgspec.json.Decoder(_Manifest)


def write(folder: Path, tables: Iterable[str], lineage: Lineage) -> None:
    """Say that the ``tables``, folders in ``folder``, are whole and belong together.

    Raises:
        OSError: it cannot be written; nothing is there then.
    """
    entries = {name: entry_of(folder / name / table_file.MANIFEST) for name in tables}
    manifest = _Manifest(checksum=NO_CHECKSUM, lineage=lineage.name, ancestors=dict(lineage.ancestors), tables=entries)
    beside = folder / f".{NAME}"
    beside.write_bytes(sealed(msgspec.json.encode(manifest)))
    flush(beside)
    beside.rename(folder / NAME)
    flush(folder)


def read(folder: Path, tables: Iterable[str]) -> Lineage:
    """See that the ``tables`` are those that ``write`` was told of; of which lineage they are.

    Raises:
        SnapshotError: the save was not finished, or tables are of different saves, or the file is damaged.
    """
    path = folder / NAME
    try:
        text = path.read_bytes()
        manifest = _decoder.decode(text)
    except FileNotFoundError:
        raise SnapshotError(
            f"{folder} lacks {NAME}, which a save writes last: it was not finished, take the one before it; "
            "a trainer's snapshot is read by load_snapshot"
        ) from None
    except (OSError, msgspec.MsgspecError) as problem:
        raise SnapshotError(f"{path} cannot be read: {problem}; fetch the folder again") from problem
    if not is_sealed(text, manifest.checksum):
        raise SnapshotError(f"{path} fails its checksum; its bytes were changed, fetch the folder again")
    for name in tables:
        entry = manifest.tables.get(name)
        if entry is None or entry.problem_of(folder / name / table_file.MANIFEST) is not None:
            raise SnapshotError(f"{name} of {folder} is not of the same save as {NAME}; fetch the folder again")
    return Lineage(manifest.lineage, manifest.ancestors)

"""Where finished cells are kept, so that a run that was cut off goes on, and a cell of other code is not believed.

A cell's file names its *fingerprint*: a checksum of the code that a run of the study can reach (see ``reach``), of what
the machinery computes (see ``machinery``), the plan's settings and what was prepared. A file with another fingerprint
is *stale*: as good as none, unless somebody says why it is to be believed. One that cannot be read is none.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from enum import StrEnum
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final, final

from dolmen.errors import DataError
from dolmen.studies.results import Cell, Finished

__all__ = ["CellStore", "Filled", "Kept", "fingerprint", "plain", "to_dict"]

_UNREADABLE: Final = (OSError, ValueError, KeyError, TypeError, AttributeError)  # whatever a torn file may raise
_LIBRARIES: Final = ("numpy", "torch")  # another version may give other figures


class Kept(StrEnum):
    """What is kept of a cell."""

    FRESH = "fresh"
    """Of the code and settings that ask."""
    STALE = "stale"
    """Of other code or settings."""
    NONE = "none"


@final
@dataclass(frozen=True)
class Filled:
    """What became of a report's cells.

    Args:
        new: how many are kept now.
        known: how many were kept here already, in whatever state.
        foreign: how many the plan does not have; they were left out.
    """

    new: int
    known: int
    foreign: int


@final
class CellStore:
    """One file a cell below ``folder``. Files appear whole or not at all."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def get(self, cell: Cell, fingerprint: str) -> Finished | None:
        """What ``put`` kept under this fingerprint."""
        finished = self._read(cell)
        return finished if finished is not None and finished.fingerprint == fingerprint else None

    def look(self, cell: Cell, fingerprint: str | None) -> Kept:
        """What is kept of a cell; where nobody can tell its fingerprint (``None``), it is stale if it is there."""
        finished = self._read(cell)
        if finished is None:
            return Kept.NONE
        return Kept.FRESH if finished.fingerprint == fingerprint else Kept.STALE

    def put(self, cell: Cell, fingerprint: str, finished: Finished) -> None:
        """Keep a finished cell.

        Raises:
            DataError: it could not be written; what was there before still is.
        """
        path, kept = self._path(cell), to_dict(replace(finished, fingerprint=fingerprint))
        beside = path.with_suffix(f".{os.getpid()}.part")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            beside.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
            beside.replace(path)
        except OSError as problem:
            raise DataError(f"{path}: {problem}; finished cells are kept there, name another folder") from problem

    def take_over(self, cell: Cell, fingerprint: str, code: str, why: str) -> None:
        """Believe what is kept of a cell under whatever fingerprint for ``code`` and this one; and write down why.

        Raises:
            DataError: as for ``put``.
        """
        finished = self._read(cell)
        if finished is not None and finished.fingerprint != fingerprint:
            told = f"{finished.taken_over}; then {why}" if finished.taken_over else why
            self.put(cell, fingerprint, replace(finished, taken_over=told, taken_over_for=code))

    def fill(self, report: Path, study: str, cells: Collection[Cell]) -> Filled:
        """Keep those of ``cells`` that a report (its JSON) of ``study`` has, where they are not kept here yet.

        So a run that was cut off on one machine goes on elsewhere. They are believed as any others: by their
        fingerprints. A report need not be made where its cells were: where one does not say who made it,
        nobody knows.

        Raises:
            DataError: it cannot be read, is no report, or one of another study; or as for ``put``.
        """
        try:
            told = json.loads(report.read_text(encoding="utf-8"))
            of, found = str(told["study"]), [(_cell(one), _from_dict(one)) for one in told["cells"]]
        except _UNREADABLE as problem:
            raise DataError(f"{report} is no report of a study ({problem!r}); name its .json") from problem
        if of != study:
            raise DataError(f"{report} is a report of {of}, and its cells are none of {study}; name {study}'s report")
        known = set(cells)
        ours = {cell: finished for cell, finished in found if cell in known}
        new = {cell: finished for cell, finished in ours.items() if not self._path(cell).exists()}
        for cell, finished in new.items():
            self.put(cell, finished.fingerprint, finished)
        return Filled(new=len(new), known=len(ours) - len(new), foreign=len(found) - len(ours))

    @contextmanager
    def scratch(self, cell: Cell, fingerprint: str) -> Iterator[Path]:
        """A folder for work on a cell under this fingerprint, deleted once the work is through; it need not exist yet.

        Where the work is cut off, or fails, the folder stays, and the next try finds it.
        """
        folder = self.folder / ".scratch" / f"{cell.case}-{cell.arm}-{cell.seed}-{fingerprint}"
        yield folder
        shutil.rmtree(folder, ignore_errors=True)

    def _read(self, cell: Cell) -> Finished | None:
        try:
            return _from_dict(json.loads(self._path(cell).read_text(encoding="utf-8")))
        except _UNREADABLE:
            return None

    def _path(self, cell: Cell) -> Path:
        return self.folder / cell.case / f"{cell.arm}-{cell.seed}.json"


def fingerprint(code: str, cell: Cell, settings: Mapping[str, Any], device: str, prepared: Mapping[str, float]) -> str:
    """What decides a cell's figures, the versions of the libraries included, as 16 hex digits."""
    libraries = {name: version(name) for name in _LIBRARIES}
    told = [code, cell.case, cell.arm, cell.seed, dict(settings), device, dict(prepared), libraries]
    return hashlib.blake2b(json.dumps(told, sort_keys=True).encode(), digest_size=8).hexdigest()


def plain(value: Any) -> Any:
    """For JSON: without NaN and infinity, which it does not have, and with texts for names."""
    match value:
        case float():
            return value if math.isfinite(value) else None
        case Mapping():
            return {str(name): plain(one) for name, one in value.items()}
        case list() | tuple():
            return [plain(one) for one in value]
        case _:
            return value


def to_dict(finished: Finished) -> dict[str, Any]:
    """For JSON, in a file of its own or in a report."""
    told: dict[str, Any] = {
        "fingerprint": finished.fingerprint,
        "figures": {name: _to_json(value) for name, value in finished.figures.items()},
        "seconds": finished.seconds,
    }
    if finished.rules is not None:
        told["rules"] = sorted(finished.rules)
    if finished.cases is not None:
        told["cases"] = sorted(finished.cases)
    if finished.code:
        told["code"] = finished.code
    if finished.made_by:
        told["made_by"] = finished.made_by
    if finished.taken_over is not None:
        told |= {"taken_over": finished.taken_over, "taken_over_for": finished.taken_over_for}
    return told


def _cell(told: Mapping[str, Any]) -> Cell:
    return Cell(case=str(told["case"]), arm=str(told["arm"]), seed=int(told["seed"]))


def _from_dict(kept: Mapping[str, Any]) -> Finished:
    taken_over, code = kept.get("taken_over"), str(kept.get("code", ""))
    taken_over_for = str(kept.get("taken_over_for", ""))
    if taken_over is not None and not taken_over_for:
        code, taken_over_for = "", code  # once the code that took a cell over was written where its maker's had been
    return Finished(
        fingerprint=str(kept.get("fingerprint", "")),
        code=code,
        made_by=str(kept.get("made_by", "")),
        figures={str(name): _from_json(value) for name, value in kept["figures"].items()},
        seconds=float(kept["seconds"]),
        rules=_names(kept.get("rules")),
        cases=_names(kept.get("cases")),
        taken_over=None if taken_over is None else str(taken_over),
        taken_over_for=taken_over_for,
    )


def _names(kept: Iterable[str] | None) -> frozenset[str] | None:
    return None if kept is None else frozenset(map(str, kept))


def _to_json(value: float) -> float | None:
    """JSON has no NaN or infinity: a figure that is no number is ``null``."""
    return float(value) if math.isfinite(value) else None


def _from_json(value: float | None) -> float:
    return math.nan if value is None else float(value)

"""Where finished cells are kept, so that a run that was cut off goes on, and a cell of other code is not believed.

A cell's file names its *fingerprint*: a checksum of the code that the study stands on, of what the machinery computes
(see ``machinery``), the plan's settings and what was prepared. Comments, docstrings, messages, log lines and the
declaration ``STUDY = ...`` do not count: words about a run do not change it. Neither do guards, functions of a module
named ``guards`` that are called as a statement of their own: a finished cell has met none that raised. A file with
another fingerprint, or one that cannot be read, is as good as none.
"""

from __future__ import annotations

import ast
import hashlib
import json
import math
import os
import re
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final, final

from dolmen.errors import DataError
from dolmen.studies.results import Cell, Finished

__all__ = ["CellStore", "code_fingerprint", "fingerprint", "source_files", "to_dict"]

_PACKAGE: Final = Path(__file__).resolve().parents[1]
_SOURCES: Final = frozenset({".py", ".cpp", ".hpp"})
_CPP_COMMENT: Final = re.compile(
    r'(?P<text>"(?:\\.|[^"\\])*")|//[^\n]*|/\*.*?\*/', re.DOTALL
)  # or a text, to pass over
_UNREADABLE: Final = (OSError, ValueError, KeyError, TypeError, AttributeError)  # whatever a torn file may raise
_LIBRARIES: Final = ("numpy", "torch")  # another version may give other figures


@final
class CellStore:
    """One file a cell below ``folder``. Files appear whole or not at all."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def get(self, cell: Cell, fingerprint: str) -> Finished | None:
        """What ``put`` kept under this fingerprint."""
        try:
            kept = json.loads(self._path(cell).read_text(encoding="utf-8"))
            finished = _from_dict(kept)
        except _UNREADABLE:
            return None
        return finished if finished.fingerprint == fingerprint else None

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

    def take_over(self, cell: Cell, fingerprint: str, why: str) -> None:
        """Believe what is kept of a cell under whatever fingerprint, and write down with it why.

        Raises:
            DataError: as for ``put``.
        """
        try:
            kept = json.loads(self._path(cell).read_text(encoding="utf-8"))
            finished = _from_dict(kept)
        except _UNREADABLE:
            return
        if finished.fingerprint != fingerprint:
            told = f"{finished.taken_over}; then {why}" if finished.taken_over else why
            self.put(cell, fingerprint, replace(finished, taken_over=told))

    def fill(self, report: Path) -> int:
        """Keep the cells of a report (its JSON) that are not kept here yet; returns how many.

        So a run that was cut off on one machine goes on elsewhere. They are believed as any others: by their
        fingerprints.

        Raises:
            DataError: it cannot be read, or is no report; or as for ``put``.
        """
        try:
            told = json.loads(report.read_text(encoding="utf-8"))
            cells = {Cell(case=one["case"], arm=one["arm"], seed=one["seed"]): _from_dict(one) for one in told["cells"]}
        except _UNREADABLE as problem:
            raise DataError(f"{report} is no report of a study ({problem!r}); name its .json") from problem
        new = {cell: finished for cell, finished in cells.items() if not self._path(cell).exists()}
        for cell, finished in new.items():
            self.put(cell, finished.fingerprint, finished)
        return len(new)

    @contextmanager
    def scratch(self, cell: Cell, fingerprint: str) -> Iterator[Path]:
        """A folder for work on a cell under this fingerprint, deleted once the work is through; it need not exist yet.

        Where the work is cut off, or fails, the folder stays, and the next try finds it.
        """
        folder = self.folder / ".scratch" / f"{cell.case}-{cell.arm}-{cell.seed}-{fingerprint}"
        yield folder
        shutil.rmtree(folder, ignore_errors=True)

    def _path(self, cell: Cell) -> Path:
        return self.folder / cell.case / f"{cell.arm}-{cell.seed}.json"


def fingerprint(code: str, cell: Cell, settings: Mapping[str, Any], device: str, prepared: Mapping[str, float]) -> str:
    """What decides a cell's figures, as 16 hex digits."""
    told = [code, cell.case, cell.arm, cell.seed, dict(settings), device, dict(prepared)]
    return hashlib.blake2b(json.dumps(told, sort_keys=True).encode(), digest_size=8).hexdigest()


@lru_cache(maxsize=64)
def code_fingerprint(modules: tuple[str, ...]) -> str:
    """The code of ``modules`` (see ``source_files``) and the libraries' versions, as 16 hex digits."""
    digest = hashlib.blake2b(digest_size=8)
    for name in _LIBRARIES:
        digest.update(f"{name} {version(name)}\n".encode())
    for path in source_files(modules):
        digest.update(f"{path.name}\n{_bare(path)}\n".encode())
    return digest.hexdigest()


def source_files(modules: Iterable[str]) -> list[Path]:
    """The source files of modules and folders by their dotted names, such as ``dolmen.embedding``; a folder means all.

    A module outside dolmen (a study of your own) is looked up as Python would import it.

    Raises:
        ValueError: there is no such module.
    """
    found: set[Path] = set()
    for name in modules:
        place = _place_of(name)
        if place.is_dir():
            found.update(path for path in place.rglob("*") if path.suffix in _SOURCES)
        else:
            found.add(place)
    return sorted(found)


def _place_of(name: str) -> Path:
    root, *rest = name.split(".")
    if root == _PACKAGE.name:
        place = _PACKAGE.joinpath(*rest)
        if place.is_dir():
            return place
        if place.with_suffix(".py").is_file():
            return place.with_suffix(".py")
    else:
        file = getattr(sys.modules.get(name), "__file__", None)
        if file is not None:
            return Path(file)
    raise ValueError(f"a study stands on {name!r}, and there is no such module; name modules or folders of dolmen")


@final
class _Bare(ast.NodeTransformer):
    """Takes out what no figure follows from: a finished cell has raised nothing, and nothing reads what was logged."""

    def __init__(self) -> None:
        self._guards: set[str] = set()

    def visit_Raise(self, node: ast.Raise) -> ast.Raise:
        """What is raised may be caught, so its class counts; what it says does not."""
        return ast.Raise(exc=node.exc.func if isinstance(node.exc, ast.Call) else node.exc, cause=None)

    def visit_Expr(self, node: ast.Expr) -> ast.Expr | None:
        """Docstrings, lines of the log, and guards."""
        called = node.value.func if isinstance(node.value, ast.Call) else None
        is_logged = isinstance(called, ast.Attribute) and ast.unparse(called.value) == "_log"
        is_text = isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        is_guard = isinstance(called, ast.Name) and called.id in self._guards
        return None if is_logged or is_text or is_guard else node

    def visit_Module(self, node: ast.Module) -> ast.Module:
        """Names for others, the import of guards and the declaration of a study, too."""
        imports = [one for one in node.body if isinstance(one, ast.ImportFrom) and _is_of_guards(one)]
        self._guards = {name.asname or name.name for one in imports for name in one.names}
        left_out = {"STUDY", "__all__"}
        node.body = [one for one in node.body if one not in imports and not _assigned(one) & left_out]
        self.generic_visit(node)
        return node


def _is_of_guards(node: ast.ImportFrom) -> bool:
    return node.module is not None and node.module.split(".")[-1] == "guards"


def _assigned(node: ast.stmt) -> set[str]:
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return {one.id for one in targets if isinstance(one, ast.Name)}


def _bare(path: Path) -> str:
    """The code of a file, in a form that layout, comments, docstrings, messages and log lines do not change."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        return ast.dump(_Bare().visit(ast.parse(text)))
    return " ".join(_CPP_COMMENT.sub(lambda found: found["text"] or " ", text).split())


def to_dict(finished: Finished) -> dict[str, Any]:
    """For JSON, in a file of its own or in a report."""
    told: dict[str, Any] = {
        "fingerprint": finished.fingerprint,
        "figures": {name: _to_json(value) for name, value in finished.figures.items()},
        "seconds": finished.seconds,
    }
    if finished.rules is not None:
        told["rules"] = sorted(finished.rules)
    if finished.taken_over is not None:
        told["taken_over"] = finished.taken_over
    return told


def _from_dict(kept: Mapping[str, Any]) -> Finished:
    rules, taken_over = kept.get("rules"), kept.get("taken_over")
    return Finished(
        fingerprint=str(kept.get("fingerprint", "")),
        figures={str(name): _from_json(value) for name, value in kept["figures"].items()},
        seconds=float(kept["seconds"]),
        rules=None if rules is None else frozenset(map(str, rules)),
        taken_over=None if taken_over is None else str(taken_over),
    )


def _to_json(value: float) -> float | None:
    """JSON has no NaN or infinity: a figure that is no number is ``null``."""
    return float(value) if math.isfinite(value) else None


def _from_json(value: float | None) -> float:
    return math.nan if value is None else float(value)

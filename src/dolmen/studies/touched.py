"""Which studies a change asks for: those that stand on a file which it touches."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path

from dolmen.studies.cells import source_files
from dolmen.studies.study import Study

__all__ = ["changed_files", "touched"]


def touched(studies: Sequence[Study], changed: Iterable[Path]) -> list[Study]:
    """Those of ``studies`` with a source file among ``changed`` (absolute paths).

    A source that was deleted belongs to no study any more; one that still stood on it fails to load, which shows.
    """
    files = set(changed)
    return [one for one in studies if files.intersection(source_files((one.module, *one.stands_on)))]


def changed_files(root: Path, since: str) -> list[Path] | None:
    """Files below ``root`` that differ from the commit ``since``, committed or not; ``None`` where git cannot tell."""
    try:
        differing = _git(root, "diff", "--name-only", "-z", since, "--")
        untracked = _git(root, "ls-files", "--others", "--exclude-standard", "-z")
        top = Path(_git(root, "rev-parse", "--show-toplevel").strip())
    except (OSError, subprocess.CalledProcessError):
        return None
    return [top / name for name in differing.split("\0") if name] + [
        root / name for name in untracked.split("\0") if name
    ]


def _git(root: Path, *command: str) -> str:
    return subprocess.run(["git", "-C", str(root), *command], capture_output=True, text=True, check=True).stdout

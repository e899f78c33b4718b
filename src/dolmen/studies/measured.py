"""What studies found, of each model for ``dolmen models`` and of each claim for ``dolmen reproduce --list``.

Both are taken from the committed reports, which no wheel holds; ``tools/write_reference.py`` writes them into files
that it does hold.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from dolmen.errors import DataError
from dolmen.studies.registry import names, study

__all__ = ["measured", "released_verdicts", "verdicts"]


def measured(folder: Path) -> dict[str, str]:
    """A line for each model of which a report in ``folder`` tells: figure, data, seeds, and which arm of which study.

    Models whose cells were not run are left out. A later study in the order of names tells where two do.
    """
    told: dict[str, str] = {}
    for one in map(study, names()):
        path = folder / f"{one.name}.json"
        if not one.shows or not path.exists():
            continue
        cells: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["cells"]
        for model, shown in one.shows.items():
            found = [
                float(cell["figures"][shown.figure])
                for cell in cells
                if (cell["case"], cell["arm"]) == (shown.case, shown.arm)
                and cell["figures"].get(shown.figure) is not None
            ]
            if found:
                spread = f" ± {stdev(found):.4f}" if len(found) > 1 else ""
                seeds = "1 seed" if len(found) == 1 else f"{len(found)} seeds"
                source = f"arm {shown.arm} of study {one.name}"
                told[model] = f"{shown.figure} {mean(found):.4f}{spread} on {shown.case}, {seeds} ({source})"
    return dict(sorted(told.items()))


def verdicts(folder: Path) -> dict[str, dict[str, str]]:
    """Of each study that has a report in ``folder``: its claims, by name, and what was judged of each.

    Raises:
        DataError: a file there has a study's name and is no report.
    """
    told: dict[str, dict[str, str]] = {}
    for name in names():
        path = folder / f"{name}.json"
        if path.exists():
            try:
                claims: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["claims"]
                told[name] = {claim["name"]: claim["verdict"] for claim in claims}
            except (ValueError, KeyError, TypeError) as problem:
                raise DataError(
                    f"{path} is no report of a study: `dolmen reproduce {name}` writes it anew"
                ) from problem
    return told


@cache
def released_verdicts() -> dict[str, dict[str, str]]:
    """The `verdicts` of the reports that were there when this was released."""
    told: dict[str, dict[str, str]] = json.loads(Path(__file__).with_name("verdicts.json").read_text(encoding="utf-8"))
    return told

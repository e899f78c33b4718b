"""What studies found of each model, for ``dolmen models``.

It is taken from the committed reports, which no wheel holds; ``tools/write_reference.py`` writes it into a file that it
does hold.
"""

from __future__ import annotations

import json
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from dolmen.studies.registry import names, study

__all__ = ["measured"]


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

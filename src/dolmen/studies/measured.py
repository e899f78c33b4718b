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
from dolmen.studies.study import Shown

__all__ = ["measured"]


def measured(folder: Path) -> dict[str, str]:
    """A line for each model of which a report in ``folder`` tells: figure, data, seeds, and which arm of which study.

    The models that a study shows on one case are laid side by side, so each is told of the seeds that all of them ran:
    means over others would differ by what those draw. Models whose cells were not run are left out. A later study in
    the order of names tells where two do.
    """
    told: dict[str, str] = {}
    for one in map(study, names()):
        path = folder / f"{one.name}.json"
        if not one.shows or not path.exists():
            continue
        cells: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["cells"]
        found = {model: by_seed for model, shown in one.shows.items() if (by_seed := _by_seed(cells, shown))}
        for model, by_seed in found.items():
            shown = one.shows[model]
            beside = [by_seed for other, by_seed in found.items() if _is_beside(one.shows[other], shown)]
            shared = sorted(set(by_seed).intersection(*beside))
            values = [by_seed[seed] for seed in shared]
            if values:
                spread = f" ± {stdev(values):.4f}" if len(values) > 1 else ""
                seeds = "1 seed" if len(values) == 1 else f"{len(values)} seeds"
                source = f"arm {shown.arm} of study {one.name}"
                told[model] = f"{shown.figure} {mean(values):.4f}{spread} on {shown.case}, {seeds} ({source})"
    return dict(sorted(told.items()))


def _by_seed(cells: list[dict[str, Any]], shown: Shown) -> dict[int, float]:
    """What is shown, of each seed that has it."""
    return {
        int(cell["seed"]): float(cell["figures"][shown.figure])
        for cell in cells
        if (cell["case"], cell["arm"]) == (shown.case, shown.arm) and cell["figures"].get(shown.figure) is not None
    }


def _is_beside(one: Shown, other: Shown) -> bool:
    """Whether both tell the same figure of the same case."""
    return (one.case, one.figure) == (other.case, other.figure)

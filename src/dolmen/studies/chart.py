"""Pictures, that of a study first, by matplotlib where it is installed (``dolmen[studies]``)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from dolmen.studies.results import Results
from dolmen.studies.study import Chart, Study

__all__ = ["COLOURS", "can_draw", "draw", "panels"]

_PANEL_INCHES: Final = (3.6, 3.0)
_PANELS_A_ROW: Final = 3
# Okabe and Ito's colours, which people who see colours differently tell apart.
COLOURS: Final = ("#000000", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")


def draw(study: Study, results: Results, path: Path) -> bool:
    """Draw the study's chart into ``path`` (SVG). False where there is nothing to draw, or nothing to draw with."""
    cases = [case for case in results.cases if _has(study.chart, results, case)]
    if not cases or not can_draw():
        return False
    with panels(len(cases), path, name=study.name) as axes:
        for panel, case in zip(axes, cases, strict=True):
            _draw_case(panel, study.chart, results, case)
        axes[0].legend(fontsize=8)
    return True


def can_draw() -> bool:
    """Whether there is something to draw with."""
    return find_spec("matplotlib") is not None


@contextmanager
def panels(count: int, path: Path, *, name: str) -> Iterator[list[Any]]:
    """So many panels to draw in, a few a row; what was drawn is written to ``path`` (SVG) at the block's end.

    Args:
        count: at least 1.
        path: the file.
        name: what the ids in the file follow from. The same figures give the same file: no date is in it either.
    """
    mpl, figures = import_module("matplotlib"), import_module("matplotlib.figure")  # an extra: most do without it

    columns = min(_PANELS_A_ROW, count)
    rows = -(-count // columns)
    with mpl.rc_context({"svg.hashsalt": name, "font.size": 9}):
        figure = figures.Figure(figsize=(_PANEL_INCHES[0] * columns, _PANEL_INCHES[1] * rows), layout="constrained")
        axes = list(figure.subplots(rows, columns, squeeze=False).ravel())
        for panel in axes[count:]:
            panel.set_visible(False)
        yield axes[:count]
        figure.savefig(path, format="svg", metadata={"Date": None, "Creator": None})


def _draw_case(panel: Any, chart: Chart, results: Results, case: str) -> None:
    panel.set_title(case)
    panel.set_ylabel(chart.figure.replace("_", " "))
    panel.grid(visible=True, alpha=0.3)
    if chart.across is not None:
        panel.set_xscale("log", base=2)
        panel.set_xlabel(chart.across_label)
    names: list[str] = []
    for (line, arms), colour in zip(chart.lines.items(), COLOURS, strict=False):
        seen = [arm for arm in arms if results.by_seed(case, arm, chart.figure)]
        values = [results.by_seed(case, arm, chart.figure) for arm in seen]
        if not seen:
            continue
        if len(arms) == 1 and chart.across is not None:
            height = sum(values[0].values()) / len(values[0])
            panel.axhline(height, color=colour, label=line)
            panel.axhspan(min(values[0].values()), max(values[0].values()), color=colour, alpha=0.12, linewidth=0)
            continue
        places = _places(chart, results, case, seen, len(names))
        names += seen if chart.across is None else []
        means = [sum(one.values()) / len(one) for one in values]
        panel.plot(places, means, color=colour, marker="o", markersize=4, label=line)
        for place, one in zip(places, values, strict=True):
            panel.plot([place] * len(one), list(one.values()), ".", color=colour, alpha=0.4, markersize=4)
    if chart.across is None:
        panel.set_xticks(range(len(names)), names, rotation=30, ha="right")


def _places(chart: Chart, results: Results, case: str, arms: list[str], first: int) -> list[float]:
    if chart.across is None:
        return [float(first + place) for place in range(len(arms))]
    places = (results.mean(case, arm, chart.across) for arm in arms)
    return [place.value for place in places if place is not None]


def _has(chart: Chart, results: Results, case: str) -> bool:
    return any(results.by_seed(case, arm, chart.figure) for arms in chart.lines.values() for arm in arms)

"""Pictures, that of a study first, by matplotlib where it is installed (``dolmen[studies]``)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, final

from dolmen.studies.results import Results
from dolmen.studies.study import Chart, Study

__all__ = ["can_draw", "draw", "panels", "style"]

_PANEL_INCHES: Final = (3.6, 3.0)
_PANELS_A_ROW: Final = 3
_ARMS_INCHES: Final = 4.0  # the width of arms one below the other, their names included
_ARM_INCHES: Final = 0.24  # the height of one: what a name of the size of the text needs
_FRAME_INCHES: Final = 0.8  # title, axis and its name
# Okabe and Ito's colours, which people who see colours differently tell apart; then again with the next marker.
_COLOURS: Final = ("#000000", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_MARKERS: Final = ("o", "s", "^", "D", "v", "P", "X")
_ALONE: Final = 1  # of ``style``, where there is nothing to tell apart


def draw(study: Study, results: Results, path: Path) -> bool:
    """Draw the study's chart into ``path`` (SVG): every arm that has the figure, by its name.

    Returns:
        False where there is nothing to draw, or nothing to draw with.
    """
    chart = study.chart
    drawn = {case: lines for case in results.cases if (lines := _lines(chart, results, case))}
    if not drawn or not can_draw():
        return False
    inches = _PANEL_INCHES
    if chart.across is None:
        arm_count = max(sum(len(line.arms) for line in lines) for lines in drawn.values())
        inches = (_ARMS_INCHES, _FRAME_INCHES + _ARM_INCHES * arm_count)
    with panels(len(drawn), path, name=study.name, inches=inches) as axes:
        for panel, (case, lines) in zip(axes, drawn.items(), strict=True):
            panel.set_title(case)
            if chart.across is None:
                _draw_arms(panel, chart, results, case, lines)
            else:
                _draw_lines(panel, chart, results, case, lines)
        told = {name: mark for panel in axes for mark, name in zip(*panel.get_legend_handles_labels(), strict=True)}
        if told:
            axes[0].legend(told.values(), told.keys(), fontsize=8)
    return True


def can_draw() -> bool:
    """Whether there is something to draw with."""
    return find_spec("matplotlib") is not None


def style(index: int) -> dict[str, str]:
    """Colour and marker of the line ``index`` (0 and above) for matplotlib's ``plot``: others for each of 49."""
    return {"color": _COLOURS[index % len(_COLOURS)], "marker": _MARKERS[index // len(_COLOURS) % len(_MARKERS)]}


@contextmanager
def panels(count: int, path: Path, *, name: str, inches: tuple[float, float] = _PANEL_INCHES) -> Iterator[list[Any]]:
    """So many panels to draw in, a few a row; what was drawn is written to ``path`` (SVG) at the block's end.

    Args:
        count: at least 1.
        path: the file.
        name: what the ids in the file follow from. The same figures give the same file: no date is in it either.
        inches: width and height of each.
    """
    mpl, figures = import_module("matplotlib"), import_module("matplotlib.figure")  # an extra: most do without it

    columns = min(_PANELS_A_ROW, count)
    rows = -(-count // columns)
    with mpl.rc_context({"svg.hashsalt": name, "font.size": 9}):
        figure = figures.Figure(figsize=(inches[0] * columns, inches[1] * rows), layout="constrained")
        axes = list(figure.subplots(rows, columns, squeeze=False).ravel())
        for panel in axes[count:]:
            panel.set_visible(False)
        yield axes[:count]
        figure.savefig(path, format="svg", metadata={"Date": None, "Creator": None})


@final
@dataclass(frozen=True, kw_only=True)
class _Line:
    """What is drawn of a line: its name, its place among all lines, and those of its arms that have the figure."""

    name: str
    index: int
    arms: tuple[str, ...]


def _lines(chart: Chart, results: Results, case: str) -> list[_Line]:
    """The lines that have an arm with the figure. Where arms stand one below the other, those of no line come last."""
    named = list(chart.lines.items())
    if chart.across is None:
        in_lines = {arm for arms in chart.lines.values() for arm in arms}
        named.append(("others", tuple(arm for arm in results.arms(case) if arm not in in_lines)))
    lines = [
        _Line(name=name, index=index, arms=tuple(arm for arm in arms if results.by_seed(case, arm, chart.figure)))
        for index, (name, arms) in enumerate(named)
    ]
    return [line for line in lines if line.arms]


def _draw_arms(panel: Any, chart: Chart, results: Results, case: str, lines: list[_Line]) -> None:
    """Arms one below the other, named at the side; the figure to the right."""
    panel.set_xlabel(chart.figure.replace("_", " "))
    panel.grid(visible=True, alpha=0.3)
    tells_lines = any(len(arms) > 1 for arms in chart.lines.values())
    names: list[str] = []
    for line in lines:
        look = style(line.index if tells_lines else _ALONE)
        for place, arm in enumerate(line.arms, start=len(names)):
            values = list(results.by_seed(case, arm, chart.figure).values())
            panel.plot(values, [place] * len(values), ".", color=look["color"], alpha=0.4, markersize=4)
            label = line.name if tells_lines and arm == line.arms[0] else None
            panel.plot([_mean(values)], [place], **look, linestyle="none", markersize=5, label=label)
        names += line.arms
    panel.set_yticks(range(len(names)), names)
    panel.locator_params(axis="x", nbins=5)
    panel.set_ylim(len(names) - 0.5, -0.5)


def _draw_lines(panel: Any, chart: Chart, results: Results, case: str, lines: list[_Line]) -> None:
    """The figure upwards, along ``chart.across``; a line of one arm across the panel."""
    assert chart.across is not None
    panel.set_ylabel(chart.figure.replace("_", " "))
    panel.grid(visible=True, alpha=0.3)
    panel.set_xscale("log", base=2)
    panel.set_xlabel(chart.across_label)
    for line in lines:
        look = style(line.index)
        values = [list(results.by_seed(case, arm, chart.figure).values()) for arm in line.arms]
        if len(chart.lines[line.name]) == 1:
            panel.axhline(_mean(values[0]), color=look["color"], label=line.name)
            panel.axhspan(min(values[0]), max(values[0]), color=look["color"], alpha=0.12, linewidth=0)
            continue
        places = _places(chart.across, results, case, line.arms)
        panel.plot(places, [_mean(one) for one in values], **look, markersize=4, label=line.name)
        for place, one in zip(places, values, strict=True):
            panel.plot([place] * len(one), one, ".", color=look["color"], alpha=0.4, markersize=4)


def _places(across: str, results: Results, case: str, arms: Sequence[str]) -> list[float]:
    places = (results.mean(case, arm, across) for arm in arms)
    return [place.value for place in places if place is not None]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)

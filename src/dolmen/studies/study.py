"""A study as data: what a paper claims, what is run to see it, and the rule that judges it, all written before a run.

One paper, one file, one ``STUDY``. Its ``run`` measures one cell; everything around that (order, resume, verdicts,
report) is the runner's, and the same for all.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, final

from dolmen.devices import Device
from dolmen.studies.results import Cell
from dolmen.studies.rules import Rule, checksum_of_rule

__all__ = ["PREPARED", "Chart", "Claim", "Part", "Plan", "Setting", "Shown", "Study"]

PREPARED: Final = "prepared"
"""The name under which what was prepared for a case is kept, so no arm may have it."""

_NAME: Final = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")


@final
@dataclass(frozen=True, kw_only=True)
class Claim:
    """One statement of the paper.

    Args:
        name: short, for tables.
        statement: what is claimed, in our words.
        paper: the paper's figure, or what it shows where it prints none.
        rule: when we say that it holds.
    """

    name: str
    statement: str
    paper: str
    rule: Rule


@final
@dataclass(frozen=True, kw_only=True)
class Part:
    """One case (usually a data set), the arms that are run on it, and from how many seeds (0, 1, ...) each."""

    case: str
    arms: tuple[str, ...]
    seed_count: int


@final
@dataclass(frozen=True, kw_only=True)
class Plan:
    """What one form of a study runs.

    Args:
        parts: in the order in which they are run.
        settings: sizes and limits that ``run`` reads; whatever changes a figure belongs here or in the code.
        minutes: how long it may take on two cores, for people.
    """

    parts: tuple[Part, ...]
    settings: Mapping[str, Any] = field(default_factory=dict)
    minutes: float

    @property
    def cases(self) -> tuple[str, ...]:
        """In the order in which they are run."""
        return tuple(dict.fromkeys(part.case for part in self.parts))

    def cells(self, seed_count: int | None = None) -> Iterator[Cell]:
        """Case by case, seed by seed, so that what is finished is comparable wherever a run is cut off.

        Args:
            seed_count: instead of each part's own.
        """
        for part in self.parts:
            for seed in range(part.seed_count if seed_count is None else seed_count):
                for arm in part.arms:
                    yield Cell(case=part.case, arm=arm, seed=seed)


@final
@dataclass(frozen=True, kw_only=True)
class Setting:
    """What a cell is run with.

    ``settings`` are the plan's. ``prepared`` is what ``Study.prepare`` found for the case. ``scratch`` is a folder that
    is the cell's alone: what long work leaves there is found again where it was cut off, and gone once it is finished.
    """

    settings: Mapping[str, Any]
    scratch: Path
    device: Device = Device.CPU
    prepared: Mapping[str, float] = field(default_factory=dict)


@final
@dataclass(frozen=True, kw_only=True)
class Chart:
    """A picture: one panel a case, a figure's mean over the seeds' values.

    Args:
        figure: what is drawn.
        lines: arms that belong together, by the line's name; each line has its colour. Along ``across`` a line of one
            arm is drawn across the panel.
        across: the figure along the horizontal axis, in powers of two, ``figure`` upwards; ``None``: arms stand one
            below the other, those that no line names last, ``figure`` to the right.
        across_label: what that axis says.
    """

    figure: str
    lines: Mapping[str, tuple[str, ...]]
    across: str | None = None
    across_label: str = ""


@final
@dataclass(frozen=True, kw_only=True)
class Shown:
    """The figure of a study by which ``dolmen models`` tells how good a model is: of which arm, on which case."""

    case: str
    arm: str
    figure: str


@final
@dataclass(frozen=True, kw_only=True)
class Study:
    """Everything about one paper's reproduction.

    Args:
        name: what ``dolmen reproduce`` calls it.
        title: one line.
        paper: authors, title, venue, number.
        module: its own module: ``__name__``.
        claims: what is judged in the full form.
        guards: what the quick form must show; wide bounds that only a fault would break.
        data: names of the data sets.
        protocol: how the data is split, trained and judged, a sentence each.
        arms: what each arm is, by name; the baselines are among them.
        figures: what each figure is, by name; in the order of the report's tables.
        chart: the picture.
        full: the committed form.
        quick: the form of a minute of the processor at most, which stands guard over changes.
        stands_on: what decides figures and no import of the study leads to, such as a module that is imported by a name
            made while it runs; all that imports lead to counts by itself (see ``reach``).
        shows: what ``dolmen models`` tells of models by this study's report, by the model's name.
        run: measures one cell.
        care: what to read its verdicts with, one line below them in the report; ``""``: nothing.
        prepare: finds, once for a case, what all its cells share, such as a learning rate; ``None``: nothing.

    Raises:
        ValueError: a name cannot be used, or a plan, rule or chart names an arm that is not declared.
    """

    name: str
    title: str
    paper: str
    module: str
    claims: tuple[Claim, ...]
    guards: tuple[Claim, ...]
    data: tuple[str, ...]
    protocol: tuple[str, ...]
    arms: Mapping[str, str]
    figures: Mapping[str, str]
    chart: Chart
    full: Plan
    quick: Plan
    run: Callable[[Cell, Setting], Mapping[str, float]]
    prepare: Callable[[str, Setting], Mapping[str, float]] | None = None
    shows: Mapping[str, Shown] = field(default_factory=dict)
    stands_on: tuple[str, ...] = ()
    care: str = ""

    @property
    def rules(self) -> frozenset[str]:
        """The checksums of all its rules, for cells to keep."""
        return frozenset(checksum_of_rule(claim.rule) for claim in (*self.claims, *self.guards))

    @property
    def words(self) -> Mapping[str, Any]:
        """What a report says of it before any cell, ``claims`` included, for JSON."""
        told = ("title", "paper", "data", "protocol", "care", "arms", "figures")
        claims = [
            {"name": one.name, "statement": one.statement, "paper": one.paper, "rule": one.rule.describe()}
            for one in self.claims
        ]
        return {**{name: getattr(self, name) for name in told}, "claims": claims}

    def __post_init__(self) -> None:
        parts = (*self.full.parts, *self.quick.parts)
        for what in (self.name, *self.arms, *(part.case for part in parts)):
            if not _NAME.fullmatch(what) or what == PREPARED:
                raise ValueError(f"study {self.name!r}: {what!r} must be small letters and digits with single hyphens")
        named = {
            "a plan": [arm for part in parts for arm in part.arms],
            "a rule": [arm for claim in (*self.claims, *self.guards) for arm in claim.rule.arms],
            "shows": [shown.arm for shown in self.shows.values()],
            "the chart": [arm for arms in self.chart.lines.values() for arm in arms],
        }
        for place, arms in named.items():
            for arm in arms:
                if arm not in self.arms:
                    raise ValueError(f"study {self.name!r}: {place} names the arm {arm!r}; declare it in arms")
        for claim in (*self.claims, *self.guards):
            for figure in claim.rule.figures:
                if figure not in self.figures:
                    raise ValueError(f"study {self.name!r}: {claim.name} reads {figure!r}; declare it in figures")
        for model, shown in self.shows.items():
            if shown.figure not in self.figures:
                raise ValueError(f"study {self.name!r}: {model} shows {shown.figure!r}; declare it in figures")

"""What the cells of a study measured, by case and arm."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

from dolmen.evaluation import Mean, mean_of, ratio_of

__all__ = ["Cell", "Finished", "Results"]


@final
@dataclass(frozen=True, kw_only=True, order=True)
class Cell:
    """The smallest thing that is run: one arm on one case from one seed."""

    case: str
    arm: str
    seed: int


@final
@dataclass(frozen=True, kw_only=True)
class Finished:
    """What a cell measured, and how it came about.

    Args:
        figures: by name.
        seconds: how long it took.
        rules: checksums of the rules that the study had when the cell was run; ``None``: nobody wrote them down.
        cases: those of the plan by which it was run, on which its rules were asked; ``None``: nobody wrote them down.
        taken_over: why the cell is believed though other code made it; ``None``: it is of the code that asks.
        taken_over_for: the checksum of the code for which it is believed; ``""``: it was not taken over.
        fingerprint: of what made it, see ``cells``; ``""``: it is not kept yet, or nobody wrote it down.
        code: the checksum of the code alone that made it (see ``reach``), which is the same on every machine; ``""``:
            nobody wrote it down.
        made_by: commit and machine, in words; ``""``: nobody wrote them down.
    """

    figures: Mapping[str, float]
    seconds: float
    rules: frozenset[str] | None = None
    cases: frozenset[str] | None = None
    taken_over: str | None = None
    taken_over_for: str = ""
    fingerprint: str = ""
    code: str = ""
    made_by: str = ""


@final
class Results:
    """The finished cells, for rules, tables and charts to read.

    >>> cell = Cell(case="films", arm="deepfm", seed=0)
    >>> Results({cell: Finished(figures={"auc": 0.75}, seconds=1.0)}).mean("films", "deepfm", "auc").value
    0.75
    """

    def __init__(self, finished: Mapping[Cell, Finished]) -> None:
        self.finished = dict(finished)

    @property
    def cases(self) -> list[str]:
        """Cases with any finished cell, in the order in which they were run."""
        return list(dict.fromkeys(cell.case for cell in self.finished))

    def arms(self, case: str) -> list[str]:
        """Arms with any finished cell in ``case``, in the order in which they were run."""
        return list(dict.fromkeys(cell.arm for cell in self.finished if cell.case == case))

    def by_seed(self, case: str, arm: str, figure: str) -> dict[int, float]:
        """A figure of each seed that has it."""
        return {
            cell.seed: done.figures[figure]
            for cell, done in self.finished.items()
            if cell.case == case and cell.arm == arm and figure in done.figures
        }

    def mean(self, case: str, arm: str, figure: str) -> Mean | None:
        """Over the seeds; ``None`` where no cell has the figure."""
        values = self.by_seed(case, arm, figure)
        return mean_of(values.values()) if values else None

    def difference(self, case: str, arm: str, other: str, figure: str) -> Mean | None:
        """Of ``arm`` less ``other``, paired by seed; ``None`` where no seed has both."""
        pairs = self._pairs(case, arm, other, figure)
        return mean_of(ours - theirs for ours, theirs in pairs) if pairs else None

    def ratio(self, case: str, arm: str, other: str, figure: str) -> Mean | None:
        """The mean of ``arm`` over that of ``other``, both over the seeds that have both, and Fieller's interval.

        ``None`` where no seed has both, a figure is no number, or the mean of ``other`` is not above 0.
        """
        pairs = self._pairs(case, arm, other, figure)
        ours, theirs = [one for one, _ in pairs], [one for _, one in pairs]
        if not pairs or not all(map(math.isfinite, ours + theirs)) or mean_of(theirs).value <= 0:
            return None
        return ratio_of(ours, theirs)

    def _pairs(self, case: str, arm: str, other: str, figure: str) -> list[tuple[float, float]]:
        """The figure of both, of each seed that has both."""
        ours, theirs = self.by_seed(case, arm, figure), self.by_seed(case, other, figure)
        return [(ours[seed], theirs[seed]) for seed in ours if seed in theirs]

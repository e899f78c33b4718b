"""What the cells of a study measured, by case and arm; and how sure a mean over seeds is."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, final

import numpy as np
from numpy.typing import NDArray

__all__ = ["Cell", "Finished", "Mean", "Results", "mean_of"]

# Student's t at 97.5 %, for 1, 2, ... degrees of freedom; beyond them 2, which is a little wide.
_T_975: Final = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)
_T_975_LATER: Final = ((15, 2.201), (20, 2.120), (30, 2.080), (60, 2.040))  # up to n degrees: the value at its start


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
    """What a cell measured, figure by name, and how long that took."""

    figures: Mapping[str, float]
    seconds: float


@final
@dataclass(frozen=True, kw_only=True)
class Mean:
    """A mean over seeds: ``deviation`` of one seed, and the 95 % interval of the mean by Student's t.

    Of one seed nothing is known but its value: deviation and interval are NaN then.
    """

    value: float
    deviation: float
    low: float
    high: float
    count: int


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
        ours, theirs = self.by_seed(case, arm, figure), self.by_seed(case, other, figure)
        shared = [ours[seed] - theirs[seed] for seed in ours if seed in theirs]
        return mean_of(shared) if shared else None


def mean_of(values: Iterable[float]) -> Mean:
    """The mean of at least one value, and how sure it is.

    >>> found = mean_of([1.0, 2.0, 3.0])
    >>> round(found.low, 2), found.value, round(found.high, 2)
    (-0.48, 2.0, 4.48)
    """
    column: NDArray[np.float64] = np.fromiter(values, dtype=np.float64)
    count, value = len(column), float(column.mean())
    if count < 2:
        return Mean(value=value, deviation=math.nan, low=math.nan, high=math.nan, count=count)
    deviation = float(column.std(ddof=1))
    reach = _t_975(count - 1) * deviation / math.sqrt(count)
    return Mean(value=value, deviation=deviation, low=value - reach, high=value + reach, count=count)


def _t_975(degrees: int) -> float:
    if degrees <= len(_T_975):
        return _T_975[degrees - 1]
    return next((value for last, value in _T_975_LATER if degrees <= last), 2.001)

"""The rules by which a claim is judged. A rule is data, written with the study before any run; this code applies it.

A rule makes *findings*: one comparison each, on one case. A claim **holds** if every finding does, **partly** if at
least half of them do, and **does not hold** otherwise. What could not be run (a data set that is not here), or came out
as no number, is *not judged* and counts for nothing; where nothing was judged, neither is the claim.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import Field, dataclass, fields
from enum import StrEnum
from itertools import pairwise
from typing import Any, ClassVar, Final, Protocol, final

from dolmen.evaluation import Mean
from dolmen.studies.results import Results

__all__ = ["Above", "Finding", "Ordered", "Rule", "Verdict", "Within", "checksum_of_rule", "verdict_of"]


class Verdict(StrEnum):
    """What became of a claim."""

    HOLDS = "holds"
    PARTLY = "partly"
    FAILS = "does not hold"
    OPEN = "not judged"


@final
@dataclass(frozen=True, kw_only=True)
class Finding:
    """One comparison: ``value`` was measured (with its 95 % interval) and ``needed`` says what it had to be.

    ``holds`` is ``None`` where a figure is missing or no number, or too few seeds were run.
    """

    case: str
    what: str
    needed: str
    value: float = math.nan
    low: float = math.nan
    high: float = math.nan
    holds: bool | None = None


class Rule(Protocol):
    """What judges results: a frozen dataclass, all of whose fields say what is asked.

    ``versions``: fields that ask something else than when they were first asked, and what is new in it. Whoever changes
    how a field is judged says so there, so that the rules that have it are others than those before.
    """

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]
    versions: ClassVar[Mapping[str, str]]

    @property
    def cases(self) -> tuple[str, ...] | None:
        """The cases on which it asks; ``None``: on all of the plan, whichever these are."""
        ...

    @property
    def figures(self) -> tuple[str, ...]:
        """The names of the figures that it reads."""
        ...

    @property
    def arms(self) -> tuple[str, ...]:
        """The arms that it reads."""
        ...

    def describe(self) -> str:
        """The rule in words."""
        ...

    def findings(self, results: Results, cases: Sequence[str]) -> list[Finding]:
        """Its comparisons on ``cases``; the rule may ask for fewer."""
        ...


_SURE_SEEDS_MIN: Final = 3


@final
@dataclass(frozen=True, kw_only=True)
class Above:
    """``arm`` is above each of ``others`` by more than ``margin``, and the difference is outside the seeds' spread.

    Differences are paired by seed. Outside the spread: the 95 % interval of the mean difference lies above 0. Of one
    seed there is no interval, and of two it is so wide (Student's t is 12.7) that it shows next to nothing; so from
    fewer than three it is not judged. ``sure=False`` asks for the mean only.
    """

    versions: ClassVar[Mapping[str, str]] = {"sure": f", of {_SURE_SEEDS_MIN} seeds"}

    arm: str
    others: tuple[str, ...]
    figure: str
    margin: float = 0.0
    sure: bool = True
    cases: tuple[str, ...] | None = None

    @property
    def figures(self) -> tuple[str, ...]:
        """One."""
        return (self.figure,)

    @property
    def arms(self) -> tuple[str, ...]:
        """``arm``, then ``others``."""
        return (self.arm, *self.others)

    def describe(self) -> str:
        """The rule in words."""
        margin = f" by more than {self.margin:g}" if self.margin else ""
        surely = f", with the 95 % interval of the paired difference above 0, of {_SURE_SEEDS_MIN} seeds or more"
        sure = surely if self.sure else ""
        return f"{self.figure} of {self.arm} above {_listed(self.others)}{margin}{sure}{_on(self.cases)}"

    def findings(self, results: Results, cases: Sequence[str]) -> list[Finding]:
        """One for each case and other arm."""
        needed = f"> {self.margin:g}" + (", surely > 0" if self.sure else "")
        return [
            _finding(
                case,
                f"{self.figure}: {self.arm} - {other}",
                needed,
                results.difference(case, self.arm, other, self.figure),
                self._holds,
            )
            for case in _asked(self.cases, cases)
            for other in self.others
        ]

    def _holds(self, found: Mean) -> bool | None:
        if not self.sure:
            return found.value > self.margin
        return None if found.count < _SURE_SEEDS_MIN else found.value > self.margin and found.low > 0


@final
@dataclass(frozen=True, kw_only=True)
class Within:
    """The mean figure of ``arm`` lies from ``low`` to ``high``: itself, less ``minus``'s, or divided by ``over``'s.

    Differences are paired by seed. A ratio is one of means, both over the seeds that both arms ran, so that neither has
    a seed that the other never met; single seeds may be 0 there. It is not judged where the mean of ``over`` is not
    above 0. Its interval is Fieller's, where there is one (see ``evaluation.ratio_of``).

    ``sure`` asks for its whole 95 % interval there, and says that it does not hold only where the whole interval lies
    outside. An interval with a bound inside it shows neither, so the claim is not judged, and needs more seeds.
    """

    versions: ClassVar[Mapping[str, str]] = {"over": ", paired by seed"}

    arm: str
    figure: str
    low: float = -math.inf
    high: float = math.inf
    minus: str | None = None
    over: str | None = None
    sure: bool = False
    cases: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if self.minus is not None and self.over is not None:
            raise ValueError(f"Within({self.arm!r}): name either minus or over, got both")

    @property
    def figures(self) -> tuple[str, ...]:
        """One."""
        return (self.figure,)

    @property
    def arms(self) -> tuple[str, ...]:
        """``arm``, then what it is compared with."""
        return tuple(arm for arm in (self.arm, self.minus, self.over) if arm is not None)

    def describe(self) -> str:
        """The rule in words."""
        paired = f", over the seeds that both ran, where the mean of {self.over} is above 0" if self.over else ""
        return f"{self._what} {self._needed}{_on(self.cases)}{paired}"

    def findings(self, results: Results, cases: Sequence[str]) -> list[Finding]:
        """One for each case."""
        return [
            _finding(case, self._what, self._needed, self._measured(results, case), self._holds)
            for case in _asked(self.cases, cases)
        ]

    @property
    def _what(self) -> str:
        if self.minus is not None:
            return f"{self.figure}: {self.arm} - {self.minus}"
        return f"{self.figure}: {self.arm}" + (f" / {self.over}" if self.over is not None else "")

    @property
    def _needed(self) -> str:
        bounds = (("≥", self.low), ("≤", self.high))
        needed = ", ".join(f"{sign} {bound:g}" for sign, bound in bounds if math.isfinite(bound))
        return f"surely {needed}" if self.sure else needed

    def _measured(self, results: Results, case: str) -> Mean | None:
        if self.minus is not None:
            return results.difference(case, self.arm, self.minus, self.figure)
        if self.over is not None:
            return results.ratio(case, self.arm, self.over, self.figure)
        return results.mean(case, self.arm, self.figure)

    def _holds(self, found: Mean) -> bool | None:
        if not self.sure:
            return self.low <= found.value <= self.high
        if self.low <= found.low and found.high <= self.high:
            return True
        return False if found.high < self.low or found.low > self.high else None


@final
@dataclass(frozen=True, kw_only=True)
class Ordered:
    """The mean figure does not rise from one of ``order`` to the next by more than ``slack``."""

    versions: ClassVar[Mapping[str, str]] = {}

    order: tuple[str, ...]
    figure: str
    slack: float = 0.0
    cases: tuple[str, ...] | None = None

    @property
    def figures(self) -> tuple[str, ...]:
        """One."""
        return (self.figure,)

    @property
    def arms(self) -> tuple[str, ...]:
        """All."""
        return self.order

    def describe(self) -> str:
        """The rule in words."""
        slack = f" (no rise above {self.slack:g})" if self.slack else ""
        return f"{self.figure} falls along {' → '.join(self.order)}{slack}{_on(self.cases)}"

    def findings(self, results: Results, cases: Sequence[str]) -> list[Finding]:
        """One for each case and pair of neighbours."""
        return [
            _finding(
                case,
                f"{self.figure}: {after} - {before}",
                f"≤ {self.slack:g}",
                results.difference(case, after, before, self.figure),
                self._holds,
            )
            for case in _asked(self.cases, cases)
            for before, after in pairwise(self.order)
        ]

    def _holds(self, found: Mean) -> bool:
        return found.value <= self.slack


def checksum_of_rule(rule: Rule) -> str:
    """What is asked, as 16 hex digits: by it a cell knows later whether a rule stood already when it was run.

    Fields that say nothing but the default do not count, so that a new one leaves the rules before it as they were. One
    that asks something else by now (see ``Rule.versions``) counts as another, by default, too, where it asks at all.
    """
    asked: dict[str, Any] = {}
    for one in fields(rule):
        told = getattr(rule, one.name)
        version = rule.versions.get(one.name, "") if told else ""
        if version or told != one.default:
            asked[one.name + version] = told
    return hashlib.blake2b(f"{type(rule).__name__} {sorted(asked.items())}".encode(), digest_size=8).hexdigest()


def verdict_of(findings: Sequence[Finding]) -> Verdict:
    """All hold, at least half do, fewer do, or none was judged.

    >>> verdict_of([Finding(case="films", what="auc", needed="> 0", holds=True)])
    <Verdict.HOLDS: 'holds'>
    """
    judged = [finding.holds for finding in findings if finding.holds is not None]
    if not judged:
        return Verdict.OPEN
    if all(judged):
        return Verdict.HOLDS
    return Verdict.PARTLY if 2 * sum(judged) >= len(judged) else Verdict.FAILS


class _Test(Protocol):
    def __call__(self, found: Mean, /) -> bool | None: ...


def _finding(case: str, what: str, needed: str, found: Mean | None, test: _Test) -> Finding:
    if found is None or not math.isfinite(found.value):
        return Finding(case=case, what=what, needed=needed)
    return Finding(
        case=case, what=what, needed=needed, value=found.value, low=found.low, high=found.high, holds=test(found)
    )


def _asked(wanted: tuple[str, ...] | None, cases: Sequence[str]) -> Sequence[str]:
    return cases if wanted is None else [case for case in wanted if case in cases]


def _on(cases: tuple[str, ...] | None) -> str:
    return f" (on {_listed(cases)})" if cases is not None else ""


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names)

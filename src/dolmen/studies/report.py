"""What is written of a study: JSON with every cell, Markdown for people, and a picture. Code judges; nobody edits."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, final

from dolmen.evaluation import Mean
from dolmen.studies.cells import plain, to_dict
from dolmen.studies.chart import draw
from dolmen.studies.index import write_index
from dolmen.studies.results import Cell, Finished, Results
from dolmen.studies.rules import Finding, Rule, Verdict, checksum_of_rule, verdict_of
from dolmen.studies.runner import Outcome
from dolmen.studies.study import PREPARED, Claim, Plan, Study

__all__ = ["Judged", "Report", "Standing", "judge", "make_report", "write_report"]


@final
@dataclass(frozen=True, kw_only=True)
class Standing:
    """Of the cells that a rule judges: how many were run when it stood already, and when it did not.

    Args:
        stood: run when the rule stood, and was asked of the cases of which it is asked.
        cases_unknown: run when the rule stood, and nobody knows of which cases it was asked.
        later: run before one or the other was as it is.
        unknown: nobody knows.
    """

    stood: int
    cases_unknown: int
    later: int
    unknown: int

    def describe(self) -> str:
        """In words."""
        count = self.stood + self.cases_unknown + self.later + self.unknown
        if self.stood == count:
            return f"The rule stood when its {count} cells were run." if count else "No cell that it judges was run."
        if self.unknown == count:
            return f"Whether the rule is older than its {count} cells was not recorded."
        told = (
            (self.stood, "run when the rule stood"),
            (self.cases_unknown, "run when the rule stood, for which cases was not recorded"),
            (self.later, "run before the rule or its cases were as they are"),
            (self.unknown, "of which that was not recorded"),
        )
        return f"Of its {count} cells: {'; '.join(f'{one} {what}' for one, what in told if one)}."


@final
@dataclass(frozen=True, kw_only=True)
class Judged:
    """A claim, what was found, what follows, and whether the rule is older than what it judges."""

    claim: Claim
    findings: tuple[Finding, ...]
    verdict: Verdict
    standing: Standing

    @property
    def summary(self) -> str:
        """The verdict and how many comparisons it rests on, for people."""
        judged = [finding.holds for finding in self.findings if finding.holds is not None]
        open_count = len(self.findings) - len(judged)
        rest = f"; {open_count} not judged" if open_count else ""
        return f"{self.verdict} ({sum(judged)} of {len(judged)} comparisons{rest})" if judged else str(self.verdict)


@final
@dataclass(frozen=True, kw_only=True)
class Report:
    """A study and its outcome; ``made_by`` is program, machine, date and command."""

    study: Study
    plan: Plan
    outcome: Outcome
    judged: tuple[Judged, ...]
    made_by: Mapping[str, Any]

    @property
    def stale(self) -> str:
        """What is kept and does not count, and what can be done; empty where there is nothing."""
        count = sum(self.outcome.stale_counts.values())
        kept = "1 cell is kept" if count == 1 else f"{count} cells are kept"
        return f"{kept}, of other code or settings: run again, or believe by `--take-over WHY`." if count else ""

    def to_json(self) -> str:
        """All of it, cells included."""
        return json.dumps(plain(self._values()), indent=1) + "\n"

    def to_markdown(self, picture: str | None) -> str:
        """For people; ``picture`` is the file to show."""
        study, results = self.study, self.outcome.results
        lines = [f"# {study.title}", "", f"{study.paper}", ""]
        lines += ["| claim | the paper | here |", "| --- | --- | --- |"]
        lines += [
            f"| {one.claim.statement} | {one.claim.paper} | **{one.verdict}**{one.summary.removeprefix(one.verdict)} |"
            for one in self.judged
        ]
        if study.care:
            lines += ["", f"**Read with care:** {study.care}"]
        if picture is not None:
            lines += ["", f"![{study.figures[study.chart.figure]}, by case and arm]({picture})"]
        lines += ["", "## What was measured", "", "Mean over seeds ± standard deviation of one seed.", ""]
        for case in results.cases:
            lines += [f"**{case}**" + _prepared(self.outcome.prepared.get(case)), ""]
            lines += [*self._table(results, case), ""]
        for case, why in self.outcome.missing.items():
            lines += [f"**{case}** was not run: {why.splitlines()[0]}.", ""]
        if self.outcome.open_counts:
            counts = ", ".join(f"{count} of {case}" for case, count in self.outcome.open_counts.items())
            lines += [f"Cells of the plan that were not run: {counts}.", ""]
        if self.outcome.stale_counts:
            counts = ", ".join(f"{count} of {case}" for case, count in self.outcome.stale_counts.items())
            lines += [f"{self.stale} Here they do not count: {counts}.", ""]
        lines += ["| arm | what it is |", "| --- | --- |"]
        lines += [f"| {arm} | {what} |" for arm, what in study.arms.items() if self._was_run(arm)]
        lines += ["", "| figure | what it is |", "| --- | --- |"]
        lines += [f"| {figure} | {what} |" for figure, what in study.figures.items()]
        lines += ["", "## How it was judged", ""]
        lines += [
            "A claim holds if every comparison of its rule does, partly if at least half do. Each cell keeps the"
            " checksums of the rules that stood when it was run, and the plan's cases. Intervals are of 95 %, over"
            " seeds.",
            "",
        ]
        for one in self.judged:
            rule = _sentence(one.claim.rule.describe())
            lines += [f"**{one.claim.name}: {one.verdict}.** {rule} {one.standing.describe()}", ""]
            lines += ["| case | comparison | needed | measured | |", "| --- | --- | --- | --- | --- |"]
            lines += [_finding_row(finding) for finding in one.findings]
            lines += [""]
        for why, count in self._taken_over().items():
            lines += [f"{count} of {len(results.finished)} cells were taken over from other code: {why}.", ""]
        lines += ["## Protocol", "", *(f"- {sentence}" for sentence in study.protocol), ""]
        lines += ["## Made by", "", *(f"- {name}: {told}" for name, told in self._facts().items())]
        return "\n".join(lines) + "\n"

    def _values(self) -> dict[str, Any]:
        study = self.study
        return {
            "study": study.name,
            "title": study.title,
            "paper": study.paper,
            **self.made_by,
            "device": self.outcome.device,
            "data": list(study.data),
            "settings": dict(self.plan.settings),
            "protocol": list(study.protocol),
            "care": study.care,
            "arms": dict(study.arms),
            "figures": dict(study.figures),
            "claims": [
                {
                    "name": one.claim.name,
                    "statement": one.claim.statement,
                    "paper": one.claim.paper,
                    "rule": one.claim.rule.describe(),
                    "rule_checksum": checksum_of_rule(one.claim.rule),
                    "rule_standing": asdict(one.standing),
                    "verdict": str(one.verdict),
                    "findings": [asdict(finding) for finding in one.findings],
                }
                for one in self.judged
            ],
            "missing": dict(self.outcome.missing),
            "open_counts": dict(self.outcome.open_counts),
            "stale_counts": dict(self.outcome.stale_counts),
            "cells": [{**asdict(cell), **to_dict(done)} for cell, done in self._cells().items()],
        }

    def _cells(self) -> dict[Cell, Finished]:
        """What was prepared, and then what was run."""
        prepared = {Cell(case=case, arm=PREPARED, seed=0): done for case, done in self.outcome.prepared.items()}
        return prepared | self.outcome.results.finished

    def _taken_over(self) -> Counter[str]:
        """How many cells, by the reason."""
        cells = self.outcome.results.finished.values()
        return Counter(done.taken_over for done in cells if done.taken_over is not None)

    def _table(self, results: Results, case: str) -> list[str]:
        figures = [
            name for name in self.study.figures if any(results.by_seed(case, arm, name) for arm in results.arms(case))
        ]
        lines = [f"| arm | {' | '.join(figures)} | seeds |", f"| --- |{' --- |' * (len(figures) + 1)}"]
        for arm in results.arms(case):
            means = [results.mean(case, arm, figure) for figure in figures]
            count = max((mean.count for mean in means if mean is not None), default=0)
            lines.append(f"| {arm} | {' | '.join(_mean(mean) for mean in means)} | {count} |")
        return lines

    def _was_run(self, arm: str) -> bool:
        return any(cell.arm == arm for cell in self.outcome.results.finished)

    def _facts(self) -> dict[str, str]:
        cells = self.outcome.results.finished
        seconds = sum(done.seconds for done in cells.values())
        makers = Counter(done.made_by or "commit and machine not recorded" for done in cells.values())
        return {
            "data": ", ".join(self.study.data),
            "seeds": ", ".join(str(seed) for seed in sorted({cell.seed for cell in cells})),
            "device": self.outcome.device,
            "cells": f"{len(cells)}, {seconds / 60:.1f} minutes of wall time in all",
            **{f"made by {maker}": f"{count} of {len(cells)} cells" for maker, count in makers.items()},
            "written": f"{self.made_by['date']} by `{self.made_by['command']}` of commit "
            f"{self.made_by['program']['commit']}",
        }


def judge(claims: Sequence[Claim], results: Results, cases: Sequence[str]) -> tuple[Judged, ...]:
    """Apply each claim's rule to what was measured on ``cases``."""
    judged = []
    for claim in claims:
        findings = tuple(claim.rule.findings(results, cases))
        standing = _standing(claim, results, {finding.case for finding in findings})
        judged.append(Judged(claim=claim, findings=findings, verdict=verdict_of(findings), standing=standing))
    return tuple(judged)


def make_report(study: Study, plan: Plan, outcome: Outcome, made_by: Mapping[str, Any]) -> Report:
    """The report of a run; the full form is judged by the study's claims, the quick form by its guards."""
    claims = study.guards if plan is study.quick else study.claims
    judged = judge(claims, outcome.results, plan.cases)
    return Report(study=study, plan=plan, outcome=outcome, judged=judged, made_by=dict(made_by))


def write_report(report: Report, folder: Path) -> list[Path]:
    """Write ``<name>.json``, ``<name>.md`` and, where matplotlib is installed, ``<name>.svg``; and the folder's index.

    Returns:
        The files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    name = report.study.name
    picture = folder / f"{name}.svg"
    drawn = draw(report.study, report.outcome.results, picture)
    written = {
        folder / f"{name}.json": report.to_json(),
        folder / f"{name}.md": report.to_markdown(picture.name if drawn else None),
    }
    for path, text in written.items():
        path.write_text(text, encoding="utf-8")
    return [*written, *([picture] if drawn else []), write_index(folder)]


def _standing(claim: Claim, results: Results, cases: Collection[str]) -> Standing:
    rule = checksum_of_rule(claim.rule)
    told: Counter[str] = Counter()
    for cell, done in results.finished.items():
        if cell.case in cases and cell.arm in claim.rule.arms:
            told[_stood(claim.rule, rule, done, cases)] += 1
    return Standing(**{one.name: told[one.name] for one in fields(Standing)})


def _stood(rule: Rule, checksum: str, done: Finished, cases: Collection[str]) -> str:
    """As what the cell counts in the ``Standing`` of a rule that is asked of ``cases``."""
    if done.rules is None:
        return "unknown"
    if checksum not in done.rules:
        return "later"
    if rule.cases is not None:  # the checksum is of them, too
        return "stood"
    if done.cases is None:
        return "cases_unknown"
    return "stood" if done.cases == set(cases) else "later"


def _finding_row(finding: Finding) -> str:
    mark = {None: "not judged", True: "holds", False: "does not hold"}[finding.holds]
    measured = _number(finding.value) if math.isfinite(finding.value) else ""
    if math.isfinite(finding.low) and math.isfinite(finding.high):
        measured += f" ({_number(finding.low)} to {_number(finding.high)})"
    return f"| {finding.case} | {finding.what} | {finding.needed} | {measured} | {mark} |"


def _mean(mean: Mean | None) -> str:
    if mean is None:
        return ""
    varies = mean.count > 1 and mean.deviation > 1e-9 * abs(mean.value)  # not only by rounding
    spread = f"{mean.deviation:,.0f}" if mean.deviation >= 100 else f"{mean.deviation:.2g}"
    return _number(mean.value) + (f" ± {spread}" if varies else "")


def _number(value: float) -> str:
    """Whole numbers whole, others by size: a difference of metrics needs its small digits.

    >>> _number(1234.0), _number(0.75123), _number(-0.000123)
    ('1,234', '0.7512', '-0.00012')
    """
    if math.isfinite(value) and (value == round(value) or abs(value) >= 1000):
        return f"{value:,.0f}"
    return f"{value:.4f}" if abs(value) >= 0.001 else f"{value:.2g}"


def _prepared(done: Finished | None) -> str:
    figures = {} if done is None else done.figures
    return f" ({', '.join(f'{name} {value:.5g}' for name, value in figures.items())})" if figures else ""


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."

"""``dolmen reproduce``: choose studies, run them, write what came out."""

from __future__ import annotations

import datetime
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, final

from rich.console import Console
from rich.text import Text

from dolmen.datasets.sources import cache_folder
from dolmen.errors import ConfigError
from dolmen.provenance import machine, program
from dolmen.sheets import Sheet
from dolmen.studies.cells import CellStore
from dolmen.studies.registry import names, study
from dolmen.studies.report import Report, make_report, write_report
from dolmen.studies.results import Cell
from dolmen.studies.rules import Verdict
from dolmen.studies.runner import Stopped, run_study
from dolmen.studies.study import PREPARED, Study
from dolmen.studies.verdicts import released_verdicts, verdicts
from dolmen.unfinished import require_folder

__all__ = ["REPORTS", "Options", "list_studies", "reproduce"]

REPORTS: Final = Path("docs/results/studies")
"""Where reports go of themselves."""

_INTERRUPTED: Final = 130  # the exit status of what Ctrl-C ended


@final
@dataclass(frozen=True, kw_only=True)
class Options:
    """What ``dolmen reproduce`` was told.

    Args:
        studies: their names; in the quick form none means all.
        quick: the form that guards against regressions; its cells are always run anew, and nothing is written.
        seed_count: instead of the plan's.
        device: where models run: ``cpu``, ``cuda`` or ``auto``.
        out: where reports go; ``None``: ``REPORTS``. The quick form has none.
        only_stored: run nothing, report what is stored.
        take_over: why stored cells of other code are believed; each keeps the reason, and the report tells it.
        cells_from: a report whose cells are kept first, where there are none here.
    """

    studies: tuple[str, ...] = ()
    quick: bool = False
    seed_count: int | None = None
    device: str = "cpu"
    out: Path | None = None
    only_stored: bool = False
    take_over: str | None = None
    cells_from: Path | None = None


def reproduce(options: Options, console: Console) -> int:
    """Run what is asked for. Returns the exit status: 1 where a guard of a quick form did not hold, else 0.

    That a paper's claim does not hold is a result, not a failure. 130 is returned where somebody stopped it by Ctrl-C.

    Raises:
        ConfigError: the options contradict each other, name no study, or ``out`` cannot be written to; nothing was run.
            Of a study there are no finished cells, or the report in ``out`` has some that are not among them: nothing
            of that study was written, and what was run is kept.
        DataError: ``cells_from`` is no report of the study.
    """
    chosen, out = _chosen(options), options.out if options.out is not None else REPORTS
    if not options.quick:
        require_folder(out, "--out")
        _tell_changes(console)
    broken = 0
    for one in chosen:
        try:
            report = _run(one, options, console)
        except Stopped as stop:
            kept = "and --quick keeps none" if options.quick else "and kept; the same command goes on from there"
            console.print(f"{one.name}: stopped. {stop.finished} of {stop.count} cells are finished, {kept}.")
            return _INTERRUPTED
        if not options.quick:
            _require_more(report, out)
        console.print(_summary(report))
        if options.quick:
            # A guard whose data is not here guards nothing; that is no failure, and the table says so.
            broken += sum(judged.verdict not in (Verdict.HOLDS, Verdict.OPEN) for judged in report.judged)
            continue
        if report.stale:
            console.print(Text(f"{one.name}: {report.stale}", style="bold yellow"), soft_wrap=True)
        for path in write_report(report, out):
            console.print(f"written: {path}", soft_wrap=True)
    if not options.quick:
        _tell_changes(console)
    return 1 if broken else 0


def list_studies(out: Path | None = None) -> Sheet:
    """Every study, what it costs, and what became of it: by the report in ``out``, or else by that of the release.

    Where a report is not of the study and code of now, that is said with its verdicts.
    """
    known = released_verdicts() | verdicts(out if out is not None else REPORTS)
    table = Sheet("name", "paper", "data", "cells", "minutes", "claims", title="studies")
    for one in map(study, names()):
        cells = sum(1 for _ in one.full.cells())
        lines = ["not run yet"]
        if one.name in known:
            told = known[one.name]
            lines = [f"{claim}: {verdict}" for claim, verdict in told.claims.items()]
            lines += [f"({mark})" for mark in (*told.on_study(one), *told.on_code(one))]
        minutes = f"{one.full.minutes:g}"
        table.add_row(one.name, one.paper, ", ".join(one.data), str(cells), minutes, "\n".join(lines))
    return table


def _chosen(options: Options) -> Sequence[Study]:
    if not options.studies and not options.quick:
        raise ConfigError(f"name a study: {', '.join(names())}; or --list them, or guard over all with --quick")
    if options.take_over is not None and not options.take_over.strip():
        raise ConfigError("--take-over needs a reason why cells of other code are to be believed; the report tells it")
    if options.quick and options.out is not None:
        raise ConfigError("--out is where reports go, and --quick writes none; leave one of them out")
    if options.quick and options.only_stored:
        raise ConfigError("--stored reports kept cells, and --quick keeps none; leave one of them out")
    if options.quick and options.take_over is not None:
        raise ConfigError("--take-over is for kept cells, and --quick keeps none; leave one of them out")
    if options.cells_from is not None and (options.quick or len(options.studies) != 1):
        raise ConfigError("--cells-from is a report of one study: name that study, and leave --quick out")
    return [study(name) for name in options.studies or names()]


def _require_more(report: Report, out: Path) -> None:
    """That a report tells something, and takes no cell of the plan from the one that is there."""
    name, finished, path = report.study.name, report.outcome.results.finished, out / f"{report.study.name}.json"
    stale = sum(report.outcome.stale_counts.values())
    told = (
        f"{name}: {len(finished)} cells are finished here{f', and {stale} of other code or settings' if stale else ''}"
    )
    mend = "--cells-from REPORT keeps those of a report, --take-over WHY believes those of other code"
    if not finished and not report.outcome.missing:
        raise ConfigError(f"{told}. {mend}; without --stored they are run")
    there = verdicts(out)[name].cells if path.exists() else set()
    if lost := (there & set(report.study.full.cells())) - set(finished):
        raise ConfigError(f"{told}; {path} would lose {len(lost)} of its {len(there)}. {mend}; or name another --out")


def _tell_changes(console: Console) -> None:
    commit = program()["commit"]
    if commit is not None and str(commit).endswith("-dirty"):
        told = f"NOT CITABLE: this tree has changes, and the report names commit {commit}, which nobody can look up."
        mend = "Commit them, and write the report again by --stored."
        console.print(Text(f"{told} {mend}", style="bold red"), soft_wrap=True)


def _fill(store: CellStore, one: Study, report: Path, seed_count: int | None) -> str:
    """Keep the cells of a report. Returns what became of them, for people."""
    prepared = [Cell(case=case, arm=PREPARED, seed=0) for case in one.full.cases]
    filled = store.fill(report, one.name, [*prepared, *one.full.cells(seed_count)])
    told = [f"{filled.new} cells are kept from {report}"]
    told += [f"{filled.known} were kept here already"] if filled.known else []
    told += [f"{filled.foreign} are not in the plan and were left out"] if filled.foreign else []
    return f"{one.name}: {', '.join(told)}"


def _run(one: Study, options: Options, console: Console) -> Report:
    plan = one.quick if options.quick else one.full
    told = f"dolmen reproduce {one.name}{' --quick' if options.quick else ''}"
    if options.only_stored:
        told += " --stored"
    if options.seed_count is not None:
        told += f" --seeds {options.seed_count}"
    made_by = {
        "command": told,
        "date": datetime.datetime.now(tz=datetime.UTC).date().isoformat(),
        "program": program(),
        "machine": machine(),
    }
    with tempfile.TemporaryDirectory() as nowhere:
        store = CellStore(Path(nowhere) if options.quick else cache_folder() / "studies" / one.name)
        if options.cells_from is not None:
            console.print(_fill(store, one, options.cells_from, options.seed_count), soft_wrap=True)
        outcome = run_study(
            one,
            plan,
            store,
            seed_count=options.seed_count,
            device=options.device,
            only_stored=options.only_stored,
            take_over=options.take_over,
        )
    return make_report(one, plan, outcome, made_by)


def _summary(report: Report) -> Sheet:
    table = Sheet("claim", "the paper", "here", title=report.study.name)
    for one in report.judged:
        table.add_row(one.claim.statement, one.claim.paper, one.summary)
    for case, why in report.outcome.missing.items():
        table.add_row(case, "", f"not run: {why.splitlines()[0]}")
    return table

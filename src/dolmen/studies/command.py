"""``dolmen reproduce``: choose studies, run them, write what came out."""

from __future__ import annotations

import datetime
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import final

from rich.console import Console

from dolmen.datasets.sources import cache_folder
from dolmen.errors import ConfigError
from dolmen.provenance import machine, program
from dolmen.sheets import Sheet
from dolmen.studies.cells import CellStore
from dolmen.studies.measured import released_verdicts, verdicts
from dolmen.studies.registry import names, study
from dolmen.studies.report import Report, make_report, write_report
from dolmen.studies.rules import Verdict
from dolmen.studies.runner import run_study
from dolmen.studies.study import Study

__all__ = ["Options", "list_studies", "reproduce"]


@final
@dataclass(frozen=True, kw_only=True)
class Options:
    """What ``dolmen reproduce`` was told.

    Args:
        studies: their names; in the quick form none means all.
        quick: the form that guards against regressions; its cells are always run anew, and nothing is written.
        seed_count: instead of the plan's.
        device: where models run: ``cpu``, ``cuda`` or ``auto``.
        out: where reports go.
        only_stored: run nothing, report what is stored.
        take_over: why stored cells of other code are believed; each keeps the reason, and the report tells it.
        cells_from: a report whose cells are kept first, where there are none here.
    """

    studies: tuple[str, ...] = ()
    quick: bool = False
    seed_count: int | None = None
    device: str = "cpu"
    out: Path = Path("docs/results/studies")
    only_stored: bool = False
    take_over: str | None = None
    cells_from: Path | None = None


def reproduce(options: Options, console: Console) -> int:
    """Run what is asked for. Returns the exit status: 1 where a guard of a quick form did not hold, else 0.

    That a paper's claim does not hold is a result, not a failure.
    """
    broken = 0
    for one in _chosen(options):
        report = _run(one, options)
        console.print(_summary(report))
        if options.quick:
            # A guard whose data is not here guards nothing; that is no failure, and the table says so.
            broken += sum(judged.verdict not in (Verdict.HOLDS, Verdict.OPEN) for judged in report.judged)
        else:
            for path in write_report(report, options.out):
                console.print(f"written: {path}", soft_wrap=True)
    return 1 if broken else 0


def list_studies(out: Path) -> Sheet:
    """Every study, what it costs, and what became of it: by the report in ``out``, or else by that of the release."""
    judged = released_verdicts() | verdicts(out)
    table = Sheet("name", "paper", "data", "cells", "minutes", "claims", title="studies")
    for one in map(study, names()):
        cells = sum(1 for _ in one.full.cells())
        claims = "\n".join(f"{claim}: {verdict}" for claim, verdict in judged.get(one.name, {}).items())
        minutes = f"{one.full.minutes:g}"
        table.add_row(one.name, one.paper, ", ".join(one.data), str(cells), minutes, claims or "not run yet")
    return table


def _chosen(options: Options) -> Sequence[Study]:
    if not options.studies and not options.quick:
        raise ConfigError(f"name a study: {', '.join(names())}; or --list them, or guard over all with --quick")
    if options.quick and options.take_over is not None:
        raise ConfigError("--take-over is for kept cells, and --quick keeps none; leave one of them out")
    if options.cells_from is not None and (options.quick or len(options.studies) != 1):
        raise ConfigError("--cells-from is a report of one study: name that study, and leave --quick out")
    return [study(name) for name in options.studies or names()]


def _run(one: Study, options: Options) -> Report:
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
            store.fill(options.cells_from)
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

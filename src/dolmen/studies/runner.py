"""Runs a study's cells, one after the other, and keeps each as it finishes, so that a rerun goes on from there."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from dolmen.compute import Compute, torch_threads
from dolmen.devices import Device
from dolmen.errors import DataError
from dolmen.provenance import in_words, machine, program
from dolmen.studies.cells import CellStore, Kept, fingerprint
from dolmen.studies.machinery import machinery_fingerprint
from dolmen.studies.reach import reach_of_study
from dolmen.studies.results import Cell, Finished, Results
from dolmen.studies.study import PREPARED, Plan, Setting, Study

__all__ = ["Outcome", "Stopped", "run_study"]

_THREADS: Final = 1  # the steps are small, and figures must not depend on how many cores there are


@final
@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a run left.

    Args:
        results: the finished cells.
        prepared: what was prepared, by case.
        missing: cases that could not be run, and why.
        open_counts: by case, cells that were not run though they could be: only where nothing new was to be run.
        device: what the cells ran on.
        stale_counts: as ``open_counts``, of cells that are kept of other code or settings; they are not among those.
    """

    results: Results
    prepared: Mapping[str, Finished]
    missing: Mapping[str, str]
    open_counts: Mapping[str, int]
    device: Device
    stale_counts: Mapping[str, int] = field(default_factory=dict)


@final
class Stopped(KeyboardInterrupt):
    """Somebody stopped a run: ``finished`` of its ``count`` cells are kept."""

    def __init__(self, finished: int, count: int) -> None:
        super().__init__(f"{finished} of {count} cells are kept")
        self.finished, self.count = finished, count


def run_study(
    study: Study,
    plan: Plan,
    store: CellStore,
    *,
    seed_count: int | None = None,
    device: str = "cpu",
    only_stored: bool = False,
    take_over: str | None = None,
    console: Console | None = None,
) -> Outcome:
    """Run what is not in ``store`` yet, or is there of other code or settings.

    Args:
        study: what is run.
        plan: ``study.full`` or ``study.quick``.
        store: where finished cells are.
        seed_count: how many seeds each arm is run from, instead of the plan's.
        device: what ``run`` is told; ``auto`` is decided here.
        only_stored: run nothing, take what is there.
        take_over: why cells in ``store`` are believed though their fingerprint is another; each keeps the reason, and
            the report tells it. ``None``: they are not believed.
        console: where progress goes; stderr if ``None``.

    Raises:
        ConfigError: ``device`` is not to be had.
        Stopped: a KeyboardInterrupt came.
    """
    there = Compute.of(device, section="reproduce").device
    runner = _Runner(study, plan, store, there, only_stored=only_stored, take_over=take_over)
    cells = list(plan.cells(seed_count))
    kept = [runner.look(cell) for cell in cells]
    with torch_threads(_THREADS), _Shown(study.name, len(cells), console) as shown:
        if not only_stored:
            shown.tell(_before(kept, is_believed=take_over is not None))
        try:
            for cell in cells:
                shown.begin(cell)
                shown.end(cell, runner.finish(cell))
        except KeyboardInterrupt as stop:
            # Those that come later in the plan and were kept before are kept still.
            raise Stopped(sum(runner.look(cell) is Kept.FRESH for cell in cells), len(cells)) from stop
    return Outcome(
        results=Results(runner.finished),
        prepared=runner.prepared,
        missing=runner.missing,
        open_counts=dict(runner.open_counts),
        stale_counts=dict(runner.stale_counts),
        device=there,
    )


@final
class _Runner:
    def __init__(
        self, study: Study, plan: Plan, store: CellStore, device: Device, *, only_stored: bool, take_over: str | None
    ) -> None:
        self._study, self._plan, self._store, self._device = study, plan, store, device
        self._only_stored, self._take_over = only_stored, take_over
        reach = reach_of_study(study)
        self._code = reach.fingerprint
        self._computed = f"{machinery_fingerprint(device) if reach.machinery else 'none'} by {_THREADS}"
        self.finished: dict[Cell, Finished] = {}
        self.prepared: dict[str, Finished] = {}
        self.missing: dict[str, str] = {}
        self.open_counts: Counter[str] = Counter()
        self.stale_counts: Counter[str] = Counter()

    def look(self, cell: Cell) -> Kept:
        """What is kept of it, before anything is run; what was prepared for it may have to be prepared anew."""
        prepared = self._known(cell.case)
        return self._store.look(cell, None if prepared is None else self._mark(cell, prepared))

    def finish(self, cell: Cell) -> Finished | None:
        """From the store, or by running it; ``None`` where neither can be."""
        if cell.case in self.missing:
            return None
        try:
            prepared = self._prepare(cell.case)
            done = self._done(cell, prepared) if prepared is not None else None
        except DataError as problem:
            self.missing[cell.case] = str(problem)
            return None
        if done is None:
            counts = self.stale_counts if self.look(cell) is Kept.STALE else self.open_counts
            counts[cell.case] += 1
        else:
            self.finished[cell] = done
        return done

    def _prepare(self, case: str) -> Mapping[str, float] | None:
        if self._study.prepare is None:
            return {}
        if case not in self.prepared:
            done = self._done(Cell(case=case, arm=PREPARED, seed=0), {})
            if done is None:
                return None
            self.prepared[case] = done
        return self.prepared[case].figures

    def _known(self, case: str) -> Mapping[str, float] | None:
        if self._study.prepare is None:
            return {}
        cell = Cell(case=case, arm=PREPARED, seed=0)
        done = self._store.get(cell, self._mark(cell, {}))
        return None if done is None else done.figures

    def _mark(self, cell: Cell, prepared: Mapping[str, float]) -> str:
        code = f"{self._code} {self._computed}"
        return fingerprint(code, cell, _settings_of(self._plan, cell.case), self._device, prepared)

    def _done(self, cell: Cell, prepared: Mapping[str, float]) -> Finished | None:
        mark = self._mark(cell, prepared)
        if self._take_over is not None:
            self._store.take_over(cell, mark, self._code, self._take_over)
        kept = self._store.get(cell, mark)
        if kept is not None or self._only_stored:
            return kept
        with self._store.scratch(cell, mark) as scratch:
            setting = Setting(settings=self._plan.settings, scratch=scratch, device=self._device, prepared=prepared)
            started = time.perf_counter()
            if cell.arm == PREPARED:
                assert self._study.prepare is not None
                figures = self._study.prepare(cell.case, setting)
            else:
                figures = self._study.run(cell, setting)
            seconds = round(time.perf_counter() - started, 3)
            done = Finished(
                figures=figures,
                seconds=seconds,
                rules=self._study.rules,
                cases=frozenset(self._plan.cases),
                code=self._code,
                made_by=in_words(program(), machine()),
            )
            self._store.put(cell, mark, done)
        # What was read back is what a rerun will see: both must give the same report.
        return self._store.get(cell, mark)


def _settings_of(plan: Plan, case: str) -> dict[str, Any]:
    """The plan's settings as the case meets them: of those that name it, what they say of it."""
    return {
        name: value[case] if isinstance(value, Mapping) and case in value else value
        for name, value in plan.settings.items()
    }


def _before(kept: Sequence[Kept], *, is_believed: bool) -> str:
    """What a run begins with, for people.

    >>> _before([Kept.FRESH, Kept.STALE, Kept.STALE], is_believed=False)
    '3 cells: 1 is kept, 2 are of other code or settings and will be run anew'
    """
    counts = Counter(kept)
    told = (
        (counts[Kept.FRESH], "kept"),
        (counts[Kept.STALE], f"of other code or settings and will be {'taken over' if is_believed else 'run anew'}"),
        (counts[Kept.NONE], "new"),
    )
    return f"{len(kept)} cells: {', '.join(f'{count} {_is(count)} {what}' for count, what in told if count)}"


def _is(count: int) -> str:
    return "is" if count == 1 else "are"


@final
class _Shown:
    """A bar over the cells on a terminal, else a line for each that was finished."""

    def __init__(self, name: str, cell_count: int, console: Console | None) -> None:
        self._console = console if console is not None else Console(stderr=True, highlight=False)
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(compact=True),
        )
        self._bar = Progress(*columns, console=self._console, disable=not self._console.is_terminal)
        self._task = self._bar.add_task(name, total=cell_count)
        self._name = name

    def __enter__(self) -> _Shown:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def tell(self, what: str) -> None:
        self._console.print(f"{self._name}: {what}", soft_wrap=True)

    def begin(self, cell: Cell) -> None:
        self._bar.update(self._task, description=f"{self._name}: {cell.case} {cell.arm} seed {cell.seed}")

    def end(self, cell: Cell, done: Finished | None) -> None:
        self._bar.advance(self._task)
        if done is not None and not self._console.is_terminal:
            told = "  ".join(f"{name} {value:.5g}" for name, value in done.figures.items())
            self._console.print(
                f"{cell.case}  {cell.arm}  seed {cell.seed}  {done.seconds:.1f} s  {told}", soft_wrap=True
            )

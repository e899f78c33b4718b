"""Cells run once, go on where a run was cut off, and run again when what made them has changed."""

import io
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from toy import figures_of, toy

from dolmen.errors import ConfigError
from dolmen.studies import Cell, CellStore, Outcome, Part, Plan, Setting, Stopped, Study, make_report, run_study
from dolmen.studies import runner as runner_module
from dolmen.studies.reach import Definition, Reach
from dolmen.studies.study import PREPARED

OTHER_CODE = Reach(code={Definition("toy", "run"): "changed"}, machinery=False)
MACHINE = {"cpu": "a chip", "cores": 2, "torch": "2"}
MADE_BY = {"command": "toy", "date": "2026-01-01", "program": {"commit": "none"}, "machine": {}}


def run(study: Study, store: CellStore, **options: Any) -> Outcome:
    return run_study(study, study.full, store, console=Console(file=io.StringIO()), **options)


def counted(tmp_path: Path, **changed: object) -> tuple[Study, Path]:
    runs = tmp_path / "runs"
    study = toy()
    return replace(study, full=replace(study.full, settings={"runs": str(runs)}), **changed), runs


def test_every_arm_runs_from_every_seed_and_is_kept(tmp_path: Path) -> None:
    study, runs = counted(tmp_path)
    outcome = run(study, CellStore(tmp_path / "cells"))
    expected = [Cell(case="films", arm=arm, seed=seed) for seed in range(3) for arm in ("plain", "better")]
    assert list(outcome.results.finished) == expected
    for cell, done in outcome.results.finished.items():
        assert done.figures == {**figures_of(cell), "rate": 0.0}
    again = run(study, CellStore(tmp_path / "cells"))
    assert again.results.finished == outcome.results.finished
    assert len(runs.read_text().splitlines()) == 6


def test_only_what_has_changed_runs_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study, runs = counted(tmp_path)
    store = CellStore(tmp_path / "cells")
    run(study, store)
    run(study, store, seed_count=5)
    assert len(runs.read_text().splitlines()) == 10  # two more seeds of two arms
    run(replace(study, full=replace(study.full, settings={**study.full.settings, "size": 2})), store)
    assert len(runs.read_text().splitlines()) == 16
    for sizes, count in (
        ({"films": 2, "books": 5}, 16),
        ({"films": 2, "books": 6}, 16),
        ({"films": 3, "books": 6}, 22),
    ):
        by_case = replace(study.full, settings={**study.full.settings, "size": sizes})
        run(replace(study, full=by_case), store)  # what is said of another case does not count
        assert len(runs.read_text().splitlines()) == count
    run(study, store)
    assert len(runs.read_text().splitlines()) == 28
    monkeypatch.setattr(runner_module, "reach_of_study", lambda _: OTHER_CODE)
    run(study, store)
    assert len(runs.read_text().splitlines()) == 34


def test_what_is_prepared_once_reaches_every_cell_and_decides_whether_it_is_stale(tmp_path: Path) -> None:
    rates = iter([0.1, 0.2])
    study, runs = counted(tmp_path, prepare=lambda case, setting: {"rate": next(rates)})  # noqa: ARG005
    store = CellStore(tmp_path / "cells")
    outcome = run(study, store)
    assert outcome.prepared["films"].figures == {"rate": 0.1}
    assert {done.figures["rate"] for done in outcome.results.finished.values()} == {0.1}
    run(study, store)
    assert len(runs.read_text().splitlines()) == 6
    (store.folder / "films" / f"{PREPARED}-0.json").unlink()
    assert run(study, store).prepared["films"].figures == {"rate": 0.2}
    assert len(runs.read_text().splitlines()) == 12


def test_data_that_is_not_here_is_told_and_passed_over(tmp_path: Path) -> None:
    parts = (
        Part(case="absent", arms=("plain", "better"), seed_count=2),
        Part(case="films", arms=("plain",), seed_count=1),
    )
    outcome = run(toy(full=Plan(parts=parts, minutes=1)), CellStore(tmp_path))
    assert outcome.missing == {"absent": "absent is not on this machine\nlooked in: nowhere"}
    assert [cell.case for cell in outcome.results.finished] == ["films"]
    assert outcome.open_counts == {}


def test_stored_runs_nothing_and_counts_what_is_open(tmp_path: Path) -> None:
    study, runs = counted(tmp_path)
    store = CellStore(tmp_path / "cells")
    run(study, store, seed_count=1)
    outcome = run(study, store, only_stored=True)
    assert (len(outcome.results.finished), outcome.open_counts) == (2, {"films": 4})
    assert len(runs.read_text().splitlines()) == 2
    assert outcome.stale_counts == {}


@pytest.mark.parametrize("prepares", [False, True])
def test_cells_of_other_code_are_told_apart_from_those_that_were_never_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, prepares: bool
) -> None:
    prepare = (lambda _case, _setting: {"rate": 0.1}) if prepares else None
    study, _ = counted(tmp_path, prepare=prepare)
    store, told = CellStore(tmp_path / "cells"), io.StringIO()
    run_study(study, study.full, store, seed_count=1, console=Console(file=told))
    assert "toy: 2 cells: 2 are new\n" in told.getvalue()
    monkeypatch.setattr(runner_module, "reach_of_study", lambda _: OTHER_CODE)
    outcome = run(study, store, only_stored=True)
    assert (outcome.results.finished, outcome.stale_counts, outcome.open_counts) == ({}, {"films": 2}, {"films": 4})
    text = make_report(study, study.full, outcome, MADE_BY | {"machine": MACHINE}).to_markdown(None)
    assert "2 cells are kept, of other code or settings: run again, or believe by `--take-over WHY`." in text
    assert "Cells of the plan that were not run: 4 of films." in text
    told.truncate(0)
    run_study(study, study.full, store, console=Console(file=told))
    assert "toy: 6 cells: 2 are of other code or settings and will be run anew, 4 are new\n" in told.getvalue()
    run_study(study, study.full, store, console=Console(file=told))
    assert "toy: 6 cells: 6 are kept\n" in told.getvalue()


def test_who_stops_a_run_is_told_how_much_of_it_is_kept(tmp_path: Path) -> None:
    def until_better(cell: Cell, _: Setting) -> dict[str, float]:
        if cell == Cell(case="films", arm="better", seed=1):
            raise KeyboardInterrupt
        return figures_of(cell)

    with pytest.raises(Stopped) as stopped:
        run(toy(run=until_better), CellStore(tmp_path))
    assert (stopped.value.finished, stopped.value.count) == (3, 6)


def test_cells_of_other_code_are_believed_for_a_reason_and_tell_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study, runs = counted(tmp_path)
    store = CellStore(tmp_path / "cells")
    run(study, store, seed_count=1)
    monkeypatch.setattr(runner_module, "reach_of_study", lambda _: OTHER_CODE)
    outcome = run(study, store, only_stored=True, take_over="only a name changed")
    assert [done.taken_over for done in outcome.results.finished.values()] == ["only a name changed"] * 2
    assert {done.taken_over_for for done in outcome.results.finished.values()} == {OTHER_CODE.fingerprint}
    assert outcome.open_counts == {"films": 4}
    again = run(study, store, only_stored=True, take_over="for the second time")
    assert again.results.finished == outcome.results.finished  # for this code they are believed already
    run(study, store)
    assert len(runs.read_text().splitlines()) == 6  # four that nobody had run
    text = make_report(study, study.full, run(study, store), MADE_BY | {"machine": MACHINE}).to_markdown(None)
    assert "2 of 6 cells were taken over from other code: only a name changed." in text


def test_a_device_that_is_not_here_is_refused_before_anything_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match=r'reproduce\.device is "cuda", and torch .* sees no CUDA device here'):
        run(toy(), CellStore(tmp_path), device="cuda")
    with pytest.raises(ConfigError, match="must be one of cpu, cuda, auto, got 'abacus'"):
        run(toy(), CellStore(tmp_path), device="abacus")


@pytest.mark.fault
def test_a_run_that_was_killed_goes_on_and_reports_the_same(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from toy import toy; from dolmen.studies import CellStore, run_study\n"
        "study = toy(); run_study(study, study.full, CellStore(Path(sys.argv[1])))"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "killed")]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent), "BLOCK_AT": "better-1"}
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"reached\n"
        process.kill()
    kept = list((tmp_path / "killed").rglob("*.json"))
    assert len(kept) == 3  # both arms of seed 0, one of seed 1

    study = toy()
    reports = []
    for folder in ("killed", "whole"):
        outcome = run(study, CellStore(tmp_path / folder))
        timeless = {cell: replace(done, seconds=0.0) for cell, done in outcome.results.finished.items()}
        outcome = replace(outcome, results=type(outcome.results)(timeless))
        reports.append(make_report(study, study.full, outcome, MADE_BY).to_json())
    assert reports[0] == reports[1]


def test_what_long_work_left_is_found_by_the_next_try_and_gone_once_finished(tmp_path: Path) -> None:
    tries: list[Path] = []

    def in_two_pieces(cell: Cell, setting: Setting) -> dict[str, float]:
        tries.append(setting.scratch)
        half = setting.scratch / "half"
        if not half.exists():
            half.parent.mkdir(parents=True)
            half.write_text("0.5")
            raise KeyboardInterrupt
        return {**figures_of(cell), "rate": float(half.read_text())}

    plan = Plan(parts=(Part(case="films", arms=("plain",), seed_count=1),), minutes=1)
    study, store = toy(full=plan, run=in_two_pieces), CellStore(tmp_path / "cells")
    with pytest.raises(KeyboardInterrupt):
        run(study, store)
    (done,) = run(study, store).results.finished.values()
    assert done.figures["rate"] == 0.5
    assert len(set(tries)) == 1
    assert not tries[0].exists()

"""The study in the how-to is one that runs."""

import importlib.util
import io
import re
import sys
from pathlib import Path

import pytest
from rich.console import Console

from dolmen.studies import CellStore, Verdict, make_report, run_study

PAGE = Path(__file__).resolve().parents[2] / "docs/how-to/studies.md"


def test_the_study_of_the_how_to_runs_and_its_claims_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (program,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    path = tmp_path / "my_paper.py"
    path.write_text(program)
    spec = importlib.util.spec_from_file_location("my_paper", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "my_paper", module)
    spec.loader.exec_module(module)
    for plan in (module.STUDY.full, module.STUDY.quick):
        outcome = run_study(module.STUDY, plan, CellStore(tmp_path / "cells"), console=Console(file=io.StringIO()))
        report = make_report(module.STUDY, plan, outcome, {})
        assert [one.verdict for one in report.judged] == [Verdict.HOLDS]

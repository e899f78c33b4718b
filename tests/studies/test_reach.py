"""A cell is stale once code has changed that its run can reach, and nobody keeps a list of that code."""

from __future__ import annotations

import ast
import importlib
import pkgutil
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import pytest
from toy import toy

import dolmen
from dolmen import datasets, studies
from dolmen.studies import Cell, Setting, Study
from dolmen.studies import reach as reach_module
from dolmen.studies.machinery import BESIDE, MACHINERY
from dolmen.studies.reach import LEFT_OUT, Definition, Reach, reach_of, reach_of_study

_PACKAGE = Path(dolmen.__file__).parent
_FEW = 1000
_SMALLER = {
    "bert4rec": {"passes": {"movielens-100k": 1}, "sequences_max": 40},
    "monolith-collisions": {"tuning_examples_max": _FEW},
}
"""Settings of the quick form that leave little to learn; of the others, as many examples as ``_FEW``."""


@pytest.fixture
def reached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Reach]]:
    """``reached(main=..., other=...)``: writes modules of these texts and reads what ``main.run`` can reach."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def reach(names: tuple[str, ...] = (), **texts: str) -> Reach:
        reach_module._module.cache_clear()
        for name in texts:
            sys.modules.pop(name, None)
        for name, text in texts.items():
            (tmp_path / f"{name}.py").write_text(text)
        importlib.invalidate_caches()
        return reach_of([importlib.import_module("main_of_test").run], names=names)

    yield reach
    for name in [one for one in sys.modules if one.endswith("_of_test")]:
        del sys.modules[name]
    reach_module._module.cache_clear()


MAIN = (
    "import numpy as np\n"
    "from other_of_test import helped, unused\n"
    "RATE = 2\n"
    "def run(cell, setting):\n"
    "    return helped(RATE) + np.pi\n"
    "def beside():\n"
    "    return unused()\n"
)
OTHER = (
    "from dolmen import seeds\n"
    "def helped(rate):\n"
    "    from dolmen.evaluation import auc\n"
    "    return Deep().forward(rate, auc)\n"
    "class Deep:\n"
    "    def forward(self, rate, auc):\n"
    "        return seeds.generator(rate)\n"
    "def unused():\n"
    "    return 1\n"
)


def test_what_a_run_can_reach_is_followed_through_calls_modules_and_imports_within(
    reached: Callable[..., Reach],
) -> None:
    found = set(reached(main_of_test=MAIN, other_of_test=OTHER).code)
    names = {(one.module, one.name) for one in found if one.name}
    assert names >= {
        ("main_of_test", "run"),
        ("main_of_test", "RATE"),
        ("other_of_test", "helped"),
        ("other_of_test", "Deep"),
        ("dolmen.seeds", "generator"),
        ("dolmen.evaluation.metrics", "auc"),  # not where it is given away, but where it is
    }
    assert not names & {("main_of_test", "beside"), ("other_of_test", "unused")}


@pytest.mark.parametrize(
    ("module", "old", "new", "is_other"),
    [
        ("main", "return unused()", "return 3", False),
        ("other", "return 1", "return 2", False),
        ("main", "RATE = 2", 'RATE = 2  # as in the paper\n__all__ = ["run"]', False),
        ("main", "RATE = 2", "RATE = 3", True),
        ("other", "generator(rate)", "generator(rate + 1)", True),
        ("other", "from dolmen import seeds", "from dolmen import clock as seeds", True),
        ("other", "import auc", "import gauc as auc", True),
        ("main", "import numpy as np", "import math as np", True),
    ],
)
def test_only_a_change_of_what_is_reached_is_another_fingerprint(
    reached: Callable[..., Reach], module: str, old: str, new: str, *, is_other: bool
) -> None:
    texts = {"main_of_test": MAIN, "other_of_test": OTHER}
    before = reached(**texts).fingerprint
    name = f"{module}_of_test"
    assert old in texts[name]
    after = reached(**(texts | {name: texts[name].replace(old, new)})).fingerprint
    assert (after != before) == is_other


def test_a_guard_counts_only_where_its_answer_is_used(reached: Callable[..., Reach]) -> None:
    text = "from dolmen.evaluation.guards import require_distinct\ndef run():\n    require_distinct(1)\n"
    assert "dolmen.evaluation.guards" not in reached(main_of_test=text).modules
    assert "dolmen.evaluation.guards" in reached(main_of_test=text.replace("    req", "    return req")).modules


def test_a_local_name_leads_nowhere(reached: Callable[..., Reach]) -> None:
    text = (
        "from dolmen import clock, seeds, settings\n"
        "def run(clock, setting):\n"
        "    seeds = 1\n"
        "    return [settings for settings in (clock, seeds)]\n"
    )
    assert reached(main_of_test=text).modules == ["main_of_test"]
    text = "from dolmen import clock\ndef run():\n    return [clock for clock in ()], clock.Duration\n"
    assert "dolmen.clock" in reached(main_of_test=text).modules


def test_of_models_and_data_sets_those_count_that_are_named(reached: Callable[..., Reach]) -> None:
    text = "from dolmen.training import new_trainer\ndef run():\n    return new_trainer({}, 'dcn')\n"
    models = "dolmen.models.ranking."
    for name, others in (("deepfm", ("din", "tin")), ("tin", ("deepfm", "pnn"))):
        found = reached(main_of_test=text.replace("dcn", name)).modules
        assert models + name in found
        assert not {models + other for other in others} & set(found)
    assert models + "pnn" in reached(names=("pnn",), main_of_test=text).modules
    text = "from dolmen import datasets\ndef run():\n    return datasets.load('gowalla')\n"
    found = reached(main_of_test=text).modules
    assert "dolmen.datasets.gowalla" in found
    assert "dolmen.datasets.ta_feng" not in found


def test_a_study_may_name_what_no_import_leads_to() -> None:
    before = reach_of_study(toy())
    assert "dolmen.clock" not in before.modules
    whole = reach_of_study(toy(stands_on=("dolmen.clock",)))
    one = reach_of_study(toy(stands_on=("dolmen.clock:parse_duration_us",)))
    assert set(before.code) < set(one.code) < set(whole.code)
    for name in ("dolmen.no_such", "dolmen.clock:no_such"):
        with pytest.raises(ValueError, match=f"a study stands on '{name}'|a study stands on 'dolmen.no_such'"):
            reach_of_study(toy(stands_on=(name,)))


def test_what_is_left_out_or_stands_beside_is_there() -> None:
    there = {name for _, name, _ in pkgutil.walk_packages([str(_PACKAGE)], "dolmen.")}
    assert {*LEFT_OUT, *MACHINERY, *(place.partition(":")[0] for place in BESIDE)} <= there


def test_a_new_file_beside_the_tables_is_read_until_the_probe_stands_for_it(
    reached: Callable[..., Reach], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = shutil.copytree(
        _PACKAGE, tmp_path / "copy" / "dolmen", ignore=shutil.ignore_patterns("*.so", "__pycache__")
    )
    (package / "embedding" / "shelves.py").write_text("def reach_for(row):\n    return row + 1\n")
    monkeypatch.setattr(reach_module, "_PACKAGE", package)
    text = (
        "from dolmen.embedding.table import Table\n"
        "def run():\n"
        "    from dolmen.embedding.shelves import reach_for\n"  # within, as only the copy has it
        "    return reach_for(Table(1))\n"
    )
    found = reached(main_of_test=text)
    assert Definition("dolmen.embedding.shelves", "reach_for") in found.code
    assert "dolmen.embedding.table" not in found.modules
    monkeypatch.setattr(reach_module, "MACHINERY", (*MACHINERY, "dolmen.embedding.shelves"))
    assert "dolmen.embedding.shelves" not in reached(main_of_test=text).modules


@pytest.mark.data
@pytest.mark.parametrize("name", studies.names())
def test_all_code_that_a_run_of_a_study_calls_is_in_its_fingerprint_or_left_out_for_a_reason(
    name: str, tmp_path: Path
) -> None:
    study = studies.study(name)
    absent = [one for one in study.quick.cases if one in datasets.names() and datasets.where(one) is None]
    if absent:
        pytest.skip(f"{', '.join(absent)} cannot be had here")
    # What modules do while they are imported is told by their fingerprint, too, but not by whom it is called.
    for folder in ("datasets", "embedding", "evaluation", "features", "models", "training"):
        for _, module, _ in pkgutil.walk_packages([str(_PACKAGE / folder)], f"dolmen.{folder}."):
            importlib.import_module(module)
    called = _called(study, tmp_path)
    reach = reach_of_study(study)
    left_out = (*LEFT_OUT, *MACHINERY)
    unknown = {
        one
        for one in called
        if one not in reach.code
        and not any(f"{one.module}.".startswith(f"{place}.") for place in left_out)
        and not one.module.endswith(".guards")
    }
    assert len(called) > 50
    assert not unknown, "name them in `machinery.BESIDE`, or in `reach.LEFT_OUT` with a reason"


def _called(study: Study, folder: Path) -> set[Definition]:
    """What of dolmen a small run of each of the quick form's arms calls."""
    settings = dict(study.quick.settings) | _SMALLER.get(study.name, {"examples_max": _FEW})
    codes: set[CodeType] = set()

    def note(frame: FrameType, event: str, _: object) -> None:
        if event == "call":
            codes.add(frame.f_code)

    for number, cell in enumerate(study.quick.cells(1)):
        setting = Setting(
            settings=settings, scratch=folder / f"{number}", prepared=_prepared(study, cell, settings, note)
        )
        _noting(note, study.run, cell, setting)
    places = [(Path(code.co_filename), code) for code in codes if code.co_name != "<module>"]
    return {_definition(path, code) for path, code in places if path.is_relative_to(_PACKAGE)}


def _prepared(study: Study, cell: Cell, settings: Mapping[str, Any], note: Callable[..., None]) -> Mapping[str, float]:
    if study.prepare is None:
        return {}
    found: Mapping[str, float] = _noting(
        note, study.prepare, cell.case, Setting(settings=settings, scratch=Path("not used"))
    )
    return found


def _noting(note: Callable[..., None], call: Callable[..., Any], *told: object) -> Any:
    before = sys.getprofile()
    sys.setprofile(note)
    try:
        return call(*told)
    finally:
        sys.setprofile(before)


def _definition(path: Path, code: CodeType) -> Definition:
    module = ".".join(["dolmen", *path.relative_to(_PACKAGE).with_suffix("").parts]).removesuffix(".__init__")
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        first = min([node.lineno, *(one.lineno for one in getattr(node, "decorator_list", []))])
        if first <= code.co_firstlineno <= (node.end_lineno or 0):
            return Definition(module, getattr(node, "name", "") or next(iter(reach_module._defined(node)), ""))
    return Definition(module, f"? {code.co_qualname}")

"""What is kept of finished cells is believed only while the code that made it is the same."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from dolmen.errors import DataError
from dolmen.studies import Cell, CellStore, Finished
from dolmen.studies.bare import bare_tree, told_of
from dolmen.studies.cells import Kept, fingerprint

CELL = Cell(case="films", arm="plain", seed=3)
DONE = Finished(figures={"auc": 0.75, "loss": math.nan}, seconds=1.5)


def test_a_cell_comes_back_as_it_was_put(tmp_path: Path) -> None:
    store = CellStore(tmp_path)
    store.put(CELL, "one", DONE)
    found = store.get(CELL, "one")
    assert found is not None
    assert found.seconds == 1.5
    assert found.figures["auc"] == 0.75
    assert math.isnan(found.figures["loss"])
    assert [path.name for path in (tmp_path / "films").iterdir()] == ["plain-3.json"]


def test_a_cell_that_is_taken_over_says_why_ever_after(tmp_path: Path) -> None:
    store = CellStore(tmp_path)
    store.take_over(CELL, "two", "code", "nothing is there")
    assert store.get(CELL, "two") is None
    store.put(CELL, "one", replace(DONE, rules=frozenset({"a rule"}), code="its maker's"))
    store.take_over(CELL, "one", "code", "it is of this code, so there is nothing to tell")
    for mark, why, told in (
        ("two", "a name changed", "a name changed"),
        ("three", "again", "a name changed; then again"),
    ):
        store.take_over(CELL, mark, f"code {mark}", why)
        found = store.get(CELL, mark)
        assert found is not None
        assert (found.taken_over, found.rules, found.figures["auc"]) == (told, frozenset({"a rule"}), 0.75)
        assert (found.code, found.taken_over_for) == ("its maker's", f"code {mark}")
    assert store.get(CELL, "one") is None


def test_of_a_cell_that_was_taken_over_before_makers_were_kept_nobody_knows_whose_code_made_it(tmp_path: Path) -> None:
    store, path = CellStore(tmp_path), tmp_path / "films" / "plain-3.json"
    store.put(CELL, "one", replace(DONE, code="who took it over"))
    path.write_text(json.dumps(json.loads(path.read_text()) | {"taken_over": "a name changed"}))
    found = store.get(CELL, "one")
    assert found is not None
    assert (found.code, found.taken_over_for) == ("", "who took it over")


def test_a_cell_of_another_fingerprint_arm_seed_or_case_is_as_good_as_none(tmp_path: Path) -> None:
    store = CellStore(tmp_path)
    store.put(CELL, "one", DONE)
    assert store.get(CELL, "two") is None
    for other in (
        Cell(case="films", arm="plain", seed=4),
        Cell(case="films", arm="better", seed=3),
        Cell(case="books", arm="plain", seed=3),
    ):
        assert store.get(other, "one") is None


@pytest.mark.fault
@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"fingerprint": "one", "figures": 3, "seconds": 1}'])
def test_a_torn_file_is_as_good_as_none(tmp_path: Path, text: str) -> None:
    store = CellStore(tmp_path)
    store.put(CELL, "one", DONE)
    (tmp_path / "films" / "plain-3.json").write_text(text)
    assert store.get(CELL, "one") is None


@pytest.mark.fault
def test_a_cell_that_cannot_be_written_says_where(tmp_path: Path) -> None:
    (tmp_path / "films").write_text("in the way")
    with pytest.raises(DataError, match=r"films.*name another folder"):
        CellStore(tmp_path).put(CELL, "one", DONE)


def test_the_fingerprint_changes_with_all_that_decides_a_figure() -> None:
    marks = {
        fingerprint("code", CELL, {"size": 1}, "cpu", {}),
        fingerprint("other", CELL, {"size": 1}, "cpu", {}),
        fingerprint("code", Cell(case="films", arm="plain", seed=4), {"size": 1}, "cpu", {}),
        fingerprint("code", CELL, {"size": 2}, "cpu", {}),
        fingerprint("code", CELL, {"size": 1}, "cuda", {}),
        fingerprint("code", CELL, {"size": 1}, "cpu", {"rate": 0.1}),
    }
    assert len(marks) == 6
    assert fingerprint("code", CELL, {"size": 1}, "cpu", {}) in marks


@pytest.mark.parametrize(
    ("code", "same", "other"),
    [
        (
            'RATE = 1\n\ndef run() -> int:\n    """Runs."""\n    return RATE  # why\n\nSTUDY: F = f("A")\n',
            '__all__ = ["run"]\nRATE = 1\ndef run() -> int:\n    "Ran."\n    return (RATE)\nSTUDY: F = f("B")\n',
            "RATE = 1\n\ndef run() -> int:\n    return 2 * RATE\n",
        ),
        (
            'def run(n):\n    if n < 1:\n        raise ValueError("few")\n    return n\n',
            'def run(n):\n    if n < 1:\n        raise ValueError(f"{n} is few")\n    _log.info("go")\n    return n\n',
            'def run(n):\n    if n < 2:\n        raise ValueError("few")\n    return n\n',
        ),
        (
            "def run(n):\n    return require(n)\n",
            "from dolmen.evaluation.guards import require_few\n\ndef run(n):\n    require_few(n)\n"
            "    return require(n)\n",
            "from dolmen.evaluation.guards import require\n\ndef run(n):\n    require(n)\n    return n\n",
        ),
    ],
)
def test_only_what_a_figure_can_follow_from_counts(code: str, same: str, other: str) -> None:
    one, again, changed = (told_of(bare_tree(text)) for text in (code, same, other))
    assert one == again != changed


def test_what_is_kept_is_fresh_stale_or_nothing(tmp_path: Path) -> None:
    store = CellStore(tmp_path)
    assert store.look(CELL, "one") is Kept.NONE
    store.put(CELL, "one", DONE)
    assert [store.look(CELL, mark) for mark in ("one", "two", None)] == [Kept.FRESH, Kept.STALE, Kept.STALE]
    (tmp_path / "films" / "plain-3.json").write_text("{")
    assert store.look(CELL, None) is Kept.NONE


def test_cells_come_from_a_report_of_their_study_and_only_those_of_the_plan(tmp_path: Path) -> None:
    cells = [
        {"case": "films", "arm": arm, "seed": 0, "figures": {}, "seconds": 1} for arm in ("plain", "odd", "better")
    ]
    report = tmp_path / "toy.json"
    report.write_text(json.dumps({"study": "toy", "cells": cells}))
    plain, better = (Cell(case="films", arm=arm, seed=0) for arm in ("plain", "better"))
    store = CellStore(tmp_path / "cells")
    store.put(plain, "one", DONE)
    with pytest.raises(DataError, match=r"toy\.json is a report of toy, and its cells are none of other"):
        store.fill(report, "other", [plain, better])
    filled = store.fill(report, "toy", [plain, better])
    assert (filled.new, filled.known, filled.foreign) == (1, 1, 1)
    kept = {path.name for path in (tmp_path / "cells").rglob("*.json")}
    assert kept == {"plain-0.json", "better-0.json"}
    assert store.get(plain, "one") is not None


def test_cells_of_a_report_were_made_by_whom_they_say_and_not_by_who_wrote_it(tmp_path: Path) -> None:
    """Reports that were written of kept cells once stamped all of them with their own commit."""
    cells = [{"case": "films", "arm": arm, "seed": 0, "figures": {}, "seconds": 1} for arm in ("plain", "better")]
    cells[1]["made_by"] = "commit old, another chip"
    report = tmp_path / "toy.json"
    written_by = {"program": {"commit": "abc"}, "machine": {"cpu": "a chip", "cores": 2, "torch": "2"}}
    report.write_text(json.dumps({"study": "toy", **written_by, "cells": cells}))
    store = CellStore(tmp_path / "cells")
    found = [Cell(case="films", arm=arm, seed=0) for arm in ("plain", "better")]
    store.fill(report, "toy", found)
    kept = [store.get(cell, "") for cell in found]
    assert [done.made_by for done in kept if done is not None] == ["", "commit old, another chip"]

"""What is kept of finished cells is believed only while the code that made it is the same."""

import math
from pathlib import Path

import pytest

from dolmen import studies
from dolmen.errors import DataError
from dolmen.studies import Cell, CellStore, Finished
from dolmen.studies.cells import _without_comments, code_fingerprint, fingerprint, source_files

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


def test_comments_docstrings_and_the_declaration_do_not_count() -> None:
    code = 'RATE = 0.1\n\ndef run() -> float:\n    """Runs."""\n    return RATE  # why\n\nSTUDY: F = Study(title="A")\n'
    same = 'RATE = 0.1\ndef run() -> float:\n    "Ran."\n    return (RATE)\nSTUDY: F = Study(title="B")\n'
    assert _without_comments(code) == _without_comments(same)
    assert _without_comments(code) != _without_comments(code.replace("0.1", "0.2"))
    assert _without_comments(code) != _without_comments(code.replace("return RATE", "return 2 * RATE"))


def test_a_folder_stands_for_all_its_sources() -> None:
    names = {path.name for path in source_files(["dolmen._core", "dolmen.seeds"])}
    assert {"table.cpp", "table.hpp", "seeds.py"} <= names
    assert code_fingerprint(("dolmen.seeds",)) != code_fingerprint(("dolmen.clock",))
    with pytest.raises(ValueError, match=r"dolmen\.no_such"):
        source_files(["dolmen.no_such"])


@pytest.mark.parametrize("name", studies.names())
def test_every_study_stands_on_code_that_exists(name: str) -> None:
    study = studies.study(name)
    assert Path(__file__).resolve().parents[2] / "src/dolmen/studies" in {
        path.parent for path in source_files((study.module, *study.stands_on))
    }

"""What is kept of finished cells is believed only while the code that made it is the same."""

import math
from dataclasses import replace
from pathlib import Path

import pytest

from dolmen import studies
from dolmen.errors import DataError
from dolmen.studies import Cell, CellStore, Finished
from dolmen.studies.cells import _bare, code_fingerprint, fingerprint, source_files

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
    store.take_over(CELL, "two", "nothing is there")
    assert store.get(CELL, "two") is None
    store.put(CELL, "one", replace(DONE, rules=frozenset({"a rule"})))
    store.take_over(CELL, "one", "it is of this code, so there is nothing to tell")
    for mark, why, told in (
        ("two", "a name changed", "a name changed"),
        ("three", "again", "a name changed; then again"),
    ):
        store.take_over(CELL, mark, why)
        found = store.get(CELL, mark)
        assert found is not None
        assert (found.taken_over, found.rules, found.figures["auc"]) == (told, frozenset({"a rule"}), 0.75)
    assert store.get(CELL, "one") is None


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
    ],
)
def test_only_what_a_figure_can_follow_from_counts_in_python(tmp_path: Path, code: str, same: str, other: str) -> None:
    one, again, changed = (
        written(tmp_path / name, text) for name, text in zip("abc", (code, same, other), strict=True)
    )
    assert one == again != changed


def written(stem: Path, text: str, suffix: str = ".py") -> str:
    path = stem.with_suffix(suffix)
    path.write_text(text)
    return _bare(path)


def test_comments_and_layout_do_not_count_in_cpp(tmp_path: Path) -> None:
    code = 'int run() {\n  return f("// no comment", 2);\n}\n'
    same = '/* Runs. */\nint run() {\n  // why\n  return f("// no comment",\n           2);\n}\n'
    assert written(tmp_path / "a", code, ".cpp") == written(tmp_path / "b", same, ".cpp")
    assert written(tmp_path / "a", code, ".cpp") != written(tmp_path / "c", code.replace("// no", "/ no"), ".cpp")


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

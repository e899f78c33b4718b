"""What commands print for people keeps every word and figure, however narrow the terminal is."""

import io
import json
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from dolmen import cli, sheets
from dolmen.errors import DataError
from dolmen.events import EmbeddedLog
from dolmen.sheets import Sheet
from dolmen.studies import list_studies, study

_CLAIM = f"{study('monolith-collisions').claims[0].name}:"
_CELLS = str(sum(1 for _ in study("monolith-collisions").full.cells()))


@pytest.mark.parametrize("width", [60, 80, 200])
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["models"], ["logistic_regression", '"Self-supervised', "full_ndcg@10", "(an ordered slot"]),
        (["reproduce", "--list"], ["monolith-collisions", "2209.07663", _CELLS, _CLAIM]),
        (["data", "list"], ["retailrocket-core", "(simulated)"]),
        (["data", "show", "world"], ["event_time (timestamp[us,"]),
        (["inspect", "."], ["impressions/0", "joiner at 0", "retention waits for", "UTC"]),
    ],
    ids=lambda value: " ".join(value)[:14],
)
def test_no_word_is_cut(
    width: int, arguments: list[str], words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with EmbeddedLog(tmp_path / "log") as log:
        log.append("impressions", [b"x"])
        log.commit("joiner", {("impressions", 0): 0})
    monkeypatch.chdir(tmp_path)
    printed = io.StringIO()
    monkeypatch.setattr(cli, "_out", Console(width=width, file=printed))
    ended = CliRunner().invoke(cli.app, arguments, catch_exceptions=False)
    text = printed.getvalue()
    assert ended.exit_code == 0
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= width
    told = set(text.split())
    for word in " ".join(words).split():
        assert word in told, word


@pytest.mark.parametrize("words", [3, 40])
def test_a_sheet_keeps_each_value_on_a_line_where_nothing_bounds_it(
    words: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    sheet = Sheet("name", "what it is", title="things")
    sheet.add_row("long", "many words " * words)
    console = sheets.wide_console()
    with console.capture() as printed:
        console.print(sheet)
    told = [line for line in printed.get().splitlines() if line.count("many words") == words]
    assert told, "the value was folded"
    # A table where a row fits a page; else a record, so that no line is wide for the sake of another's columns.
    assert ("long" in told[0]) == (words == 3)
    assert words != 3 or len(told[0]) <= 120


def test_the_studies_are_told_as_released_and_by_the_reports_that_are_there(tmp_path: Path) -> None:
    def told_of(folder: Path) -> str:
        printed = io.StringIO()
        Console(width=200, file=printed).print(list_studies(folder))
        return printed.getvalue()

    released = told_of(tmp_path)
    assert _CLAIM in released
    report = {"claims": [{"name": "made-up", "verdict": "holds"}]}
    (tmp_path / "monolith-collisions.json").write_text(json.dumps(report))
    assert "made-up: holds" in told_of(tmp_path)
    assert _CLAIM not in told_of(tmp_path)
    (tmp_path / "monolith-collisions.json").write_text("{")
    with pytest.raises(DataError, match="dolmen reproduce monolith-collisions"):
        told_of(tmp_path)

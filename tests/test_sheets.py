"""What commands print for people keeps every word and figure, however narrow the terminal is."""

import io
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from dolmen import cli, sheets
from dolmen.events import EmbeddedLog
from dolmen.sheets import Sheet
from dolmen.studies import study

_CELLS = str(sum(1 for _ in study("monolith-collisions").full.cells()))


@pytest.mark.parametrize("width", [60, 80, 200])
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["models"], ["logistic_regression", '"Self-supervised', "full_ndcg@10", "(an ordered slot"]),
        (["reproduce", "--list"], ["monolith-collisions", "2209.07663", _CELLS, "not run yet"]),
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


def test_a_sheet_has_a_row_a_line_where_nothing_bounds_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    sheet = Sheet("name", "what it is", title="things")
    sheet.add_row("long", "many words " * 40)
    console = sheets.wide_console()
    with console.capture() as printed:
        console.print(sheet)
    assert [line for line in printed.get().splitlines() if "long" in line and line.count("many words") == 40]

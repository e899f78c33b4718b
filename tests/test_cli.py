"""The command line: what means nothing together is refused, not ignored."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from dolmen.cli import app
from dolmen.errors import ConfigError
from dolmen.events import EmbeddedLog


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["serve", "--config", "x.toml", "--port", "9"], "--port: belongs to --snapshot"),
        (["serve", "--config", "x.toml", "--data", "world"], "--data: belongs to --snapshot"),
        (["serve"], "name either --config"),
        (["train", "--follow", "--epochs", "1"], "--epochs: is for learning in batch"),
        (["train", "--follow", "--data", "world", "--model", "joint"], "--data and --model: is for learning in batch"),
        (["train", "--data", "world", "--config", "x.toml"], "--config: is for --follow"),
        (["train", "--data", "world", "--log-format", "json"], "--log-format: is for --follow"),
        (["demo", "--headless", "--fresh"], "--fresh: a headless run without --state begins in a new folder"),
    ],
)
def test_options_that_mean_nothing_together_are_refused(arguments: list[str], message: str) -> None:
    ended = CliRunner().invoke(app, arguments)
    assert isinstance(ended.exception, ConfigError)
    assert message in str(ended.exception)


def test_inspecting_a_log_changes_no_byte_of_it(tmp_path: Path) -> None:
    with EmbeddedLog(tmp_path / "log") as log:
        log.append("actions", [b"x"])
    path = tmp_path / "log" / "actions" / "0" / "data.mdb"
    path.chmod(0o400)
    before = path.read_bytes(), path.stat().st_mtime_ns
    ended = CliRunner().invoke(app, ["inspect", str(tmp_path), "--json"])
    assert json.loads(ended.output)["log"]["topics"]["actions/0"]["records"] == 1
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before

"""The command line: what means nothing together is refused, not ignored."""

import io
import json
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from dolmen import datasets
from dolmen.cli import app
from dolmen.cluster import inspect_path
from dolmen.errors import CONFIG_STATUS, ConfigError, DataError
from dolmen.events import EmbeddedLog
from dolmen.features import Label, Schema, Slot
from dolmen.unfinished import require_file, require_folder


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
        (["demo", "--ranker", "dinn"], "--ranker: there is no model 'dinn'; did you mean 'din'"),
        (["demo", "--ranker", "two_tower"], "--ranker: there is no ranking model 'two_tower'; known are average"),
        (["demo", "--ranker", "./taste.py:Taste"], "--ranker: './taste.py:Taste' is not of the form module:Class"),
        (["demo", "--headless", "--report", "/proc/x"], "--report /proc/x: nothing can be written to /proc ("),
        (["demo", "--report", "/proc"], "--report /proc is a folder; name a file in it"),
        (["demo", "--data", "world", "--state", "/proc/x"], "--state /proc/x: nothing can be written to /proc ("),
        (["train", "--data", "world", "--out", "/proc/x/y"], "--out /proc/x/y: nothing can be written to /proc ("),
        (["data", "correlation", "world", "genre", "--out", "/proc/x"], "--out /proc/x: nothing can be written to"),
        (["demo", "--headless", "--fresh"], "--fresh: a headless run without --state begins in a new folder"),
    ],
)
def test_options_that_mean_nothing_together_or_lead_nowhere_are_refused(arguments: list[str], message: str) -> None:
    ended = CliRunner().invoke(app, arguments)
    assert isinstance(ended.exception, ConfigError)
    assert message in str(ended.exception)


@pytest.mark.parametrize("verb", [["demo"], ["train", "--data", "world"]])
def test_a_seed_below_zero_is_refused(verb: list[str]) -> None:
    ended = CliRunner().invoke(app, [*verb, "--seed", "-1"])
    assert ended.exit_code == 2
    assert "Invalid value for '--seed'" in " ".join(ended.output.split())


def test_whether_something_can_be_written_is_asked_without_leaving_anything(tmp_path: Path) -> None:
    require_folder(tmp_path / "new" / "newer", "--out")
    require_file(tmp_path / "new" / "report.json", "--report")
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").write_text("kept")
    with pytest.raises(ConfigError, match=r"--out .*file/below: nothing can be written to .*file \(Not a directory\)"):
        require_folder(tmp_path / "file" / "below", "--out")
    require_file(tmp_path / "file", "--report")
    assert (tmp_path / "file").read_text() == "kept"


def test_the_demo_refuses_a_port_in_use_and_names_the_option_that_chooses_another(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        command = [sys.executable, "-m", "dolmen", "demo", "--data", "world", "--state", str(tmp_path)]
        ended = subprocess.run([*command, "--port", str(port)], capture_output=True, text=True, check=False)
    assert ended.returncode == CONFIG_STATUS
    assert f"uses port {port}; stop that one, or choose another port with --port" in ended.stderr
    assert not list((tmp_path / "logs").glob("serve.log")), "no process was started"


def test_the_demo_refuses_a_data_set_without_slates_before_it_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = datasets.load("world")
    nameless = replace(world, schema=Schema(Slot("user"), Label("click")))
    monkeypatch.setattr(datasets, "load", lambda _: nameless)
    ended = CliRunner().invoke(app, ["demo", "--state", str(tmp_path / "state")])
    assert isinstance(ended.exception, DataError)
    assert str(ended.exception) == (
        "world: its examples name no item, so there is nothing to show; --data world or movielens-100k, for example,"
        " can be replayed"
    )
    assert not (tmp_path / "state").exists()


def test_inspecting_a_log_changes_no_byte_of_it(tmp_path: Path) -> None:
    with EmbeddedLog(tmp_path / "log") as log:
        log.append("actions", [b"x"])
    path = tmp_path / "log" / "actions" / "0" / "data.mdb"
    path.chmod(0o400)
    before = path.read_bytes(), path.stat().st_mtime_ns
    ended = CliRunner().invoke(app, ["inspect", str(tmp_path), "--json"])
    assert json.loads(ended.output)["log"]["topics"]["actions/0"]["records"] == 1
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before


def test_inspecting_a_log_names_the_reader_that_holds_back_retention(tmp_path: Path) -> None:
    with EmbeddedLog(tmp_path / "log") as log:
        for topic in ("actions", "impressions", "catalogue"):
            log.append(topic, [b"x", b"y"])
        log.commit("server", {("actions", 0): 2, ("impressions", 0): 2})
        log.commit("joiner", {("actions", 0): 1, ("impressions", 0): 2})

    def held_by(*options: str) -> dict[str, str | None]:
        ended = CliRunner().invoke(app, ["inspect", str(tmp_path), "--json", *options])
        return {name: topic["held_by"] for name, topic in json.loads(ended.output)["log"]["topics"].items()}

    assert held_by() == {"actions/0": "joiner", "impressions/0": None, "catalogue/0": None}
    wide = Console(width=200, file=io.StringIO(), record=True)
    wide.print(*inspect_path(tmp_path).tables())
    assert "joiner at 1" in wide.export_text()
    config = tmp_path / "dolmen.toml"
    config.write_text(
        '[[schema.slot]]\nname = "item"\n[[schema.label]]\nname = "click"\n'
        '[log.retention.actions]\nreaders = ["server"]\n[log.retention.impressions]\nreaders = ["archive"]\n'
    )
    assert held_by("--config", str(config)) == {"actions/0": None, "impressions/0": "archive", "catalogue/0": None}


def test_terms_that_have_no_address_are_shown_without_one() -> None:
    shown = " ".join(CliRunner().invoke(app, ["data", "show", "world"]).output.split())
    assert "terms" in shown
    assert "()" not in shown

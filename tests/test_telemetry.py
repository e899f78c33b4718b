"""Log lines: JSON for machines, text for people, never a secret from a traceback."""

import io
import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from dolmen.telemetry import BoundedLines, LogFormat, logger, set_up_logs


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level


def test_each_line_is_one_json_object_with_its_fields() -> None:
    out = io.StringIO()
    set_up_logs("trainer", stream=out)
    logger("dolmen.some.module").info("snapshot published", version=7, name="a field that logging reserves")
    logging.getLogger("another.package").warning("foreign %s", "line")
    ours, foreign = map(json.loads, out.getvalue().splitlines())
    assert (ours["event"], ours["version"], ours["stage"], ours["level"]) == (
        "snapshot published",
        7,
        "trainer",
        "info",
    )
    assert ours["name"] == "a field that logging reserves"
    assert (foreign["event"], foreign["level"]) == ("foreign line", "warning")


@pytest.mark.parametrize("form", list(LogFormat))
def test_a_traceback_shows_no_local_variable(form: LogFormat) -> None:
    out = io.StringIO()
    set_up_logs("serve", stream=out, form=form)
    token = "".join(["s", "3", "cret"])
    try:
        raise OSError(len(token))
    except OSError:
        logger("dolmen.some.module").exception("failed")
    assert "OSError" in out.getvalue()
    assert "s3cret" not in out.getvalue()


def test_lines_below_the_level_are_left_out() -> None:
    out = io.StringIO()
    set_up_logs("join", stream=out, level="warning")
    logger("dolmen.some.module").info("unseen")
    assert out.getvalue() == ""


def test_a_line_that_the_disk_refuses_is_lost_and_the_next_is_written(tmp_path: Path) -> None:
    with BoundedLines(tmp_path / "logs" / "stage.log", bytes_max=20) as lines:
        lines.write("first line")
        (tmp_path / "logs" / "stage.log.1").mkdir()  # so that the full file cannot be moved there
        lines.write("too long for what is left")
        (tmp_path / "logs" / "stage.log.1").rmdir()
        lines.write("\ud800 is no text")
    assert (tmp_path / "logs" / "stage.log.1").read_text() == "first line\n"
    assert (tmp_path / "logs" / "stage.log").read_text() == "\\ud800 is no text\n"

"""What the reports of the table's benchmarks share: by whom they were made, and where they are written."""

import argparse
import datetime
import json
import platform
from pathlib import Path
from typing import Any

from dolmen.provenance import command, program

__all__ = ["ROOT", "add_out", "begin_report", "source", "write_report"]

ROOT = Path(__file__).resolve().parents[2]


def source(options: argparse.Namespace, **stand_ins: str) -> dict[str, Any]:
    """Command (see ``dolmen.provenance.command``), machine, commit (``-dirty`` with changes on top) and date."""
    return {
        "command": command(options, **stand_ins),
        "machine": _machine(),
        "commit": program()["commit"],
        "date": str(datetime.date.today()),
    }


def begin_report(options: argparse.Namespace, **settings: Any) -> dict[str, Any]:
    """A report's head, which is printed, too: its source and the settings."""
    report = {**source(options, folder="FOLDER"), **settings}
    told = (f"{name.replace('_', ' ')} {value:,}" if isinstance(value, int) else "" for name, value in settings.items())
    print(", ".join([report["machine"], f"commit {report['commit']}", *filter(None, told)]))
    return report


def add_out(parser: argparse.ArgumentParser) -> None:
    """The option ``--out``, for `write_report`."""
    parser.add_argument("--out", type=Path, help="write the JSON here, too")


def write_report(report: dict[str, Any], path: Path | None) -> None:
    """As JSON, where a path was given."""
    if path is None:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report, indent=1) + "\n")


def _machine() -> str:
    text = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    names = [line.split(":", 1)[1].strip() for line in text.splitlines() if line.startswith("model name")]
    return f"{names[0] if names else platform.processor()} x {len(names)}, {platform.system()} {platform.machine()}"

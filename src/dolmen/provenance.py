"""What a figure was made by and on: every result that we write names both."""

from __future__ import annotations

import os
import platform
import shlex
import subprocess
import sys
from argparse import Namespace
from collections.abc import Mapping
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from dolmen import __version__

__all__ = ["command", "in_words", "machine", "program"]

_ROOT: Final = Path(__file__).resolve().parents[2]


def command(options: Namespace, **stand_ins: str) -> str:
    """How to call the running script again from the repository's root, with every option as it was, defaults included.

    Args:
        options: what was read of the command line. One that is ``None`` was not given; one that is ``True`` is a flag.
        stand_ins: what to write in place of values that only this machine knows, such as ``peer="PYTHON"``.
    """
    told = ["python", _told_of(Path(sys.argv[0]).resolve())]
    for name, value in vars(options).items():
        if value is None or value is False:
            continue
        told.append(f"--{name.replace('_', '-')}")
        if value is not True:
            values = value if isinstance(value, list) else [value]
            told += [stand_ins[name]] if name in stand_ins else map(_told_of, values)
    return shlex.join(told)


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    return {
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": version("torch"),
    }


@cache
def program() -> Mapping[str, Any]:
    """The version and commit of dolmen; ``-dirty`` marks uncommitted changes, ``None`` stands where git is not.

    As they were when this process first asked: what it writes afterwards, a report say, changes nothing that it runs.
    """
    try:
        commit = subprocess.run(
            ["git", "-C", str(_ROOT), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        commit = None
    return {"dolmen": __version__, "commit": commit}


def in_words(program: Mapping[str, Any], machine: Mapping[str, Any]) -> str:
    """What ``program`` and ``machine`` told, on one line.

    >>> in_words({"commit": "5e7360b"}, {"cpu": "AMD EPYC", "cores": 2, "torch": "2.13.0+cpu"})
    'commit 5e7360b, AMD EPYC, 2 cores, torch 2.13.0+cpu'
    """
    return f"commit {program['commit']}, {machine['cpu']}, {machine['cores']} cores, torch {machine['torch']}"


def _told_of(value: object) -> str:
    """A value for the command line; a path in the repository is told from its root."""
    if isinstance(value, Path) and value.is_absolute() and value.is_relative_to(_ROOT):
        return str(value.relative_to(_ROOT))
    return str(value)


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next(
        (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.processor()
    )

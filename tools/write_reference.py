"""Writes what follows from something else: the reference of the settings, and what studies measured of each model.

``docs/reference/configuration.md`` comes from the settings' names, defaults and docstrings;
``src/dolmen/models/measured.json``, which ``dolmen models`` shows, from the reports in ``docs/results/studies``.

python tools/write_reference.py           write them
python tools/write_reference.py --check   only say whether they are as they should be
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
import sys
from enum import Enum
from pathlib import Path
from typing import Any, Final

from dolmen.cluster import ModelConfig
from dolmen.embedding import optimizers
from dolmen.events import JoinConfig, Retention
from dolmen.features import Dense, Label, Slot
from dolmen.models import entry, names
from dolmen.serving import ServeSettings
from dolmen.studies import measured
from dolmen.training import TrainConfig, TrainerSettings

ROOT: Final = Path(__file__).resolve().parent.parent
PAGE: Final = ROOT / "docs" / "reference" / "configuration.md"
MEASURED: Final = ROOT / "src" / "dolmen" / "models" / "measured.json"

_INTRODUCTION: Final = """# Configuration

<!-- Written by tools/write_reference.py from the settings' own docstrings; change those instead. -->

One TOML file describes a whole dolmen; `dolmen demo` writes one into its state folder that you can start from.
Durations are texts such as `"250ms"`, `"30m"`, `"30d"`. An unknown key is an error that offers the nearest one.

| key | meaning |
| --- | --- |
| `state` | the folder of everything that is written, relative to the file; default `"state"` |
| `dataset` | what is served, for people |
| `simulated` | `true` where people and items are made up; the console says so |

The environment variable `DOLMEN_TOKEN` sets `serving.token`, so that the secret need not stand in a file.
"""

_SECTIONS: Final[list[tuple[str, str, type[Any], frozenset[str]]]] = [
    ("[[schema.slot]]", "One categorical feature.", Slot, frozenset()),
    ("[[schema.dense]]", "One number per example.", Dense, frozenset()),
    ("[[schema.label]]", "What is learned.", Label, frozenset()),
    ("[model]", "Which model learns and serves.", ModelConfig, frozenset()),
    ('[optimizer] name = "adagrad"', "Of the tables' rows; the default.", optimizers.AdaGrad, frozenset()),
    ('[optimizer] name = "rowwise_adagrad"', "", optimizers.RowwiseAdaGrad, frozenset()),
    ('[optimizer] name = "sgd"', "", optimizers.SGD, frozenset()),
    ('[optimizer] name = "momentum"', "", optimizers.Momentum, frozenset()),
    ('[optimizer] name = "rmsprop"', "", optimizers.RMSProp, frozenset()),
    ('[optimizer] name = "adadelta"', "", optimizers.AdaDelta, frozenset()),
    ('[optimizer] name = "adam"', "Also `lazy_adam`, `rowwise_adam` and `amsgrad`.", optimizers.Adam, frozenset()),
    ('[optimizer] name = "ftrl"', "", optimizers.FTRL, frozenset()),
    ('[optimizer] name = "group_ftrl"', "", optimizers.GroupFTRL, frozenset()),
    ("[log.retention.TOPIC]", "How much of a topic is kept.", Retention, frozenset()),
    ("[join]", "How impressions and actions meet.", JoinConfig, frozenset()),
    ("[train]", "How the model learns. A change begins a new course of learning.", TrainConfig, frozenset()),
    (
        "[trainer]",
        "The trainer process.",
        TrainerSettings,
        frozenset({"folder", "schema", "model", "model_options", "train", "optimizer", "dataset"}),
    ),
    (
        "[serving]",
        "The server.",
        ServeSettings,
        frozenset({"schema", "log_folder", "snapshot_folder", "state_folder", "dataset", "simulated"}),
    ),
]


def page() -> str:
    """The whole page."""
    parts = [_INTRODUCTION]
    parts += [_section(title, about, kind, left_out) for title, about, kind, left_out in _SECTIONS]
    parts.append("## [model.options]\n\nEach model has its own. `dolmen models` lists the models.\n")
    for name in names():
        parts.append(
            _section(f'model.name = "{name}"', entry(name).title + ".", entry(name).config, frozenset(), level=3)
        )
    return "\n".join(parts)


def _section(title: str, about: str, kind: type[Any], left_out: frozenset[str], *, level: int = 2) -> str:
    told = _arguments(kind)
    lines = [f"{'#' * level} {title}", ""]
    if about:
        lines += [about, ""]
    lines += ["| key | default | meaning |", "| --- | --- | --- |"]
    for one in dataclasses.fields(kind):
        if one.name not in left_out:
            lines.append(f"| `{one.name}` | {_default(one)} | {told.get(one.name, '')} |")
    return "\n".join(lines) + "\n"


def _default(one: dataclasses.Field[Any]) -> str:
    if one.default is not dataclasses.MISSING:
        value = one.default
    elif one.default_factory is not dataclasses.MISSING:
        value = one.default_factory()
    else:
        return "required"
    if value is None:
        return "none"
    if isinstance(value, Enum):
        value = value.value
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, str):
        return f'`"{value}"`'
    return f"`{list(value) if isinstance(value, tuple) else value}`"


def _arguments(kind: type[Any]) -> dict[str, str]:
    """What the docstring's ``Args:`` say of each field."""
    told: dict[str, str] = {}
    for one in reversed(kind.__mro__):
        told |= _own_arguments(one)
    return told


def _own_arguments(kind: type[Any]) -> dict[str, str]:
    _, _, arguments = inspect.cleandoc(kind.__doc__ or "").partition("Args:\n")
    told: dict[str, str] = {}
    name = ""
    for line in arguments.splitlines():
        if line and not line.startswith(" "):
            break
        if found := re.match(r"    ([\w, ]+): (.*)", line):
            for name in found[1].split(", "):
                told[name] = found[2]
        elif line.startswith("        ") and name:
            told[name] += " " + line.strip()
    return {name: re.sub(r"``(.*?)``", r"`\1`", one).replace("|", "\\|") for name, one in told.items()}


def main() -> int:
    """Write both, or check them; 1 if one is not as it should be."""
    told = json.dumps(measured(ROOT / "docs" / "results" / "studies"), indent=1, ensure_ascii=False) + "\n"
    wanted = {PAGE: page(), MEASURED: told}
    if "--check" not in sys.argv:
        for path, text in wanted.items():
            path.write_text(text)
        return 0
    stale = [path for path, text in wanted.items() if not path.exists() or path.read_text() != text]
    for path in stale:
        sys.stdout.write(f"{path.name} is not what it is made from; run: python tools/write_reference.py\n")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())

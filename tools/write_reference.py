"""Writes docs/reference/configuration.md from the settings themselves: their names, defaults and docstrings.

python tools/write_reference.py           write it
python tools/write_reference.py --check   only say whether it is as it should be
"""

from __future__ import annotations

import dataclasses
import inspect
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
from dolmen.training import TrainConfig, TrainerSettings

PAGE: Final = Path(__file__).resolve().parent.parent / "docs" / "reference" / "configuration.md"

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
    """Write the page, or check it; 1 if it is not as it should be."""
    wanted = page()
    if "--check" not in sys.argv:
        PAGE.write_text(wanted)
        return 0
    if PAGE.exists() and PAGE.read_text() == wanted:
        return 0
    sys.stdout.write(f"{PAGE.name} is not what the settings say; run: python tools/write_reference.py\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())

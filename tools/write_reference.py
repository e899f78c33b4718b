"""Writes what follows from something else: the reference pages, and what studies found.

``docs/reference/configuration.md`` comes from the settings' names, defaults and docstrings; ``docs/reference/table.md``
from the signatures and docstrings of the table's Python interface; ``src/dolmen/models/measured.json``, which
``dolmen models`` shows, and ``src/dolmen/studies/verdicts.json``, which ``dolmen reproduce --list`` shows, from the
reports in ``docs/results/studies``; and of those reports the index, which says where one is not of its study as it is.

python tools/write_reference.py           write them
python tools/write_reference.py --check   only say whether they are as they should be
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import json
import re
import sys
import textwrap
import typing
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Any, Final

from dolmen import embedding
from dolmen.cluster import ModelConfig
from dolmen.embedding import instant, optimizers, rows
from dolmen.events import JoinConfig, Retention
from dolmen.features import Absent, Admission, Dense, Eviction, Label, Policy, Slot
from dolmen.models import entry, names
from dolmen.serving import ServeSettings
from dolmen.studies import index_page, measured, verdicts
from dolmen.training import TrainConfig, TrainerSettings

ROOT: Final = Path(__file__).resolve().parent.parent
CONFIGURATION: Final = ROOT / "docs" / "reference" / "configuration.md"
TABLE: Final = ROOT / "docs" / "reference" / "table.md"
REPORTS: Final = ROOT / "docs" / "results" / "studies"
MEASURED: Final = ROOT / "src" / "dolmen" / "models" / "measured.json"
STUDIES: Final = REPORTS / "README.md"
VERDICTS: Final = ROOT / "src" / "dolmen" / "studies" / "verdicts.json"

_INTRODUCTION: Final = """# Configuration

<!-- Written by tools/write_reference.py from the settings' own docstrings; change those instead. -->

One TOML file describes a whole dolmen; `dolmen demo` writes one into its state folder that you can start from.
Where a setting may be `None` and is something else by default, `"none"` says so.
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

_OPTIMIZER: Final = """## [optimizer]

What a gradient does to a row of a table.

| key | default | meaning |
| --- | --- | --- |
| `name` | `"adagrad"` | one of [these](table.md#optimisers), by its name in TOML. |
| the others | | that optimiser's own, which [the same place](table.md#optimisers) lists. |
"""

_TABLE_INTRODUCTION: Final = """# The table in Python

<!-- Written by tools/write_reference.py from signatures and docstrings; change those instead. -->

What a learner's own loop calls. [Your own PyTorch loop](../how-to/your-own-loop.md) shows it at work, and
[The table](../concepts/table.md) says what it promises. Slots, and with them admission, expiry and capacity of their
ids, are declared in a [`Schema`](configuration.md#schemaslot); [Features](../concepts/features.md) tells how ids become
FIDs and examples batches.

Times are microseconds since 1970, of the data. In shapes, *count* is the number of FIDs of a call and *dim* the width
of a row. Mistakes are told before anything is changed, with what was expected, what came and the mend. What is of the
wrong kind, such as a text for a number, is a `TypeError`. What is out of range is a `ValueError`, and so is an array of
another shape or type of number. A name that the schema does not have, a declaration that contradicts itself and a batch
that does not fit are a `SchemaError`, and settings by name a `ConfigError`: both are `ValueError`s as well.
"""

_OPTIMISERS: Final = """## Optimisers

What a gradient does to a row: `Embeddings(schema, optimizer=AdaGrad(learning_rate=0.1))` in Python, and in TOML

```toml
[optimizer]
name = "adagrad"
learning_rate = 0.1
```

*State* is how many float32 a row of d columns keeps beside its vector. `from dolmen.embedding.optimizers import ...`
has all the classes. Gradients of equal ids are summed, the sum is clipped (`gradient_value_max`, then
`gradient_norm_max`), then comes the step, all of it in float32. The rate is the product of `learning_rate`, the slot's
`learning_rate_scale`, and the call's `scale` (in dolmen's own trainer: the schedule of `train.warmup_steps` and
`train.decay_steps`).
"""

_HEADS: Final = {"Args:": "**Arguments**", "Attributes:": "**Attributes**", "Raises:": "**Raises**"}
_SIGNATURE_MAX: Final = 100

# Of the table's interface: what is called, then what goes in and out.
_CALLED: Final[list[type[Any]]] = [
    embedding.Embeddings,
    embedding.Embed,
    embedding.Tape,
    embedding.Table,
    instant.TableInstant,
]
_MADE_BY_OTHERS: Final = frozenset({embedding.Tape, instant.TableInstant})
_HANDED: Final[list[type[Any]]] = [
    embedding.RowRules,
    embedding.Capacity,
    embedding.Precision,
    Admission,
    Absent,
    Eviction,
    Policy,
    embedding.Upkeep,
    embedding.Delta,
    rows.RowChunk,
    rows.PendingCounts,
    embedding.MemoryUse,
    rows.Clocks,
]


def configuration_page() -> str:
    """The whole reference of the settings."""
    parts = [_INTRODUCTION]
    for title, about, kind, left_out in _SECTIONS:
        parts.append(_section(title, about, kind, left_out))
        if kind is ModelConfig:
            parts.append(_OPTIMIZER)
    parts.append("## [model.options]\n\nEach model has its own. `dolmen models` lists the models.\n")
    parts += [
        _section(f'model.name = "{one.name}"', one.title + ".", one.config, frozenset(), level=3)
        for one in map(entry, names())
    ]
    return "\n".join(parts)


def table_page() -> str:
    """The whole reference of the table's Python interface."""
    listed = ", ".join(f"[`{kind.__name__}`](#{kind.__name__.lower()})" for kind in (*_CALLED, *_HANDED))
    parts = [_TABLE_INTRODUCTION, f"{listed}, and the [optimisers](#optimisers).\n"]
    parts += [_class(kind) for kind in (*_CALLED, *_HANDED)]
    parts += [_OPTIMISERS, *_optimisers()]
    return "\n".join(parts)


def _class(kind: type[Any]) -> str:
    """A class: how it is made, what it has, what it does."""
    name = kind.__name__
    lines = [f"## {name}", "", f"`from {_home(kind)} import {name}`", ""]
    if issubclass(kind, Enum):
        lines += [_prose(kind.__doc__), "", "| value | meaning |", "| --- | --- |"]
        found = re.findall(r'^    [A-Z0-9_]+ = "(\w+)"(?:  # (.*))?$', inspect.getsource(kind), re.MULTILINE)
        return "\n".join([*lines, *(f'| `"{value}"` | {told} |' for value, told in found)]) + "\n"
    if dataclasses.is_dataclass(kind):
        lines += [_prose(inspect.cleandoc(kind.__doc__ or "").partition("Args:\n")[0]), "", *_options(kind), ""]
    else:
        if kind not in _MADE_BY_OTHERS:
            lines += ["```python", f"{name}{_signature(kind.__init__)}", "```", ""]
        lines += [_prose(kind.__doc__), ""]
    members = list(_members(kind))
    properties = [(one, member.fget) for one, member in members if isinstance(member, property)]
    if properties:
        lines += ["| property | type | meaning |", "| --- | --- | --- |"]
        for one, read in properties:
            kept = _cell(_signature(read).partition(" -> ")[2])
            lines.append(f"| `{one}` | `{kept}` | {_cell(_prose(read.__doc__))} |")
        lines.append("")
    for one, member in members:
        if not isinstance(member, property):
            call = member.__func__ if isinstance(member, classmethod) else member
            mark = " (of the class)" if isinstance(member, classmethod) else ""
            lines += [f"### `{name}.{one}`{mark}", "", *_called(call), ""]
    return "\n".join(lines)


def _called(call: Any) -> list[str]:
    return ["```python", f"{call.__name__}{_signature(call)}", "```", "", _prose(call.__doc__)]


def _optimisers() -> Iterator[str]:
    """Each by both its names, with what it keeps; then each one's options."""
    kinds: tuple[type[Any], ...] = typing.get_args(optimizers.Optimizer)
    yield "| in TOML | in Python | state |\n| --- | --- | --- |"
    for kind in kinds:
        default = " (default)" if kind is optimizers.AdaGrad else ""
        yield f"| `{kind.name}`{default} | [`{kind.__name__}`](#{kind.__name__.lower()}) | {_state(kind)} |"
    yield ""
    for call in (optimizers.optimizer_from_dict, optimizers.optimizer_to_dict):
        yield "\n".join([f"### `{call.__name__}`", "", *_called(call), ""])
    for kind in kinds:
        told = _prose(inspect.cleandoc(kind.__doc__ or "").partition("Args:\n")[0])
        yield "\n".join(
            [f"### {kind.__name__}", "", f'`optimizer.name = "{kind.name}"`', "", told, "", *_options(kind)]
        )
        yield ""


def _state(kind: type[Any]) -> str:
    """How many numbers the state of a row of d columns has, asked of the table itself."""
    sizes = [embedding.Table(dim, optimizer=kind())._native.state_dim for dim in (1, 2)]
    each, more = sizes[1] - sizes[0], 2 * sizes[0] - sizes[1]
    parts = ["d" if each == 1 else f"{each}d"] if each else []
    return " + ".join([*parts, str(more)] if more or not parts else parts)


def _home(kind: type[Any]) -> str:
    """The module to import ``kind`` from: the folder where it names it, else the file."""
    folder = kind.__module__.rpartition(".")[0]
    return folder if kind.__name__ in sys.modules[folder].__all__ else kind.__module__


def _members(kind: type[Any]) -> Iterator[tuple[str, Any]]:
    for name, member in vars(kind).items():
        is_shown = name == "__call__" or not name.startswith("_")
        if is_shown and (inspect.isfunction(member) or isinstance(member, property | classmethod)):
            yield name, member


def _signature(call: Any) -> str:
    """As the source has it, so that types read as they were written; a long one with a line for each argument."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(call))).body[0]
    assert isinstance(tree, ast.FunctionDef)
    told = tree.args
    defaults = {one.name: one.default for one in inspect.signature(call).parameters.values()}
    written = [*[None] * (len(told.args) - len(told.defaults)), *told.defaults, *told.kw_defaults]
    given = []
    for one, default in zip([*told.args, *told.kwonlyargs], written, strict=True):
        # A constant of ours has a name in the source that tells a reader nothing.
        value = repr(defaults[one.arg]) if isinstance(default, ast.Name) else default and ast.unparse(default)
        given.append(ast.unparse(one) + (f" = {value}" if value else ""))
    if told.kwonlyargs:
        given.insert(len(told.args), "*")
    if given and given[0] in ("self", "cls"):
        del given[0]
    returned = f" -> {ast.unparse(tree.returns)}" if tree.returns is not None and tree.name != "__init__" else ""
    line = f"({', '.join(given)}){returned}"
    return line if len(line) <= _SIGNATURE_MAX else "(\n" + "".join(f"    {one},\n" for one in given) + f"){returned}"


def _prose(docstring: str | None) -> str:
    """A docstring as Markdown: names as code, sections as lists, examples as programs."""
    lines: list[str] = []
    is_program = is_section = False
    for line in [*inspect.cleandoc(docstring or "").splitlines(), ""]:
        if is_program and not line:
            lines.append("```")
            is_program = False
        elif not is_program and (line.startswith(">>>") or (line.startswith("    ") and not is_section)):
            lines.append("```python")
            is_program = True
        if is_program:
            lines.append(line.removeprefix("    "))
        elif line in _HEADS:
            is_section = True
            lines += [_HEADS[line], ""]
        elif found := re.match(r"    ([\w, ]+): (.*)", line):
            lines.append(f"- `{found[1].replace(', ', '`, `')}`: {found[2]}")
        elif line.startswith("        "):
            lines[-1] += " " + line.strip()
        else:
            lines.append(line)
    return re.sub(r"``(.*?)``", r"`\1`", "\n".join(lines).replace("::\n", ":\n")).strip()


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _options(kind: type[Any], left_out: frozenset[str] = frozenset()) -> list[str]:
    """A table of a dataclass's fields."""
    told = _arguments(kind)
    lines = ["| key | default | meaning |", "| --- | --- | --- |"]
    shown = [one for one in dataclasses.fields(kind) if one.name not in left_out]
    return [*lines, *(f"| `{one.name}` | {_default(one)} | {told.get(one.name, '')} |" for one in shown)]


def _section(title: str, about: str, kind: type[Any], left_out: frozenset[str], *, level: int = 2) -> str:
    lines = [f"{'#' * level} {title}", "", *([about, ""] if about else []), *_options(kind, left_out)]
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
    """Write all, or check them; 1 if one is not as it should be."""
    judged = {name: dataclasses.asdict(one) for name, one in verdicts(REPORTS).items()}
    found = {MEASURED: measured(REPORTS), VERDICTS: judged}
    wanted = {path: json.dumps(told, indent=1, ensure_ascii=False) + "\n" for path, told in found.items()}
    wanted |= {CONFIGURATION: configuration_page(), TABLE: table_page(), STUDIES: index_page(REPORTS)}
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

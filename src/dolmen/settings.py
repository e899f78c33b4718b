"""Settings from files: tables of plain values become frozen dataclasses, checked by their annotations.

Each part of dolmen declares its settings as a frozen dataclass of its own, with defaults, reasons and bounds; this
module only carries them in from TOML or JSON and out again, with errors that name the place, the value and the mend.
"""

from __future__ import annotations

import ctypes
import difflib
import json
import math
import numbers
import tomllib
import typing
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, Field, asdict, fields
from enum import Enum, StrEnum
from pathlib import Path
from typing import Any, ClassVar, Final, Protocol, TypeVar

from pydantic import PydanticSchemaGenerationError, TypeAdapter, ValidationError

from dolmen.clock import DURATION, Duration
from dolmen.errors import ConfigError, DolmenError

__all__ = [
    "INT64_MAX",
    "NONE",
    "SCALE_MAX",
    "chosen",
    "expectation",
    "read_options",
    "read_settings",
    "require_bool",
    "require_float32",
    "require_whole",
    "shown",
    "suggestion",
    "write_settings",
]


class _Dataclass(Protocol):
    """Whichever."""

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]


T = TypeVar("T", bound=_Dataclass)
KindT = TypeVar("KindT", bound=StrEnum)

INT64_MAX: Final = (1 << 63) - 1
NONE: Final = "none"
"""How a file says ``None`` where something else is the default: TOML has no word for it."""
SCALE_MAX: Final = 100.0  # of each factor on a learning rate

_EXPECTATIONS: Final = {
    **dict.fromkeys(("int_type", "int_from_float", "int_parsing", "int_parsing_size"), "be a whole number"),
    **dict.fromkeys(("float_type", "float_parsing"), "be a number"),
    "finite_number": "be a finite number",
    **dict.fromkeys(("bool_type", "bool_parsing"), "be true or false"),
    "string_type": "be a text",
    "path_type": "be a path",
    **dict.fromkeys(("list_type", "tuple_type"), "be a list"),
    **dict.fromkeys(("dict_type", "mapping_type", "model_type"), "be values by name"),
    **dict.fromkeys(("enum", "literal_error"), "be one of {expected}"),
    "none_required": "be left out",
    "missing": "be given",
    "string_too_short": "have at least {min_length} characters",
    "string_too_long": "have at most {max_length} characters",
    "string_pattern_mismatch": "have the form {pattern}",
    "too_short": "have at least {min_length} entries",
    "too_long": "have at most {max_length} entries",
    "greater_than": "be above {gt}",
    "greater_than_equal": "be at least {ge}",
    "less_than": "be below {lt}",
    "less_than_equal": "be at most {le}",
}
"""What pydantic finds wrong, by its name for it."""


def read_settings(kind: type[T], values: Mapping[str, Any], where: str, **fixed: Any) -> T:
    """A ``kind`` (a dataclass) from plain values by name; what is not named has its default.

    The text ``NONE`` is ``None`` for a setting that may be that and is something else by default.

    Args:
        kind: the dataclass.
        values: as they come from TOML or JSON: texts, numbers, lists, tables.
        where: what messages call this place, such as ``train`` for ``train.learning_rate``.
        fixed: fields that the program sets and no file may.

    Raises:
        ConfigError: an unknown name (the message offers the nearest), a value of another type or out of range, or a
            setting that has no default and is missing.
    """
    declared = {one.name: one for one in fields(kind) if one.name not in fixed}
    hints = typing.get_type_hints(kind, include_extras=True)
    for name in values:
        if name not in declared:
            raise ConfigError(f"{where}: unknown setting {name!r}{suggestion(name, declared)}")
    for name, one in declared.items():
        if name not in values and one.default is MISSING and one.default_factory is MISSING:
            raise ConfigError(f"{where}.{name} is missing")
    given = {
        name: None
        if value == NONE and declared[name].default is not None and type(None) in typing.get_args(hints[name])
        else _fit(hints[name], value, f"{where}.{name}", is_secret=not declared[name].repr)
        for name, value in values.items()
    }
    try:
        return kind(**given, **fixed)
    except DolmenError as problem:
        told = str(problem)
        if isinstance(problem, ConfigError) and told.startswith(f"{kind.__name__}."):  # a class, and no place in a file
            raise ConfigError(where + told.removeprefix(kind.__name__)) from problem
        raise
    except ValueError as problem:
        raise ConfigError(f"{where}: {problem}") from problem


def read_options(texts: Iterable[str]) -> dict[str, Any]:
    """Settings by name from a command line's ``name=value``, the value as TOML has it; what is no TOML is a text.

    >>> read_options(["temperature=0.5", "weighing=softmax", 'history=["history"]'])
    {'temperature': 0.5, 'weighing': 'softmax', 'history': ['history']}

    Raises:
        ConfigError: a text has no ``=``, or names what another one has named.
    """
    told: dict[str, Any] = {}
    for text in texts:
        name, sign, value = (part.strip() for part in text.partition("="))
        if not (name and sign):
            raise ConfigError(f"--option must be NAME=VALUE, such as temperature=0.5, got {text!r}")
        if name in told:
            raise ConfigError(f"--option {name} is given twice; leave one out")
        try:
            read = tomllib.loads(f"value = {value}")
        except tomllib.TOMLDecodeError:
            read = {"value": value}
        told[name] = read["value"]
    return told


def write_settings(settings: Any, *, leave_out: Iterable[str] = (), none: str | None = None) -> dict[str, Any]:
    """The inverse of ``read_settings``: plain values by name. ``None`` is left out where it is the default.

    Where another value is the default it stays, as ``none``: left out, it would come back as that.

    Args:
        settings: a dataclass.
        leave_out: names of fields that are not written.
        none: what stands for ``None``. JSON has one of its own; for TOML it is ``NONE``, which is read back.
    """
    skipped = frozenset(leave_out)
    values = asdict(settings)
    return {
        one.name: _plain(values[one.name], none)
        for one in fields(settings)
        if one.name not in skipped and not (values[one.name] is None and one.default is None)
    }


def suggestion(name: str, known: Iterable[str]) -> str:
    """The tail of an error about an unknown name: the nearest known one, or all of them."""
    names = list(known)
    near = difflib.get_close_matches(str(name), names, n=1)
    if near:
        return f"; did you mean {near[0]!r}?"
    return f"; known are {', '.join(sorted(names)) or 'none'}"


def chosen(kinds: type[KindT], value: str, name: str) -> KindT:
    """The one of ``kinds`` that a setting called ``name`` says.

    Raises:
        ConfigError: it says none of them.
    """
    try:
        return kinds(value)
    except ValueError:
        raise ConfigError(f"{name} must be one of {', '.join(kinds)}, got {value!r}") from None


def require_whole(name: str, value: object, *, least: int = 0, most: int = INT64_MAX) -> int:
    """``value`` as Python's own integer, or a refusal.

    Args:
        name: what messages call it.
        value: a whole number, Python's or NumPy's.
        least: the smallest that is accepted.
        most: the largest.

    Raises:
        TypeError: it is no whole number; the message tells how to write one that only looks otherwise.
        ValueError: it is out of range.

    >>> require_whole("Slot.dim", "8")
    Traceback (most recent call last):
    TypeError: Slot.dim must be a whole number, got '8' (write 8 without quotes)
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        mend = _unquoted(value)
        if isinstance(value, float) and value.is_integer():
            mend = f" (write {int(value)})"
        raise TypeError(f"{name} must be a whole number, got {value!r:.80}{mend}")
    number = int(value)
    if not least <= number <= most:
        expected = f"between {least} and {most}"
        if most == INT64_MAX and number < least:
            expected = f"at least {least}" if least > 0 else "0 or more"
        raise ValueError(f"{name} must be {expected}, got {number}")
    return number


def require_float32(
    name: str,
    value: object,
    *,
    is_above_zero: bool = False,
    below: float | None = None,
    most: float | None = None,
    may_be_negative: bool = False,
) -> float:
    """``value`` as Python's own number, unrounded, or a refusal if float32, in which tables compute, cannot hold it.

    Args:
        name: what messages call it.
        value: a number, Python's or NumPy's: 0 or more and finite, both as it is and rounded to float32.
        is_above_zero: 0 is too little.
        below: a bound that it must not reach.
        most: a bound that it may reach.
        may_be_negative: any finite number will do; without bounds.

    Raises:
        TypeError: it is no number.
        ValueError: it is out of range, or float32 makes it infinite, 0 or the bound.

    >>> require_float32("SGD.learning_rate", 1e39, is_above_zero=True)
    Traceback (most recent call last):
    ValueError: SGD.learning_rate must be above 0 and finite also in float32, which would make it inf, got 1e+39
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name} must be a number, got {value!r:.80}{_unquoted(value)}")

    def holds(number: float) -> bool:
        is_enough = may_be_negative or (number > 0.0 if is_above_zero else number >= 0.0)
        is_within = (below is None or number < below) and (most is None or number <= most)
        return is_enough and math.isfinite(number) and is_within

    least = "above 0" if is_above_zero else "0 or more"
    if may_be_negative:
        expected = "finite"
    elif below is not None:
        expected = f"in [0, {below:g})"
    elif most is not None:
        expected = f"{least} and at most {most:g}"
    else:
        expected = f"{least} and finite"
    try:
        number = float(value)
    except OverflowError:
        raise ValueError(f"{name} must be {expected}, got a number with more than 300 digits") from None
    if not holds(number):
        raise ValueError(f"{name} must be {expected}, got {value}")
    rounded = ctypes.c_float(number).value
    if not holds(rounded):
        raise ValueError(f"{name} must be {expected} also in float32, which would make it {rounded:g}, got {value}")
    return number


def require_bool(name: str, value: object) -> bool:
    """``value`` as it is, or a refusal: what merely counts as true, such as the text "no", may be meant otherwise.

    Raises:
        TypeError: it is neither ``True`` nor ``False``.
    """
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, got {value!r:.80}")
    return value


def expectation(error: Mapping[str, Any]) -> str:
    """What a value must be, in our words: the rest of a sentence that begins "<field> must".

    Args:
        error: one of pydantic's ``ValidationError.errors()``.

    >>> expectation({"type": "greater_than_equal", "ctx": {"ge": 1}, "msg": "", "input": 0})
    'be at least 1'
    """
    kind, given = str(error["type"]), error.get("input")
    if kind not in _EXPECTATIONS:
        return f"fit: {error['msg']}"
    said = _EXPECTATIONS[kind].format(**error.get("ctx", {}))
    if said.endswith(" 1 entries"):
        said = said.replace("entries", "entry")
    return said + _unquoted(given) if kind in ("int_type", "float_type") else said


def _unquoted(given: object) -> str:
    """The mend for digits in quotes; nothing for anything else."""
    is_digits = isinstance(given, str) and given.strip().lstrip("+-").isdigit()
    return f" (write {str(given).strip()} without quotes)" if is_digits else ""


def shown(value: Any, length: int = 80) -> str:
    """A value as messages show it, cut to ``length``: as whoever wrote JSON or TOML knows it.

    >>> shown("a"), shown(None), shown(True)
    ("'a'", 'null', 'true')
    """
    return (json.dumps(value) if value is None or isinstance(value, bool | float) else repr(value))[:length]


def _fit(hint: Any, value: Any, where: str, *, is_secret: bool) -> Any:
    # Strict over JSON: a list may become a tuple and a text an enum or a path, but a text never becomes a number.
    try:
        return TypeAdapter(hint).validate_json(json.dumps(value, default=str), strict=True)
    except ValidationError as problem:
        first = problem.errors(include_url=False)[0]
        place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"])
        expected = f'{DURATION}, such as "30s" or "2h"' if _is_duration(hint) else None
        came = "" if is_secret else f", got {shown(first['input'])}"
        raise ConfigError(f"{where}{place} must {f'be {expected}' if expected else expectation(first)}{came}") from None
    except PydanticSchemaGenerationError:
        raise AssertionError(f"{where} has a type that no file can hold; pass it as a fixed field") from None


def _is_duration(hint: Any) -> bool:
    return hint is Duration or any(one is Duration for one in typing.get_args(hint))


def _plain(value: Any, none: str | None) -> Any:
    match value:
        case None:
            return none
        case Enum():
            return value.value
        case Path():
            return str(value)
        case Mapping():
            return {str(name): _plain(one, none) for name, one in value.items()}
        case tuple() | list():
            return [_plain(one, none) for one in value]
        case _:
            return value

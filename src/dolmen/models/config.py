"""Configs of models as plain dicts and back: what TOML and snapshots hold.

A config is a frozen keyword-only dataclass of integers, floats, booleans, strings, tuples of those, optional ones, and
mappings (options of another model, checked by that one).
"""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields, is_dataclass
from typing import Any, TypeVar

from dolmen.errors import ConfigError
from dolmen.features.schema import suggestion

__all__ = ["at_least", "config_from_dict", "config_to_dict", "not_empty", "positive"]

ConfigT = TypeVar("ConfigT")


def config_to_dict(config: Any) -> dict[str, Any]:
    """Every option of ``config``, ready for JSON or TOML: tuples become lists, ``None`` is left out."""
    return {name: _plain(value) for name, value in asdict(config).items() if value is not None}


def config_from_dict(kind: type[ConfigT], options: Mapping[str, Any], where: str = "model") -> ConfigT:
    """The inverse of ``config_to_dict``; an option that is not named has its default.

    Args:
        kind: the config's dataclass.
        options: by name, as they come from TOML or JSON.
        where: what messages call this place, such as ``model`` for ``model.temperature``.

    Raises:
        ConfigError: an unknown option (the message offers the nearest), a value of another type, or one that the config
            refuses.
    """
    assert is_dataclass(kind)
    hints = typing.get_type_hints(kind)
    known = [one.name for one in fields(kind)]
    for name in options:
        if name not in known:
            raise ConfigError(f"{where}: unknown option {name!r}{suggestion(name, known)}")
    return kind(**{name: _fit(value, hints[name], f"{where}.{name}") for name, value in options.items()})


def at_least(config: Any, minimum: float, *names: str) -> None:
    """Check that these options, or each of their values where they are tuples, are at least ``minimum``."""
    for name in names:
        value = getattr(config, name)
        for one in value if isinstance(value, tuple) else (value,):
            if not minimum <= one < float("inf"):
                raise ConfigError(f"{type(config).__name__}.{name} must be at least {minimum}, got {value}")


def positive(config: Any, *names: str) -> None:
    """Check that these options are above 0 and finite."""
    for name in names:
        value = getattr(config, name)
        if not 0 < value < float("inf"):
            raise ConfigError(f"{type(config).__name__}.{name} must be above 0, got {value}")


def not_empty(config: Any, *names: str) -> None:
    """Check that these options are ``None`` or name at least one thing, none twice."""
    for name in names:
        value = getattr(config, name)
        if value is not None and (not value or len(set(value)) < len(value)):
            raise ConfigError(f"{type(config).__name__}.{name} must name at least one, none twice, got {value}")


def _plain(value: Any) -> Any:
    return [_plain(one) for one in value] if isinstance(value, tuple) else value


def _fit(value: Any, wanted: Any, where: str) -> Any:
    """``value`` as the annotation ``wanted`` asks, or a ``ConfigError``."""
    origin, inner = typing.get_origin(wanted), typing.get_args(wanted)
    if origin in (types.UnionType, typing.Union):
        if value is None and type(None) in inner:
            return None
        return _fit(value, next(one for one in inner if one is not type(None)), where)
    if origin is tuple:
        if isinstance(value, str) or not isinstance(value, Sequence):
            raise ConfigError(f"{where} must be a list, got {value!r}; write [{value!r}]")
        return tuple(_fit(one, inner[0], f"{where}[{place}]") for place, one in enumerate(value))
    if origin is Mapping:
        if not isinstance(value, Mapping):
            raise ConfigError(f"{where} must be a table of options, got {value!r}")
        return dict(value)
    if wanted is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, wanted) or (isinstance(value, bool) and wanted is not bool):
        raise ConfigError(f"{where} must be {_called(wanted)}, got {value!r}")
    return value


def _called(kind: type) -> str:
    return {int: "an integer", float: "a number", str: "a text", bool: "true or false"}.get(kind, kind.__name__)

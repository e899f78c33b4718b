"""Checks that the options of models share; each says option, value and mend."""

from __future__ import annotations

from typing import Any, Final

from dolmen.errors import ConfigError

__all__ = ["COUNT_MAX", "at_least", "not_empty", "positive"]

COUNT_MAX: Final = 1 << 24
"""Of any option that is a whole number: widths, lengths and counts beyond 16 million fit no machine, or mean a slip."""


def at_least(config: Any, minimum: float, *names: str) -> None:
    """Check that these options, or each of their values where they are tuples, are at least ``minimum``, and finite.

    Whole numbers must be at most ``COUNT_MAX``, so that a slip is not found by running out of memory.
    """
    for name in names:
        value = getattr(config, name)
        for one in value if isinstance(value, tuple) else (value,):
            if not minimum <= one < float("inf"):
                raise ConfigError(f"{type(config).__name__}.{name} must be at least {minimum}, got {value}")
            if isinstance(one, int) and one > COUNT_MAX:
                raise ConfigError(f"{type(config).__name__}.{name} must be at most {COUNT_MAX:,}, got {value}")


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

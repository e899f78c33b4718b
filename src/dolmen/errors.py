"""Every error that dolmen raises on purpose, as one tree.

A caller's mistake is a ``ValueError`` or ``TypeError`` (``SchemaError`` and ``ConfigError`` are such). A failure of
the world (a disk, a peer, a bad event) is one of the others, and its ``retry`` says whether trying again can help.

    DolmenError
    ├── SchemaError (ValueError)      a declaration, or data that does not fit it
    ├── ConfigError (ValueError)      a setting: file, environment or command line
    ├── BadEventError (ValueError)    one event that cannot be used; it is counted and passed over
    ├── DataError                     a data set is missing, damaged or not what its name says
    │   └── UnknownDataError          there is no data set of this name
    ├── LogError                      the log cannot be read or written
    │   └── OffsetGoneError           the asked offset was deleted by retention
    ├── SnapshotError                 a snapshot or delta is torn, foreign or of another schema
    ├── OverloadedError               a queue is full; answered with Retry-After
    ├── NotReadyError                 a part is still starting or has nothing to serve yet
    ├── StageError                    a stage of the loop died again and again, and was given up
    └── RemoteError                   a dolmen server refused a request, or could not be reached
"""

from __future__ import annotations

import os
from typing import Final

__all__ = [
    "CONFIG_STATUS",
    "BadEventError",
    "ConfigError",
    "DataError",
    "DolmenError",
    "LogError",
    "NotReadyError",
    "OffsetGoneError",
    "OverloadedError",
    "RemoteError",
    "SchemaError",
    "SnapshotError",
    "StageError",
    "UnknownDataError",
]


CONFIG_STATUS: Final = os.EX_CONFIG
"""Exit status of a process whose configuration cannot be used: starting it again cannot help."""


class DolmenError(Exception):
    """Root of the tree. ``retry`` is true where the same call may succeed later.

    ``exit_status``: of a command that ends with this error.
    """

    retry: bool = False
    exit_status: int = 1


class SchemaError(DolmenError, ValueError):
    """A schema that contradicts itself, or data that does not fit its schema."""

    exit_status = CONFIG_STATUS


class ConfigError(DolmenError, ValueError):
    """A setting that cannot be used; the message names it, its value and the mend."""

    exit_status = CONFIG_STATUS


class BadEventError(DolmenError, ValueError):
    """One event that cannot be used. It never stops a stage: it is counted and passed over."""


class DataError(DolmenError):
    """A data set is missing, damaged, or not what its name promises."""


class UnknownDataError(DataError):
    """No data set has this name: a mistake of whoever wrote it, as a name of any other thing would be."""

    exit_status = CONFIG_STATUS


class LogError(DolmenError):
    """The event log cannot be read or written."""

    retry = True


class OffsetGoneError(LogError):
    """The record at this offset was deleted by retention; the reader must start again from a snapshot."""

    retry = False


class SnapshotError(DolmenError):
    """A snapshot or delta is torn, damaged, or of another schema. Nothing of it was applied."""


class OverloadedError(DolmenError):
    """A bounded queue is full. ``retry_after_seconds`` says when to come back."""

    retry = True

    def __init__(self, message: str, *, retry_after_seconds: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class NotReadyError(DolmenError):
    """A part is still starting, or has nothing to serve yet."""

    retry = True


class StageError(DolmenError):
    """A stage of the loop died again and again before it had done anything; the message has its last words."""


class RemoteError(DolmenError):
    """A dolmen server refused a request (``status`` is its HTTP status), or could not be reached (``status`` is 0)."""

    def __init__(self, message: str, *, status: int, code: str, retry: bool) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.retry = retry

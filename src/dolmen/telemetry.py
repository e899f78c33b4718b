"""Logs and metrics, set up once per process.

Logs are events with fields (``snapshot published version=7 rows=1204``): lines for people on a terminal, one JSON
object a line otherwise. They go through the standard ``logging``, so a program that uses dolmen as a library decides
itself what is shown. Metrics are prometheus-client's, named ``dolmen_<part>_<noun>_<unit>``.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from enum import StrEnum
from io import FileIO
from pathlib import Path
from typing import Any, TextIO, final

import structlog

__all__ = ["BoundedLines", "LogFormat", "logger", "set_up_logs"]


class LogFormat(StrEnum):
    """How log lines look: ``auto`` is ``text`` on a terminal and ``json`` elsewhere."""

    AUTO = "auto"
    TEXT = "text"
    JSON = "json"


def set_up_logs(
    stage: str, *, level: str = "info", form: LogFormat = LogFormat.AUTO, stream: TextIO | None = None
) -> None:
    """Send all log lines of this process, ours and libraries', to ``stream`` (default: stderr), marked with ``stage``.

    Raises:
        ValueError: ``level`` is no level of the standard ``logging``.
    """
    out = stream if stream is not None else sys.stderr
    as_text = form is LogFormat.TEXT or (form is LogFormat.AUTO and out.isatty())
    shared: list[structlog.typing.Processor] = [
        _mark(stage),
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="%H:%M:%S" if as_text else "iso", utc=not as_text),
    ]
    rendered: list[structlog.typing.Processor] = (
        [
            # Plain tracebacks: a drawn one prints local variables too, and those may be secrets.
            structlog.dev.ConsoleRenderer(
                colors=out.isatty(), pad_event_to=28, exception_formatter=structlog.dev.plain_traceback
            )
        ]
        if as_text
        else [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(default=str)]
    )
    handler = logging.StreamHandler(out)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *shared, *rendered],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for noisy in ("httpx", "httpcore", "uvicorn.access", "asyncio"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    logging.getLogger("urllib3").setLevel(logging.ERROR)  # a line for each attempt; `client` has one for the request


@final
class BoundedLines:
    """A file of lines, ``path``, that is bounded while it is written: when it is full it becomes ``<path>.1``.

    Only its owner may read it. A line that cannot be written is lost and raises nothing: a full disk must not stop
    whoever has something to say.

    Args:
        path: is appended to; its folder is made if missing.
        bytes_max: of each of the two files.

    Raises:
        OSError: ``path`` cannot be opened.
    """

    def __init__(self, path: Path, *, bytes_max: int) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path, self._bytes_max = path, bytes_max
        self._file = self._open()

    def write(self, line: str) -> None:
        """Add one line, given without its end."""
        data = line.encode(errors="backslashreplace") + b"\n"
        with contextlib.suppress(OSError):
            if 0 < self._file.tell() > self._bytes_max - len(data):
                with contextlib.suppress(FileNotFoundError):  # moved by an earlier line, which then could not open anew
                    self._path.replace(self._path.with_name(f"{self._path.name}.1"))
                full, self._file = self._file, self._open()
                full.close()
            self._file.write(data)

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()

    def __enter__(self) -> BoundedLines:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _open(self) -> FileIO:
        return FileIO(os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "a")


def logger(name: str) -> structlog.stdlib.BoundLogger:
    """The logger of the module ``name``; a module makes its own at the top, from ``__name__``."""
    bound: structlog.stdlib.BoundLogger = structlog.wrap_logger(
        logging.getLogger(name),
        processors=[structlog.stdlib.filter_by_level, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.stdlib.BoundLogger,
    )
    return bound


def _mark(stage: str) -> structlog.typing.Processor:
    def mark(_logger: Any, _method: str, fields: structlog.typing.EventDict) -> structlog.typing.EventDict:
        fields.setdefault("stage", stage)
        return fields

    return mark

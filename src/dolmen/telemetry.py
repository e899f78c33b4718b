"""Logs and metrics, set up once per process.

Logs are events with fields (``snapshot published version=7 rows=1204``): lines for people on a terminal, one JSON object
a line otherwise. Metrics are prometheus-client's, named ``dolmen_<part>_<noun>_<unit>``.
"""

from __future__ import annotations

import logging
import sys
from enum import StrEnum
from typing import TextIO

import structlog

__all__ = ["LogFormat", "logger", "set_up_logs"]


class LogFormat(StrEnum):
    """How log lines look: ``auto`` is ``text`` on a terminal and ``json`` elsewhere."""

    AUTO = "auto"
    TEXT = "text"
    JSON = "json"


def set_up_logs(
    stage: str, *, level: str = "info", form: LogFormat = LogFormat.AUTO, stream: TextIO | None = None
) -> None:
    """Send every log line of this process (ours and libraries') to ``stream`` (default: stderr) with ``stage`` on it."""
    out = stream if stream is not None else sys.stderr
    as_text = form is LogFormat.TEXT or (form is LogFormat.AUTO and out.isatty())
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="%H:%M:%S" if as_text else "iso", utc=not as_text),
        structlog.processors.format_exc_info,
    ]
    renderer: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer(colors=out.isatty(), pad_event_to=28)
        if as_text
        else structlog.processors.JSONRenderer()
    )
    if as_text:
        shared.remove(structlog.processors.format_exc_info)  # the console renderer draws exceptions itself
    handler = logging.StreamHandler(out)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for noisy in ("httpx", "httpcore", "uvicorn.access", "asyncio"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.clear_contextvars()
    structlog.contextvars.bind_contextvars(stage=stage)


def logger(name: str) -> structlog.stdlib.BoundLogger:
    """The logger of one module: ``_log = logger(__name__)``."""
    bound: structlog.stdlib.BoundLogger = structlog.get_logger(name)
    return bound

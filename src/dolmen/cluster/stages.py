"""One stage of the loop in this process: what ``dolmen serve``, ``join`` and ``train --follow`` do, and ``up`` runs."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from dolmen import events, serving, training
from dolmen.cluster.config import Config
from dolmen.cluster.lifetime import stop_on_signals, stop_with_parent
from dolmen.cluster.supervisor import Stage, stage_command
from dolmen.telemetry import LogFormat

if TYPE_CHECKING:
    from fastapi import FastAPI

__all__ = ["STAGES", "join", "serve", "stages_of", "train"]

STAGES = ("serve", "join", "train")
"""In the order of the data's flow."""


def serve(config: Config, *, extend: Callable[[FastAPI], None] | None = None, port_name: str = "serving.port") -> None:
    """Answer requests until told to stop. ``extend`` may add to the application: the console does.

    ``port_name``: what set the port, for people who must choose another.
    """
    serving.check_address(config.serving, port_name=port_name)
    log = config.open_log()
    try:
        serving.run_server(serving.create_app(config.serving, log=log), config.serving, _told_to_stop(), extend=extend)
    finally:
        log.close()


def join(config: Config) -> None:
    """Make examples until told to stop."""
    log = config.open_log()
    try:
        events.Joiner(config.schema, log, config.join_folder, config.join).run(_told_to_stop())
    finally:
        log.close()


def train(config: Config) -> None:
    """Learn from the stream until told to stop."""
    log = config.open_log()
    try:
        training.run_trainer(config.trainer, log, _told_to_stop())
    finally:
        log.close()


def stages_of(config_path: Path, *, log_format: LogFormat = LogFormat.AUTO) -> list[Stage]:
    """The processes of one machine, whose lines are in ``log_format``."""
    verbs = {"serve": ["serve"], "join": ["join"], "train": ["train", "--follow"]}
    options = ["--config", str(config_path), "--log-format", log_format.value]
    return [Stage(name=name, command=stage_command(*verbs[name], *options)) for name in STAGES]


def _told_to_stop() -> threading.Event:
    """Set by SIGTERM, SIGINT, or the end of the supervisor."""
    stop = stop_on_signals()
    stop_with_parent(stop.set)
    return stop

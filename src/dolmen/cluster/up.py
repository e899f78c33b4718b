"""``dolmen up``: all stages of a configuration, supervised, until told to stop."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dolmen.clock import SystemClock
from dolmen.cluster.config import Config
from dolmen.cluster.lifetime import hold_folder, stop_on_signals
from dolmen.cluster.stages import stages_of
from dolmen.cluster.supervisor import ERROR_MARK, Death, Supervisor, stage_command
from dolmen.errors import CONFIG_STATUS, ConfigError, LogError
from dolmen.events import Log, Topic
from dolmen.serving import check_address
from dolmen.telemetry import LogFormat, logger

__all__ = ["run_up"]

_log = logger(__name__)


def run_up(config_path: Path, *, log_format: LogFormat = LogFormat.AUTO) -> None:
    """Run serve, join and train until SIGINT or SIGTERM; then stop them in the order of the data's flow.

    One that dies is started again, however often; that it did is told on the terminal and in the status, so that the
    page shows it.

    ``log_format``: of the stages' lines.

    Raises:
        ConfigError: the configuration has a mistake, be it one that only a stage could find, or its port or its state
            folder is in use.
    """
    config = Config.from_toml(config_path)
    check_address(config.serving)
    _check_model(config_path)
    stop = stop_on_signals()
    stages = stages_of(config_path, log_format=log_format)
    with (
        hold_folder(config.state) as held,
        config.open_log() as log,
        Supervisor(stages, held=[held], failed=stop.set, died=_told_in(log)) as supervisor,
    ):
        host = f"[{config.serving.host}]" if ":" in config.serving.host else config.serving.host
        _log.info("running; Ctrl-C stops", address=f"http://{host}:{config.serving.port}", state=str(config.state))
        stop.wait()
        _log.info("stopping")
    if supervisor.failure is not None:
        raise supervisor.failure


def _check_model(config_path: Path) -> None:
    """Refuse a model that cannot be built before anything is served.

    By a short process, so that torch stays out of this one. What else it may die of, the trainer will tell.

    Raises:
        ConfigError: the message is that of ``dolmen check``.
    """
    command = stage_command("check", "--config", str(config_path))
    ended = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, encoding="utf-8", errors="replace", check=False
    )
    if ended.returncode == CONFIG_STATUS:
        raise ConfigError(ended.stderr.strip().removeprefix(ERROR_MARK))


def _told_in(log: Log) -> Callable[[Death], None]:
    """Tells of every death on the topic ``status``: how often in a row each stage has died, when last, and what it said
    then. Tells of none at once, so that what an earlier run told is not taken for this one's.
    """
    clock = SystemClock()
    deaths: dict[str, dict[str, Any]] = {}

    def write() -> None:
        told = {"stage": "up", "time_us": clock.now_us(), "pid": os.getpid(), "figures": {"deaths": deaths}}
        try:
            log.append(Topic.STATUS, [json.dumps(told).encode()])
        except LogError as problem:
            _log.error("status not written", problem=str(problem))

    def tell(death: Death) -> None:
        told = {"count": death.count, "time_us": clock.now_us(), "status": death.status, "said": death.said}
        deaths[death.name] = told
        write()

    write()
    return tell

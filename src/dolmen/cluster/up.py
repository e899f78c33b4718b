"""``dolmen up``: all stages of a configuration, supervised, until told to stop."""

from __future__ import annotations

import subprocess
from pathlib import Path

from dolmen.cluster.config import Config
from dolmen.cluster.lifetime import hold_folder, stop_on_signals
from dolmen.cluster.stages import stages_of
from dolmen.cluster.supervisor import ERROR_MARK, Supervisor, stage_command
from dolmen.errors import CONFIG_STATUS, ConfigError
from dolmen.serving import check_address
from dolmen.telemetry import LogFormat, logger

__all__ = ["run_up"]

_log = logger(__name__)


def run_up(config_path: Path, *, log_format: LogFormat = LogFormat.AUTO) -> None:
    """Run serve, join and train until SIGINT or SIGTERM; then stop them in the order of the data's flow.

    ``log_format``: of the stages' lines.

    Raises:
        ConfigError: the configuration has a mistake, be it one that only a stage could find, or its port or its state
            folder is in use.
    """
    config = Config.from_toml(config_path)
    check_address(config.serving)
    _check_model(config_path)
    stop = stop_on_signals()
    with (
        hold_folder(config.state) as held,
        Supervisor(stages_of(config_path, log_format=log_format), held=[held], failed=stop.set) as supervisor,
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

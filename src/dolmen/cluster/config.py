"""One file describes a whole dolmen: what an example is, which model learns, and how each stage behaves.

```toml
state = "state"                 # log, snapshots and everything else; relative to this file

[[schema.slot]]
name = "user"
[[schema.slot]]
name = "item"
[[schema.label]]
name = "click"

[model]
name = "joint"
[join]
window = "30m"
[serving]
port = 8080
```

Each section is read into the settings of the part it configures, which say what is allowed and why; all defaults are
theirs. An unknown key is an error that offers the nearest known one.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, final

from dolmen import training
from dolmen.embedding import AdaGrad, Optimizer
from dolmen.embedding.optimizers import optimizer_from_dict
from dolmen.errors import ConfigError, SchemaError
from dolmen.events import DEFAULT_RETENTION, EmbeddedLog, JoinConfig, Retention, Topic
from dolmen.features import Schema
from dolmen.models import check_names
from dolmen.serving import ServeSettings
from dolmen.settings import read_settings, suggestion
from dolmen.training import TrainConfig, TrainerSettings

__all__ = ["Config", "ModelConfig"]

_SECTIONS: Final = (
    "state",
    "dataset",
    "simulated",
    "schema",
    "model",
    "optimizer",
    "log",
    "join",
    "train",
    "trainer",
    "serving",
)
_TOKEN_VARIABLE: Final = "DOLMEN_TOKEN"


@final
@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Which model learns and serves.

    Args:
        name: one that ``dolmen models`` lists.
        options: that model's own.
    """

    name: str = "joint"
    options: Mapping[str, Any] = field(default_factory=dict)


@final
@dataclass(frozen=True, kw_only=True)
class Config:
    """Everything that a stage is told.

    Args:
        state: the folder of everything that is written.
        schema: what an example is.
        dataset: what is served, for people.
        simulated: whether people and items are made up.
        model: which model learns.
        optimizer: of the tables' rows.
        retention: how much of each topic is kept; topics that are not named keep what ``DEFAULT_RETENTION`` says.
        join: of the joiner.
        train: of learning.
        trainer: of the trainer process.
        serving: of the server.
    """

    state: Path
    schema: Schema
    dataset: str = ""
    simulated: bool = False
    model: ModelConfig = field(default_factory=ModelConfig)
    optimizer: Optimizer = field(default_factory=AdaGrad)
    retention: Mapping[str, Retention] = field(default_factory=dict)
    join: JoinConfig = field(default_factory=JoinConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    trainer: TrainerSettings
    serving: ServeSettings

    @classmethod
    def from_toml(cls, path: Path, *, with_model: bool = False) -> Config:
        """Read and check a configuration file.

        Args:
            path: the file.
            with_model: check the model's options too, that it can read the schema, and that it answers and learns a few
                made-up examples: only building and trying it can tell, which loads torch.

        Raises:
            ConfigError: the file is missing, is no TOML, or has a mistake; the message names the file and the place.
            SchemaError: the schema contradicts itself, or is not what the model reads; the message names the file.
        """
        try:
            values = tomllib.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise ConfigError(
                f"{path}: there is no such file; `dolmen demo` writes one that you can start from"
            ) from None
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as problem:
            raise ConfigError(f"{path}: {problem}") from None
        try:
            config = cls.from_dict(values, base=path.parent)
            if with_model:
                # Asked for only here, since its name loads torch, which the supervisor does without.
                trainer = training.new_trainer(
                    config.schema, config.model.name, config.model.options, config.train, optimizer=config.optimizer
                )
                training.try_model(trainer, config.model.name)
        except (ConfigError, SchemaError) as problem:
            raise type(problem)(f"{path}: {problem}") from None
        return config

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], *, base: Path, snapshots: Path | None = None) -> Config:
        """The same from plain values. ``state`` is below ``base``; ``snapshots`` are the trainer's if ``None``."""
        for name in values:
            if name not in _SECTIONS:
                raise ConfigError(f"unknown section {name!r}{suggestion(name, _SECTIONS)}")
        for name in ("schema", "model", "optimizer", "log", "join", "train", "trainer", "serving"):
            if not isinstance(values.get(name, {}), Mapping):
                raise ConfigError(f"{name} must be a table, got {values[name]!r}; write [{name}]")
        schema = Schema.from_dict(values.get("schema", {}))
        if not schema.slots or not schema.labels:
            raise ConfigError("the schema needs at least one [[schema.slot]] and one [[schema.label]]")
        state = base / _text(values, "state", "state")
        dataset, simulated = _text(values, "dataset", ""), values.get("simulated", False)
        if not isinstance(simulated, bool):
            raise ConfigError(f"simulated must be true or false, got {simulated!r}")
        model = read_settings(ModelConfig, values.get("model", {}), "model")
        check_names(model.name, model.options)
        optimizer = optimizer_from_dict({"name": "adagrad", **values.get("optimizer", {})})
        train = read_settings(TrainConfig, values.get("train", {}), "train")
        return cls(
            state=state,
            schema=schema,
            dataset=dataset,
            simulated=simulated,
            model=model,
            optimizer=optimizer,
            retention=_retention(values.get("log", {})),
            join=read_settings(JoinConfig, values.get("join", {}), "join"),
            train=train,
            trainer=read_settings(
                TrainerSettings,
                values.get("trainer", {}),
                "trainer",
                folder=state / "trainer",
                schema=schema,
                model=model.name,
                model_options=model.options,
                train=train,
                optimizer=optimizer,
                dataset=dataset,
            ),
            serving=read_settings(
                ServeSettings,
                _with_token(values.get("serving", {})),
                "serving",
                schema=schema,
                log_folder=state / "log",
                snapshot_folder=snapshots if snapshots is not None else state / "trainer" / "snapshots",
                state_folder=state / "serving",
                dataset=dataset,
                simulated=simulated,
            ),
        )

    @property
    def join_folder(self) -> Path:
        """Where the joiner keeps its state."""
        return self.state / "join"

    def open_log(self) -> EmbeddedLog:
        """The event log of this configuration."""
        return EmbeddedLog(self.state / "log", retention=self.retention)


def _text(values: Mapping[str, Any], name: str, default: str) -> str:
    value = values.get(name, default)
    if not isinstance(value, str):
        raise ConfigError(f"{name} must be a text, got {value!r}")
    return value


def _retention(values: Mapping[str, Any]) -> dict[str, Retention]:
    for name in values:
        if name != "retention":
            raise ConfigError(f"log: unknown setting {name!r}{suggestion(name, ['retention'])}")
    told = values.get("retention", {})
    if not isinstance(told, Mapping):
        raise ConfigError(f"log.retention must be a table, got {told!r}; write [log.retention.TOPIC]")
    return {topic: _retention_of(topic, one) for topic, one in told.items()}


def _retention_of(topic: str, values: Any) -> Retention:
    """What is not named keeps its default: a shorter age does not forget who still has to read."""
    where = f"log.retention.{topic}"
    topics = [one.value for one in Topic]
    if topic not in topics:
        raise ConfigError(f"log.retention: there is no topic {topic!r}{suggestion(topic, topics)}")
    if not isinstance(values, Mapping):
        raise ConfigError(f"{where} must be a table, got {values!r}; write [{where}]")
    default = DEFAULT_RETENTION.get(topic, Retention())
    return replace(default, **{name: getattr(read_settings(Retention, values, where), name) for name in values})


def _with_token(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """The token from the environment, where it is set: a secret should not need to stand in a file."""
    token = os.environ.get(_TOKEN_VARIABLE)
    return {**values, "token": token} if token else values

"""A trainer to begin with: a new one, or the one that its folder's newest snapshot holds."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dolmen.embedding import Embed, Embeddings, Optimizer
from dolmen.errors import ConfigError, SnapshotError
from dolmen.events import Log, Topic, check_identity
from dolmen.features import Schema
from dolmen.models import build, describe
from dolmen.telemetry import logger
from dolmen.training.config import TrainConfig
from dolmen.training.settings import TrainerSettings
from dolmen.training.snapshot import Manifest, Snapshot, SnapshotFolder, load_snapshot, read_manifest
from dolmen.training.specimens import Specimens
from dolmen.training.trainer import Trainer

__all__ = ["new_trainer", "open_trainer"]

_log = logger(__name__)


def new_trainer(
    schema: Schema,
    model: str = "joint",
    options: Mapping[str, Any] | None = None,
    config: TrainConfig | None = None,
    *,
    optimizer: Optimizer | None = None,
    specimens: Specimens | None = None,
    dataset: str = "",
) -> Trainer:
    """A trainer that has learned nothing: empty tables and a new model, both from the config's seed.

    ``dataset``: what it is going to learn, such as the name of a data set; snapshots keep it.

    Raises:
        ConfigError: the model's name or an option is unknown or cannot be used.
    """
    config = config if config is not None else TrainConfig()
    embed = Embed(Embeddings(schema, optimizer=optimizer, seed=config.seed, capacity=config.capacity))
    made = build(model, options if options is not None else {}, embed, seed=config.seed)
    return Trainer(made, embed, config, specimens=specimens, dataset=dataset)


def open_trainer(settings: TrainerSettings, log: Log) -> tuple[Trainer, str]:
    """The trainer that ``settings`` ask for, at the newest valid snapshot of its folder, and that snapshot's lineage.

    Where there is no snapshot yet it is new, or goes on from ``start_from``, at the log's first example; the lineage is
    then ``""``: none is written.

    Raises:
        ConfigError: the snapshot is of another schema, model or optimiser than the settings, or of another log.
        SnapshotError: there are snapshots, and none can be used.
    """
    specimens = Specimens(settings.folder / "bad")
    folder = SnapshotFolder(settings.folder / "snapshots")
    if folder.paths():
        _check_schema(settings, folder.paths()[0])
        snapshot = load_snapshot(folder.folder, schema=settings.schema)
        _check_same(settings, snapshot, folder.folder)
        _check_log(settings, snapshot, log)
        trainer = Trainer.resume(snapshot, settings.train, specimens=specimens)
        trainer.dataset = settings.dataset or trainer.dataset
        if trainer.lineage.name != snapshot.manifest.lineage:
            _log.warning("settings of learning have changed, a new lineage begins", version=trainer.version)
        return trainer, snapshot.manifest.lineage
    if settings.start_from is not None:
        snapshot = load_snapshot(settings.start_from, schema=settings.schema)
        _check_same(settings, snapshot, settings.start_from)
        trainer = Trainer.resume(snapshot, settings.train, specimens=specimens)
        trainer.begin_lineage()
        trainer.positions.clear()
        trainer.dataset = settings.dataset or trainer.dataset
    else:
        trainer = new_trainer(
            settings.schema,
            settings.model,
            settings.model_options,
            settings.train,
            optimizer=settings.optimizer,
            specimens=specimens,
            dataset=settings.dataset,
        )
    check_identity(log, settings.folder, has_read=False, mend=_elsewhere(settings))
    trainer.offset, _ = log.bounds(Topic.EXAMPLES, 0)
    return trainer, ""


def _check_schema(settings: TrainerSettings, newest: Path) -> None:
    """Another schema is a mistake of the settings, not a damaged snapshot that an older one could stand in for."""
    try:
        found = read_manifest(newest).schema_fingerprint
    except SnapshotError:
        return  # torn: reading it for good will say so, and take the one before
    if found != settings.schema.fingerprint:
        raise ConfigError(
            f"snapshot {newest.name} is of schema {found}, asked for is {settings.schema.fingerprint}; a changed schema"
            " needs a new folder"
        )


def _check_log(settings: TrainerSettings, snapshot: Snapshot, log: Log) -> None:
    """A log that ends before what was learned of it is another one: its examples would be passed over in silence."""
    learned, end = snapshot.manifest.offset, log.bounds(Topic.EXAMPLES, 0)[1]
    if learned > end:
        raise ConfigError(
            f"snapshot {snapshot.path.name} has learned {Topic.EXAMPLES}/0 up to offset {learned}, and the log ends at"
            f" {end}: it was replaced; put that log back, or {_elsewhere(settings)}"
        )
    check_identity(log, settings.folder, has_read=learned > 0, mend=_elsewhere(settings))


def _elsewhere(settings: TrainerSettings) -> str:
    return f"move {settings.folder} away, and trainer.start_from can name its snapshots to go on from what was learned"


def _check_same(settings: TrainerSettings, snapshot: Snapshot, place: Path) -> None:
    mend = f"take over the snapshot's value, or start in another folder than {place}"
    manifest = snapshot.manifest
    # Built, so that options left out and options at their defaults are the same thing.
    asked = describe(build(settings.model, settings.model_options, snapshot.parameters.embed))
    for name, wanted, found in (("model", asked["name"], manifest.model), *_options(asked["options"], manifest)):
        if wanted != found:
            raise ConfigError(f"trainer.{name} is {wanted!r}, snapshot {snapshot.path.name} has {found!r}; {mend}")
    for table in snapshot.parameters.embeddings.tables.values():
        if settings.optimizer is not None and table.optimizer != settings.optimizer:
            raise ConfigError(
                f"trainer.optimizer is {settings.optimizer}, snapshot {snapshot.path.name} has {table.optimizer};"
                f" {mend}"
            )


def _options(asked: Mapping[str, Any], manifest: Manifest) -> list[tuple[str, Any, Any]]:
    names = sorted({*asked, *manifest.model_options})
    return [(f"model_options.{name}", asked.get(name), manifest.model_options.get(name)) for name in names]

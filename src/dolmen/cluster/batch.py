"""Batch is the same loop with a finished log: a data set is learned, and its snapshot served, by the same parts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final, final

from dolmen import datasets
from dolmen.cluster.config import Config
from dolmen.datasets import Dataset, Split, item_changes, latest, people
from dolmen.errors import ConfigError, DataError
from dolmen.events import CatalogueChange, Group, Log, Topic, encode
from dolmen.features import Schema
from dolmen.telemetry import logger
from dolmen.training import Manifest, TrainConfig, find_snapshot, new_trainer, read_manifest, try_model, validate
from dolmen.unfinished import require_folder

__all__ = ["BatchReport", "snapshot_config", "train_in_batch"]

_log = logger(__name__)
_CATALOGUE_CHUNK: Final = 1000


@final
@dataclass(frozen=True)
class BatchReport:
    """How good the model is on the part that tests, which it has not seen; and where it lies.

    ``loss`` is the model's own. ``auc`` and ``log_loss`` are NaN if it cannot score. Of ``step_count`` steps
    ``refused_count`` taught nothing, since loss or gradients were not finite.
    """

    loss: float
    auc: float
    log_loss: float
    example_count: int
    path: Path
    step_count: int
    refused_count: int


def train_in_batch(
    name: str, *, model: str, epochs: int, batch_size: int, seed: int, out: Path, negatives: int = 0
) -> BatchReport:
    """Learn the part of a data set that trains, watch the one that validates, test on the last, and write a snapshot.

    Args:
        name: of the data set.
        model: its name.
        epochs: passes over the training part.
        batch_size: examples a step.
        seed: of everything random.
        out: the folder that gets the snapshot.
        negatives: how many random items to put beside each that was acted on.

    Raises:
        DataError: there is no such data set, it cannot be had, or all its examples have one label, of which a model
            that scores learns nothing.
        ConfigError: there is no such model, it cannot be used, or it learned nothing at all; or ``out`` cannot be
            written to.
    """
    require_folder(out, "--out")
    dataset = datasets.load(name)
    config = TrainConfig(seed=seed)
    try_model(new_trainer(dataset.schema, model, config=config), model)
    trainer = new_trainer(dataset.schema, model, config=config, dataset=name)
    if negatives:
        dataset = dataset.with_negatives(negatives, seed=seed)
    if trainer.judge is not None:
        _check_labels(dataset, trainer.judge.label)
    trainer.fit(
        dataset.batches(batch_size, Split.TRAIN, shuffle_seed=seed if epochs > 1 else None),
        epochs=epochs,
        validation=dataset.batches(4096, Split.VALIDATION),
    )
    steps, refused = trainer.version, trainer.counters["steps_refused"]
    if steps and refused == steps:
        raise ConfigError(
            f"model {model!r} learned nothing of {name}: loss or gradients were not finite in each of {steps:,} steps;"
            " all were refused, and no snapshot was written"
        )
    tested = validate(trainer, dataset.batches(4096, Split.TEST))
    path = trainer.save(out)
    return BatchReport(tested.loss, tested.auc, tested.log_loss, tested.example_count, path, steps, refused)


def _check_labels(dataset: Dataset, label: str) -> None:
    found = dataset.interactions[label].unique().to_pylist()
    if len(found) == 1:
        raise DataError(
            f"{dataset.info.name}: {label} is {found[0]} in every example, so there is nothing to tell apart; it holds "
            "what people did and not what they passed over. Put random items beside that (--negatives 1), or take a "
            "model that needs none, such as two_tower or sasrec"
        )


def snapshot_config(snapshot: Path, *, data: str | None, port: int) -> Config:
    """What it takes to serve a snapshot alone. The server's own state lies beside it, in ``served/``.

    Args:
        snapshot: a snapshot, or a folder of snapshots.
        data: fill the catalogue from this data set, if it is empty; ``None``: items come over the API.
        port: on 127.0.0.1.

    Raises:
        SnapshotError: there is no valid snapshot.
        ConfigError: the snapshot is not of ``data``, or its catalogue was filled from another data set.
    """
    path = find_snapshot(snapshot)
    manifest = read_manifest(path)
    dataset = datasets.load(data) if data is not None else None
    if dataset is not None:
        _check_learned_from(path, manifest, dataset)
    config = Config.from_dict(
        {
            "state": "served",
            "dataset": data or "",
            "simulated": dataset is not None and dataset.info.simulated,
            "schema": manifest.schema,
            "model": {"name": manifest.model, "options": manifest.model_options},
            "serving": {"port": port},
            # There is no joiner that would have to read what is logged.
            "log": {"retention": {topic: {"readers": [Group.SERVER]} for topic in (Topic.IMPRESSIONS, Topic.ACTIONS)}},
        },
        base=path.parent,
        snapshots=path.parent,
    )
    if dataset is not None:
        with config.open_log() as log:
            _fill_catalogue(log, dataset, config.state)
    return config


def _check_learned_from(path: Path, manifest: Manifest, dataset: Dataset) -> None:
    """Ids mean something within one data set only: another's goods would be answered with the rows of its own.

    A loop's snapshot knows what its file calls the data set, which is the title where ``dolmen demo`` wrote it.
    """
    info, learned = dataset.info, manifest.dataset
    if learned and learned not in (info.name, info.title):
        raise ConfigError(
            f"--data {info.name}: snapshot {path} was trained on {learned!r}, and the ids of one data set are not those"
            " of another; name that one, or leave --data out and bring items over the API"
        )
    difference = Schema.from_dict(manifest.schema).difference(dataset.schema)
    if difference is not None:
        field, had, has = difference
        name_it = "" if learned else "name the data set that it was trained on, or "
        raise ConfigError(
            f"--data {info.name}: snapshot {path} reads its examples otherwise than the data set: {field} is {had} in"
            f" the snapshot, and {has} in the data set; {name_it}leave --data out and bring items over the API"
        )
    if not learned:
        _log.warning(
            "the snapshot does not say which data set it was trained on; that it was this one cannot be checked",
            data=info.name,
            snapshot=str(path),
        )


def _fill_catalogue(log: Log, dataset: Dataset, state: Path) -> None:
    """Write what the data set knows of items and people into the log, once, unless something else is in there.

    That it was begun, and that it is done, is written down as the position of a reader: 0, then the end. A filling that
    was killed is begun anew: an entry is whole, so the part that is there already is only written again.

    Raises:
        ConfigError: it was filled from another data set.
    """
    place, filler = (Topic.CATALOGUE, 0), _filler(dataset.info.name)
    for other in datasets.names():
        if other != dataset.info.name and log.committed(_filler(other), *place) is not None:
            raise ConfigError(
                f"--data {dataset.info.name}: the catalogue in {state} was filled from {other}; serve that one, or move"
                f" {state} away: it is then made anew"
            )
    committed, end = log.committed(filler, *place), log.bounds(*place)[1]
    if committed:
        return
    if committed is None and end > 0:
        _log.warning("catalogue kept as it is, and not filled", data=dataset.info.name, records=end)
        return
    log.commit(filler, {place: 0})
    items = [one for one in latest(item_changes(dataset)) if not one.removed]
    changes = [
        *(CatalogueChange(of="item", id=one.id, attributes=dict(one.attributes)) for one in items),
        *(CatalogueChange(of="user", id=one.id, attributes=dict(one.attributes)) for one in people(dataset)),
    ]
    for start in range(0, len(changes), _CATALOGUE_CHUNK):
        log.append(Topic.CATALOGUE, [encode(one) for one in changes[start : start + _CATALOGUE_CHUNK]])
    log.commit(filler, {place: log.bounds(*place)[1]})


def _filler(name: str) -> str:
    """What the reader is called that says how far a data set's catalogue was written."""
    return f"catalogue of {name}"

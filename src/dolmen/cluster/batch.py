"""Batch is the same loop with a finished log: a data set is learned, and its snapshot served, by the same parts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final, final

from dolmen import datasets
from dolmen.cluster.config import Config
from dolmen.datasets import Dataset, Split, item_changes, latest, people
from dolmen.errors import DataError
from dolmen.events import CatalogueChange, Group, Log, Topic, encode
from dolmen.telemetry import logger
from dolmen.training import TrainConfig, find_snapshot, new_trainer, read_manifest, validate

__all__ = ["BatchReport", "snapshot_config", "train_in_batch"]

_log = logger(__name__)
_CATALOGUE_CHUNK: Final = 1000


@final
@dataclass(frozen=True)
class BatchReport:
    """How good the model is on the part that tests, which it has not seen; and where it lies.

    ``loss`` is the model's own. ``auc`` and ``log_loss`` are NaN if it cannot score.
    """

    loss: float
    auc: float
    log_loss: float
    example_count: int
    path: Path


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
        ConfigError: there is no such model.
    """
    dataset = datasets.load(name)
    trainer = new_trainer(dataset.schema, model, config=TrainConfig(seed=seed))
    if negatives:
        dataset = dataset.with_negatives(negatives, seed=seed)
    if trainer.judge is not None:
        _check_labels(dataset, trainer.judge.label)
    trainer.fit(
        dataset.batches(batch_size, Split.TRAIN, shuffle_seed=seed if epochs > 1 else None),
        epochs=epochs,
        validation=dataset.batches(4096, Split.VALIDATION),
    )
    tested = validate(trainer, dataset.batches(4096, Split.TEST))
    path = trainer.save(out)
    return BatchReport(tested.loss, tested.auc, tested.log_loss, tested.example_count, path)


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
    """
    path = find_snapshot(snapshot)
    manifest = read_manifest(path)
    dataset = datasets.load(data) if data is not None else None
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
            _fill_catalogue(log, dataset)
    return config


def _fill_catalogue(log: Log, dataset: Dataset) -> None:
    """Write what the data set knows of items and people into the log, once, unless something else is in there.

    That it was begun, and that it is done, is written down as the position of a reader: 0, then the end. A filling that
    was killed is begun anew: an entry is whole, so the part that is there already is only written again.
    """
    place, filler = (Topic.CATALOGUE, 0), f"catalogue of {dataset.info.name}"
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

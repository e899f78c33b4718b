"""Batch is the same loop with a finished log: a data set is learned, and its snapshot served, by the same parts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final, final

from dolmen import datasets
from dolmen.cluster.config import Config
from dolmen.datasets import Dataset, Split, item_changes, latest, people
from dolmen.events import CatalogueChange, Group, Log, Topic, encode
from dolmen.telemetry import logger
from dolmen.training import TrainConfig, find_snapshot, new_trainer, read_manifest, validate

__all__ = ["BatchReport", "snapshot_config", "train_in_batch"]

_log = logger(__name__)
_CATALOGUE_CHUNK: Final = 1000


@final
@dataclass(frozen=True)
class BatchReport:
    """How good the model is on the last tenth of the data set, in time, which it has not seen; and where it lies."""

    auc: float
    log_loss: float
    example_count: int
    path: Path


def train_in_batch(name: str, *, model: str, epochs: int, batch_size: int, seed: int, out: Path) -> BatchReport:
    """Learn the first 80 % of a data set in time, watch the next 10 %, test on the last, and write a snapshot.

    Raises:
        DataError: there is no such data set, or it cannot be had.
        ConfigError: there is no such model.
    """
    dataset = datasets.load(name)
    trainer = new_trainer(dataset.schema, model, config=TrainConfig(seed=seed))
    trainer.fit(
        dataset.batches(batch_size, Split.TRAIN, shuffle_seed=seed if epochs > 1 else None),
        epochs=epochs,
        validation=dataset.batches(4096, Split.VALIDATION),
    )
    tested = validate(trainer, dataset.batches(4096, Split.TEST))
    path = trainer.save(out)
    return BatchReport(tested.auc, tested.log_loss, tested.example_count, path)


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

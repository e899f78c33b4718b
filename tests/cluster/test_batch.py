"""A snapshot served alone: the catalogue is filled from a data set, whole, however often that is interrupted."""

from __future__ import annotations

import math
import queue
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pytest

from dolmen import datasets
from dolmen.cluster import snapshot_config, train_in_batch
from dolmen.cluster.config import Config
from dolmen.datasets import item_changes, latest, people
from dolmen.datasets.dataset import actions_table
from dolmen.errors import DataError, LogError
from dolmen.events import DEFAULT_RETENTION, Appended, CatalogueChange, EmbeddedLog, Group, Topic, decode, encode
from dolmen.serving.replica import Replica
from dolmen.training import new_trainer
from dolmen.training.snapshot import Parameters, SnapshotFolder

DATA = "world"


@pytest.fixture
def snapshot(tmp_path: Path) -> Path:
    new_trainer(datasets.load(DATA).schema, "joint").save(tmp_path)
    return tmp_path


def written(config: Config) -> list[CatalogueChange]:
    with config.open_log() as log:
        records = log.read(Topic.CATALOGUE, 0, 0, max_records=100_000, max_bytes=1 << 30)
    return [decode(CatalogueChange, record.value) for record in records]


def catalogue_of(changes: Sequence[CatalogueChange]) -> dict[Any, Any]:
    return {(change.of, change.id): change.attributes for change in changes}


def described() -> dict[Any, Any]:
    world = datasets.load(DATA)
    items = {("item", one.id): one.attributes for one in latest(item_changes(world)) if not one.removed}
    return {**items, **{("user", one.id): one.attributes for one in people(world)}}


@pytest.mark.fault
def test_a_filling_that_was_killed_is_completed_by_the_next_start(
    snapshot: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = described()
    left = 0

    def break_off(*given: Any, **named: Any) -> Appended:
        nonlocal left
        if left == 0:
            raise LogError("killed")
        left -= 1
        return append(*given, **named)

    append = EmbeddedLog.append
    monkeypatch.setattr(EmbeddedLog, "append", break_off)
    monkeypatch.setattr("dolmen.cluster.batch._CATALOGUE_CHUNK", len(expected) // 3 + 1)
    for chunk_count in (0, 1, 2):
        left = chunk_count
        with pytest.raises(LogError, match="killed"):
            snapshot_config(snapshot, data=DATA, port=0)
    monkeypatch.undo()
    config = snapshot_config(snapshot, data=DATA, port=0)
    assert catalogue_of(written(config)) == expected
    count = len(written(config))
    assert len(written(snapshot_config(snapshot, data=DATA, port=0))) == count  # and is not begun again


def test_a_catalogue_that_came_over_the_api_is_left_alone(snapshot: Path) -> None:
    config = snapshot_config(snapshot, data=None, port=0)
    with config.open_log() as log:
        log.append(Topic.CATALOGUE, [encode(CatalogueChange("item", "mine"))])
    assert [change.id for change in written(snapshot_config(snapshot, data=DATA, port=0))] == ["mine"]


def test_what_is_null_is_no_attribute_and_when_an_item_was_on_offer_is_none_either(snapshot: Path) -> None:
    changes = written(snapshot_config(snapshot, data=DATA, port=0))
    names = {name for change in changes for name in change.attributes}
    assert not {name for name in names if name.startswith("available_")}
    assert all(value is not None for change in changes for value in change.attributes.values())


def test_what_a_server_alone_logs_waits_for_no_joiner(snapshot: Path) -> None:
    retention = snapshot_config(snapshot, data=None, port=0).retention
    for topic in (Topic.IMPRESSIONS, Topic.ACTIONS):
        assert retention[topic].readers == (Group.SERVER,)
        assert retention[topic].max_age == DEFAULT_RETENTION[topic].max_age


def test_a_snapshot_out_of_a_running_loop_is_served_beside_a_log_that_never_held_its_deltas(tmp_path: Path) -> None:
    trainer = new_trainer(datasets.load(DATA).schema, "joint")
    trainer.version = 7
    SnapshotFolder(tmp_path).write(trainer.contents(created_time_us=0, parameters_offset=5))
    config = snapshot_config(tmp_path, data=None, port=0)
    served: queue.Queue[Parameters] = queue.Queue()
    with config.open_log() as log:
        replica = Replica(config.serving, log, lambda parameters, _: served.put(parameters))
        replica.worker.start()
        try:
            assert served.get(timeout=30).version == 7
        finally:
            replica.worker.stop()


def test_a_ranker_is_not_trained_on_actions_alone_unless_items_are_put_beside_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = datasets.load(DATA)
    clicked = world.interactions.filter(pc.equal(world.interactions["click"], 1)).slice(0, 300)
    actions = actions_table(clicked["user"], clicked["item"], clicked["event_time"])
    monkeypatch.setattr(datasets, "load", lambda _: replace(world, interactions=actions))
    options: Any = {"model": "logistic_regression", "epochs": 1, "batch_size": 64, "seed": 0, "out": tmp_path}
    with pytest.raises(DataError, match=r"click is 1 in every example.*--negatives 1"):
        train_in_batch("actions", **options)
    assert not list(tmp_path.iterdir())
    assert train_in_batch("actions", **options, negatives=1).auc > 0
    found = train_in_batch("actions", **{**options, "model": "two_tower"})
    assert math.isnan(found.auc)
    assert found.loss > 0

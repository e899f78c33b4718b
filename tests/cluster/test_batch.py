"""A snapshot served alone: the catalogue is filled from a data set, whole, however often that is interrupted."""

from __future__ import annotations

import math
import queue
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pytest
from typer.testing import CliRunner

from dolmen import datasets
from dolmen.cli import app
from dolmen.cluster import snapshot_config, train_in_batch
from dolmen.cluster.config import Config
from dolmen.datasets import item_changes, latest, people
from dolmen.datasets.dataset import actions_table
from dolmen.errors import ConfigError, DataError, LogError
from dolmen.events import DEFAULT_RETENTION, Appended, CatalogueChange, EmbeddedLog, Group, Topic, decode, encode
from dolmen.features import Label, Schema, Slot
from dolmen.serving.replica import Replica
from dolmen.training import Trainer, find_snapshot, load_snapshot, new_trainer, read_manifest
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


BREAKS_OFF = """
from dataclasses import dataclass
from torch import nn
from dolmen.models.ranking.logistic_regression import LogisticRegression, LogisticRegressionConfig

class Never(nn.Module):
    abilities = LogisticRegression.abilities

    def __init__(self, config: LogisticRegressionConfig, embed):
        super().__init__()
        self.config, self.inner, self.seen = config, LogisticRegression(config, embed), 0
        self.slots, self.dense = self.inner.slots, self.inner.dense

    def score(self, batch):
        return self.inner.score(batch)

    def loss(self, batch):
        self.seen += self.training and batch.size == 64
        return self.inner.loss(batch) * (float("nan") if self.seen > self.sound else 1.0)

    sound = 0

class Sometimes(Never):
    sound = 3

    def __init__(self, config: LogisticRegressionConfig, embed):
        super().__init__(config, embed)
"""


def test_training_that_learned_nothing_is_an_error_and_some_refused_steps_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "breaks_off.py").write_text(BREAKS_OFF)
    monkeypatch.syspath_prepend(tmp_path)
    out = tmp_path / "snapshots"
    world = datasets.load(DATA)
    short = replace(world, interactions=world.interactions.slice(0, 1_200))
    monkeypatch.setattr(datasets, "load", lambda _: short)
    command = ["train", "--data", DATA, "--batch-size", "64", "--out", str(out), "--model"]
    ended = CliRunner().invoke(app, [*command, "breaks_off:Never"])
    assert isinstance(ended.exception, ConfigError)
    told = r"model 'breaks_off:Never' learned nothing of world: loss or gradients .* in each of \d+ steps; all were ref"
    assert re.match(told, str(ended.exception))
    assert not out.exists()
    ended = CliRunner().invoke(app, [*command, "breaks_off:Sometimes"])
    assert ended.exit_code == 0, ended.output
    (refused, steps) = re.findall(r"refused: (\d+) of (\d+) steps", ended.output)[0]
    assert 0 < int(refused) < int(steps)
    assert "refused" not in CliRunner().invoke(app, [*command, "logistic_regression"]).output


def learned_from(name: str, folder: Path, *, told: bool = True) -> Path:
    new_trainer(datasets.load(name).schema, "logistic_regression", dataset=name if told else "").save(folder)
    return folder


def test_a_snapshot_says_what_it_was_trained_on_and_is_served_with_nothing_else(tmp_path: Path) -> None:
    folder = learned_from("world-drifting", tmp_path)
    assert read_manifest(find_snapshot(folder)).dataset == "world-drifting"
    assert Trainer.resume(load_snapshot(folder)).dataset == "world-drifting"
    assert datasets.load(DATA).schema == datasets.load("world-drifting").schema, "else the next line tells less"
    with pytest.raises(ConfigError, match=r"--data world: snapshot .* was trained on 'world-drifting'.*name that one"):
        snapshot_config(folder, data=DATA, port=0)
    assert not (folder / "served").exists()
    snapshot_config(folder, data="world-drifting", port=0)


def test_a_snapshot_of_a_loop_knows_the_title_of_its_data_set(tmp_path: Path) -> None:
    world = datasets.load(DATA)
    new_trainer(world.schema, "logistic_regression", dataset=world.info.title).save(tmp_path)
    snapshot_config(tmp_path, data=DATA, port=0)


@pytest.mark.parametrize(
    ("learned", "mend"), [("", "; name the data set .* or leave --data"), (DATA, "; leave --data")]
)
def test_a_snapshot_that_reads_other_fields_is_refused_with_the_first_that_differs(
    tmp_path: Path, learned: str, mend: str
) -> None:
    world = datasets.load(DATA).schema
    of_item = {**world.slots, "genres": replace(world.slots["genres"], many=False)}
    declared = [*of_item.values(), *world.labels.values()]
    for place, (fields, told) in enumerate(
        (
            ([Slot("item"), Label("click")], "slot 'user' is missing in the snapshot, and declared in the data set"),
            (declared, "slot 'genres': many is False in the snapshot, and True in the data set"),
        )
    ):
        folder = tmp_path / str(place)
        new_trainer(Schema(*fields), "logistic_regression", dataset=learned).save(folder)
        with pytest.raises(ConfigError, match=f"--data world: .*: {re.escape(told)}{mend}"):
            snapshot_config(folder, data=DATA, port=0)


def test_a_snapshot_that_keeps_other_rows_of_the_same_ids_is_served(tmp_path: Path) -> None:
    world = datasets.load(DATA).schema
    wide = Schema(*(replace(slot, dim=2 * slot.dim) for slot in world.slots.values()), *world.labels.values())
    new_trainer(wide, "logistic_regression", dataset=DATA).save(tmp_path)
    assert snapshot_config(tmp_path, data=DATA, port=0).schema == wide


def test_what_an_old_snapshot_was_trained_on_cannot_be_checked_and_that_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    snapshot_config(learned_from(DATA, tmp_path, told=False), data=DATA, port=0)
    assert "does not say which data set it was trained on" in caplog.text


def test_a_catalogue_of_another_data_set_is_refused(tmp_path: Path) -> None:
    folder = learned_from(DATA, tmp_path, told=False)
    before = written(snapshot_config(folder, data=DATA, port=0))
    with pytest.raises(ConfigError, match=r"--data world-drifting: the catalogue in .*served was filled from world;"):
        snapshot_config(folder, data="world-drifting", port=0)
    assert written(snapshot_config(folder, data=None, port=0)) == before


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

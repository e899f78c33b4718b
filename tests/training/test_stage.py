import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from dolmen.embedding import SGD
from dolmen.errors import ConfigError, LogError, OffsetGoneError, SnapshotError
from dolmen.events import EmbeddedLog, Topic
from dolmen.features import Label, Schema, Slot
from dolmen.training import (
    DeltaFollower,
    SnapshotFolder,
    TrainConfig,
    TrainerSettings,
    find_snapshot,
    load_snapshot,
    read_manifest,
    run_trainer,
)


@pytest.fixture
def settings(world, tmp_path) -> TrainerSettings:
    return TrainerSettings(
        folder=tmp_path / "train",
        schema=world.schema,
        model=world.model,
        model_options=world.options,
        sync_every="20ms",
        dense_every="50ms",
        snapshot_every="10m",  # when it ends, then
        status_every="20ms",
        dataset="a small world",
    )


def _figures(log: EmbeddedLog) -> dict[str, object]:
    first, end = log.bounds(Topic.STATUS, 0)
    try:
        records = log.read(Topic.STATUS, 0, max(first, end - 1))
    except OffsetGoneError:
        return {}
    return json.loads(records[-1].value)["figures"] if records else {}


def _is_at(log: EmbeddedLog, version: int):
    """Whether a status from now on says that this version is learned and published."""
    _, asked_at = log.bounds(Topic.STATUS, 0)

    def holds() -> bool:
        figures = _figures(log) if log.bounds(Topic.STATUS, 0)[1] > asked_at else {}
        return figures.get("version") == figures.get("published_version") == version

    return holds


def _follow_all(follower: DeltaFollower, log: EmbeddedLog, offset: int) -> int:
    while records := log.read(Topic.PARAMETERS, 0, offset):
        for record in records:
            follower.feed(record.value)
        offset = records[-1].offset + 1
    return offset


def test_server_can_start_before_anything_is_learned(settings, log, running, eventually) -> None:
    with running(lambda stop: run_trainer(settings, log, stop)):
        eventually(lambda: (settings.folder / "snapshots").is_dir() and bool(_figures(log)))
        snapshot = load_snapshot(settings.folder, for_serving=True)
    assert snapshot.manifest.version == 0
    assert snapshot.manifest.parameters_offset == 0


def test_stage_learns_publishes_and_tells(settings, world, log, running, eventually, vectors, dense) -> None:
    with running(lambda stop: run_trainer(settings, log, stop)):
        eventually(lambda: bool(_figures(log)))
        snapshot = load_snapshot(settings.folder, for_serving=True)
        follower = DeltaFollower(snapshot.parameters)
        offset = snapshot.manifest.parameters_offset
        for number in range(30):
            log.append(Topic.EXAMPLES, [world.record(number)])
            offset = _follow_all(follower, log, offset)
        eventually(_is_at(log, 30))
        while follower.parameters.dense_version < 30:  # they come later, though nothing is learned any more
            offset = _follow_all(follower, log, offset)
    last = load_snapshot(settings.folder)
    assert last.manifest.version == follower.parameters.version == 30
    assert vectors(follower.parameters.embeddings) == vectors(last.parameters.embeddings)
    assert dense(follower.parameters.model) == dense(last.parameters.model)
    assert follower.parameters.positions == {"actions/0": 300, "impressions/0": 30, "examples/0": 30}
    figures = _figures(log)
    assert figures["dataset"] == "a small world"
    assert figures["examples_total"] == 480
    assert figures["backlog_records"] == 0
    assert figures["table_rows"] == sum(figures["rows_by_slot"].values()) == len(last.parameters.embeddings)
    assert figures["memory_bytes"] > figures["table_bytes"] > 0
    assert figures["snapshot_version"] == 30
    assert 0 <= figures["auc_online"] <= 1
    status = json.loads(log.read(Topic.STATUS, 0, log.bounds(Topic.STATUS, 0)[1] - 1)[0].value)
    assert (status["stage"], status["pid"]) == ("train", os.getpid())


def test_old_deltas_are_deleted_once_no_kept_snapshot_needs_them(settings, world, log, running, eventually) -> None:
    def writes(version: int):
        return lambda: _figures(log).get("snapshot_version") == version

    often = replace(settings, snapshot_every="20ms")
    with running(lambda stop: run_trainer(often, log, stop)):
        for number in range(6):
            log.append(Topic.EXAMPLES, [world.record(number)])
            eventually(writes(number + 1))
    kept = [read_manifest(path) for path in SnapshotFolder(settings.folder / "snapshots").paths()]
    assert [one.version for one in kept] == [6, 5, 4]
    assert log.bounds(Topic.PARAMETERS, 0)[0] == kept[-1].parameters_offset > 0
    assert log.committed("trainer", Topic.EXAMPLES, 0) == kept[-1].offset == 4
    # A server that starts at the oldest kept snapshot still finds every delta that it needs.
    snapshot = load_snapshot(SnapshotFolder(settings.folder / "snapshots").paths()[-1], for_serving=True)
    follower = DeltaFollower(snapshot.parameters)
    _follow_all(follower, log, snapshot.manifest.parameters_offset)
    assert follower.parameters.version == 6


def test_restarted_stage_goes_on_where_it_was(settings, filled_log, world, running, eventually, rows) -> None:
    with running(lambda stop: run_trainer(settings, filled_log, stop)):
        eventually(_is_at(filled_log, 60))
    lineage = read_manifest(find_snapshot(settings.folder)).lineage
    filled_log.append(Topic.EXAMPLES, [world.record(number) for number in range(60, 80)])
    with running(lambda stop: run_trainer(settings, filled_log, stop)):
        eventually(_is_at(filled_log, 80))
    unbroken = world.trainer()
    for record in filled_log.read(Topic.EXAMPLES, 0, 0):
        unbroken.learn(record)
    again = load_snapshot(settings.folder)
    assert rows(again.parameters) == rows(unbroken)
    assert again.manifest.lineage == lineage


def test_torn_snapshot_costs_time_and_nothing_else(
    settings, filled_log, world, running, eventually, rows, caplog
) -> None:
    with running(lambda stop: run_trainer(settings, filled_log, stop)):
        eventually(_is_at(filled_log, 60))
    newest, *older = SnapshotFolder(settings.folder / "snapshots").paths()
    assert older
    os.truncate(newest / "table-8" / "rows-00000.arrow", 100)
    with running(lambda stop: run_trainer(settings, filled_log, stop)):
        eventually(_is_at(filled_log, 60))
    assert "snapshot passed over" in caplog.text
    unbroken = world.trainer()
    for record in filled_log.read(Topic.EXAMPLES, 0, 0):
        unbroken.learn(record)
    assert rows(load_snapshot(newest).parameters) == rows(unbroken)


def test_second_trainer_in_the_same_folder_is_refused(settings, log, running, eventually) -> None:
    with running(lambda stop: run_trainer(settings, log, stop)):
        eventually(lambda: bool(_figures(log)))
        with pytest.raises(ConfigError, match=rf"another trainer \(process {os.getpid()}\) works in"):
            run_trainer(settings, log, _never())
    with running(lambda stop: run_trainer(settings, log, stop)):  # the lock goes with its holder
        pass


def test_stopped_trainer_learns_what_the_joiner_wrote_last(settings, filled_log, monkeypatch) -> None:
    monkeypatch.setattr("dolmen.training.stage._DRAIN_SECONDS", 60.0)  # a busy machine is no reason to fail
    stop = _never()
    stop.set()
    run_trainer(settings, filled_log, stop)
    assert _figures(filled_log)["backlog_records"] == 0
    assert read_manifest(find_snapshot(settings.folder)).version == 60


def _never():
    from threading import Event  # noqa: PLC0415

    return Event()


@pytest.fixture
def learned(settings, filled_log, running, eventually) -> TrainerSettings:
    with running(lambda stop: run_trainer(settings, filled_log, stop)):
        eventually(_is_at(filled_log, 60))
    return settings


def test_changed_settings_of_learning_make_replicas_start_again(
    learned, filled_log, world, running, eventually
) -> None:
    before = load_snapshot(learned.folder, for_serving=True)
    changed = replace(learned, train=TrainConfig(learning_rate=0.5))
    filled_log.append(Topic.EXAMPLES, [world.record(60)])
    with running(lambda stop: run_trainer(changed, filled_log, stop)):
        eventually(_is_at(filled_log, 61))
    replica = DeltaFollower(before.parameters)
    with pytest.raises(SnapshotError, match="lineage"):
        _follow_all(replica, filled_log, before.manifest.parameters_offset)
    # As it is told to: from the newest snapshot, or from the one that the new lineage began with.
    folder = SnapshotFolder(learned.folder / "snapshots")
    started = next(path for path in folder.paths() if path.name.endswith("60"))
    snapshot = load_snapshot(started, for_serving=True)
    replica = DeltaFollower(snapshot.parameters)
    _follow_all(replica, filled_log, snapshot.manifest.parameters_offset)
    assert replica.parameters.version == 61


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": "deepfm", "model_options": {"slots": ["user"]}}, r"trainer\.model is 'deepfm', .* has 'joint'"),
        (
            {"model_options": {"retriever_weight": 2.0}},
            r"trainer\.model_options\.\w+ is .*; take over the snapshot's value",
        ),
        ({"optimizer": SGD(learning_rate=0.1)}, r"trainer\.optimizer is SGD"),
    ],
)
def test_model_that_the_snapshots_are_not_of_is_refused(learned, filled_log, world, change, message) -> None:
    options = {**world.options, **change.pop("model_options", {})} if "model" not in change else None
    changes = {**change, "model_options": options} if options is not None else change
    with pytest.raises(ConfigError, match=message):
        run_trainer(replace(learned, **changes), filled_log, _never())


def test_schema_that_the_snapshots_are_not_of_is_refused(learned, filled_log) -> None:
    other = Schema(Slot("user", dim=8), Slot("item", dim=8), Label("click"))
    with pytest.raises(ConfigError, match=r"is of schema \w+, asked for is \w+; a changed schema needs a new folder"):
        run_trainer(replace(learned, schema=other), filled_log, _never())


def test_log_that_the_snapshots_are_not_of_is_refused(learned, tmp_path) -> None:
    message = rf"has learned examples/0 up to offset \d+, and the log ends at 0: .* or move {learned.folder} away"
    with EmbeddedLog(tmp_path / "new-log") as other, pytest.raises(ConfigError, match=message):
        run_trainer(learned, other, _never())


def test_stream_goes_on_from_a_batch_run(settings, world, log, tmp_path, running, eventually) -> None:
    batch_trainer = world.trainer()
    batch_trainer.fit([world.batch(number) for number in range(10)], progress=False)
    batch_trainer.save(tmp_path / "batch")
    log.append(Topic.EXAMPLES, [world.record(number) for number in range(10, 13)])
    started = replace(settings, start_from=tmp_path / "batch")
    with running(lambda stop: run_trainer(started, log, stop)):
        eventually(_is_at(log, 13))
    manifest = read_manifest(find_snapshot(settings.folder))
    assert (manifest.version, manifest.offset) == (13, 3)
    assert manifest.lineage != batch_trainer.lineage.name


def test_frozen_copy_is_taken_at_its_place_and_survives(settings, filled_log, world, running, eventually) -> None:
    frozen = replace(settings, freeze_after_examples=400)
    with running(lambda stop: run_trainer(frozen, filled_log, stop)):
        eventually(_is_at(filled_log, 60))
    assert [path.name for path in SnapshotFolder(frozen.folder / "frozen").paths()] == ["000000000025"]
    judged = _figures(filled_log)["judged_frozen_total"]
    assert judged == 35 * 16 == _figures(filled_log)["judged_online_since_total"]
    filled_log.append(Topic.EXAMPLES, [world.record(60)])
    with running(lambda stop: run_trainer(frozen, filled_log, stop)):
        eventually(_is_at(filled_log, 61))
    assert _figures(filled_log)["judged_frozen_total"] == judged + 16


@pytest.mark.parametrize("is_new_course", [False, True])
def test_frozen_copy_of_another_course_of_learning_is_not_judged(
    settings, filled_log, world, running, eventually, is_new_course
) -> None:
    frozen = replace(settings, freeze_after_examples=400)
    with running(lambda stop: run_trainer(frozen, filled_log, stop)):
        eventually(_is_at(filled_log, 60))
    copy = SnapshotFolder(frozen.folder / "frozen").paths()[0]
    first = read_manifest(copy).lineage
    if is_new_course:
        shutil.rmtree(frozen.folder / "snapshots")
    changed = replace(frozen, train=TrainConfig(learning_rate=0.5))  # a new lineage, whether it goes on or begins anew
    for version in (61, 62):
        filled_log.append(Topic.EXAMPLES, [world.record(version - 1)])
        with running(lambda stop: run_trainer(changed, filled_log, stop)):
            eventually(_is_at(filled_log, version))
        assert (read_manifest(copy).lineage != first) is is_new_course
        assert _figures(filled_log)["judged_frozen_total"] == (version - 25) * 16


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("sync_every", "fast", r"trainer\.sync_every: .*'fast'"),
        ("snapshot_every", "0s", r"trainer\.snapshot_every must be above 0, got '0s'"),
        ("keep_snapshots", 0, r"trainer\.keep_snapshots must be at least 1, got 0"),
        ("threads", 0, r"trainer\.threads must be at least 1"),
        ("freeze_after_examples", 0, r"trainer\.freeze_after_examples must be at least 1"),
    ],
)
def test_setting_out_of_range_is_named(world, name, value, message) -> None:
    with pytest.raises(ConfigError, match=message):
        TrainerSettings(folder=Path("x"), schema=world.schema, **{name: value})


class _RefusingLog:
    """A log whose disk is full for a while; everything else is the real one's."""

    def __init__(self, log: EmbeddedLog) -> None:
        self._log, self.is_full = log, False

    def __getattr__(self, name: str) -> object:
        return getattr(self._log, name)

    def append(self, topic: str, values: list[bytes], **options: object) -> object:
        if self.is_full and topic == Topic.PARAMETERS:
            raise LogError("no space left")
        return self._log.append(topic, values, **options)


@pytest.mark.fault
def test_delta_that_the_log_refused_travels_with_the_next(settings, world, log, running, eventually, caplog) -> None:
    refusing = _RefusingLog(log)
    with running(lambda stop: run_trainer(settings, refusing, stop)):
        log.append(Topic.EXAMPLES, [world.record(0)])
        eventually(_is_at(log, 1))
        refusing.is_full = True
        log.append(Topic.EXAMPLES, [world.record(1)])
        eventually(lambda: "delta not published" in caplog.text)
        refusing.is_full = False
        log.append(Topic.EXAMPLES, [world.record(2)])
        eventually(_is_at(log, 3))
        snapshot = load_snapshot(settings.folder, for_serving=True)
    follower = DeltaFollower(snapshot.parameters)
    _follow_all(follower, log, snapshot.manifest.parameters_offset)
    assert follower.parameters.version == 3


@pytest.mark.fault
def test_snapshot_that_fails_for_a_reason_nobody_thought_of_is_told(
    learned, filled_log, world, monkeypatch, running, eventually, caplog
) -> None:
    def seal(*_: object) -> None:
        raise RuntimeError("a mistake of ours")

    monkeypatch.setattr(SnapshotFolder, "seal", seal)
    filled_log.append(Topic.EXAMPLES, [world.record(60)])
    with running(lambda stop: run_trainer(replace(learned, snapshot_every="20ms"), filled_log, stop)):
        eventually(lambda: "snapshot not finished" in caplog.text)
    assert "a mistake of ours" in caplog.text

import json
import os
import random
import shutil
from pathlib import Path

import pyarrow as pa
import pytest
import safetensors.torch

from dolmen.errors import SnapshotError
from dolmen.features import Label, Schema, Slot
from dolmen.settings import write_settings
from dolmen.training import (
    SnapshotFolder,
    Trainer,
    find_snapshot,
    load_snapshot,
    read_manifest,
    verify_snapshot,
)


@pytest.fixture
def written(world, tmp_path) -> tuple[Trainer, SnapshotFolder]:
    """A trainer and its folder with the snapshots of versions 2, 4 and 6."""
    trainer, folder = world.trainer(), SnapshotFolder(tmp_path / "snapshots")
    for number in range(6):
        trainer.step(world.batch(number))
        if number % 2 == 1:
            folder.write(trainer.contents(created_time_us=number))
    return trainer, folder


def test_snapshot_holds_everything(world, written, rows, dense) -> None:
    trainer, folder = written
    snapshot = load_snapshot(folder.folder)
    assert snapshot.path.name == "000000000006"
    assert snapshot.parameters.schema == world.schema
    assert rows(snapshot.parameters) == rows(trainer)
    assert dense(snapshot.parameters.model) == dense(trainer.model)
    assert snapshot.parameters.version == snapshot.manifest.version == 6
    assert snapshot.manifest.lineage == trainer.lineage.name
    assert snapshot.manifest.train == write_settings(trainer.config)


def test_anyone_can_open_the_files(written) -> None:
    trainer, folder = written
    path = folder.paths()[0]
    with pa.ipc.open_file(path / "table-8" / "rows-00000.arrow") as file:
        table = file.read_all()
    assert {"fid", "vector", "count", "last_seen_us"} <= set(table.column_names)
    assert table.num_rows == len(trainer.embeddings.tables[8])
    assert json.loads((path / "manifest.json").read_text())["version"] == 6
    assert safetensors.torch.load_file(path / "dense.safetensors").keys() == trainer.model.state_dict().keys()
    assert {one.stat().st_mode & 0o044 for one in path.rglob("*")} == {0o044}, "a server may run as another user"


def test_serving_copy_has_vectors_and_no_optimizer(written, vectors) -> None:
    trainer, folder = written
    snapshot = load_snapshot(folder.folder, for_serving=True)
    assert vectors(snapshot.parameters.embeddings) == vectors(trainer.embeddings)
    assert snapshot.parameters.embeddings.is_for_serving
    assert snapshot.optimizer == {}
    assert not snapshot.parameters.model.training


def test_newest_are_kept_and_older_ones_deleted(world, written) -> None:
    trainer, folder = written
    trainer.step(world.batch(9))
    folder.write(trainer.contents(created_time_us=0))
    assert [path.name for path in folder.paths()] == ["000000000007", "000000000006", "000000000004"]


def test_same_version_again_replaces_what_is_there(written) -> None:
    trainer, folder = written
    (folder.paths()[0] / "dense.safetensors").write_bytes(b"torn")
    folder.write(trainer.contents(created_time_us=77))
    assert verify_snapshot(folder.paths()[0]).created_time_us == 77


def _cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)


@pytest.mark.fault
@pytest.mark.parametrize("damage", [_cut, _flip, Path.unlink], ids=["cut", "flipped", "missing"])
@pytest.mark.parametrize(
    "name",
    [
        "manifest.json",
        "table-4/rows-00000.arrow",
        "table-8/table.json",
        "table-8/pending.arrow",
        "dense.safetensors",
        "optimizer.safetensors",
    ],
)
def test_damaged_snapshot_is_named_and_the_next_older_one_is_used(written, damage, name, caplog) -> None:
    _, folder = written
    damage(folder.paths()[0] / name)
    with pytest.raises(SnapshotError, match=rf"snapshot 000000000006: {name}"):
        verify_snapshot(folder.paths()[0])
    assert load_snapshot(folder.folder).manifest.version == 4
    assert "snapshot passed over" in caplog.text
    assert "000000000006" in caplog.text


@pytest.mark.fault
def test_every_flipped_bit_of_a_manifest_is_found(written) -> None:
    _, folder = written
    path = folder.paths()[0] / "manifest.json"
    good, dice = path.read_bytes(), random.Random(3)
    for _ in range(300):
        damaged = bytearray(good)
        damaged[dice.randrange(len(good))] ^= 1 << dice.randrange(8)
        path.write_bytes(damaged)
        with pytest.raises(SnapshotError, match=r"snapshot 000000000006: manifest\.json"):
            read_manifest(folder.paths()[0])


def test_snapshot_of_another_schema_is_refused_by_name(written) -> None:
    _, folder = written
    other = Schema(Slot("user", dim=8), Slot("item", dim=8), Label("buy"))
    with pytest.raises(SnapshotError, match=r"snapshot 000000000006 is of schema \w{16}, asked for is \w{16}"):
        verify_snapshot(folder.paths()[0], other)
    with pytest.raises(SnapshotError, match="none of 3 snapshots can be used"):
        folder.newest(other)


def test_where_all_are_damaged_each_is_named(written) -> None:
    _, folder = written
    for path in folder.paths():
        _cut(path / "table-8" / "rows-00000.arrow")
    with pytest.raises(
        SnapshotError, match=r"none of 3 .*000000000006: table-8/.*000000000004: table-8/.*000000000002"
    ):
        load_snapshot(folder.folder)


def test_no_snapshot_is_none_for_a_trainer_and_an_error_for_a_reader(tmp_path) -> None:
    assert SnapshotFolder(tmp_path).newest() is None
    with pytest.raises(SnapshotError, match="there is no snapshot here"):
        find_snapshot(tmp_path)


def test_snapshot_is_found_by_its_own_its_folders_and_its_trainers_path(written) -> None:
    _, folder = written
    newest = folder.paths()[0]
    assert find_snapshot(newest) == find_snapshot(folder.folder) == find_snapshot(folder.folder.parent) == newest


def test_copy_is_invisible_until_it_is_sealed_and_is_swept_if_it_never_is(world, written) -> None:
    trainer, folder = written
    trainer.step(world.batch(9))
    folder.copy(trainer.contents(created_time_us=0))  # killed here
    assert folder.newest().name == "000000000006"
    folder.sweep()
    assert sorted(path.name for path in folder.folder.iterdir()) == ["000000000002", "000000000004", "000000000006"]


@pytest.mark.fault
@pytest.mark.parametrize("lived", range(3))  # moves aside, moves in, deletes
def test_only_snapshot_survives_a_kill_while_its_version_is_written_again(world, tmp_path, monkeypatch, lived) -> None:
    class Killed(BaseException):
        pass

    trainer, folder = world.trainer(), SnapshotFolder(tmp_path / "snapshots", keep=1)
    only = folder.write(trainer.contents(created_time_us=0))
    deeds = 0

    def dying(real):
        def call(path, *args, **kwargs):
            nonlocal deeds
            if path.parent == folder.folder and path.exists():
                deeds += 1
            if deeds > lived:
                raise Killed
            return real(path, *args, **kwargs)

        return call

    again = trainer.contents(created_time_us=1)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", dying(Path.rename))
        patch.setattr(shutil, "rmtree", dying(shutil.rmtree))
        with pytest.raises(Killed):
            folder.write(again)
    folder.sweep()
    assert verify_snapshot(only).created_time_us == (1 if lived == 2 else 0)
    assert list(folder.folder.iterdir()) == [only]


@pytest.mark.fault
def test_write_that_fails_anywhere_leaves_the_old_snapshots_whole(world, written, monkeypatch) -> None:
    # Fail the first call that touches the disk, then the second, ... until the write gets through.
    trainer, folder = written
    trainer.step(world.batch(9))
    failures = 0
    for nth in range(100):
        calls = 0

        def failing(real):
            def call(*args, **kwargs):
                nonlocal calls
                calls += 1
                if calls > nth:  # noqa: B023 - read within this round
                    raise OSError(28, "No space left on device")
                return real(*args, **kwargs)

            return call

        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", failing(os.fsync))
            patch.setattr(Path, "write_bytes", failing(Path.write_bytes))
            patch.setattr(Path, "rename", failing(Path.rename))
            try:
                folder.write(trainer.contents(created_time_us=0))
            except OSError:
                failures += 1
            else:
                break
        assert verify_snapshot(folder.newest()).version in (6, 7)
    assert failures > 8
    assert verify_snapshot(folder.newest()).version == 7


def test_manifest_of_another_format_is_refused(written) -> None:
    _, folder = written
    path = folder.paths()[0]
    text = (path / "manifest.json").read_text()
    (path / "manifest.json").write_text(text.replace('"format": 1', '"format": 2'))
    with pytest.raises(SnapshotError, match="manifest"):
        read_manifest(path)


def test_reader_keeps_its_files_while_they_are_pruned(written, tmp_path) -> None:
    trainer, folder = written
    copied = shutil.copytree(folder.paths()[0], tmp_path / "elsewhere")
    assert load_snapshot(copied).manifest.version == trainer.version

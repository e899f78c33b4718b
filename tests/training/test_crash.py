"""Kill the trainer anywhere: what it learns is, bit for bit, what it would have learned."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dolmen.errors import OffsetGoneError
from dolmen.events import EmbeddedLog, Topic
from dolmen.training import DeltaFollower, SnapshotFolder, TrainerSettings, load_snapshot, read_manifest, run_trainer

RECORDS = 400
PROGRAM = Path(__file__).with_name("trainer_process.py")


CADENCE = {"sync_every": "30ms", "dense_every": "100ms", "snapshot_every": "200ms", "status_every": "100ms"}
FREEZE = 800


def _start(world, log_folder: Path, folder: Path) -> subprocess.Popen[bytes]:
    settings = {
        "folder": str(folder),
        "schema": world.schema.to_dict(),
        "model": world.model,
        "model_options": world.options,
        "freeze_after_examples": FREEZE,
        **CADENCE,
    }
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([sys.executable, PROGRAM, log_folder, json.dumps(settings)], env=environment)


def _offset(log: EmbeddedLog, pid: int) -> int:
    """How far this process says that it is; -1 until it says anything."""
    first, end = log.bounds(Topic.STATUS, 0)
    try:
        told = [json.loads(record.value) for record in log.read(Topic.STATUS, 0, max(first, end - 1))]
    except OffsetGoneError:
        return -1
    return told[-1]["figures"]["positions"].get("examples/0", 0) if told and told[-1]["pid"] == pid else -1


@contextmanager
def _ended(process: subprocess.Popen[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    """Leaves no process behind."""
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def _run_to_the_end(world, log: EmbeddedLog, folder: Path) -> None:
    with _ended(_start(world, log.folder, folder)) as process:
        while _offset(log, process.pid) < RECORDS:
            assert process.poll() is None, "the trainer ended by itself"
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0


@pytest.mark.fault
@pytest.mark.e2e
@pytest.mark.timeout(300)
def test_killed_trainer_learns_the_same_bits(world, tmp_path, rows, dense, vectors, running, eventually) -> None:
    seed = random.SystemRandom().randrange(1 << 30)
    print(f"seed {seed}")  # noqa: T201 - shown where this fails
    dice = random.Random(seed)
    with EmbeddedLog(tmp_path / "log") as log:
        # A bad record and an empty one are part of the course.
        values = [world.record(number % 200, 1 + number % 8) for number in range(RECORDS)]
        values[300], values[350] = b"not examples", world.record(0, 0)
        log.append(Topic.EXAMPLES, values)

        killed, kills = tmp_path / "killed", 0
        replica: DeltaFollower | None = None
        while kills < 3:
            with _ended(_start(world, log.folder, killed)) as process:
                while _offset(log, process.pid) < 0:
                    assert process.poll() is None, "the trainer ended by itself"
                    time.sleep(0.005)
                time.sleep(dice.random())
                process.send_signal(signal.SIGKILL)
            kills += 1
            if replica is None:  # a server that started during the first life, and lives through all the others
                replica = DeltaFollower(load_snapshot(killed, for_serving=True).parameters)
                bootstrap = read_manifest(SnapshotFolder(killed / "snapshots").paths()[0])
        _run_to_the_end(world, log, killed)
        deltas_end = log.bounds(Topic.PARAMETERS, 0)[1]
        followed = _follow(replica, log, bootstrap.parameters_offset, deltas_end, killed)

        # The other run sees the same examples, and nobody disturbs it.
        with EmbeddedLog(tmp_path / "other-log") as other:
            other.append(Topic.EXAMPLES, values)
            settings = TrainerSettings(
                folder=tmp_path / "unbroken",
                schema=world.schema,
                model=world.model,
                model_options=world.options,
                freeze_after_examples=FREEZE,
            )
            with running(lambda stop: run_trainer(settings, other, stop)):
                eventually(lambda: _offset(other, os.getpid()) == RECORDS)

    one, two = load_snapshot(killed), load_snapshot(tmp_path / "unbroken")
    assert one.manifest.version == two.manifest.version == RECORDS
    assert rows(one.parameters) == rows(two.parameters)
    assert dense(one.parameters.model) == dense(two.parameters.model)
    assert {name: tensor.numpy().tobytes() for name, tensor in one.optimizer.items()} == {
        name: tensor.numpy().tobytes() for name, tensor in two.optimizer.items()
    }
    assert one.evaluation == two.evaluation
    assert one.manifest.counters == two.manifest.counters
    assert one.manifest.counters["records_bad"] == 1
    assert one.manifest.counters["expired"] > 0
    assert one.manifest.positions == two.manifest.positions
    assert one.evaluation["frozen"]["total"]["count"] > 0
    assert vectors(followed.embeddings) == vectors(one.parameters.embeddings)
    assert dense(followed.model) == dense(one.parameters.model)
    assert not list((killed / "snapshots").glob(".*")), "what was unfinished is swept"


def _follow(replica: DeltaFollower, log: EmbeddedLog, offset: int, end: int, folder: Path):
    try:
        while offset < end:
            for record in log.read(Topic.PARAMETERS, 0, offset):
                replica.feed(record.value)
                offset = record.offset + 1
    except OffsetGoneError:  # it slept while the deltas that it needs were deleted: so it starts again, as servers do
        newest = load_snapshot(folder, for_serving=True)
        return _follow(DeltaFollower(newest.parameters), log, newest.manifest.parameters_offset, end, folder)
    return replica.parameters

"""A saved table goes on as the first would have; a damaged file is refused by name, and changes nothing."""

import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import polars
import pyarrow as pa
import pytest
from pyarrow import dataset

from dolmen.checksums import NO_CHECKSUM, sealed
from dolmen.embedding import table_file
from dolmen.embedding.optimizers import SGD, Adam, Optimizer
from dolmen.embedding.store import Embeddings
from dolmen.embedding.table import RowRules, Table
from dolmen.errors import SnapshotError
from dolmen.features import Schema, Slot
from dolmen.unfinished import unfinished

RULES = {0: RowRules(admit_after=2, expire_after_us=30), 1: RowRules(expire_after_us=20)}


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def lived_table(optimizer: Optimizer | None = None) -> Table:
    table = Table(3, optimizer=optimizer or Adam(), seed=9, rules=RULES)
    live(table, 0, 40)
    return table


def live(table: Table, begin: int, end: int) -> None:
    """Seeing, learning, expiring: the same for the same steps, so that two tables can be compared."""
    for step in range(begin, end):
        rng = np.random.default_rng(step)
        ids = rng.integers(0, 60, 40) + (rng.integers(0, 3, 40) << 53)
        vectors = table.lookup_or_insert(ids, step)
        table.apply_gradients(ids, vectors * np.float32(0.5) + np.float32(0.25))
        if step % 8 == 7:
            table.expire(step)
            table.advance_epoch()
        if step % 24 == 23:
            table.forget_epochs(table.epoch - 1)


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """A table of a hundred rows has several shards, each of several batches."""
    monkeypatch.setattr(table_file, "_SHARD_BYTES", 64 * 60)
    monkeypatch.setattr(table_file, "_BATCH_BYTES", 24 * 60)


def saved(path: Path, optimizer: Optimizer | None = None) -> dict[str, bytes]:
    lived_table(optimizer).save(path)
    return contents(path)


@pytest.mark.parametrize("optimizer", [SGD(), Adam()], ids=["without-state", "with-state"])
def test_a_loaded_table_goes_on_bit_for_bit(tmp_path: Path, optimizer: Optimizer) -> None:
    table = lived_table(optimizer)
    table.save(tmp_path / "table")
    loaded = Table.load(tmp_path / "table")
    for each in (table, loaded):
        live(each, 40, 90)
    table.save(tmp_path / "a")
    loaded.save(tmp_path / "b")
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    ours, theirs = table.delta_since(table.epoch - 1), loaded.delta_since(table.epoch - 1)
    assert ours.fids.tobytes() == theirs.fids.tobytes()
    assert ours.vectors.tobytes() == theirs.vectors.tobytes()
    assert ours.removed.tobytes() == theirs.removed.tobytes()


def test_the_same_calls_give_the_same_bytes_and_several_shards(tmp_path: Path) -> None:
    first = saved(tmp_path / "first")
    assert first == saved(tmp_path / "second")
    assert sum(name.startswith("rows-") for name in first) > 1
    assert {"table.json", "pending.arrow", "removed.arrow"} < first.keys()


def test_a_save_while_the_table_learns_is_of_one_instant(tmp_path: Path) -> None:
    table, fids = Table(2, optimizer=SGD(learning_rate=1.0), initial_range=0.0), np.arange(30_000)
    table.lookup_or_insert(fids, 1)
    stop = threading.Event()

    def write() -> None:
        grads = np.full((len(fids), 2), -1.0, dtype=np.float32)
        while not stop.is_set():
            table.apply_gradients(fids, grads)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        table.save(tmp_path / "table")
    finally:
        stop.set()
        writer.join()
    values = Table.load(tmp_path / "table").lookup(fids)
    assert values.min() == values.max()


def test_an_empty_table_survives(tmp_path: Path) -> None:
    Table(2, seed=3).save(tmp_path / "table")
    loaded = Table.load(tmp_path / "table")
    assert len(loaded) == 0
    assert loaded.seed == 3


def test_others_can_read_the_rows(tmp_path: Path) -> None:
    table, folder = lived_table(), tmp_path / "table"
    table.save(folder)
    shards = sorted(map(str, folder.glob("rows-*.arrow")))
    arrow = dataset.dataset(shards, format="arrow").to_table()
    assert arrow.column_names == ["fid", "vector", "state", "last_seen_us", "count", "epoch", "row"]
    fids = arrow["fid"].to_numpy()
    assert sorted(fids) == sorted(np.concatenate([chunk.fids for chunk in table.export_chunks()]))
    expected = table.lookup(fids)
    assert np.array_equal(np.array(arrow["vector"].to_pylist(), np.float32), expected)
    assert np.array_equal(np.array(polars.read_ipc(shards)["vector"].to_list(), np.float32), expected)
    assert duckdb.sql("select count(*), sum(count) from arrow").fetchall() == [(len(table), table.counts(fids).sum())]


@pytest.mark.fault
def test_a_file_cut_short_anywhere_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "table"
    for name, whole in saved(folder).items():
        lengths = {0, 1, 7, 8, len(whole) - 1, len(whole) - 8, *np.linspace(0, len(whole) - 1, 8).astype(int).tolist()}
        for length in sorted(lengths):
            (folder / name).write_bytes(whole[:length])
            with pytest.raises(SnapshotError, match=re.escape(name)):
                Table.load(folder)
        (folder / name).write_bytes(whole)
    assert len(Table.load(folder)) == len(lived_table())


@pytest.mark.fault
def test_one_wrong_bit_anywhere_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "table"
    rng = np.random.default_rng(0)
    for name, whole in saved(folder).items():
        # Every region of a file: its ends, and places all over it; of the manifest, each of the checksum's digits.
        places = {0, len(whole) - 1, *rng.integers(0, len(whole), 40).tolist()}
        mark = whole.find(b'"checksum": "') if name == "table.json" else -1
        places |= {mark + 13 + digit for digit in range(16)} if mark >= 0 else set()
        for place in sorted(places):
            damaged = bytearray(whole)
            damaged[place] ^= 1 << int(rng.integers(8))
            (folder / name).write_bytes(damaged)
            with pytest.raises(SnapshotError, match=re.escape(name)):
                Table.load(folder)
        (folder / name).write_bytes(whole)
    assert len(Table.load(folder)) == len(lived_table())


@pytest.mark.fault
def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "table"
    for name in saved(folder).keys() - {"table.json"}:
        (folder / name).rename(tmp_path / "kept")
        with pytest.raises(SnapshotError, match=rf"{re.escape(name)} is missing"):
            Table.load(folder)
        (tmp_path / "kept").rename(folder / name)


@pytest.mark.fault
def test_a_save_that_fails_anywhere_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Fail the first call that touches the disk, then the second, ... until the save gets through.
    table = lived_table()
    for nth in range(100):
        lock, calls = threading.Lock(), itertools.count()

        def failing(real: Any, lock: Any = lock, calls: Any = calls, nth: int = nth) -> Any:
            def call(*args: Any, **kwargs: Any) -> Any:
                with lock:
                    if next(calls) >= nth:
                        raise OSError(28, "No space left on device")
                return real(*args, **kwargs)

            return call

        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", failing(os.fsync))
            patch.setattr(pa, "OSFile", failing(pa.OSFile))
            patch.setattr(Path, "write_bytes", failing(Path.write_bytes))
            patch.setattr(Path, "rename", failing(Path.rename))
            try:
                table.save(tmp_path / "table")
            except OSError:
                # Only the last flush, of the folder above, comes when the table is there already.
                assert [each.name for each in tmp_path.iterdir()] in ([], ["table"])
                shutil.rmtree(tmp_path / "table", ignore_errors=True)
            else:
                break
    assert nth > 8
    assert len(Table.load(tmp_path / "table")) == len(table)


def test_a_table_is_never_saved_over_another(tmp_path: Path) -> None:
    before = saved(tmp_path / "table")
    with pytest.raises(FileExistsError, match="a name of its own"):
        Table(2).save(tmp_path / "table")
    assert contents(tmp_path / "table") == before


def test_another_format_is_refused(tmp_path: Path) -> None:
    saved(tmp_path / "table")
    text = (tmp_path / "table" / "table.json").read_bytes()
    values = json.loads(text) | {"checksum": NO_CHECKSUM, "format": 1}
    (tmp_path / "table" / "table.json").write_bytes(sealed(json.dumps(values).encode()))
    with pytest.raises(SnapshotError, match="is of format 1, this dolmen reads 2"):
        Table.load(tmp_path / "table")


@pytest.mark.parametrize("row_count", [-1, 2**31, 2**70])
def test_a_header_that_promises_more_rows_than_there_are_gets_no_room(tmp_path: Path, row_count: int) -> None:
    saved(tmp_path / "table")
    values = json.loads((tmp_path / "table" / "table.json").read_bytes())
    values |= {"checksum": NO_CHECKSUM, "table": values["table"] | {"row_count": row_count}}
    (tmp_path / "table" / "table.json").write_bytes(sealed(json.dumps(values).encode()))
    with pytest.raises(SnapshotError, match=rf"table\.json promises {row_count} rows"):
        Table.load(tmp_path / "table")


def test_a_missing_folder_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Table.load(tmp_path / "none")


@pytest.mark.fault
def test_what_a_killed_save_left_goes_with_the_next_and_a_live_one_stays(tmp_path: Path) -> None:
    program = """
        import os, signal, sys
        from pathlib import Path
        from dolmen.unfinished import unfinished
        with unfinished(Path(sys.argv[1])) as path:
            (path / "rows-00000.arrow").write_bytes(b"half")
            os.kill(os.getpid(), signal.SIGKILL)
    """
    killed = subprocess.run([sys.executable, "-c", textwrap.dedent(program), str(tmp_path / "table")], check=False)
    assert killed.returncode == -signal.SIGKILL
    [left] = tmp_path.iterdir()
    with unfinished(tmp_path / "other") as other, unfinished(tmp_path / "table") as rival:
        assert not left.exists()
        lived_table().save(tmp_path / "table")
        assert {path.name for path in tmp_path.iterdir()} == {"table", other.name, rival.name}
    assert [path.name for path in tmp_path.iterdir()] == ["table"]


@pytest.mark.fault
def test_of_threads_that_save_under_one_name_one_wins_and_nothing_is_left(tmp_path: Path) -> None:
    table, problems, start = lived_table(), list[Exception](), threading.Barrier(4)

    def save() -> None:
        start.wait()
        try:
            table.save(tmp_path / "deep" / "table")
        except OSError as problem:
            problems.append(problem)

    threads = [threading.Thread(target=save) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(problems) == 3
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["table"]
    assert len(Table.load(tmp_path / "deep" / "table")) == len(table)


def test_a_folder_that_is_no_table_is_told_as_such(tmp_path: Path) -> None:
    with pytest.raises(SnapshotError, match=r"table\.json is missing, so this is no saved table"):
        Table.load(tmp_path)


def test_what_only_looks_like_a_leftover_stays(tmp_path: Path) -> None:
    notes = tmp_path / ".table.unfinished-notes" / "mine.txt"
    notes.parent.mkdir()
    notes.write_text("mine")
    Table(2).save(tmp_path / "table")
    assert notes.read_text() == "mine"


def test_no_table_is_saved_where_one_of_them_cannot_be(tmp_path: Path) -> None:
    embeddings = Embeddings(Schema(Slot("user", dim=2), Slot("item", dim=3)))
    (tmp_path / "table-3").mkdir()
    with pytest.raises(FileExistsError, match="table-3 exists already; save each version into a folder of its own"):
        embeddings.save(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["table-3"]

"""A saved table goes on as the first would have; a damaged file is refused by name, and changes nothing."""

import os
from pathlib import Path

import duckdb
import numpy as np
import polars
import pyarrow as pa
import pytest

from dolmen.embedding import table_file
from dolmen.embedding.optimizers import SGD, Adam, Optimizer
from dolmen.embedding.table import RowRules, Table
from dolmen.errors import SnapshotError

RULES = {0: RowRules(admit_after=2, expire_after_us=30), 1: RowRules(expire_after_us=20)}


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


@pytest.mark.parametrize("optimizer", [SGD(), Adam()], ids=["without-state", "with-state"])
def test_a_loaded_table_goes_on_bit_for_bit(tmp_path: Path, optimizer: Optimizer) -> None:
    table = lived_table(optimizer)
    table.save(tmp_path / "table.arrow")
    loaded = Table.load(tmp_path / "table.arrow")
    for each in (table, loaded):
        live(each, 40, 90)
    table.save(tmp_path / "a.arrow")
    loaded.save(tmp_path / "b.arrow")
    assert (tmp_path / "a.arrow").read_bytes() == (tmp_path / "b.arrow").read_bytes()
    ours, theirs = table.delta_since(table.epoch - 1), loaded.delta_since(table.epoch - 1)
    assert ours.fids.tobytes() == theirs.fids.tobytes()
    assert ours.vectors.tobytes() == theirs.vectors.tobytes()
    assert ours.removed.tobytes() == theirs.removed.tobytes()


def test_an_empty_table_survives(tmp_path: Path) -> None:
    Table(2, seed=3).save(tmp_path / "table.arrow")
    loaded = Table.load(tmp_path / "table.arrow")
    assert len(loaded) == 0
    assert loaded.seed == 3


def test_others_can_read_the_file(tmp_path: Path) -> None:
    table, path = lived_table(), tmp_path / "table.arrow"
    table.save(path)
    with pa.memory_map(str(path)) as source:
        arrow = pa.ipc.open_file(source).read_all()
    assert arrow.column_names == ["fid", "vector", "state", "last_seen_us", "count", "epoch", "row"]
    fids = arrow["fid"].to_numpy()
    assert sorted(fids) == sorted(np.concatenate([chunk.fids for chunk in table.export_chunks()]))
    expected = table.lookup(fids)
    assert np.array_equal(np.array(arrow["vector"].to_pylist(), np.float32), expected)
    assert np.array_equal(np.array(polars.read_ipc(path)["vector"].to_list(), np.float32), expected)
    assert duckdb.sql("select count(*), sum(count) from arrow").fetchall() == [(len(table), table.counts(fids).sum())]


@pytest.mark.fault
def test_a_file_cut_short_anywhere_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "table.arrow"
    lived_table().save(path)
    whole = path.read_bytes()
    lengths = {0, 1, 7, 8, 100, len(whole) - 1, len(whole) - 7, len(whole) - 8}
    lengths |= set(np.linspace(0, len(whole) - 1, 60).astype(int).tolist())
    for length in sorted(lengths):
        path.write_bytes(whole[:length])
        with pytest.raises(SnapshotError, match=r"table\.arrow"):
            Table.load(path)


@pytest.mark.fault
def test_one_wrong_bit_anywhere_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "table.arrow"
    lived_table().save(path)
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    marks = [whole.find(b"xxh64:"), whole.rfind(b"xxh64:")]
    places = {0, len(whole) - 1, *rng.integers(0, len(whole), 150).tolist()}
    places |= {mark + offset for mark in marks for offset in range(22)}
    for place in sorted(places):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        with pytest.raises(SnapshotError, match=r"table\.arrow"):
            Table.load(path)


@pytest.mark.fault
@pytest.mark.parametrize("what", ["fsync", "replace", "write"])
def test_a_failed_save_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    path = tmp_path / "table.arrow"
    table = lived_table()
    table.save(path)
    before = path.read_bytes()
    live(table, 40, 50)

    def fail(*_: object, **__: object) -> None:
        raise OSError("no space left on device")

    if what == "fsync":
        monkeypatch.setattr(os, "fsync", fail)
    elif what == "replace":
        monkeypatch.setattr(Path, "replace", fail)
    else:
        monkeypatch.setattr(table_file, "_list_column", fail)
    with pytest.raises(OSError, match="no space"):
        table.save(path)
    monkeypatch.undo()
    assert path.read_bytes() == before
    assert [each.name for each in tmp_path.iterdir()] == ["table.arrow"]
    table.save(path)
    assert len(Table.load(path)) == len(table)


def test_a_foreign_arrow_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.arrow"
    batch = pa.record_batch({"a": [1]})
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, batch.schema) as writer:
        writer.write_batch(batch)
    with pytest.raises(SnapshotError, match=r"other\.arrow"):
        Table.load(path)


def test_a_missing_file_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Table.load(tmp_path / "none.arrow")

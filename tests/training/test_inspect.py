import io
import json
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from dolmen.cluster import inspect_path
from dolmen.embedding import Capacity, Delta, Embed, Embeddings, RowRules, Table
from dolmen.errors import DataError, SnapshotError
from dolmen.features import Admission, Schema, Slot, extract_rows
from dolmen.training import describe_snapshot, describe_table


def test_description_tells_rows_counts_and_ages_by_slot(world, tmp_path) -> None:
    trainer = world.trainer()
    for number in range(10):
        trainer.step(world.batch(number))
    trainer.save(tmp_path, created_time_us=5)
    told = describe_snapshot(tmp_path, top_count=3)
    assert json.loads(json.dumps(told)) == told
    assert told["version"] == 10
    assert told["created_time_us"] == 5
    assert told["slots"].keys() == {"user", "item", "genres"}, "history shares the rows of item"
    assert sum(slot["rows"] for slot in told["slots"].values()) == told["rows"] == len(trainer.embeddings)
    users = trainer.embeddings.tables[8]
    assert told["slots"]["user"]["sights"] == users.total_count(world.schema.slot_number("user"))
    norms = told["slots"]["user"]["norms"]
    assert 0 < norms["min"] <= norms["p50"] <= norms["p99"] <= norms["max"]
    assert told["slots"]["item"]["ages_seconds"]["max"] <= 10 * 86_400 / 4
    top = told["slots"]["user"]["top_ids"]
    assert len(top) == 3
    assert top[0][1] == told["slots"]["user"]["counts"]["max"]
    assert all(0 <= user < 50 for user, _ in top), "small integers read as themselves"


def test_a_tables_folder_is_described_with_who_waits_and_who_left(tmp_path, sketch_crowd) -> None:
    sketch = RowRules(admit_after=2, admission=Admission.SKETCH, admission_capacity=600)
    rules = {1: RowRules(admit_after=2), 2: sketch, 3: RowRules(capacity=4)}
    table = Table(2, rules=rules, capacity=Capacity(40), seed=3)
    for now_us, seen in ((0, 6), (2_000_000, 3)):
        table.lookup_or_insert((1 << 53) + np.arange(seen), now_us)
    table.lookup_or_insert(sketch_crowd(3, 2), 2_000_000)
    table.lookup_or_insert((3 << 53) + np.arange(10), 3_000_000)
    evicted = table.evict()
    table.assign(np.array([1 << 53]), np.array([[3.0, 4.0]], dtype=np.float32))
    table.save(tmp_path / "table-2")
    found = inspect_path(tmp_path / "table-2", top_count=2)
    told = found.values["table"]
    assert json.loads(json.dumps(told)) == told == describe_table(tmp_path / "table-2", top_count=2)
    assert told["rows"] == len(table)
    assert told["evicted"] == evicted
    assert told["slots"]["1"]["waiting"] == 3
    assert told["slots"]["1"]["norms"]["max"] == 5
    assert told["slots"]["2"]["filter_bytes"] > 0
    assert [told["slots"][slot]["admission_failures"] for slot in "123"] == [0, 2, 0]
    assert told["slots"]["3"]["rows"] <= 4
    assert told["slots"]["3"]["ages_seconds"]["max"] == 0
    assert told["slots"]["1"]["top_ids"][0][1] == 2
    console = Console(width=200, record=True, file=io.StringIO())
    for each in found.tables():
        console.print(each)
    assert f"{evicted:,} rows evicted so far" in console.export_text()


def test_rows_that_are_not_finite_are_counted_and_left_out_of_norms(tmp_path: Path) -> None:
    table = Table(2)
    table.assign((1 << 53) + np.arange(2), np.array([[3.0, 4.0], [3e30, 4e30]], dtype=np.float32))
    broken = np.array([[np.nan, 1.0], [np.inf, -np.inf]], dtype=np.float32)
    table.apply_delta(Delta((1 << 53) + np.arange(2, 4), broken, np.empty(0, dtype=np.int64)), is_finite=True)
    table.assign(np.array([2 << 53]), np.zeros((1, 2), dtype=np.float32))
    table.save(tmp_path / "table-2")
    found = inspect_path(tmp_path / "table-2")
    told = found.values["table"]["slots"]
    assert (told["1"]["rows"], told["1"]["not_finite"], told["2"]["not_finite"]) == (4, 2, 0)
    assert told["1"]["norms"]["min"] == 5
    assert told["1"]["norms"]["max"] == pytest.approx(5e30)
    console = Console(width=200, record=True, file=io.StringIO())
    for each in found.tables():
        console.print(each)
    assert "rows with NaN or infinity, left out of norms: 2 of 1" in console.export_text()


def test_untrained_snapshot_can_be_described_too(world, tmp_path) -> None:
    world.trainer().save(tmp_path)
    told = describe_snapshot(tmp_path)
    assert told["rows"] == 0
    assert told["slots"]["user"]["norms"] == {}


def test_nothing_there_is_said(tmp_path) -> None:
    with pytest.raises(SnapshotError, match="there is no snapshot"):
        describe_snapshot(tmp_path)


def test_what_embeddings_save_is_described_table_by_table_and_slot_by_slot(tmp_path: Path) -> None:
    schema = Schema(Slot("user", dim=2), Slot("item", dim=3))
    embed = Embed(Embeddings(schema))
    with embed.recording(1_000):
        for name in schema.slots:
            embed(extract_rows(schema, [{"user": 5, "item": 7}, {"item": 8}]), [name])
    embed.embeddings.save(tmp_path / "saved")
    found = inspect_path(tmp_path / "saved")
    told = found.values["tables"]
    assert json.loads(json.dumps(told)) == told
    rows = {table: {slot: one["rows"] for slot, one in told[table]["slots"].items()} for table in told}
    assert rows == {"table-2": {"user": 1}, "table-3": {"item": 2}}
    assert len(list(found.tables())) == 4
    with pytest.raises(DataError, match=r"nothing that dolmen wrote: .*table-\*/table.json"):
        inspect_path(tmp_path)

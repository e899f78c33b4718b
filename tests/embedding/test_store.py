"""All tables of a schema as one: rules by slot, deltas, copies, files."""

import json
import os
import pickle
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dolmen.embedding import SGD, AdaGrad, Capacity, Delta, Embed, Embeddings
from dolmen.embedding.forks import lock_of
from dolmen.errors import SchemaError, SnapshotError
from dolmen.features import Batch, Jagged, Schema, Slot, extract_rows

SCHEMA = Schema(
    Slot("user", dim=4, expire_after="10s"),
    Slot("item", dim=8),
    Slot("seen", dim=8, table="item", many=True),
    Slot("tag", dim=4, admit_after=2),
)


START_US = 1_700_000_000_000_000
NONE = np.empty(0, dtype=np.int64)


def people(first: int, count: int) -> Batch:
    rows = [{"user": first + i, "item": i % 3, "seen": [i % 5, 7], "tag": f"t{i % 4}"} for i in range(count)]
    return extract_rows(SCHEMA, rows)


def train(store: Embeddings, batch: Batch, now_us: int = START_US) -> None:
    embed = Embed(store)
    with embed.recording(now_us) as tape:
        narrow, wide = embed(batch, ["user", "tag"]), embed(batch, ["item", "seen"])
        torch.autograd.backward((narrow.square().sum() + wide.square().sum()) * 3)
        tape.apply()


@contextmanager
def learning_on(store: Embeddings, batch: Batch) -> Iterator[None]:
    """Within, another thread learns the batch over and over."""
    is_over = threading.Event()

    def learn() -> None:
        while not is_over.is_set():
            train(store, batch)

    writer = threading.Thread(target=learn)
    writer.start()
    try:
        yield
    finally:
        is_over.set()
        writer.join()


def everything(store: Embeddings, batch: Batch) -> list[np.ndarray]:
    return [store.lookup(name, batch.slot(name).values).numpy() for name in SCHEMA.slots]


def assert_same(one: Embeddings, other: Embeddings, batch: Batch) -> None:
    for rows, twins in zip(everything(one, batch), everything(other, batch), strict=True):
        np.testing.assert_array_equal(rows, twins)


def test_there_is_one_table_for_each_width() -> None:
    store = Embeddings(SCHEMA)
    assert {dim: table.dim for dim, table in store.tables.items()} == {4: 4, 8: 8}
    assert store.table_of("seen") is store.table_of("item") is store.tables[8]
    with pytest.raises(SchemaError, match="no slot 'itme'; did you mean 'item'"):
        store.table_of("itme")


def test_each_slot_keeps_its_own_rules() -> None:
    store = Embeddings(SCHEMA)
    train(store, people(0, 2), now_us=START_US + 1)
    assert store.rows_by_slot() == {"user": 2, "item": 6 - 3, "tag": 0}
    train(store, people(0, 2), now_us=START_US + 2)
    assert store.rows_by_slot()["tag"] == 2
    assert store.expire(START_US + 10_000_001) == 0
    assert store.expire(START_US + 10_000_002) == 2
    assert store.rows_by_slot() == {"user": 0, "item": 3, "tag": 2}
    assert len(store) == 5
    assert store.memory().total_bytes == sum(one.memory().total_bytes for one in store.tables.values()) > 0


def test_start_values_follow_the_seed_alone() -> None:
    one, same, other = Embeddings(SCHEMA, seed=1), Embeddings(SCHEMA, seed=1), Embeddings(SCHEMA, seed=2)
    batch = people(0, 3)
    for store, order in ((one, [0, 1, 2]), (same, [2, 0, 1]), (other, [0, 1, 2])):
        mixed = batch.take(torch.tensor(order))
        store.lookup_or_insert("user", mixed.slot("user").values, START_US)
    fids = batch.slot("user").values
    assert torch.equal(one.lookup("user", fids), same.lookup("user", fids))
    assert not torch.equal(one.lookup("user", fids), other.lookup("user", fids))


def test_a_serving_store_that_follows_deltas_holds_the_same_vectors() -> None:
    store, replica = Embeddings(SCHEMA, seed=5), Embeddings.for_serving(SCHEMA)
    everybody = people(0, 30)
    for step in range(5):
        train(store, people(step * 4, 8), now_us=START_US + 1 + step * 4_000_000)
        store.expire(START_US + 1 + step * 4_000_000)
        deltas = store.delta_since(replica.epoch)
        replica.apply_delta(deltas)
        assert_same(replica, store, everybody)
        replica.apply_delta(deltas)
        assert_same(replica, store, everybody)
    assert len(replica) == len(store)
    store.forget_epochs(replica.epoch)
    with pytest.raises(ValueError, match="forgotten"):
        store.delta_since(replica.epoch - 1)


@pytest.mark.parametrize("way", ["copied", "loaded"])
def test_late_deltas_are_passed_over_and_a_gap_is_refused(way: str, tmp_path: Path) -> None:
    store = Embeddings(SCHEMA)
    train(store, people(0, 4))
    store.advance_epoch()
    train(store, people(0, 4))
    replica = store.serving_copy()
    if way == "loaded":
        store.save(tmp_path)
        replica = Embeddings.load_for_serving(tmp_path, SCHEMA)
    assert replica.epoch == 1
    deltas = []
    for _ in range(3):
        train(store, people(len(deltas), 4))  # after the copy, and in the epoch in which it was taken
        deltas.append(store.delta_since(deltas[-1][4].until if deltas else 1))
    for delta in deltas[:2]:
        replica.apply_delta(delta)
    replica.apply_delta(deltas[0])
    behind = replica.clone()
    replica.apply_delta(deltas[2])
    replica.apply_delta(deltas[1])
    assert_same(replica, store, people(0, 6))
    assert replica.epoch == deltas[2][4].until
    train(store, people(0, 1))
    last, had = store.delta_since(replica.epoch), behind.epoch
    told = rf"begins with epoch {had + 1}, .* before epoch {had}: .* ask for delta_since\({had}\)"
    with pytest.raises(SnapshotError, match=told):
        behind.apply_delta(last)
    behind.apply_delta(store.delta_since(behind.epoch))
    assert_same(behind, store, people(0, 6))


def test_a_loaded_learner_is_followed_only_by_who_was_not_ahead_of_its_save(tmp_path: Path) -> None:
    learner = Embeddings(SCHEMA)
    train(learner, people(0, 4))
    ahead, behind = learner.serving_copy(), learner.serving_copy()
    first = learner.delta_since(0)
    behind.apply_delta(first)
    learner.save(tmp_path)
    for _ in range(3):  # What the learner learns now is lost with it.
        train(learner, people(0, 4))
        ahead.apply_delta(learner.delta_since(ahead.epoch))
    loaded = Embeddings.load(tmp_path, SCHEMA)
    new = Embeddings.load_for_serving(tmp_path, SCHEMA)
    for step in range(5):
        train(loaded, people(step, 4))
        new.apply_delta(loaded.delta_since(new.epoch))
    before = ahead.lookup("item", people(0, 8).slot("item").values)
    with pytest.raises(
        SnapshotError, match=r"lineage \w{16}, which has not been at epoch 5 of .* its serving_copy\(\)"
    ):
        ahead.apply_delta(loaded.delta_since(ahead.epoch))
    assert torch.equal(ahead.lookup("item", people(0, 8).slot("item").values), before)
    assert ahead.epoch == 5
    behind.apply_delta(loaded.delta_since(behind.epoch))
    for follower in (behind, new):
        assert_same(follower, loaded, people(0, 10))
    with pytest.raises(SnapshotError, match="which has not been at epoch 8 of"):
        behind.apply_delta(learner.delta_since(5))  # The old learner was not dead after all.
    with pytest.raises(SnapshotError, match="another learner"):
        new.apply_delta(Embeddings(SCHEMA).delta_since(0))


@pytest.mark.parametrize("way", ["save", "clone"])
def test_a_copy_that_came_after_in_the_same_epoch_is_ahead(way: str, tmp_path: Path) -> None:
    learner = Embeddings(SCHEMA)
    train(learner, people(0, 2))
    before = learner.serving_copy()
    if way == "save":
        learner.save(tmp_path)
    twin = Embeddings.load(tmp_path, SCHEMA) if way == "save" else learner.clone()
    train(learner, people(0, 4))  # What the twin never learns.
    after = learner.serving_copy()
    train(twin, people(0, 1))
    twin.advance_epoch()
    with pytest.raises(SnapshotError, match="another learner"):
        after.apply_delta(twin.delta_since(after.epoch))
    before.apply_delta(twin.delta_since(before.epoch))
    assert_same(before, twin, people(0, 5))


def test_late_deltas_of_before_a_restart_are_passed_over(tmp_path: Path) -> None:
    learner = Embeddings(SCHEMA)
    train(learner, people(0, 4))
    follower = learner.serving_copy()
    late = learner.delta_since(0)
    learner.save(tmp_path)
    loaded = Embeddings.load(tmp_path, SCHEMA)
    train(loaded, people(0, 4))
    follower.apply_delta(loaded.delta_since(follower.epoch))
    follower.apply_delta(late)
    assert_same(follower, loaded, people(0, 4))


def test_another_learner_is_refused_also_width_by_width(tmp_path: Path) -> None:
    learner = Embeddings(SCHEMA)
    train(learner, people(0, 4))
    learner.save(tmp_path)
    follower = learner.serving_copy()
    follower.apply_delta({8: learner.delta_since(follower.epoch)[8]})  # Ahead in one width alone.
    train(learner, people(0, 4))
    follower.apply_delta({8: learner.delta_since(follower.tables[8].epoch)[8]})
    loaded = Embeddings.load(tmp_path, SCHEMA)
    for _ in range(4):
        train(loaded, people(0, 4))
        loaded.advance_epoch()
    for dim in (4, 8):
        with pytest.raises(SnapshotError, match="another learner"):
            follower.apply_delta({dim: loaded.delta_since(0)[dim]})


def test_a_clone_is_another_learner_from_there_on() -> None:
    learner = Embeddings(SCHEMA)
    train(learner, people(0, 4))
    learner.advance_epoch()
    follower, twin = learner.serving_copy(), learner.clone()
    train(twin, people(2, 4))
    follower.apply_delta(twin.delta_since(follower.epoch))
    assert_same(follower, twin, people(0, 8))
    with pytest.raises(SnapshotError, match="another learner"):
        follower.apply_delta(learner.delta_since(1))


@pytest.mark.parametrize(
    ("since", "until", "told"),
    [
        (0, -5, "delta.until must be .* got -5"),
        (0, 1.5, "delta.until must be a whole number, got 1.5"),
        (2, 1, "delta.until must be .* got 1"),
        (0, 2**32 - 1, "delta.until must be .* got 4294967295"),
        (0, "7", "delta.until must be a whole number, got '7'"),
        (-1, 1, "delta.since must be .* got -1"),
    ],
)
def test_a_delta_of_impossible_epochs_is_refused_whole(since: Any, until: Any, told: str) -> None:
    learner, follower = Embeddings(SCHEMA), Embeddings.for_serving(SCHEMA)
    train(learner, people(0, 4))
    good = learner.delta_since(0)
    with pytest.raises(SnapshotError, match=f"the delta of dim 8 does not fit its table: {told}"):
        follower.apply_delta({4: good[4], 8: replace(good[8], since=since, until=until)})
    assert len(follower) == 0
    follower.apply_delta(good)
    assert_same(follower, learner, people(0, 4))


def test_a_delta_that_is_not_finite_is_refused_whole_and_whole_numbers_of_any_kind_are_epochs() -> None:
    learner, follower = Embeddings(SCHEMA), Embeddings.for_serving(SCHEMA)
    train(learner, people(0, 4))
    good = learner.delta_since(np.int64(0))
    assert type(good[8].since) is int
    torn = good[8].vectors.copy()
    torn[1, 2] = np.nan
    told = (
        r"the delta of dim 8 does not fit its table: delta.vectors must be finite, got nan at position \(1, 2\), of F"
    )
    with pytest.raises(SnapshotError, match=told):
        follower.apply_delta({4: good[4], 8: replace(good[8], vectors=torn)})
    assert len(follower) == 0
    follower.apply_delta(good)
    assert_same(follower, learner, people(0, 4))


def test_what_a_single_table_gives_is_always_taken_over() -> None:
    learner, follower = Embeddings(SCHEMA), Embeddings.for_serving(SCHEMA)
    train(learner, people(0, 4))
    follower.apply_delta({dim: table.delta_since(0) for dim, table in learner.tables.items()})  # Of an open epoch.
    assert_same(follower, learner, people(0, 4))


def test_copies_saves_and_deltas_beside_one_another_are_of_one_epoch_each(tmp_path: Path) -> None:
    learner = Embeddings(SCHEMA)
    train(learner, people(0, 50))
    is_over, problems = threading.Event(), []

    def publish() -> None:
        follower = learner.serving_copy()
        try:
            while not is_over.is_set():
                follower.apply_delta(learner.delta_since(follower.epoch))
        except Exception as problem:
            problems.append(problem)

    threads = [threading.Thread(target=publish) for _ in range(2)]
    for thread in threads:
        thread.start()
    made = []
    for number in range(10):
        made.append(learner.clone())
        learner.save(tmp_path / str(number))
        made.append(Embeddings.load(tmp_path / str(number), SCHEMA))
    is_over.set()
    for thread in threads:
        thread.join()
    assert problems == []
    for one in made:
        assert len({table.epoch for table in one.tables.values()}) == 1
        one.delta_since(one.epoch)
    manifests = [json.loads(path.read_text()) for path in sorted(tmp_path.glob("3/table-*/table.json"))]
    assert len({manifest["table"]["epoch"] for manifest in manifests}) == 1


def test_a_fork_waits_for_writers_though_a_table_is_being_made() -> None:
    class Half:
        """As a table stands before it has its lock."""

    halves = [Half() for _ in range(50)]
    for half in halves:
        lock_of(half, "_writing")
    learner, batch = Embeddings(SCHEMA), people(0, 2000)
    train(learner, batch)
    statuses = []
    with learning_on(learner, batch):
        for _ in range(15):
            child = os.fork()
            if child == 0:
                signal.alarm(20)  # A row that stays half changed is waited for for ever.
                learner.lookup("user", batch.slot("user").values)
                os._exit(0)
            statuses.append(os.waitpid(child, 0)[1])
    assert statuses == [0] * 15


def test_an_older_delta_in_another_thread_never_wins() -> None:
    learner = Embeddings(SCHEMA)
    train(learner, people(0, 50))
    copy = learner.serving_copy()
    for _ in range(10):
        follower = copy.clone()
        train(learner, people(0, 50))
        old = learner.delta_since(follower.epoch)
        train(learner, people(0, 50))
        new = learner.delta_since(follower.epoch)
        threads = [threading.Thread(target=follower.apply_delta, args=(delta,)) for delta in (new, old)]
        with follower.tables[4]._writing:  # Neither gets its rows in before the other could decide what to take.
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(0.02)
        for thread in threads:
            thread.join()
        assert_same(follower, learner, people(0, 50))
        copy = learner.serving_copy()


def test_a_torn_manifest_is_refused_by_name(tmp_path: Path) -> None:
    learner = Embeddings(SCHEMA)
    train(learner, people(0, 4))
    learner.save(tmp_path)
    path = tmp_path / "embeddings.json"
    text = path.read_bytes()
    for wrong in (text[:-9], text.replace(b'"ancestors":{}', b'"ancestors":{"0123456789abcdef":5}')):
        path.write_bytes(wrong)
        with pytest.raises(SnapshotError, match=r"embeddings.json (cannot be read|fails its checksum)"):
            Embeddings.load(tmp_path, SCHEMA)


def test_a_misspelt_setting_and_upkeep_of_a_copy_are_refused() -> None:
    learner: Any = Embeddings(SCHEMA)
    with pytest.raises(AttributeError, match="capacty"):
        learner.capacty = 5
    with pytest.raises(AttributeError, match="optimizer"):
        learner.optimizer = SGD()
    assert learner.optimizer == AdaGrad()
    copy = learner.serving_copy()
    for call in (copy.maintain, lambda: copy.expire(START_US), lambda: setattr(copy, "capacity", Capacity(1))):
        with pytest.raises(ValueError, match=r"these embeddings serve: .* call theirs"):
            call()


def test_a_forked_child_reads_and_is_refused_what_waits_for_the_writer() -> None:
    learner = Embeddings(SCHEMA)
    batch = people(0, 300)
    train(learner, batch)
    fids = batch.slot("user").values
    table, statuses = learner.tables[4], []
    with learning_on(learner, batch):
        for _ in range(20):
            child = os.fork()
            if child == 0:
                refused = 0
                for call in (
                    learner.rows_by_slot,
                    learner.advance_epoch,
                    learner.clone,
                    lambda: table.lookup_or_insert(fids, START_US),
                    lambda: learner.delta_since(0),
                ):
                    try:
                        call()
                    except RuntimeError as problem:
                        refused += "from which this one was forked" in str(problem)
                is_read = np.isfinite(table.lookup(fids)).all() and table.epoch == learner.epoch
                os._exit(0 if refused == 5 and is_read else 1)
            _, status = os.waitpid(child, 0)
            statuses.append(os.waitstatus_to_exitcode(status))
    assert statuses == [0] * 20
    train(learner, batch)
    assert len(learner.delta_since(0)[4].fids) > 0


def test_a_deep_copy_is_a_clone_and_nothing_is_pickled() -> None:
    learner = Embeddings(SCHEMA)
    train(learner, people(0, 4))
    copy = deepcopy(Embed(learner))
    assert_same(copy.embeddings, learner, people(0, 4))
    train(learner, people(0, 4))
    fids = people(0, 4).slot("item").values
    assert not torch.equal(copy.embeddings.lookup("item", fids), learner.lookup("item", fids))
    with pytest.raises(TypeError, match="embeddings cannot be pickled; save them into a folder"):
        pickle.dumps(learner)


def test_asking_for_changes_of_an_epoch_to_come_closes_none() -> None:
    store = Embeddings(SCHEMA)
    not_a_number: Any = "a"
    with pytest.raises(ValueError, match="epoch must be between 0 and 0, got 1; it has not begun"):
        store.delta_since(1)
    with pytest.raises(TypeError, match="epoch must be a whole number, got 'a'"):
        store.delta_since(not_a_number)
    assert store.epoch == 0


def test_a_delta_of_another_width_is_refused_whole() -> None:
    replica = Embeddings.for_serving(SCHEMA)
    batch = people(0, 2)
    good = Delta(batch.slot("user").values.numpy(), np.ones((2, 4), dtype=np.float32), np.empty(0, dtype=np.int64))
    foreign = Delta(batch.slot("user").values.numpy(), np.ones((2, 5), dtype=np.float32), np.empty(0, dtype=np.int64))
    with pytest.raises(SnapshotError, match="rows of dim 5; this schema's are 4, 8"):
        replica.apply_delta({4: good, 5: foreign})
    with pytest.raises(SnapshotError, match=r"dim 8 does not fit its table: .* \(count, 8\), got \(2, 5\)"):
        replica.apply_delta({4: good, 8: foreign})
    with pytest.raises(SnapshotError, match=r"dim 8 does not fit its table: removed must not be negative, .*-1"):
        replica.apply_delta({4: good, 8: Delta(NONE, np.empty((0, 8), np.float32), np.array([-1]))})
    assert len(replica) == 0


@pytest.mark.parametrize("way", ["clone", "file"])
def test_a_copy_goes_on_exactly_as_the_first_one(way: str, tmp_path: Path) -> None:
    store = Embeddings(SCHEMA, optimizer=AdaGrad(learning_rate=0.3), seed=9)
    for step in range(3):
        train(store, people(step, 6), now_us=START_US + step + 1)
    if way == "file":
        assert [path.name for path in store.save(tmp_path)] == ["table-4", "table-8"]
    copy = store.clone() if way == "clone" else Embeddings.load(tmp_path, SCHEMA)
    for step in range(3, 6):
        for each in (store, copy):
            train(each, people(step, 6), now_us=START_US + step + 1)
    assert_same(copy, store, people(0, 20))
    assert copy.rows_by_slot() == store.rows_by_slot()
    assert copy.expire(START_US + 20_000_000) == store.expire(START_US + 20_000_000)


SLOTS = list(SCHEMA.slots.values())


@pytest.mark.parametrize(
    ("slots", "told"),
    [
        ([SLOTS[3], *SLOTS[1:3], SLOTS[0]], r"table-4 of .* has 'user' as slot 1, which in this schema is 'tag'; keep"),
        (
            [Slot("user", dim=4, policy="hashed", policy_rows=9), *SLOTS[1:]],
            r"'user' as slot 1, .* 'user \(hashed over 9",
        ),
        (SLOTS[:3], r"table-4 of .* has slot 4, 'tag', and this schema has none there; keep every saved slot"),
        (
            [SLOTS[0], Slot("item", dim=4), Slot("seen", dim=4), SLOTS[3]],
            "table-8 of .* no slot of this schema has its",
        ),
        ([SLOTS[0], Slot("item", dim=4), Slot("seen", dim=8), SLOTS[3]], "table-8 of .* has slot 2, 'item', and this "),
    ],
    ids=["swapped", "hashed", "left out", "a width left out", "moved to another width"],
)
def test_rows_are_never_read_as_those_of_another_slot(slots: list[Slot], told: str, tmp_path: Path) -> None:
    store = Embeddings(SCHEMA)
    train(store, people(0, 3))
    store.save(tmp_path)
    for load in (Embeddings.load, Embeddings.load_for_serving):
        with pytest.raises(SnapshotError, match=told):
            load(tmp_path, Schema(*slots))
        with pytest.raises(SnapshotError, match="table-4 is one table; name the folder above"):
            load(tmp_path / "table-4", SCHEMA)
        with pytest.raises(SnapshotError, match="nowhere is no folder"):
            load(tmp_path / "nowhere", SCHEMA)


def test_slots_may_be_added_and_rules_changed_between_save_and_load(tmp_path: Path) -> None:
    store = Embeddings(SCHEMA)
    train(store, people(0, 3), now_us=START_US + 1)
    train(store, people(8, 1), now_us=START_US + 2)  # the tag t0 comes again, t1 and t2 wait for their second sight
    store.save(tmp_path)
    changed = [Slot("user", dim=4, expire_after="20s", capacity=3), *SLOTS[1:], Slot("shop", dim=4)]
    loaded = Embeddings.load(tmp_path, Schema(*changed))
    assert loaded.rows_by_slot() == {**store.rows_by_slot(), "shop": 0}
    assert loaded.tables[4].pending().fids.tolist() == store.tables[4].pending().fids.tolist() != []
    assert loaded.expire(START_US + 10_000_002) == 0
    assert loaded.maintain().evicted == 1
    assert loaded.expire(START_US + 20_000_002) == 3

    counted = Schema(SLOTS[0], *SLOTS[1:3], Slot("tag", dim=4, admit_after=2, admission="sketch"))
    assert len(Embeddings.load(tmp_path, counted).tables[4].pending().fids) == 0
    assert len(Embeddings.load_for_serving(tmp_path, counted)) == len(store)


def test_a_serving_copy_has_the_vectors_and_no_more() -> None:
    store = Embeddings(SCHEMA)
    train(store, people(0, 6))
    copy = store.serving_copy()
    assert_same(copy, store, people(0, 6))
    assert copy.is_for_serving
    assert not store.is_for_serving
    assert copy.tables[4].optimizer == SGD()
    for call in (copy.advance_epoch, lambda: copy.delta_since(0), lambda: copy.save("nowhere")):
        with pytest.raises(ValueError, match=r"these embeddings serve: .* is for those that learn"):
            call()
    assert copy.clone().is_for_serving


def test_a_folder_that_lacks_a_table_is_named(tmp_path: Path) -> None:
    Embeddings(SCHEMA).save(tmp_path)
    (tmp_path / "table-8").rename(tmp_path / "kept")
    with pytest.raises(SnapshotError, match=r"lacks table-8, for the rows of 'item'; keep every saved slot"):
        Embeddings.load(tmp_path, SCHEMA)
    (tmp_path / "table-4").rename(tmp_path / "table-8")
    Embeddings(SCHEMA).tables[4].save(tmp_path / "table-4")
    with pytest.raises(SnapshotError, match=r"table-8 of .* is not of the same save as embeddings.json; fetch the"):
        Embeddings.load(tmp_path, SCHEMA)
    with pytest.raises(SnapshotError, match=r"table-8 of .* holds rows of dim 4"):
        Embeddings.load(tmp_path, SCHEMA, is_checked=True)


def test_tables_of_two_saves_are_told_apart(tmp_path: Path) -> None:
    learner = Embeddings(SCHEMA)
    for folder in ("old", "new"):
        train(learner, people(0, 4))
        learner.save(tmp_path / folder)
    (tmp_path / "new" / "table-8").rename(tmp_path / "new" / "other")
    (tmp_path / "old" / "table-8").rename(tmp_path / "new" / "table-8")
    for load in (Embeddings.load, Embeddings.load_for_serving):
        with pytest.raises(SnapshotError, match=r"table-8 of .* is not of the same save as embeddings.json"):
            load(tmp_path / "new", SCHEMA)


SAVER = """
import sys
from pathlib import Path
from dolmen.embedding import Embeddings, table_file
from dolmen.features import Schema, Slot

write = table_file.write
def write_and_wait(folder, instant):
    if folder.name == "table-8":
        print("at the second", flush=True)
        sys.stdin.read()
    return write(folder, instant)
table_file.write = write_and_wait
Embeddings(Schema(Slot("user", dim=4), Slot("item", dim=8))).save(Path(sys.argv[1]))
"""


def test_a_save_that_was_killed_is_told_as_such(tmp_path: Path) -> None:
    folder = tmp_path / "saved"
    saver = subprocess.Popen([sys.executable, "-c", SAVER, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert saver.stdout is not None
    assert saver.stdout.readline() == b"at the second\n"
    saver.kill()
    saver.communicate()
    assert (folder / "table-4").exists()
    for load in (Embeddings.load, Embeddings.load_for_serving):
        with pytest.raises(
            SnapshotError, match=r"lacks embeddings.json, which a save writes last: it was not finished"
        ):
            load(folder, Schema(Slot("user", dim=4), Slot("item", dim=8)))


@pytest.mark.parametrize(
    ("now_us", "mend"),
    [
        (1_700_000_000, "these are seconds, it seems: multiply by 1,000,000"),
        (1_700_000_000_000, "these are milliseconds, it seems: multiply by 1,000"),
        (1, "let a time of your own making begin after 1990"),
    ],
)
def test_times_of_another_unit_are_refused_where_durations_are_declared(now_us: int, mend: str) -> None:
    store = Embeddings(SCHEMA)
    for call in (lambda: train(store, people(0, 1), now_us), lambda: store.expire(now_us)):
        with pytest.raises(
            ValueError, match=f"now_us must be .* since slot 'user' counts in them, got {now_us}; .*{mend}"
        ):
            call()
    assert len(store) == 0
    train(store, people(0, 1), now_us=0)  # no time is known
    plain = Embeddings(Schema(Slot("user", dim=4)))
    plain.lookup_or_insert("user", torch.tensor([1 << 53]), 1)  # where only the order matters, a count of steps will do
    assert len(plain) == 1


def test_ids_of_another_slot_or_of_none_are_refused_before_any_is_seen() -> None:
    store = Embeddings(SCHEMA)
    batch = people(0, 1)
    fids = batch.slot("user").values
    tag = int(batch.slot("tag").values[0])
    for foreign, whose in (
        (7, r"0 \(no slot"),
        (2 << 53, "2 \\('item'"),
        (9 << 53, r"9 \(no slot"),
        (tag, "4 \\('tag'"),
    ):
        wrong = torch.cat([fids, torch.tensor([foreign])])
        told = rf"fids of 'user' must have its slot number 1, got {foreign} at position 1, .* number {whose}.*encode_v"
        with pytest.raises(SchemaError, match=told):
            store.lookup_or_insert("user", wrong, START_US)
        embed = Embed(store)
        mixed = Batch(size=2, slots={"tag": Jagged.from_lists([[tag], [tag]]), "user": Jagged.single(wrong)})
        with embed.recording(START_US), pytest.raises(SchemaError, match=told):
            embed(mixed, ["tag", "user"])
    assert all(len(table.pending().fids) == 0 for table in store.tables.values())
    assert len(store) == 0

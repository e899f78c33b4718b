"""Any order of operations: the native table and a plain dict hold the same."""

import copy
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from numpy.typing import NDArray

from dolmen.embedding.optimizers import SGD, AdaGrad, Optimizer
from dolmen.embedding.table import Delta, RowRules, Table

DIM = 2
AT_ONCE, COUNTED, BRIEF = 0, 3, 1023  # Slots.
ADMIT_AFTER, EXPIRE_AFTER_US = 3, 10
RULES = {
    COUNTED: RowRules(admit_after=ADMIT_AFTER, expire_after_us=EXPIRE_AFTER_US),
    BRIEF: RowRules(expire_after_us=EXPIRE_AFTER_US),
}
# A handful, so that operations meet on the same rows.
ALL_FIDS = [(slot << 53) + value for slot in (AT_ONCE, COUNTED, BRIEF) for value in (0, 1, 2, (1 << 53) - 1)]
FIDS = st.lists(st.sampled_from(ALL_FIDS), min_size=0, max_size=8)
NUMBERS = st.floats(-4, 4, width=16)
TIMES = st.integers(0, 40)


@dataclass
class Row:
    vector: NDArray[np.float32]
    accumulator: NDArray[np.float32]
    last_seen_us: int
    count: int = 0
    epoch: int = -1


@dataclass
class Twin:
    """The table again, as plainly as it can be written."""

    optimizer: Optimizer
    start: Table
    rows: dict[int, Row] = field(default_factory=dict)
    pending: dict[int, tuple[int, int]] = field(default_factory=dict)
    removed: dict[int, int] = field(default_factory=dict)  # FID -> epoch.
    epoch: int = 0
    time_us: int = 0

    def rule(self, fid: int) -> RowRules:
        return RULES.get(fid >> 53, RowRules())

    def make(self, fid: int, last_seen_us: int) -> Row:
        initial = np.full(DIM, getattr(self.optimizer, "initial_accumulator", 0.0), np.float32)
        # Start values have a test of their own: they are a function of the FID alone.
        vector = self.start.lookup_or_insert(np.array([fid]), 0)[0]
        self.rows[fid] = Row(vector, initial, last_seen_us)
        self.pending.pop(fid, None)
        return self.rows[fid]

    def see(self, fid: int, now_us: int) -> NDArray[np.float32]:
        if fid not in self.rows:
            count, last = self.pending.get(fid, (0, now_us))
            count, last = count + 1, max(last, now_us)
            if count < self.rule(fid).admit_after:
                self.pending[fid] = count, last
                return np.zeros(DIM, np.float32)
            row = self.make(fid, last)
            row.count, row.epoch = count, self.epoch
        else:
            row = self.rows[fid]
            row.count += 1
            row.last_seen_us = max(row.last_seen_us, now_us)
        return row.vector

    def step(self, fids: list[int], grads: NDArray[np.float32]) -> int:
        sums: dict[int, NDArray[np.float32]] = {}
        for fid, gradient in zip(fids, grads, strict=True):
            sums[fid] = sums[fid] + gradient if fid in sums else gradient
        touched = [fid for fid in sums if fid in self.rows]
        for fid in touched:
            row, g, rate = self.rows[fid], sums[fid], np.float32(self.optimizer.learning_rate)
            if isinstance(self.optimizer, AdaGrad):
                row.accumulator = row.accumulator + g * g
                row.vector = row.vector - rate * g / (np.sqrt(row.accumulator) + np.float32(self.optimizer.epsilon))
            else:
                row.vector = row.vector - rate * g
            row.epoch = self.epoch
        return len(touched)

    def assign(self, fid: int, vector: NDArray[np.float32]) -> None:
        row = self.rows.get(fid) or self.make(fid, self.time_us)
        row.vector, row.epoch = vector, self.epoch

    def erase(self, fid: int) -> bool:
        self.pending.pop(fid, None)
        if fid not in self.rows:
            return False
        del self.rows[fid]
        self.removed[fid] = self.epoch
        return True

    def expire(self, now_us: int) -> int:
        self.time_us = max(self.time_us, now_us)

        def is_old(fid: int, last_seen_us: int) -> bool:
            after_us = self.rule(fid).expire_after_us
            return after_us > 0 and now_us - last_seen_us >= after_us

        for fid in [fid for fid, (_, last) in self.pending.items() if is_old(fid, last)]:
            del self.pending[fid]
        return sum(self.erase(fid) for fid in [fid for fid, row in self.rows.items() if is_old(fid, row.last_seen_us)])


class TableAgainstDict(RuleBasedStateMachine):
    """Whatever the order of operations, the native table and a plain dict hold the same."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = TemporaryDirectory()

    def teardown(self) -> None:
        self.folder.cleanup()

    @initialize(optimizer=st.sampled_from([AdaGrad(), SGD(learning_rate=0.5)]))
    def begin(self, optimizer: Optimizer) -> None:
        self.table = Table(DIM, optimizer=optimizer, seed=5, rules=RULES)
        self.twin = Twin(optimizer, Table(DIM, seed=5))
        self.replica, self.replica_epoch = Table(DIM, optimizer=SGD()), 0

    @rule(fids=FIDS, now_us=TIMES)
    def see(self, fids: list[int], now_us: int) -> None:
        got = self.table.lookup_or_insert(np.array(fids, dtype=np.int64), now_us)
        expected = [self.twin.see(fid, now_us) for fid in fids]
        self.twin.time_us = max(self.twin.time_us, now_us)
        assert got.tobytes() == np.array(expected, dtype=np.float32).tobytes()

    @rule(fids=FIDS, data=st.data())
    def learn(self, fids: list[int], data: st.DataObject) -> None:
        grads = np.array([[data.draw(NUMBERS)] * DIM for _ in fids], dtype=np.float32).reshape(len(fids), DIM)
        assert self.table.apply_gradients(np.array(fids, dtype=np.int64), grads) == self.twin.step(fids, grads)

    @rule(fids=FIDS, number=NUMBERS)
    def assign(self, fids: list[int], number: float) -> None:
        vectors = (np.arange(len(fids) * DIM, dtype=np.float32) + np.float32(number)).reshape(len(fids), DIM)
        self.table.assign(np.array(fids, dtype=np.int64), vectors)
        for fid, vector in zip(fids, vectors, strict=True):
            self.twin.assign(fid, vector)

    @rule(fids=FIDS)
    def erase(self, fids: list[int]) -> None:
        assert self.table.erase(np.array(fids, dtype=np.int64)) == sum(self.twin.erase(fid) for fid in fids)

    @rule(now_us=TIMES)
    def expire(self, now_us: int) -> None:
        assert self.table.expire(now_us) == self.twin.expire(now_us)

    @rule()
    def close_epoch(self) -> None:
        self.twin.epoch += 1
        assert self.table.advance_epoch() == self.twin.epoch

    @rule(twice=st.booleans())
    def sync(self, twice: bool) -> None:
        epoch = self.replica_epoch
        delta = self.table.delta_since(epoch)
        touched = {fid: row for fid, row in self.twin.rows.items() if row.epoch >= epoch}
        assert sorted(delta.fids.tolist()) == sorted(touched)
        for fid, vector in zip(delta.fids.tolist(), delta.vectors, strict=True):
            assert vector.tobytes() == touched[fid].vector.tobytes()
        gone = {fid for fid, when in self.twin.removed.items() if when >= epoch and fid not in self.twin.rows}
        assert delta.removed.tolist() == sorted(gone)
        self.replica_epoch = self.twin.epoch  # The epoch is still open: the next delta must begin with it.
        for _ in range(1 + twice):
            self.replica.apply_delta(delta)
        everything = np.array(ALL_FIDS)
        assert self.replica.lookup(everything).tobytes() == self.table.lookup(everything).tobytes()
        assert self.replica.contains(everything).tolist() == self.table.contains(everything).tolist()

    @precondition(lambda self: self.replica_epoch > 0)
    @rule()
    def forget(self) -> None:
        self.table.forget_epochs(self.replica_epoch)

    @rule()
    def save_and_load(self) -> None:
        folder = Path(self.folder.name)
        self.table.save(folder / "table")
        self.table = Table.load(folder / "table")
        self.table.save(folder / "again")
        names = [path.name for path in (folder / "table").iterdir()]
        assert names
        for name in names:
            assert (folder / "again" / name).read_bytes() == (folder / "table" / name).read_bytes()
        for name in ("table", "again"):
            shutil.rmtree(folder / name)

    @rule()
    def clone(self) -> None:
        self.table = self.table.clone()

    @invariant()
    def holds_the_same(self) -> None:
        if not hasattr(self, "table"):
            return
        table, twin, fids = self.table, self.twin, np.array(ALL_FIDS)
        assert len(table) == len(twin.rows)
        rows = [twin.rows.get(fid) for fid in ALL_FIDS]
        zeros = np.zeros(DIM, np.float32)
        assert table.lookup(fids).tobytes() == np.array([row.vector if row else zeros for row in rows]).tobytes()
        assert table.contains(fids).tolist() == [row is not None for row in rows]
        assert table.counts(fids).tolist() == [row.count if row else 0 for row in rows]
        assert table.last_seen(fids).tolist() == [row.last_seen_us if row else -1 for row in rows]
        pending = table.pending()
        triples = zip(pending.fids.tolist(), pending.counts.tolist(), pending.last_seen_us.tolist(), strict=True)
        assert [(fid, (count, last)) for fid, count, last in triples] == sorted(twin.pending.items())
        for slot in (AT_ONCE, COUNTED, BRIEF):
            of_slot = [row for fid, row in twin.rows.items() if fid >> 53 == slot]
            assert table.slots().get(slot, 0) == len(of_slot)
            assert table.total_count(slot) == sum(row.count for row in of_slot)
        assert table.time_seen_max_us == twin.time_us
        if isinstance(table.optimizer, AdaGrad):
            for chunk in table.export_chunks(chunk_rows=3):
                for fid, state in zip(chunk.fids.tolist(), chunk.states, strict=True):
                    assert state.tobytes() == twin.rows[fid].accumulator.tobytes()


TestTableAgainstDict = pytest.mark.property(TableAgainstDict.TestCase)


@pytest.mark.property
def test_an_empty_delta_changes_nothing() -> None:
    table = Table(DIM)
    table.assign(np.array([1]), np.ones((1, DIM), np.float32))
    none = np.empty(0, np.int64)
    before = copy.deepcopy(table.lookup(np.array([1])))
    table.apply_delta(Delta(none, np.empty((0, DIM), np.float32), none))
    assert np.array_equal(table.lookup(np.array([1])), before)

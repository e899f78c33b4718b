"""Any order of operations: the native table and a plain dict hold the same.

Each way of admission and of eviction has its slot. There are so few ids that a sketch and a Bloom filter never confuse
two and never forget, and a slot with a capacity never has more rows than eviction looks at: then all are exact, and
the dict can say what they must do. What they do when they are full has tests of its own.
"""

import copy
import math
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from numpy.typing import NDArray

from dolmen.embedding.optimizers import SGD, AdaGrad, Optimizer
from dolmen.embedding.table import Delta, RowRules, Table
from dolmen.features import Absent, Admission, Eviction

DIM, SEED = 2, 5
AT_ONCE, COUNTED, SKETCHED, BLOOMED, DRAWN, SHARED, LEAST_RECENT, LEAST_FREQUENT, LEAST_SCORED = range(9)  # Slots.
BRIEF = 1023
EXPIRE_AFTER_US, HALF_LIFE_US = 10, 8
RULES = {
    COUNTED: RowRules(admit_after=3, admission_capacity=3, expire_after_us=EXPIRE_AFTER_US),
    SKETCHED: RowRules(admit_after=3, admission=Admission.SKETCH, admission_capacity=600),
    BLOOMED: RowRules(admit_after=3, admission=Admission.BLOOM, admission_capacity=600, absent=Absent.START),
    DRAWN: RowRules(admit_after=3, admission=Admission.PROBABILISTIC),
    SHARED: RowRules(admit_after=3, admission=Admission.PROPORTIONAL, expire_after_us=EXPIRE_AFTER_US),
    LEAST_RECENT: RowRules(capacity=2, absent=Absent.START),
    LEAST_FREQUENT: RowRules(capacity=2, eviction=Eviction.LFU, expire_after_us=EXPIRE_AFTER_US),
    LEAST_SCORED: RowRules(capacity=1, eviction=Eviction.SCORE, half_life_us=HALF_LIFE_US),
    BRIEF: RowRules(expire_after_us=EXPIRE_AFTER_US),
}
SLOTS = (AT_ONCE, *RULES)
# A handful in each slot, so that operations meet on the same rows.
FIDS_OF = {slot: [(slot << 53) + value for value in (0, 1, 2, (1 << 53) - 1)] for slot in SLOTS}
ALL_FIDS = [fid for fids in FIDS_OF.values() for fid in fids]
FIDS = st.one_of(
    st.sampled_from(SLOTS).flatmap(lambda slot: st.lists(st.sampled_from(FIDS_OF[slot]), max_size=8)),
    st.lists(st.sampled_from(ALL_FIDS), max_size=12),
)
NUMBERS = st.floats(-4, 4, width=16)
TIMES = st.integers(0, 40)

STARTS = dict(zip(ALL_FIDS, Table(DIM, seed=SEED).lookup_or_insert(np.array(ALL_FIDS), 0), strict=True))


def mixed(x: int) -> int:
    """SplitMix64's finaliser."""
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 % (1 << 64)
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB % (1 << 64)
    return x ^ (x >> 31)


@dataclass
class Row:
    number: int
    vector: NDArray[np.float32]
    accumulator: NDArray[np.float32]
    last_seen_us: int
    count: int = 0
    epoch: int = -1


@dataclass
class Twin:
    """The table again, as plainly as it can be written."""

    optimizer: Optimizer
    starts: dict[int, NDArray[np.float32]]  # They have a test of their own: a function of seed and FID alone.
    rows: dict[int, Row] = field(default_factory=dict)
    pending: dict[int, tuple[int, int]] = field(default_factory=dict)  # Of exact counts, oldest sight first.
    sights: dict[int, int] = field(default_factory=dict)  # In a sketch or a Bloom filter, which erase nothing.
    batch: int = 0
    sights_in_batch: dict[int, int] = field(default_factory=dict)
    sweep_us: int | None = None
    removed: dict[int, int] = field(default_factory=dict)  # FID -> epoch.
    epoch: int = 0
    time_us: int = 0

    def rule(self, fid: int) -> RowRules:
        return RULES.get(fid >> 53, RowRules())

    def make(self, fid: int, last_seen_us: int) -> Row:
        initial = np.full(DIM, getattr(self.optimizer, "initial_accumulator", 0.0), np.float32)
        taken = {row.number for row in self.rows.values()}
        number = next(number for number in range(len(taken) + 1) if number not in taken)
        self.rows[fid] = Row(number, self.starts[fid], initial, last_seen_us)
        self.pending.pop(fid, None)
        return self.rows[fid]

    def absent(self, fid: int) -> NDArray[np.float32]:
        return self.starts[fid] if self.rule(fid).absent is Absent.START else np.zeros(DIM, np.float32)

    def admit(self, fid: int, now_us: int) -> tuple[int, int] | None:
        """Counts a sight of a FID without a row; its count and last sight if it has earned one."""
        of_slot = self.rule(fid)
        if of_slot.admit_after <= 1:
            return 1, now_us
        match of_slot.admission:
            case Admission.EXACT:
                count, last = self.pending.pop(fid, (0, now_us))
                count, last = count + 1, max(last, now_us)
                if count >= of_slot.admit_after:
                    return count, last
                self.pending[fid] = count, last
                waiting = [one for one in self.pending if one >> 53 == fid >> 53]
                if len(waiting) > of_slot.admission_capacity:
                    del self.pending[waiting[0]]
            case Admission.SKETCH:
                count = self.sights[fid] = min(self.sights.get(fid, 0), 14) + 1
                if count >= of_slot.admit_after:
                    return count, now_us
            case Admission.BLOOM:
                count = self.sights.get(fid, 0) + 1
                if count >= of_slot.admit_after:
                    return count, now_us
                self.sights[fid] = count
            case Admission.PROBABILISTIC | Admission.PROPORTIONAL:
                sight = self.sights_in_batch[fid] = self.sights_in_batch.get(fid, 0) + 1
                share = sight / of_slot.admit_after
                draw = (mixed((mixed(fid ^ SEED) + self.batch * 0x9E3779B97F4A7C15) % (1 << 64)) >> 11) / 2**53
                if draw < (share if of_slot.admission is Admission.PROPORTIONAL else 1 - 0.05**share):
                    del self.sights_in_batch[fid]
                    return 1, now_us
        return None

    def see_all(self, fids: list[int], now_us: int) -> list[NDArray[np.float32]]:
        self.time_us = max(self.time_us, now_us)
        self.batch += 1
        self.sights_in_batch.clear()
        return [self.see(fid, now_us) for fid in fids]

    def see(self, fid: int, now_us: int) -> NDArray[np.float32]:
        if fid not in self.rows:
            admitted = self.admit(fid, now_us)
            if admitted is None:
                return self.absent(fid)
            count, last = admitted
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

        for slot in SLOTS:
            for fid in [fid for fid in self.pending if fid >> 53 == slot]:
                if not is_old(fid, self.pending[fid][1]):
                    break  # What was seen later waits until this one leaves.
                del self.pending[fid]
        return sum(self.erase(fid) for fid in [fid for fid, row in self.rows.items() if is_old(fid, row.last_seen_us)])

    def evict(self) -> int:
        count = 0
        for slot, of_slot in RULES.items():
            while of_slot.capacity and len(full := [fid for fid in self.rows if fid >> 53 == slot]) > of_slot.capacity:
                self.erase(min(full, key=self.rank))
                count += 1
        return count

    def rank(self, fid: int) -> tuple[float, ...]:
        row, of_slot = self.rows[fid], self.rule(fid)
        match of_slot.eviction:
            case Eviction.LRU:
                return row.last_seen_us, row.count, row.number
            case Eviction.LFU:
                return row.count, row.last_seen_us, row.number
            case Eviction.SCORE:
                return math.log2(row.count + 1) + row.last_seen_us / of_slot.half_life_us, row.last_seen_us, row.number


class TableAgainstDict(RuleBasedStateMachine):
    """Whatever the order of operations, the native table and a plain dict hold the same."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = TemporaryDirectory()

    def teardown(self) -> None:
        self.folder.cleanup()

    @initialize(optimizer=st.sampled_from([AdaGrad(), SGD(learning_rate=0.5)]))
    def begin(self, optimizer: Optimizer) -> None:
        self.table = Table(DIM, optimizer=optimizer, seed=SEED, rules=RULES)
        self.twin = Twin(optimizer, STARTS)
        self.replica, self.replica_epoch = Table(DIM, optimizer=SGD()), 0

    @rule(fids=FIDS, now_us=TIMES)
    def see(self, fids: list[int], now_us: int) -> None:
        got = self.table.lookup_or_insert(np.array(fids, dtype=np.int64), now_us)
        expected = self.twin.see_all(fids, now_us)
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

    @rule(now_us=TIMES)
    def begin_expiry(self, now_us: int) -> None:
        self.table.begin_expiry(now_us)
        self.twin.time_us = max(self.twin.time_us, now_us)
        self.twin.sweep_us = max(self.twin.sweep_us or 0, now_us)

    @rule()
    def maintain(self) -> None:
        upkeep = self.table.maintain()
        assert upkeep.expired == (self.twin.expire(self.twin.sweep_us) if self.twin.sweep_us is not None else 0)
        self.twin.sweep_us = None
        assert upkeep.evicted == self.twin.evict()
        for slot, one in RULES.items():
            assert not one.capacity or self.table.slots().get(slot, 0) <= one.capacity

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
        present = everything[self.table.contains(everything)]
        assert self.replica.lookup(present).tobytes() == self.table.lookup(present).tobytes()
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
        vectors = [row.vector if row else twin.absent(fid) for fid, row in zip(ALL_FIDS, rows, strict=True)]
        assert table.lookup(fids).tobytes() == np.array(vectors).tobytes()
        assert table.contains(fids).tolist() == [row is not None for row in rows]
        assert table.counts(fids).tolist() == [row.count if row else 0 for row in rows]
        assert table.last_seen(fids).tolist() == [row.last_seen_us if row else -1 for row in rows]
        pending = table.pending()
        triples = zip(pending.fids.tolist(), pending.counts.tolist(), pending.last_seen_us.tolist(), strict=True)
        assert [(fid, (count, last)) for fid, count, last in triples] == list(twin.pending.items())
        by_slot = {slot: [row.count for fid, row in twin.rows.items() if fid >> 53 == slot] for slot in SLOTS}
        assert table.slots() == {slot: len(counts) for slot, counts in by_slot.items() if counts}
        for slot in (COUNTED, LEAST_FREQUENT):
            assert table.total_count(slot) == sum(by_slot[slot])
        assert table.time_seen_max_us == twin.time_us
        if isinstance(table.optimizer, AdaGrad):
            for chunk in table.export_chunks(chunk_rows=3):
                for fid, state in zip(chunk.fids.tolist(), chunk.states, strict=True):
                    assert state.tobytes() == twin.rows[fid].accumulator.tobytes()


# Fifty steps each: half a minute of one core, and minutes where many share it.
TableAgainstDict.TestCase.settings = settings(max_examples=60, stateful_step_count=50, deadline=None)
TestTableAgainstDict = pytest.mark.timeout(400)(pytest.mark.property(TableAgainstDict.TestCase))


@pytest.mark.property
def test_an_empty_delta_changes_nothing() -> None:
    table = Table(DIM)
    table.assign(np.array([1]), np.ones((1, DIM), np.float32))
    none = np.empty(0, np.int64)
    before = copy.deepcopy(table.lookup(np.array([1])))
    table.apply_delta(Delta(none, np.empty((0, DIM), np.float32), none))
    assert np.array_equal(table.lookup(np.array([1])), before)

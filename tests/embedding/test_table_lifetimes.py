"""Who gets a row, and whose row leaves, where memory is short: sketches that are full, slots beyond their capacity."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from dolmen.embedding import Embeddings
from dolmen.embedding.optimizers import SGD
from dolmen.embedding.rows import PendingCounts
from dolmen.embedding.table import Capacity, Delta, RowRules, Table
from dolmen.features import Absent, Admission, Eviction, Label, Schema, Slot, encode_array

SEED = 9
FORGETFUL = [Admission.EXACT, Admission.SKETCH, Admission.BLOOM]


def fids(*values: int) -> NDArray[np.int64]:
    return np.array(values, dtype=np.int64)


def fids_of(slot: int, values: range) -> NDArray[np.int64]:
    return encode_array(slot, pa.array(values))


def table_with(**rule: Any) -> Table:
    return Table(2, optimizer=SGD(), seed=SEED, rules={0: RowRules(**rule)})


def see_each(table: Table, values: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether each FID has a row right after its sight, in a batch of its own where it is absent."""
    table.lookup_or_insert(values, 0)
    return table.contains(values)


@pytest.mark.parametrize("admission", FORGETFUL)
@pytest.mark.parametrize("admit_after", [2, 3, 4, 5, 16])
def test_the_nth_sight_makes_the_row(admission: Admission, admit_after: int) -> None:
    table = table_with(admit_after=admit_after, admission=admission, admission_capacity=100)
    for sight in range(1, admit_after + 3):
        assert see_each(table, fids(7)).item() == (sight >= admit_after)


@pytest.mark.parametrize("admission", FORGETFUL)
def test_what_was_seen_long_ago_is_forgotten(admission: Admission) -> None:
    capacity = 6000
    table = table_with(admit_after=3, admission=admission, admission_capacity=capacity)
    table.lookup_or_insert(fids(1, 1), 0)
    table.lookup_or_insert(np.arange(100, 100 + capacity // 4), 0)
    table.lookup_or_insert(fids(2, 2), 0)
    assert see_each(table, fids(1)).item(), "few came since"
    table.lookup_or_insert(np.arange(20_000, 20_000 + 2 * capacity), 0)
    assert not see_each(table, fids(2)).item(), "more came since than are remembered"
    assert table.memory().pending_bytes < capacity * 48


def test_a_count_is_carried_along_while_its_id_comes_again() -> None:
    table = table_with(admit_after=6, admission=Admission.SKETCH, admission_capacity=600)  # Splits of 100.
    admitted = []
    for sight in range(6):
        admitted.append(see_each(table, fids(1)).item())
        table.lookup_or_insert(np.arange(1000 * (sight + 1), 1000 * (sight + 1) + 350), 0)
    # In all 1750 others came, three times what is remembered, but never more than 350 between two sights.
    assert admitted == [False] * 5 + [True]


class PlainSketch:
    """Monolith's sliding sketch once more, in lists."""

    def __init__(self, admit_after: int, capacity: int) -> None:
        self.admit_after, self.split_capacity = admit_after, capacity // 6
        self.place_count = self.split_capacity + self.split_capacity // 5
        self.splits: list[list[tuple[int, int] | None]] = [self.empty() for _ in range(7)]
        self.head = self.advances = self.failures = 0

    def empty(self) -> list[tuple[int, int] | None]:
        return [None] * (self.place_count + 16)

    def find(self, split: int, fid: int) -> int | None:
        hashed = mixed(fid ^ SEED)
        begin = hashed * self.place_count >> 64
        for at in range(begin, begin + 16):
            cell = self.splits[split % 7][at]
            if cell is None or cell[0] == hashed % 4096:
                return at
        return None

    def see(self, fid: int) -> bool:
        """Whether this sight earns a row."""
        for split in (self.head % 7, (self.head + 1) % 7):
            at = self.find(split, fid)
            if at is not None:
                break
        else:
            self.failures += 1
            return True
        cell = self.splits[split][at]
        before = cell[1] if cell is not None else 0
        if cell is None:
            for behind in range(1, min(self.advances, 5) + 1):
                old = self.find(self.head - behind, fid)
                if old is not None and (past := self.splits[(self.head - behind) % 7][old]) is not None:
                    before = past[1]
                    break
        self.splits[split][at] = (mixed(fid ^ SEED) % 4096, min(before + 1, 15))
        if cell is None and sum(one is not None for one in self.splits[self.head]) >= self.split_capacity:
            self.head = (self.head + 1) % 7
            self.advances += 1
            self.splits[(self.head + 1) % 7] = self.empty()
        return before + 1 >= self.admit_after


def mixed(x: int) -> int:
    """SplitMix64's finaliser."""
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 % (1 << 64)
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB % (1 << 64)
    return x ^ (x >> 31)


def test_a_full_sketch_does_what_its_plain_twin_does(tmp_path: Path) -> None:
    # A tiny sketch, so that ids meet, splits move on many times, and some find no cell.
    table = table_with(admit_after=3, admission=Admission.SKETCH, admission_capacity=150)
    twin = PlainSketch(admit_after=3, capacity=150)
    rng = np.random.default_rng(4)
    rows: set[int] = set()
    for batch in range(60):
        values = rng.zipf(1.3, size=50) % 5000
        table.lookup_or_insert(values, 0)
        rows.update(fid for fid in values.tolist() if fid not in rows and twin.see(fid))
        assert set(np.flatnonzero(table.contains(np.arange(5000))).tolist()) == rows
        if batch == 30:
            table.save(tmp_path / "table")
            table = Table.load(tmp_path / "table")
    assert twin.advances > 14, "all splits were emptied, and more than once"
    assert table.admission_failures(0) == twin.failures


def test_an_id_that_finds_no_cell_is_admitted_and_counted(
    sketch_crowd: Callable[[int, int], NDArray[np.int64]],
) -> None:
    table = table_with(admit_after=2, admission=Admission.SKETCH, admission_capacity=600)
    assert see_each(table, sketch_crowd(SEED, 0)).tolist() == [False] * 32 + [True] * 2
    assert table.admission_failures(0) == 2
    assert table.admission_failures(1) == 0, "a slot without a sketch has none"


def test_a_bloom_filter_is_never_late_and_seldom_early() -> None:
    capacity = 20_000
    table = table_with(admit_after=3, admission=Admission.BLOOM, admission_capacity=capacity)
    ids = np.arange(capacity // 2)  # One generation.
    assert table.memory().pending_bytes < 2.6 * capacity, "two bits for each of ten counters of an id"
    table.lookup_or_insert(ids, 0)
    table.lookup_or_insert(ids, 0)
    early = table.contains(ids).mean()
    # Two sights are told as three where all four counters were raised by others: at capacity (1 - e^-0.4)^4 = 1.2 % of
    # ids meet such; each such meeting can advance a count once or twice.
    assert early < 0.03
    table.lookup_or_insert(ids, 0)
    assert table.contains(ids).all()


def test_a_bloom_filter_is_not_late_where_others_raised_the_newer_counters() -> None:
    capacity, admit_after = 2000, 4
    late = np.arange(300)
    for others in (0, 700, 900):  # In the newer generation; a thousand of them would begin the next one.
        table = table_with(admit_after=admit_after, admission=Admission.BLOOM, admission_capacity=capacity)
        for _ in range(admit_after - 1):
            table.lookup_or_insert(late, 0)
        table.lookup_or_insert(np.arange(10_000, 10_000 + capacity // 2 - len(late)), 0)  # Fills their generation.
        table.lookup_or_insert(np.arange(20_000, 20_000 + others), 0)
        table.lookup_or_insert(late, 0)
        assert table.contains(late).all()


def test_a_bloom_filter_of_two_sights_needs_one_bit_a_counter() -> None:
    capacity = 80_000
    table = table_with(admit_after=2, admission=Admission.BLOOM, admission_capacity=capacity)
    assert table.memory().pending_bytes < 1.3 * capacity
    table.lookup_or_insert(np.arange(capacity // 4), 0)
    assert len(table) < 0.003 * capacity
    table.lookup_or_insert(np.arange(capacity // 4), 0)
    assert len(table) == capacity // 4


@pytest.mark.parametrize(
    ("admission", "chance"),
    [
        (Admission.PROBABILISTIC, lambda sights, n: 1 - 0.05 ** (sights / n)),
        (Admission.PROPORTIONAL, lambda sights, n: min(1.0, sights / n)),
    ],
)
@pytest.mark.parametrize("sights", [1, 2, 4])
def test_a_chance_admits_as_many_as_it_says(
    admission: Admission, chance: Callable[[int, int], float], sights: int
) -> None:
    count, admit_after = 20_000, 4
    table = table_with(admit_after=admit_after, admission=admission)
    table.lookup_or_insert(np.repeat(np.arange(count), sights), 0)
    expected = chance(sights, admit_after)
    # Five standard deviations of a binomial count; the seed is fixed.
    assert abs(len(table) / count - expected) <= 5 * (expected * (1 - expected) / count) ** 0.5
    assert table.memory().pending_bytes == 0


def test_equal_chances_reach_95_percent_in_sights_of_any_batches() -> None:
    count, admit_after = 20_000, 5
    table = table_with(admit_after=admit_after, admission=Admission.PROBABILISTIC)
    for _ in range(admit_after):
        table.lookup_or_insert(np.arange(count), 0)
    assert abs(len(table) / count - 0.95) <= 5 * (0.95 * 0.05 / count) ** 0.5


@pytest.mark.parametrize("admission", list(Admission))
def test_a_loaded_table_admits_as_the_saved_one_would_have(admission: Admission, tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    batches = [rng.zipf(1.2, size=400) % 10_000 for _ in range(20)]
    table = table_with(admit_after=3, admission=admission, admission_capacity=600)
    for batch in batches[:10]:
        table.lookup_or_insert(batch, 0)
    table.save(tmp_path / "table")
    others = [Table.load(tmp_path / "table"), table.clone()]
    for one in (table, *others):
        for batch in batches[10:]:
            one.lookup_or_insert(batch, 0)
    everything = np.arange(10_000)
    assert 0 < len(table) < 10_000
    for other in others:
        assert other.lookup(everything).tobytes() == table.lookup(everything).tobytes()
        assert other.clocks == table.clocks


def test_exact_counts_beyond_their_capacity_forget_the_oldest_sight() -> None:
    table = table_with(admit_after=3, admission_capacity=3)
    for fid in (1, 2, 3, 1, 4):
        table.lookup_or_insert(fids(fid), 0)
    assert table.pending().fids.tolist() == [3, 1, 4]
    assert table.pending().counts.tolist() == [1, 2, 1]


def test_pending_counts_of_a_slot_that_counts_otherwise_are_refused_whole() -> None:
    table = Table(2, rules={0: RowRules(admit_after=2), 1: RowRules(admit_after=2, admission=Admission.BLOOM)})
    counts = PendingCounts(fids(5, 1 << 53), fids(1, 1), fids(0, 0))
    with pytest.raises(ValueError, match="pending counts are of FIDs whose slot has an exact admission count"):
        table.restore_pending(counts)
    assert len(table.pending().fids) == 0


def test_absent_ids_read_as_the_row_that_they_would_get() -> None:
    table = table_with(admit_after=2, absent=Absent.START)
    read = table.lookup(fids(5))
    assert read.any()
    assert table.lookup_or_insert(fids(5), 0).tobytes() == read.tobytes()
    assert table.apply_gradients(fids(5), np.ones((1, 2), np.float32)) == 0, "no row, no gradient"
    assert table.lookup_or_insert(fids(5), 0).tobytes() == read.tobytes()
    assert table.contains(fids(5)).item()


def test_a_serving_copy_reads_absent_ids_as_the_trainer_does() -> None:
    schema = Schema(Slot("user", dim=4, absent="start"), Slot("item", dim=4), Label("click"))
    trained = Embeddings(schema, seed=3)
    ids = torch.tensor([(schema.slot_number(name) << 53) + 11 for name in ("user", "item")])
    expected = trained.lookup("user", ids)
    assert expected[0].any()
    assert not expected[1].any()
    assert torch.equal(trained.serving_copy().lookup("user", ids), expected)
    assert torch.equal(Embeddings.for_serving(schema, seed=3).lookup("user", ids), expected)


# What leaves.


@pytest.mark.parametrize("eviction", list(Eviction))
def test_eviction_keeps_the_capacity_and_most_of_the_best(eviction: Eviction) -> None:
    count, capacity = 4000, 2000
    half_life_us = 1000 if eviction is Eviction.SCORE else 0
    table = table_with(capacity=capacity, eviction=eviction, half_life_us=half_life_us)
    rng = np.random.default_rng(1)
    ids, sights, times = np.arange(count), rng.permutation(count) % 8 + 1, rng.permutation(count)
    for number in np.argsort(times).tolist():
        table.lookup_or_insert(np.full(sights[number], number), int(times[number]))
    worth = {
        Eviction.LRU: times,
        Eviction.LFU: sights,
        Eviction.SCORE: np.log2(sights + 1) + times / 1000,
    }[eviction].astype(float)
    assert table.evict() == count - capacity
    assert len(table) == capacity
    stayed = table.contains(ids)
    # A victim is the worst of 16, so a row of the best quarter is one where all 16 were: until half have left that is
    # (1/2)^16 a draw at worst, 0.03 rows in all. (Of equal sights, LFU takes the older.)
    best = worth > np.quantile(worth, 0.75)
    assert stayed[best].all()
    assert stayed[worth < np.quantile(worth, 0.25)].mean() < 0.1


@pytest.mark.parametrize("eviction", list(Eviction))
def test_a_slot_whose_rows_lie_in_clusters_loses_its_worst_as_any_other(eviction: Eviction) -> None:
    # Old rows, then a long run of another slot's, then newer ones: behind the run stands a row of the slot like others.
    half_life_us = 1000 if eviction is Eviction.SCORE else 0
    rule = RowRules(capacity=1000, eviction=eviction, half_life_us=half_life_us)
    table = Table(2, optimizer=SGD(), seed=SEED, rules={5: rule})
    old, between, new = fids_of(5, range(500)), fids_of(6, range(40_000)), fids_of(5, range(500, 1250))
    for at, ids, sights in ((0, old, 1), (1000, between, 1), (100_000, new, 3)):
        for _ in range(sights):
            table.lookup_or_insert(ids, at)
    assert table.evict() == 250
    # 32 rows leave of 192 drawn, 77 of them old on average, and later 58 of them: all that leave are old.
    assert table.contains(new).all()
    assert table.contains(old).sum() == 250
    assert table.contains(between).all()


def test_evicted_ids_travel_as_tombstones_and_their_rows_are_used_again() -> None:
    table = table_with(capacity=50)
    replica = Table(2, optimizer=SGD())
    table.lookup_or_insert(np.arange(50), 0)
    replica.apply_delta(table.delta_since(0))
    epoch = table.advance_epoch()
    table.lookup_or_insert(np.arange(50, 80), 1)
    assert table.evict() == 30
    delta = table.delta_since(epoch)
    assert set(delta.removed.tolist()) == set(range(80)) - set(np.flatnonzero(table.contains(np.arange(80))).tolist())
    replica.apply_delta(delta)
    assert replica.contains(np.arange(80)).tolist() == table.contains(np.arange(80)).tolist()
    table.lookup_or_insert(np.arange(100, 130), 2)
    numbers = np.concatenate([chunk.row_numbers for chunk in table.export_chunks() if chunk.row_numbers is not None])
    assert numbers.max() < 80, "no row number beyond those there were"
    assert isinstance(delta, Delta)


def test_a_loaded_table_evicts_what_the_saved_one_would_have(tmp_path: Path) -> None:
    table = Table(2, optimizer=SGD(), seed=SEED, rules={0: RowRules(capacity=300, eviction=Eviction.LFU)})
    rng = np.random.default_rng(3)
    batches = [rng.zipf(1.1, size=200) % 5000 for _ in range(30)]
    for batch in batches[:15]:
        table.lookup_or_insert(batch, 0)
        table.evict()
    table.save(tmp_path / "table")
    loaded = Table.load(tmp_path / "table")
    for one in (table, loaded):
        for batch in batches[15:]:
            one.lookup_or_insert(batch, 0)
            one.evict()
    everything = np.arange(5000)
    assert loaded.contains(everything).tolist() == table.contains(everything).tolist()


@pytest.mark.property
@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from([Capacity(5, Eviction.LRU), Capacity(5, Eviction.LFU), Capacity(5, Eviction.SCORE, 3)]),
    st.lists(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 3)), min_size=1, max_size=9), max_size=12),
    st.integers(0, 11),
)
def test_a_capacity_of_the_table_takes_the_worst_of_all_slots(
    capacity: Capacity, batches: list[list[tuple[int, int]]], copied_at: int
) -> None:
    # At most twelve ids: no more rows than a sample has places, so the worst row leaves, exactly.
    table = Table(2, optimizer=SGD(), rules={1: RowRules(capacity=2)}, capacity=capacity)
    rows: dict[int, tuple[int, int]] = {}  # FID -> count, last seen.

    def rank(fid: int, eviction: Eviction) -> tuple[float, ...]:
        count, last_us = rows[fid]
        score = math.log2(count + 1) + last_us / 3
        ranks = {Eviction.LRU: (last_us, count), Eviction.LFU: (count, last_us), Eviction.SCORE: (score, last_us)}
        return ranks[eviction]

    for now_us, batch in enumerate(batches):
        fids = [(slot << 53) + value for slot, value in batch]
        table.lookup_or_insert(np.array(fids), now_us)
        for fid in fids:
            rows[fid] = rows.get(fid, (0, 0))[0] + 1, now_us
        gone = table.maintain().evicted
        left = set(np.array(list(rows))[table.contains(np.array(list(rows)))].tolist())
        of_slot, before = [fid for fid in rows if fid >> 53 == 1], len(rows)
        for bound, eviction, among in ((2, Eviction.LRU, of_slot), (5, capacity.eviction, list(rows))):
            here = [fid for fid in among if fid in rows]
            while len(here) > bound:
                worst = min(rank(fid, eviction) for fid in here)
                # Of equals any may leave: the one that did.
                fid = next(fid for fid in here if rank(fid, eviction) == worst and fid not in left)
                here.remove(fid)
                del rows[fid]
        assert left == set(rows)
        assert gone == before - len(rows)
        if now_us == copied_at:
            table = table.clone()
            assert table.capacity == capacity


def test_a_capacity_set_later_counts_the_rows_that_are_there(tmp_path: Path) -> None:
    table = Table(2, optimizer=SGD())
    table.lookup_or_insert(np.concatenate([np.arange(300), (1 << 53) + np.arange(200)]), 0)
    assert table.evict() == 0
    table.capacity = Capacity(120)
    assert table.evict() == 380
    table.save(tmp_path / "table")
    loaded = Table.load(tmp_path / "table")
    assert loaded.capacity == Capacity(120)
    loaded.lookup_or_insert(1000 + np.arange(30), 1)
    assert loaded.evict() == 30
    loaded.capacity = None
    loaded.lookup_or_insert(2000 + np.arange(30), 1)
    assert loaded.evict() == 0
    assert len(loaded) == 150
    with pytest.raises(ValueError, match=r"Capacity\.row_count must be at least 1, got 0"):
        Capacity(0)


def test_a_lowered_capacity_is_reached_in_bounded_turns_that_survive_a_snapshot(tmp_path: Path) -> None:
    table = Table(2, optimizer=SGD())
    table.lookup_or_insert(np.arange(6000), 0)
    assert table.maintain().evicted == 0
    table.capacity = Capacity(1000)
    table.lookup_or_insert(6000 + np.arange(100), 1)
    table.save(tmp_path / "table")
    for one in (table, Table.load(tmp_path / "table")):
        # The 100 that came since the last turn, and 1,024 more: then only these.
        assert [one.maintain().evicted for _ in range(6)] == [1124, 1024, 1024, 1024, 904, 0]
        one.lookup_or_insert(7000 + np.arange(3000), 2)
        assert one.maintain().evicted == 3000  # A stream of new ids never goes past the bound by more than a batch.
        assert len(one) == 1000


def test_those_that_leave_are_among_the_least_recent_however_many_leave_at_once() -> None:
    table = Table(2, optimizer=SGD(), rules={0: RowRules(capacity=8000)})
    for time_us in range(100):
        table.lookup_or_insert(np.arange(100) * 100 + time_us, time_us)
    assert table.evict() == 2000
    ages = np.arange(10_000) % 100
    gone = ~table.contains(np.arange(10_000))
    # In exact order the oldest fifth would leave; of those drawn, nearly all that leave are of the oldest third.
    assert np.mean(ages[gone] < 33) > 0.97
    assert ages[gone].max() < 60


def test_expiry_in_turns_removes_what_one_call_would_have(tmp_path: Path) -> None:
    table = table_with(admit_after=2, expire_after_us=10)
    for time_us in range(40):
        ids = np.arange(time_us * 10, time_us * 10 + 10)
        table.lookup_or_insert(np.repeat(ids, 2), time_us)
        table.lookup_or_insert(ids + 10_000, time_us)  # Not admitted.
    other = table.clone()
    table.begin_expiry(39)
    turns = [table.maintain(rows_max=50) for _ in range(3)]
    table.save(tmp_path / "table")
    table = Table.load(tmp_path / "table")  # In the middle of it.
    table.begin_expiry(39)  # No new beginning.
    turns += [table.maintain(rows_max=50) for _ in range(10)]
    assert max(turn.expired for turn in turns) <= 50
    assert sum(turn.expired for turn in turns) == other.expire(39) == 300
    assert turns[-1].expired == 0
    everything = np.arange(400)
    assert table.contains(everything).tolist() == other.contains(everything).tolist()
    assert table.pending().fids.tolist() == other.pending().fids.tolist()
    assert table.clocks.sweep_us == -1


@pytest.mark.parametrize(
    ("rule", "told"),
    [
        ({"admit_after": 17, "admission": Admission.SKETCH}, "admit_after must be at most 16 with sketch, got 17"),
        ({"admission_capacity": 0}, "admission_capacity must be between 1 and 2147483648, got 0"),
        ({"eviction": Eviction.SCORE}, "half_life_us must be above 0 with the eviction score, got 0"),
        ({"capacity": -1}, "capacity must be 0 or more, got -1"),
        ({"learning_rate_scale": float("nan")}, "learning_rate_scale must be 0 or more and at most 100, got nan"),
    ],
)
def test_a_rule_that_cannot_be_is_named(rule: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        RowRules(**rule)

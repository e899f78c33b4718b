"""What a table promises, one promise a test; all operations together are in test_table_property.py."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from dolmen.embedding.optimizers import SGD, AdaGrad, Adam
from dolmen.embedding.table import Delta, RowChunk, RowRules, Table

HOUR_US = 3_600_000_000
SLOT_BITS = 53
MASK64 = (1 << 64) - 1
GOLDEN = 0x9E3779B97F4A7C15


def fids(*values: int) -> NDArray[np.int64]:
    return np.array(values, dtype=np.int64)


def rows(*values: float, dim: int = 2) -> NDArray[np.float32]:
    return np.repeat(np.array(values, dtype=np.float32)[:, None], dim, axis=1)


def mix64(x: int) -> int:
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & MASK64
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & MASK64
    return x ^ (x >> 31)


def start_vector(seed: int, fid: int, dim: int, initial_range: float) -> NDArray[np.float32]:
    """By the definition: 24 bits of a hash of (seed, FID, column), over [-1, 1), times the range."""
    state = mix64(fid ^ mix64((seed + GOLDEN) & MASK64))
    bits = [mix64((state + (column + 1) * GOLDEN) & MASK64) >> 40 for column in range(dim)]
    return (np.array(bits, dtype=np.float32) * np.float32(2**-23) - np.float32(1)) * np.float32(initial_range)


def test_an_absent_fid_reads_as_zeros_and_stays_absent() -> None:
    table = Table(3)
    assert table.lookup(fids(1, 2)).tolist() == [[0, 0, 0], [0, 0, 0]]
    assert len(table) == 0
    assert table.counts(fids(1)).tolist() == [0]
    assert table.last_seen(fids(1)).tolist() == [-1]


def test_a_new_row_starts_at_the_hash_of_seed_fid_and_column() -> None:
    table = Table(5, seed=42, initial_range=0.5)
    ids = fids(0, 1, (1023 << SLOT_BITS) + (1 << SLOT_BITS) - 1)
    got = table.lookup_or_insert(ids, now_us=0)
    for fid, vector in zip(ids.tolist(), got, strict=True):
        assert vector.tobytes() == start_vector(42, fid, 5, 0.5).tobytes()


def test_start_values_are_uniform_in_their_range() -> None:
    values = Table(8, initial_range=0.01).lookup_or_insert(np.arange(20_000), now_us=0)
    assert np.abs(values).max() <= 0.01
    # Of n uniform draws in ±r the mean has a standard deviation of r / sqrt(3 n); 5 of them are hardly ever left.
    assert abs(values.mean()) < 5 * 0.01 / np.sqrt(3 * values.size)
    assert values.std() == pytest.approx(0.01 / np.sqrt(3), rel=0.01)


def test_order_of_insertion_does_not_change_a_row() -> None:
    forward, backward = Table(4, seed=1), Table(4, seed=1)
    ids = np.arange(1000)
    forward.lookup_or_insert(ids, 0)
    backward.lookup_or_insert(ids[::-1].copy(), 0)
    assert forward.lookup(ids).tobytes() == backward.lookup(ids).tobytes()


def test_each_sight_counts_and_the_latest_time_stays() -> None:
    table = Table(2)
    table.lookup_or_insert(fids(5, 5, 6), now_us=100)
    table.lookup_or_insert(fids(5), now_us=40)
    assert table.counts(fids(5, 6)).tolist() == [3, 1]
    assert table.last_seen(fids(5, 6)).tolist() == [100, 100]
    assert table.total_count(0) == 4
    assert table.time_seen_max_us == 100


def test_a_row_comes_at_the_nth_sight() -> None:
    slot = 7
    fid = (slot << SLOT_BITS) + 1
    table = Table(2, rules={slot: RowRules(admit_after=3)})
    first = table.lookup_or_insert(fids(fid, fid), now_us=5)
    assert not first.any()
    assert len(table) == 0
    assert table.pending().counts.tolist() == [2]
    assert table.lookup_or_insert(fids(fid), now_us=6).any()
    assert table.counts(fids(fid)).tolist() == [3]
    assert len(table.pending().fids) == 0
    other_slot = table.lookup_or_insert(fids(9), now_us=6)
    assert other_slot.any()


def test_a_fid_that_is_not_admitted_gets_no_gradient() -> None:
    table = Table(2, rules={0: RowRules(admit_after=2)})
    table.lookup_or_insert(fids(1), 0)
    assert table.apply_gradients(fids(1), rows(1.0)) == 0
    assert len(table) == 0
    assert len(table.delta_since(0).fids) == 0


def test_equal_fids_are_summed_in_the_order_given_and_stepped_once() -> None:
    table = Table(2, optimizer=AdaGrad(learning_rate=1.0, initial_accumulator=0.5, epsilon=0.0))
    table.assign(fids(1, 2), rows(0.0, 0.0))
    # In float32 (1e8 + 1) - 1e8 = 0, so the order shows.
    assert table.apply_gradients(fids(1, 2, 1, 3, 1), rows(1e8, 4.0, 1.0, 9.0, -1e8)) == 2
    assert table.lookup(fids(1)).tolist() == [[0.0, 0.0]]
    expected = np.float32(-4.0) / np.sqrt(np.float32(0.5) + np.float32(16.0))
    assert table.lookup(fids(2))[0, 0] == expected


def test_learning_rate_scale_multiplies_the_rate() -> None:
    table = Table(1, optimizer=SGD(learning_rate=0.5))
    table.assign(fids(1), rows(1.0, dim=1))
    table.apply_gradients(fids(1), rows(1.0, dim=1), learning_rate_scale=0.5)
    assert table.lookup(fids(1)).item() == 0.75


def test_assign_keeps_state_and_passes_admission() -> None:
    table = Table(2, rules={0: RowRules(admit_after=10)})
    table.assign(fids(1, 1), rows(5.0, 6.0))
    assert table.lookup(fids(1)).tolist() == [[6.0, 6.0]]
    assert table.counts(fids(1)).tolist() == [0]
    table.apply_gradients(fids(1), rows(1.0))
    state = next(table.export_chunks()).states.tolist()
    table.assign(fids(1), rows(7.0))
    assert next(table.export_chunks()).states.tolist() == state


def test_expiry_goes_by_slot_and_the_time_of_the_data() -> None:
    brief, lasting = 1, 2
    table = Table(2, rules={brief: RowRules(expire_after_us=HOUR_US)})
    ids = fids((brief << SLOT_BITS) + 1, (brief << SLOT_BITS) + 2, (lasting << SLOT_BITS) + 1)
    table.lookup_or_insert(ids, now_us=0)
    table.lookup_or_insert(ids[1:2], now_us=1)
    assert table.expire(HOUR_US - 1) == 0
    assert table.expire(HOUR_US) == 1
    assert table.contains(ids).tolist() == [False, True, True]
    assert table.slots() == {brief: 1, lasting: 1}
    assert table.total_count(brief) == 2


def test_pending_counts_expire_too() -> None:
    table = Table(2, rules={0: RowRules(admit_after=2, expire_after_us=HOUR_US)})
    table.lookup_or_insert(fids(1), 0)
    table.expire(HOUR_US)
    assert len(table.pending().fids) == 0


def test_a_row_that_expired_and_came_back_starts_afresh() -> None:
    table = Table(2, rules={0: RowRules(expire_after_us=1)})
    born = table.lookup_or_insert(fids(1), 0)
    table.apply_gradients(fids(1), rows(1.0))
    table.expire(1)
    assert table.lookup_or_insert(fids(1), 2).tobytes() == born.tobytes()
    chunk = next(table.export_chunks())
    assert chunk.states.tolist() == [[pytest.approx(0.1), pytest.approx(0.1)]]


def test_freed_rows_are_used_again_and_memory_does_not_creep() -> None:
    table = Table(16)
    ids = np.arange(50_000)
    sizes = []
    for cycle in range(6):
        table.lookup_or_insert(ids + cycle * len(ids), 0)
        sizes.append(table.memory().row_bytes)
        assert table.erase(ids + cycle * len(ids)) == len(ids)
        table.advance_epoch()
        table.forget_epochs(table.epoch)
    assert len(set(sizes)) == 1
    assert table.memory().row_bytes < sizes[0] / 10


@pytest.mark.parametrize(
    "make_ids",
    [
        np.arange,
        lambda n: np.arange(n) << 33,
        lambda n: np.arange(n) * 65_536 + 12_345,
        lambda n: np.random.default_rng(1).permutation(1 << 22)[:n].astype(np.int64) << 40,
    ],
    ids=["consecutive", "same-low-bits", "stride", "random-high-bits"],
)
def test_adversarial_keys_each_keep_their_own_row(make_ids: Callable[[int], NDArray[np.int64]]) -> None:
    ids = make_ids(200_000)
    table = Table(1)
    vectors = np.arange(len(ids), dtype=np.float32)[:, None]
    table.assign(ids, vectors)
    assert len(table) == len(ids)
    assert np.array_equal(table.lookup(ids), vectors)
    # They fill the index no worse than random ones do; at this size its memory varies by what growth leaves behind.
    chance = Table(1)
    chance.assign(np.random.default_rng(2).integers(0, 1 << 62, len(ids)), vectors)
    assert table.memory().index_bytes < 1.5 * chance.memory().index_bytes


def test_a_million_keys_grow_the_table_and_read_back_their_own_rows() -> None:
    ids = np.unique(np.random.default_rng(3).integers(0, 1 << 62, 1_000_000))
    table = Table(2)
    vectors = np.stack([np.arange(len(ids)), -np.arange(len(ids))], axis=1).astype(np.float32)
    table.assign(ids, vectors)
    assert len(table) == len(ids)
    assert np.array_equal(table.lookup(ids), vectors)
    # Buckets of 64 bytes hold 5 FIDs each and are more than 0.7 full, since segments grow by quarters.
    assert table.memory().index_bytes / len(ids) < 64 / 5 / 0.7 * 1.2  # A fifth for what growth leaves behind.
    assert not table.contains(ids ^ 1)[~np.isin(ids ^ 1, ids)].any()
    assert table.erase(ids[::2]) == len(ids[::2])
    assert np.array_equal(table.contains(ids), np.arange(len(ids)) % 2 == 1)


def test_delta_tells_each_touched_row_once_with_its_current_vector() -> None:
    table = Table(2)
    table.lookup_or_insert(fids(1, 2, 3, 4), 0)
    epoch = table.advance_epoch()
    table.lookup_or_insert(fids(1), 1)  # Seen, not changed.
    table.apply_gradients(fids(2), rows(1.0))
    assert table.advance_epoch() == epoch + 1
    table.apply_gradients(fids(2), rows(1.0))
    table.erase(fids(3, 4))
    table.assign(fids(4), rows(9.0))
    delta = table.delta_since(epoch)
    assert sorted(delta.fids.tolist()) == [2, 4]
    assert np.array_equal(delta.vectors, table.lookup(delta.fids))
    assert delta.removed.tolist() == [3]
    assert sorted(table.delta_since(0).fids.tolist()) == [1, 2, 4]


def test_forgotten_epochs_are_refused_by_name() -> None:
    table = Table(2)
    table.advance_epoch()
    table.forget_epochs(1)
    with pytest.raises(ValueError, match="epoch must be between 1 and 1, got 0"):
        table.delta_since(0)
    with pytest.raises(ValueError, match="before must be between 0 and the current epoch 1, got 2"):
        table.forget_epochs(2)


def test_delta_applied_twice_changes_nothing_more() -> None:
    source, replica = Table(2), Table(2, optimizer=SGD())
    replica.assign(fids(3, 8), rows(1.0, 2.0))
    source.lookup_or_insert(fids(1, 2, 3), 0)
    source.erase(fids(3))
    delta = source.delta_since(0)
    for _ in range(2):
        replica.apply_delta(delta)
        assert len(replica) == 3
        assert (
            replica.lookup(fids(1, 2, 3, 8)).tobytes()
            == np.concatenate([source.lookup(fids(1, 2, 3)), rows(2.0)]).tobytes()
        )
    assert sorted(replica.delta_since(0).fids.tolist()) == [8]


def test_chunks_restore_into_a_table_with_a_life_of_its_own() -> None:
    source, target = Table(2, seed=1), Table(2, seed=2)
    source.lookup_or_insert(np.arange(10), 5)
    target.lookup_or_insert(np.arange(100, 105), 6)
    for chunk in source.export_chunks(chunk_rows=4):
        assert len(chunk.fids) <= 4
        target.restore_chunk(type(chunk)(chunk.fids, chunk.vectors, chunk.states, chunk.last_seen_us, chunk.counts))
    assert len(target) == 15
    assert target.lookup(np.arange(10)).tobytes() == source.lookup(np.arange(10)).tobytes()
    assert target.last_seen(fids(3, 100)).tolist() == [5, 6]
    with pytest.raises(ValueError, match="must be new"):
        target.restore_chunk(next(source.export_chunks()))


def test_torch_tensors_are_used_where_they_lie() -> None:
    table = Table(2)
    out = torch.empty(2, 2)
    got = table.lookup_or_insert(torch.tensor([1, 2]), 0, out=out.numpy())
    assert torch.equal(torch.from_numpy(got), out)
    table.apply_gradients(torch.tensor([1]), torch.ones(1, 2))
    assert not np.array_equal(table.lookup(fids(1)), got[:1])


@pytest.mark.parametrize("optimizer", [SGD(), AdaGrad(), Adam()], ids=lambda optimizer: optimizer.name)
def test_the_same_calls_give_the_same_bytes(optimizer: SGD | AdaGrad | Adam) -> None:
    def run() -> tuple[bytes, bytes]:
        table = Table(3, optimizer=optimizer, rules={0: RowRules(admit_after=2, expire_after_us=50)})
        rng = np.random.default_rng(8)
        for step in range(60):
            ids = rng.integers(0, 300, 100)
            vectors = table.lookup_or_insert(ids, step)
            table.apply_gradients(ids, vectors + np.float32(0.1))
            if step % 20 == 19:
                table.expire(step + 35)
        chunks = list(table.export_chunks())
        return b"".join(c.fids.tobytes() + c.vectors.tobytes() + c.states.tobytes() for c in chunks), bytes(
            table.delta_since(0).vectors.tobytes()
        )

    assert run() == run()


def test_a_clone_goes_its_own_way() -> None:
    table = Table(2, rules={0: RowRules(admit_after=2)})
    table.assign(fids(1), rows(1.0))
    table.lookup_or_insert(fids(2), 0)
    twin = table.clone()
    twin.assign(fids(1), rows(3.0))
    assert table.lookup(fids(1)).tolist() == [[1.0, 1.0]]
    assert twin.lookup_or_insert(fids(2), 0).any()
    assert not table.lookup(fids(2)).any()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda t: t.lookup(fids(1, -5)), r"fids must not be negative, got -5 at position 1"),
        (lambda t: t.lookup(np.array([1.0])), r"fids must be int64, got float64"),
        (lambda t: t.lookup(np.zeros((2, 2), np.int64)), r"fids must have one dimension"),
        (lambda t: t.lookup(fids(1), out=np.empty((2, 2), np.float32)), r"out must have the shape \(1, 2\).*\(2, 2\)"),
        (lambda t: t.lookup(fids(1), out=np.empty((1, 2))), r"out must be contiguous writable float32"),
        (lambda t: t.apply_gradients(fids(1), np.ones((1, 3), np.float32)), r"grads must have the shape \(1, 2\)"),
        (lambda t: t.apply_gradients(fids(1), np.ones((1, 2))), r"grads must be float32, got float64"),
        (lambda t: t.apply_gradients(fids(1), rows(1.0), float("nan")), r"learning_rate_scale must be"),
        (lambda t: t.assign(fids(1), rows(1.0, 2.0)), r"vectors must have the shape \(1, 2\)"),
        (lambda t: t.lookup_or_insert(fids(1), -1), r"now_us must be"),
        (lambda t: t.total_count(1024), r"slot must be between 0 and 1023, got 1024"),
        (lambda t: t.delta_since(5), r"epoch must be between 0 and 0, got 5"),
        (lambda t: t.apply_delta(Delta(fids(1), rows(1.0), fids(-1))), r"removed must not be negative"),
        (lambda _: Table(0), r"dim must be between"),
        (lambda _: Table(2, rules={2000: RowRules()}), r"slot must be between"),
        (lambda _: Table(2, initial_range=float("nan")), r"initial_range must be"),
        (lambda _: RowRules(admit_after=-1), r"RowRules.admit_after must be 0 or more, got -1"),
    ],
)
def test_bad_arguments_are_named_and_change_nothing(call: Callable[[Table], object], message: str) -> None:
    table = Table(2)
    with pytest.raises(ValueError, match=message):
        call(table)
    assert len(table) == 0
    assert table.time_seen_max_us == 0


@pytest.mark.parametrize("threads", [1, 2])
def test_a_count_stays_at_its_largest_value(threads: int) -> None:
    count_max = 2**32 - 1
    table = Table(2, optimizer=SGD(), threads=threads)
    table.restore_chunk(
        RowChunk(
            fids=fids(7, 8, 9),
            vectors=rows(1, 2, 3),
            states=np.empty((3, 0), dtype=np.float32),
            last_seen_us=fids(0, 0, 0),
            counts=fids(count_max - 5000, count_max + 1, 0),  # files carry 64 bits
        )
    )
    batch = np.tile(fids(7, 8, 9), 3000)  # enough for two threads, which both meet each row
    table.lookup_or_insert(batch, 1)
    assert table.counts(fids(7, 8, 9)).tolist() == [count_max - 2000, count_max, 3000]
    table.lookup_or_insert(batch, 2)
    assert table.counts(fids(7, 8, 9)).tolist() == [count_max, count_max, 6000]
    assert table.total_count(0) == 2 * count_max + 6000  # what was not counted is in no total either

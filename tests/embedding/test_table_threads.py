"""Readers beside a writer: no torn row, none of another FID, no present row missed; and batches that threads share."""

import threading
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dolmen.embedding import AdaGrad, Adam, Embeddings, Optimizer, RowRules
from dolmen.embedding.table import Table
from dolmen.features import Absent, Admission, Schema, Slot

DIM = 33  # Several cache lines, and an odd end.
STABLE = np.arange(20_000)


def test_readers_never_see_half_a_row() -> None:
    """The writer changes all columns of a row at once, and grows the table, erases and moves rows meanwhile."""
    table = Table(DIM)
    # The stable FIDs are always present; column values: FID, or FID + 0.5.
    table.assign(STABLE, np.repeat(STABLE[:, None], DIM, axis=1).astype(np.float32))
    stop, failures, read_count = threading.Event(), [], [0]

    def read() -> None:
        rng = np.random.default_rng(threading.get_ident() % 1000)
        while not stop.is_set():
            ids = rng.choice(STABLE, 3000)
            rows = table.lookup(ids)
            if not (rows == rows[:, :1]).all():
                failures.append("torn")
            if not np.isin(rows[:, 0] - ids, [0.0, 0.5]).all():
                failures.append("wrong")
            churned = 1_000_000 + rng.integers(0, 100_000, 1000)
            found = table.lookup(churned)
            if not (((found == churned[:, None].astype(np.float32)).all(axis=1)) | (found == 0).all(axis=1)).all():
                failures.append("churn")
            if not table.contains(ids).all():
                failures.append("missed")
            read_count[0] += len(ids)

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    deadline = time.monotonic() + 4
    rng = np.random.default_rng(0)
    step = 0
    while time.monotonic() < deadline:
        ids = rng.choice(STABLE, 2000)
        table.assign(ids, np.repeat(ids[:, None] + 0.5 * (step % 2), DIM, axis=1).astype(np.float32))
        churned = 1_000_000 + (np.arange(5000) + 5000 * (step % 20))
        table.assign(churned, np.repeat(churned[:, None], DIM, axis=1).astype(np.float32))
        if step % 20 == 19:
            table.erase(1_000_000 + np.arange(100_000))
            table.forget_epochs(table.advance_epoch())
        step += 1
    stop.set()
    for reader in readers:
        reader.join()
    assert failures == []
    assert read_count[0] > 0


def test_writers_are_put_in_line() -> None:
    table = Table(4)
    ids = np.arange(5000)

    def write() -> None:
        for _ in range(20):
            table.lookup_or_insert(ids, 1)

    writers = [threading.Thread(target=write) for _ in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert (table.counts(ids) == 60).all()
    assert table.total_count(0) == 60 * len(ids)


RULES = {
    1: RowRules(admit_after=2, absent=Absent.START),
    2: RowRules(admit_after=3, admission=Admission.PROPORTIONAL),
    3: RowRules(capacity=1000, learning_rate_scale=0.5),
}


@pytest.mark.property
@settings(max_examples=12, deadline=None)
@given(
    st.integers(1, 20),
    st.sampled_from([AdaGrad(), Adam(weight_decay=0.1, gradient_norm_max=0.5)]),
    st.floats(1.01, 2.0),
    st.integers(0, 1000),
)
def test_however_many_threads_share_a_batch_the_table_has_the_same_bytes(
    dim: int, optimizer: Optimizer, exponent: float, seed: int
) -> None:
    tables = {threads: Table(dim, optimizer=optimizer, rules=RULES, threads=threads) for threads in (1, 2, 4)}
    rng = np.random.default_rng(seed)
    for step in range(1, 5):
        # Some ids come many times, some are new, and slots come by turns as well as mixed.
        size = int(rng.integers(6000, 12_000))
        slots = np.sort(rng.integers(0, 4, size)) if step % 2 else rng.integers(0, 4, size)
        fids = (slots << 53) + np.minimum(rng.zipf(exponent, size), 20_000)
        gradients = rng.normal(size=(size, dim)).astype(np.float32)
        seen = [table.lookup_or_insert(fids, step) for table in tables.values()]
        updated = {table.apply_gradients(fids, gradients) for table in tables.values()}
        read = [table.lookup(fids) for table in tables.values()]
        assert len(updated) == 1
        assert all(one.tobytes() == seen[0].tobytes() for one in seen)
        assert all(one.tobytes() == read[0].tobytes() for one in read)
        for table in tables.values():
            table.maintain()
            table.advance_epoch()
    with TemporaryDirectory() as folder:
        for threads, table in tables.items():
            table.save(Path(folder) / str(threads))
        for path in (Path(folder) / "1").iterdir():
            for threads in tables:
                assert (Path(folder) / str(threads) / path.name).read_bytes() == path.read_bytes()


def test_threads_are_an_option_of_the_embeddings_and_stay_with_copies() -> None:
    with pytest.raises(ValueError, match="threads must be between 1 and 64, got 0"):
        Table(4, threads=0)
    embeddings = Embeddings(Schema(Slot("user", dim=4), Slot("item", dim=8)), threads=2)
    assert [table.threads for table in embeddings.tables.values()] == [2, 2]
    embeddings.threads = 3
    assert embeddings.threads == embeddings.tables[8].clone().threads == 3
    with pytest.raises(ValueError, match="got 65"):
        embeddings.threads = 65

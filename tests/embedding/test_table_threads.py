"""Readers beside a writer: no torn row, no row of another FID, no present row missed."""

import threading
import time

import numpy as np

from dolmen.embedding.table import Table

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

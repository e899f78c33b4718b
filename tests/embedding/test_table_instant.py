"""An instant is one: whatever is changed, removed or put in its place afterwards, it gives the rows as they were."""

import threading
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from dolmen._core import NativeTable
from dolmen.embedding import SGD, AdaGrad
from dolmen.embedding.instant import TableInstant
from dolmen.embedding.table import RowChunk, RowRules, Table

Rows = dict[int, tuple[int, bytes, bytes, int, int, int]]

FIDS = st.lists(st.integers(0, 150), min_size=1, max_size=40)


def by_fid(chunks: Iterator[RowChunk]) -> Rows:
    found: Rows = {}
    for chunk in chunks:
        assert chunk.epochs is not None
        assert chunk.row_numbers is not None
        for i, fid in enumerate(chunk.fids.tolist()):
            assert fid not in found, "each row is given out once"
            found[fid] = (
                int(chunk.row_numbers[i]),
                chunk.vectors[i].tobytes(),
                chunk.states[i].tobytes(),
                int(chunk.last_seen_us[i]),
                int(chunk.counts[i]),
                int(chunk.epochs[i]),
            )
    return found


class InstantsOfOneTable(RuleBasedStateMachine):
    """Several instants are open at once and read in pieces; each must equal what the table was when it was taken."""

    def __init__(self) -> None:
        super().__init__()
        self.table = Table(3, optimizer=AdaGrad(), seed=4, rules={0: RowRules(expire_after_us=20)})
        self.now = 0
        # Of each open instant: what it must give, what it gave so far, and where to read on.
        self.open: list[tuple[TableInstant, Rows, Rows, int]] = []

    @rule(fids=FIDS)
    def see(self, fids: list[int]) -> None:
        self.now += 1
        self.table.lookup_or_insert(np.array(fids), self.now)

    @rule(fids=FIDS)
    def learn(self, fids: list[int]) -> None:
        self.table.apply_gradients(np.array(fids), np.ones((len(fids), 3), dtype=np.float32))

    @rule(fids=FIDS)
    def assign(self, fids: list[int]) -> None:
        self.table.assign(np.array(fids), np.full((len(fids), 3), self.now, dtype=np.float32))

    @rule(fids=FIDS)
    def erase(self, fids: list[int]) -> None:
        self.table.erase(np.array(fids))

    @rule(later=st.integers(0, 30))
    def expire(self, later: int) -> None:
        self.now += later
        self.table.expire(self.now)

    @rule()
    def advance(self) -> None:
        self.table.advance_epoch()

    @rule()
    def take(self) -> None:
        if len(self.open) < 3:
            with self.table.instant() as naive:  # Read at once: nothing can have changed.
                expected = by_fid(naive.chunks())
            assert len(expected) == len(self.table)
            self.open.append((self.table.instant(), expected, {}, 0))

    @rule(which=st.integers(0, 2), row_count=st.integers(1, 90))
    def read_a_piece(self, which: int, row_count: int) -> None:
        if which < len(self.open):
            instant, expected, found, begin = self.open[which]
            chunk, begin = instant.read(instant.buffer(row_count), begin, instant.row_end)
            self.open[which] = (instant, expected, found | by_fid(iter([chunk])), begin)

    @rule()
    def finish(self) -> None:
        if self.open:
            instant, expected, found, begin = self.open.pop(0)
            rest = by_fid(instant.chunks(begin, chunk_rows=70))
            assert not rest.keys() & found.keys()
            assert found | rest == expected
            assert instant.header.row_count == len(expected)
            instant.close()

    @invariant()
    def gives_nothing_foreign(self) -> None:
        for _, expected, found, _ in self.open:
            assert found.items() <= expected.items()

    def teardown(self) -> None:
        while self.open:
            self.finish()


TestInstantsOfOneTable = pytest.mark.property(InstantsOfOneTable.TestCase)
TestInstantsOfOneTable.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


def test_an_instant_lies_between_two_calls_of_a_writer_that_goes_on() -> None:
    # Each call moves every row by one, so rows of two moments would differ.
    table, fids = Table(2, optimizer=SGD(learning_rate=1.0), initial_range=0.0), np.arange(20_000)
    table.lookup_or_insert(fids, 1)
    stop, steps = threading.Event(), [0]

    def write() -> None:
        grads = np.full((len(fids), 2), -1.0, dtype=np.float32)
        while not stop.is_set():
            table.apply_gradients(fids, grads)
            steps[0] += 1

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(8):
            before = steps[0]
            with table.instant() as instant:
                chunks = list(instant.chunks(chunk_rows=1000))
            values = np.concatenate([chunk.vectors for chunk in chunks])
            assert values.shape == (20_000, 2)
            assert values.min() == values.max() >= before
            assert np.array_equal(np.concatenate([chunk.fids for chunk in chunks]), fids)
    finally:
        stop.set()
        writer.join()


def test_a_delta_is_of_one_instant_while_a_writer_goes_on() -> None:
    table, fids = Table(2, optimizer=SGD(learning_rate=1.0), initial_range=0.0), np.arange(20_000)
    table.lookup_or_insert(fids, 1)
    stop = threading.Event()

    def write() -> None:
        grads = np.full((len(fids), 2), -1.0, dtype=np.float32)
        while not stop.is_set():
            table.apply_gradients(fids, grads)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(8):
            delta = table.delta_since(table.epoch)
            assert np.array_equal(delta.fids, fids)
            assert delta.vectors.min() == delta.vectors.max()
    finally:
        stop.set()
        writer.join()


def test_several_threads_read_stretches_of_one_instant() -> None:
    table, fids = Table(4, seed=2), np.arange(10_000)
    table.lookup_or_insert(fids, 1)
    expected = table.lookup(fids)
    found: dict[int, np.ndarray] = {}
    with table.instant() as instant:

        def read(begin: int) -> None:
            found[begin] = np.concatenate([c.vectors for c in instant.chunks(begin, begin + 2560, chunk_rows=300)])

        threads = [threading.Thread(target=read, args=(begin,)) for begin in range(0, 10_000, 2560)]
        for thread in threads:
            thread.start()
        table.apply_gradients(fids, expected)
        for thread in threads:
            thread.join()
    assert np.array_equal(np.concatenate([found[begin] for begin in sorted(found)]), expected)


def test_a_closed_instant_says_so_and_costs_the_writer_nothing_more() -> None:
    table = Table(2)
    table.lookup_or_insert(np.arange(5), 1)
    instant = table.instant()
    instant.close()
    instant.close()
    with pytest.raises(ValueError, match="was closed; take another"):
        instant.read(instant.buffer(5), 0, 5)
    table.lookup_or_insert(np.arange(5), 2)


def test_an_instant_that_is_forgotten_lets_go_of_its_table() -> None:
    table = Table(2)
    table.lookup_or_insert(np.arange(5), 1)
    instant = table.instant()
    del table  # The instant keeps the rows alive.
    assert len(next(instant.chunks()).fids) == 5
    del instant


@pytest.mark.parametrize(
    "take", [lambda table: table.all_rows(), lambda table: table.changes_since(0)], ids=["rows", "changes"]
)
def test_whoever_drops_an_instant_waits_for_the_writer_and_other_threads_do_not(
    take: Callable[[NativeTable], object],
) -> None:
    table = NativeTable(8, "sgd", {"learning_rate": 1.0, "weight_decay": 0.0}, 0, 0, 0.0, "float32")
    fids = np.arange(1_500_000)
    held = [take(table)]
    writer = threading.Thread(target=table.lookup_or_insert, args=(fids, 1, np.empty((len(fids), 8), np.float32)))
    dropper = threading.Thread(target=held.clear)
    writer.start()
    while len(table) == 0:
        assert writer.is_alive()
    # From the first row to the last the writer has its lock, and the table grows.
    dropper.start()
    sizes = [len(table)]
    while dropper.is_alive():
        sizes.append(len(table))
    writer.join()
    assert any(len(fids) // 2 < size < len(fids) for size in sizes)

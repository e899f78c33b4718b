"""The indexes against a plain dict, whatever happens to them, and the graph against the exact one."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from dolmen.indexes import ABSENT, ExactIndex, GraphIndex, GrowingIndex, Index

DIM = 8
Kind = Callable[[int], Index]
KINDS = [ExactIndex, GraphIndex, partial(GrowingIndex, graph_above=300)]

# A handful of ids and a grid of numbers, so that operations meet on the same vectors and products are exact.
IDS = st.lists(st.integers(0, 9), min_size=0, max_size=6)
NUMBERS = st.integers(-3, 3)


class IndexAgainstDict(RuleBasedStateMachine):
    """Whatever the order of operations, an index and a plain dict hold and find the same."""

    kind: Kind

    def __init__(self) -> None:
        super().__init__()
        self.index = type(self).kind(3)
        self.expected: dict[int, np.ndarray] = {}

    @rule(ids=IDS, data=st.data())
    def upsert(self, ids: list[int], data: st.DataObject) -> None:
        rows = data.draw(st.lists(st.tuples(NUMBERS, NUMBERS, NUMBERS), min_size=len(ids), max_size=len(ids)))
        vectors = np.array(rows, dtype=np.float32).reshape(len(ids), 3)
        self.index.upsert(np.array(ids, dtype=np.int64), vectors)
        self.expected.update(zip(ids, vectors, strict=True))

    @rule(ids=IDS)
    def remove(self, ids: list[int]) -> None:
        self.index.remove(np.array(ids, dtype=np.int64))
        for one in ids:
            self.expected.pop(one, None)

    @rule(query=st.tuples(NUMBERS, NUMBERS, NUMBERS), k=st.integers(1, 12), odd=st.booleans())
    def search(self, query: tuple[int, int, int], k: int, odd: bool) -> None:
        where = (lambda ids: ids % 2 == 1) if odd else None
        found, scores = self.index.search(np.array([query], dtype=np.float32), k, where)
        held = {one: vector for one, vector in self.expected.items() if not odd or one % 2 == 1}
        best = sorted((float(vector @ np.array(query)) for vector in held.values()), reverse=True)[:k]
        count = len(best)
        assert scores[0, :count].tolist() == best
        assert (found[0, count:] == ABSENT).all()
        assert np.isneginf(scores[0, count:]).all()
        assert len(set(found[0, :count].tolist())) == count
        for one, score in zip(found[0, :count].tolist(), scores[0].tolist(), strict=False):
            assert float(held[one] @ np.array(query)) == score

    @invariant()
    def holds_as_many(self) -> None:
        assert len(self.index) == len(self.expected)


class ExactAgainstDict(IndexAgainstDict):
    kind = ExactIndex


class GraphAgainstDict(IndexAgainstDict):
    kind = GraphIndex


class GrowingAgainstDict(IndexAgainstDict):
    kind = partial(GrowingIndex, graph_above=3)


_SHORT = settings(max_examples=60, stateful_step_count=25, deadline=None)
TestExactAgainstDict = pytest.mark.property(ExactAgainstDict.TestCase)
TestExactAgainstDict.settings = _SHORT
TestGraphAgainstDict = pytest.mark.property(GraphAgainstDict.TestCase)
TestGraphAgainstDict.settings = _SHORT
TestGrowingAgainstDict = pytest.mark.property(GrowingAgainstDict.TestCase)
TestGrowingAgainstDict.settings = _SHORT


def unit_vectors(generator: np.random.Generator, count: int) -> np.ndarray:
    vectors = generator.standard_normal((count, DIM)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def recall(graph: GraphIndex, exact: ExactIndex, queries: np.ndarray, k: int) -> float:
    ours, _ = graph.search(queries, k)
    truth, _ = exact.search(queries, k)
    return float(np.mean([len(np.intersect1d(a, b)) / k for a, b in zip(ours, truth, strict=True)]))


@pytest.mark.property
@pytest.mark.parametrize("seed", [1, 2])
def test_graph_keeps_95_percent_recall_under_random_upserts_and_removes(seed: int) -> None:
    generator = np.random.default_rng(seed)
    graph, exact = GraphIndex(DIM, rebuild_after=2.0), ExactIndex(DIM)
    everything = np.arange(3000)
    for index in (graph, exact):
        index.upsert(everything, unit_vectors(np.random.default_rng(seed), len(everything)))
    for _ in range(12):
        gone = generator.choice(everything, 100, replace=False)
        moved = generator.choice(everything, 500, replace=False)
        vectors = unit_vectors(generator, len(moved))
        for index in (graph, exact):
            index.remove(gone)
            index.upsert(moved, vectors)
    assert len(graph) == len(exact)
    assert recall(graph, exact, unit_vectors(generator, 50), k=50) >= 0.95


def test_recall_holds_where_vectors_have_very_different_lengths() -> None:
    generator = np.random.default_rng(3)
    graph, exact = GraphIndex(DIM), ExactIndex(DIM)
    vectors = unit_vectors(generator, 3000) * generator.lognormal(0.0, 0.5, (3000, 1)).astype(np.float32)
    for index in (graph, exact):
        index.upsert(np.arange(3000), vectors)
    assert recall(graph, exact, unit_vectors(generator, 50), k=50) >= 0.95


def test_rebuilding_changes_nothing_but_the_graph() -> None:
    generator = np.random.default_rng(4)
    graph, exact = GraphIndex(DIM), ExactIndex(DIM)
    vectors = unit_vectors(generator, 1000)
    for index in (graph, exact):
        index.upsert(np.arange(1000), vectors)
        index.remove(np.arange(0, 1000, 3))
    before = len(graph)
    graph.rebuild()
    assert len(graph) == before == len(exact)
    assert recall(graph, exact, unit_vectors(generator, 20), k=20) >= 0.95
    graph.remove(np.arange(1000))
    graph.rebuild()
    assert len(graph) == 0


def test_an_index_that_outgrew_exact_search_answers_as_before_and_stays_a_graph() -> None:
    generator = np.random.default_rng(8)
    growing, exact = GrowingIndex(DIM, graph_above=400), ExactIndex(DIM)
    for start in (0, 200):
        for index in (growing, exact):
            index.upsert(np.arange(start, start + 200), unit_vectors(np.random.default_rng(start), 200))
    assert not growing.has_graph
    for index in (growing, exact):
        index.upsert(np.array([900]), unit_vectors(np.random.default_rng(9), 1))
    assert growing.has_graph
    assert len(growing) == len(exact) == 401
    queries = unit_vectors(generator, 20)
    ours, truth = growing.search(queries, 20)[0], exact.search(queries, 20)[0]
    assert np.mean([len(np.intersect1d(a, b)) / 20 for a, b in zip(ours, truth, strict=True)]) >= 0.95
    growing.remove(np.arange(400))
    assert growing.has_graph
    assert growing.search(queries[:1], 3)[0].tolist() == [[900, ABSENT, ABSENT]]


def test_a_condition_that_only_few_fulfil_still_finds_them_all() -> None:
    generator = np.random.default_rng(5)
    graph = GraphIndex(DIM)
    graph.upsert(np.arange(2000), unit_vectors(generator, 2000))
    rare = np.array([7, 1234, 1999])
    found, _ = graph.search(unit_vectors(generator, 3), 5, where=lambda ids: np.isin(ids, rare))
    assert all(set(row[:3].tolist()) == set(rare.tolist()) for row in found)
    assert (found[:, 3:] == ABSENT).all()


@pytest.mark.parametrize("kind", KINDS)
def test_searching_while_updating_never_meets_a_removed_or_missing_id(kind: Kind) -> None:
    generator = np.random.default_rng(6)
    index = kind(DIM)
    stays, churns = np.arange(0, 200), np.arange(200, 400)
    index.upsert(stays, unit_vectors(generator, 200))
    failures: list[BaseException] = []
    done = threading.Event()

    def search() -> None:
        own = np.random.default_rng(7)
        try:
            while not done.is_set():
                found, scores = index.search(unit_vectors(own, 2), 400)
                for row, products in zip(found, scores, strict=True):
                    held = row[row != ABSENT]
                    assert len(np.unique(held)) == len(held)
                    assert set(stays.tolist()) <= set(held.tolist())
                    assert (np.diff(products[: len(held)]) <= 1e-6).all()
        except BaseException as problem:
            failures.append(problem)

    threads = [threading.Thread(target=search) for _ in range(2)]
    for thread in threads:
        thread.start()
    for _ in range(15):
        index.upsert(churns, unit_vectors(generator, 200))
        index.upsert(stays, unit_vectors(generator, 200))
        index.remove(churns)
    done.set()
    for thread in threads:
        thread.join()
    assert failures == []
    assert len(index) == 200


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("ids", "vectors", "says"),
    [
        ([1, 2], np.zeros((1, DIM)), "vectors"),
        ([1], np.zeros((1, DIM + 1)), str(DIM)),
        ([-1], np.zeros((1, DIM)), "negative"),
        ([3], np.full((1, DIM), np.nan), "id 3"),
    ],
)
def test_a_bad_update_is_refused_whole(kind: Kind, ids: list[int], vectors: np.ndarray, says: str) -> None:
    index = kind(DIM)
    with pytest.raises(ValueError, match=says):
        index.upsert(np.array(ids), vectors.astype(np.float32))
    assert len(index) == 0


@pytest.mark.parametrize("kind", KINDS)
def test_a_query_that_is_no_number_finds_something_and_breaks_nothing(kind: Kind) -> None:
    index = kind(DIM)
    index.upsert(np.arange(10), unit_vectors(np.random.default_rng(10), 10))
    found, _ = index.search(np.full((1, DIM), np.nan, dtype=np.float32), 4)
    assert set(found[0].tolist()) <= set(range(10))
    assert len(set(found[0].tolist())) == 4


@pytest.mark.parametrize("kind", KINDS)
def test_a_search_that_cannot_be_is_refused(kind: Kind) -> None:
    index = kind(DIM)
    with pytest.raises(ValueError, match="queries"):
        index.search(np.zeros((1, DIM + 1), dtype=np.float32), 3)
    with pytest.raises(ValueError, match="at least 1"):
        index.search(np.zeros((1, DIM), dtype=np.float32), 0)
    with pytest.raises(ValueError, match="dim"):
        kind(0)
    found, scores = index.search(np.zeros((2, DIM), dtype=np.float32), 3)
    assert (found == ABSENT).all()
    assert np.isneginf(scores).all()

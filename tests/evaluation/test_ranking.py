"""Ranks and what follows from them, against scikit-learn, against sorting, and against the definitions written out."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import ndcg_score

from dolmen.evaluation import Candidates, Ranks, Ties, rank_catalogue, sampled_ranks
from dolmen.features import Jagged

ITEM_COUNT = 9
METRICS = ("hr", "recall", "precision", "ndcg", "mrr", "map")
# Few distinct scores, so that ties happen.
SCORES = st.lists(st.integers(-2, 2), min_size=ITEM_COUNT, max_size=ITEM_COUNT)
PLACES = st.sets(st.integers(0, ITEM_COUNT - 1), max_size=5).map(sorted)
QUERIES = st.lists(st.tuples(SCORES, PLACES, PLACES), min_size=1, max_size=7)


def rank_all(queries: list[tuple[list[int], list[int], list[int]]], **options: Any) -> Any:
    scores = torch.tensor([query[0] for query in queries], dtype=torch.float32)
    relevant, exclude = (Jagged.from_lists([query[column] for query in queries]) for column in (1, 2))
    return rank_catalogue(lambda places: scores[places], relevant, ITEM_COUNT, exclude=exclude, **options)


def ranks_naively(scores: list[int], relevant: list[int], exclude: list[int], share: float) -> list[float]:
    """Place the relevant items one after the other, best first, each behind the others that stand above it."""
    others = [item for item in range(ITEM_COUNT) if item not in relevant and item not in exclude]
    ranks = []
    for already, item in enumerate(sorted(relevant, key=lambda one: -scores[one])):
        above = sum(scores[other] > scores[item] for other in others)
        equal = sum(scores[other] == scores[item] for other in others)
        ranks.append(1 + already + above + share * equal)
    return ranks


def measure_naively(metric: str, ranks: list[float], k: int) -> float:
    hits = [rank for rank in ranks if rank <= k]
    match metric:
        case "hr":
            return float(bool(hits))
        case "recall":
            return len(hits) / len(ranks)
        case "precision":
            return len(hits) / k
        case "ndcg":
            best = sum(1 / math.log2(place + 2) for place in range(min(len(ranks), k)))
            return sum(1 / math.log2(rank + 1) for rank in hits) / best
        case "mrr":
            return 1 / ranks[0] if ranks[0] <= k else 0.0
        case _:
            return sum((number + 1) / rank for number, rank in enumerate(hits)) / min(len(ranks), k)


@pytest.mark.property
@settings(max_examples=100, deadline=None)
@given(QUERIES, st.sampled_from(Ties), st.integers(1, 4))
def test_ranks_are_those_of_the_naive_twin_however_they_are_chunked(
    queries: list[tuple[list[int], list[int], list[int]]], ties: Ties, queries_at_once: int
) -> None:
    share = 0.5 if ties is Ties.MIDDLE else 1.0
    expected = [ranks_naively(*query, share) for query in queries]

    ranks = rank_all(queries, ties=ties, chunk_bytes=queries_at_once * 4 * ITEM_COUNT).ranks

    assert ranks.values.tolist() == [rank for query in expected for rank in query]
    assert np.diff(ranks.offsets).tolist() == [len(query) for query in expected]
    assert ranks.judged == sum(bool(query) for query in expected)
    assert ranks.skipped == len(queries) - ranks.judged


@pytest.mark.property
@settings(max_examples=100, deadline=None)
@given(QUERIES, st.sampled_from(METRICS), st.integers(1, ITEM_COUNT + 2))
def test_each_measure_is_what_its_definition_says(
    queries: list[tuple[list[int], list[int], list[int]]], metric: str, k: int
) -> None:
    expected = [measure_naively(metric, ranks, k) for query in queries if (ranks := ranks_naively(*query, 0.5))]

    ranks = rank_all(queries).ranks

    assert ranks.of_each(metric, k) == pytest.approx(expected)
    mean = ranks.mean(metric, k)
    assert mean == pytest.approx(np.mean(expected)) if expected else math.isnan(mean)
    assert ranks.of_each(metric, k).max(initial=0) <= 1


@pytest.mark.property
@settings(max_examples=60, deadline=None)
@given(st.permutations(range(ITEM_COUNT)), st.sets(st.integers(0, ITEM_COUNT - 1), min_size=1), st.integers(1, 9))
def test_ndcg_without_ties_agrees_with_scikit_learn(scores: list[int], relevant: set[int], k: int) -> None:
    truth = [[float(item in relevant) for item in range(ITEM_COUNT)]]

    ranks = rank_all([(scores, sorted(relevant), [])]).ranks

    assert ranks.mean("ndcg", k) == pytest.approx(ndcg_score(truth, [scores], k=k))


@pytest.mark.property
@settings(max_examples=60, deadline=None)
@given(QUERIES, st.integers(1, ITEM_COUNT + 2))
def test_the_best_items_are_those_of_a_sort(queries: list[tuple[list[int], list[int], list[int]]], count: int) -> None:
    found = rank_all(queries, top_count=count, chunk_bytes=1).top

    assert found.shape == (len(queries), count)
    for (scores, relevant, exclude), row in zip(queries, found.tolist(), strict=True):
        candidates = [item for item in range(ITEM_COUNT) if item in relevant or item not in exclude]
        listed = [item for item in row if item >= 0]
        assert row == listed + [-1] * (count - len(listed))
        assert len(set(listed)) == len(listed) == min(count, len(candidates))
        assert set(listed) <= set(candidates)
        best = sorted((scores[item] for item in candidates), reverse=True)[:count]
        assert [scores[item] for item in listed] == best


def test_a_model_that_scores_everything_alike_is_in_the_middle_and_not_first() -> None:
    even = [0] * ITEM_COUNT

    assert rank_all([(even, [0], [])]).ranks.values.tolist() == [1 + (ITEM_COUNT - 1) / 2]
    assert rank_all([(even, [0], [])], ties=Ties.PESSIMISTIC).ranks.values.tolist() == [ITEM_COUNT]
    assert sampled_ranks([0.0], [[0.0, 0.0]]).values.tolist() == [2.0]


def test_sampled_ranks_are_ranks_over_a_catalogue_of_the_samples() -> None:
    scores = np.random.default_rng(3).integers(0, 5, (20, ITEM_COUNT)).astype(np.float64)

    sampled = sampled_ranks(scores[:, 0], scores[:, 1:])

    full = rank_all([(row, [0], []) for row in scores.tolist()]).ranks
    assert sampled.values.tolist() == full.values.tolist()
    assert sampled.candidates is Candidates.SAMPLED
    assert full.candidates is Candidates.FULL


def test_figures_say_what_was_ranked_among_and_the_two_kinds_do_not_join() -> None:
    full, sampled = rank_all([([1] * ITEM_COUNT, [0], [])]).ranks, sampled_ranks([1.0], [[0.0]])

    assert list(full.figures((5,), ("ndcg",))) == ["full_ndcg@5"]
    assert list(sampled.figures((5,), ("ndcg",))) == ["sampled_ndcg@5"]
    joined = Ranks.concat([full, rank_all([([0] * ITEM_COUNT, [1, 2], [])]).ranks])
    assert np.diff(joined.offsets).tolist() == [1, 2]
    with pytest.raises(ValueError, match="cannot be joined"):
        Ranks.concat([full, sampled])


def test_memory_stays_bounded_by_the_chunk() -> None:
    """As many scores at once as the chunk allows, never those of all queries."""
    asked: list[int] = []

    def score(places: torch.Tensor) -> torch.Tensor:
        asked.append(len(places))
        return torch.zeros(len(places), 1000)

    rank_catalogue(score, Jagged.from_lists([[1]] * 95), 1000, chunk_bytes=40_000)

    assert asked == [10] * 9 + [5]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"relevant": [[ITEM_COUNT]]}, f"relevant holds places {ITEM_COUNT} to {ITEM_COUNT}; the catalogue has"),
        ({"relevant": [[2, 0, 2]]}, "relevant names item 2 twice for query 0; name each once"),
        ({"exclude": [[-1]]}, "exclude holds places -1 to -1"),
        ({"exclude": [[], []]}, "exclude has 2 rows for 1 queries"),
        ({"scores": [[0.0] * 3]}, "scores must have shape"),
        ({"scores": [[0.0] * (ITEM_COUNT - 1) + [math.nan]]}, "score of query 0 is NaN"),
        ({"ties": "optimistic"}, "optimistic"),
    ],
)
def test_what_does_not_fit_is_named(options: dict[str, Any], told: str) -> None:
    scores = torch.tensor(options.pop("scores", [[0.0] * ITEM_COUNT]))
    jagged = {name: Jagged.from_lists(options.pop(name, [[]])) for name in ("relevant", "exclude")}

    with pytest.raises(ValueError, match=told):
        rank_catalogue(lambda _: scores, jagged["relevant"], ITEM_COUNT, exclude=jagged["exclude"], **options)


def test_unknown_measures_and_bad_shapes_are_refused() -> None:
    ranks = sampled_ranks([1.0], [[0.0]])
    with pytest.raises(ValueError, match="metric must be one of hr, recall"):
        ranks.of_each("dcg", 5)
    with pytest.raises(ValueError, match="k must be at least 1, got 0"):
        ranks.of_each("hr", 0)
    with pytest.raises(ValueError, match=r"got \(1,\) and \(1,\)"):
        sampled_ranks([1.0], [0.0])
    with pytest.raises(ValueError, match="NaN"):
        sampled_ranks([math.nan], [[0.0]])

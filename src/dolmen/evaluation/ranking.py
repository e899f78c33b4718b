"""Where the right items stand among the candidates, and every measure that follows from it.

Ranks over the whole catalogue and ranks among a few sampled candidates give figures that are not comparable and may
even order models differently (W. Krichene, S. Rendle, "On Sampled Metrics for Item Recommendation", KDD 2020). So
``Ranks`` says which it holds, its figures carry the name, ``full_ndcg@10`` or ``sampled_ndcg@10``, and the two kinds
refuse to be joined.

*Ties.* A model that gives everything one score must not look good because the right item happens to stand first. A
relevant item's rank is 1 + the relevant items above it + the others above it + half of the others that score the same
(``Ties.MIDDLE``), or all of them (``Ties.PESSIMISTIC``). So a rank may be half-way between two integers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, TypeAlias, final

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from dolmen.evaluation.guards import require_distinct
from dolmen.features import Jagged

__all__ = ["Candidates", "CatalogueRanking", "Ranks", "Ties", "rank_catalogue", "sampled_ranks"]

ScoreItems: TypeAlias = Callable[[Tensor], Tensor]
"""Scores of every item of the catalogue for the queries at these places: (n,) int64 -> (n, item_count)."""

_CHUNK_BYTES: Final = 16 << 20  # the scores that exist at once: near the caches, and no matrix of people and items
_METRICS: Final = ("hr", "recall", "precision", "ndcg", "mrr", "map")


class Candidates(StrEnum):
    """What the right items were ranked among."""

    FULL = "full"  # the whole catalogue, less what the query excludes
    SAMPLED = "sampled"  # a few drawn items


class Ties(StrEnum):
    """How many of the other items with the same score stand above the relevant one."""

    MIDDLE = "middle"  # half of them: what a random order gives on average
    PESSIMISTIC = "pessimistic"  # all of them


@final
@dataclass(frozen=True, eq=False)
class Ranks:
    """The ranks of each query's relevant items, from 1, ascending: query i has ``values[offsets[i]:offsets[i + 1]]``.

    ``values``: float64, shape (relevant items of all queries,). ``offsets``: int64, shape (queries + 1,).
    A query without relevant items cannot be judged: it is left out of every mean, and counted in ``skipped``.
    """

    candidates: Candidates
    values: NDArray[np.float64]
    offsets: NDArray[np.int64]

    @property
    def judged(self) -> int:
        """Queries that have relevant items."""
        return int((np.diff(self.offsets) > 0).sum())

    @property
    def skipped(self) -> int:
        """Queries that have none."""
        return len(self.offsets) - 1 - self.judged

    def of_each(self, metric: str, k: int) -> NDArray[np.float64]:
        """One measure of each judged query, in order, shape (judged,). Its mean is the figure; pairs of it are tested.

        ``n`` is how many relevant items a query has, and a hit one of them with a rank of at most ``k``:

        - ``hr``: 1 if there is a hit. ``recall``: hits / n. ``precision``: hits / k.
        - ``ndcg``: sum of 1 / log2(rank + 1) over hits, over the best possible sum, min(n, k) first ranks
          (K. Järvelin, J. Kekäläinen, TOIS 2002, with gains of 0 and 1).
        - ``mrr``: 1 / the best rank, 0 if that is beyond ``k``.
        - ``map``: sum over hits of (hits up to it / its rank), over min(n, k).

        Raises:
            ValueError: there is no such measure, or ``k`` is below 1.
        """
        if metric not in _METRICS:
            raise ValueError(f"metric must be one of {', '.join(_METRICS)}, got {metric!r}")
        if k < 1:
            raise ValueError(f"k must be at least 1, got {k}")
        counts = np.diff(self.offsets)
        counts = counts[counts > 0]
        queries = np.repeat(np.arange(len(counts)), counts)
        hits = self.values <= k
        place = np.arange(len(self.values)) - np.repeat(np.cumsum(counts) - counts, counts)  # among its query's own
        hit_counts = np.bincount(queries, hits, len(counts))
        match metric:
            case "hr":
                return (hit_counts > 0).astype(np.float64)
            case "recall":
                return np.asarray(hit_counts / counts)
            case "precision":
                return np.asarray(hit_counts / k)
            case "ndcg":
                gains = np.bincount(queries, hits / np.log2(self.values + 1), len(counts))
                best = np.cumsum(1 / np.log2(np.arange(k) + 2))
                return np.asarray(gains / best[np.minimum(counts, k) - 1])
            case "mrr":
                first = place == 0
                return np.asarray((hits / self.values)[first])
            case _:
                precisions = np.bincount(queries, hits * (place + 1) / self.values, len(counts))
                return np.asarray(precisions / np.minimum(counts, k))

    def mean(self, metric: str, k: int) -> float:
        """The mean of ``of_each`` over judged queries; ``nan`` if there are none."""
        values = self.of_each(metric, k)
        return float(values.mean()) if len(values) else float("nan")

    def figures(self, ks: Sequence[int] = (10,), metrics: Sequence[str] = ("hr", "ndcg", "mrr")) -> dict[str, float]:
        """Means by name, such as ``full_ndcg@10``: the name says what was ranked among.

        >>> ranks = Ranks(Candidates.SAMPLED, np.array([1.0, 3.0]), np.array([0, 1, 2]))
        >>> ranks.figures((1, 10), ("hr", "ndcg"))
        {'sampled_hr@1': 0.5, 'sampled_ndcg@1': 0.5, 'sampled_hr@10': 1.0, 'sampled_ndcg@10': 0.75}
        """
        return {f"{self.candidates}_{metric}@{k}": self.mean(metric, k) for k in ks for metric in metrics}

    @classmethod
    def concat(cls, parts: Sequence[Ranks]) -> Ranks:
        """The queries of all parts (at least one), one part after the other.

        Raises:
            ValueError: some ranks are among the whole catalogue and some among samples.
        """
        kinds = {part.candidates for part in parts}
        if len(kinds) > 1:
            raise ValueError("full and sampled ranks cannot be joined: their figures mean different things")
        ends = np.cumsum([0, *(part.offsets[-1] for part in parts)])
        offsets = [np.zeros(1, dtype=np.int64)]
        offsets += [part.offsets[1:] + end for part, end in zip(parts, ends[:-1], strict=True)]
        return cls(parts[0].candidates, np.concatenate([part.values for part in parts]), np.concatenate(offsets))


@final
@dataclass(frozen=True, eq=False)
class CatalogueRanking:
    """``ranks`` over the whole catalogue; ``top``: the places of the best items of each query, shape (queries, k)."""

    ranks: Ranks
    top: NDArray[np.int64]


def rank_catalogue(
    score: ScoreItems,
    relevant: Jagged,
    item_count: int,
    *,
    exclude: Jagged | None = None,
    top_count: int = 0,
    ties: Ties | str = Ties.MIDDLE,
    chunk_bytes: int = _CHUNK_BYTES,
) -> CatalogueRanking:
    """Rank every item of the catalogue for each query, a few queries at a time, so that memory stays bounded.

    Scores are compared as float32, or as float64 where they are.

    Args:
        score: given places of queries, the scores of all items, on any device. For query and item vectors:
            ``lambda places: queries[places] @ items.T``.
        relevant: each query's right items, as places in the catalogue, without repeats.
        item_count: how many items the catalogue has.
        exclude: items that are no candidates, such as what was trained on; those that are relevant stay candidates.
        top_count: how many of the best items to keep of each query; among equal scores the order is arbitrary. Where
            fewer than that are candidates, the list ends in -1. An item with a score of -inf is never among them.
        ties: what stands above the relevant item among equals.
        chunk_bytes: bound of the scores held at once, and of the copy of them that ``exclude`` needs (one query's
            scores are always held).

    Raises:
        ValueError: shapes do not fit, a place is outside the catalogue, a query's right item is named twice, or a score
            is NaN.
    """
    for name, places in (("relevant", relevant), ("exclude", exclude)):
        if places is not None:
            _check_places(name, places, relevant.size, item_count)
    require_distinct("relevant", relevant)
    ties = Ties(ties)
    step = max(1, chunk_bytes // (4 * max(item_count, 1)))
    ranks: list[NDArray[np.float64]] = []
    top = np.full((relevant.size, top_count), -1, dtype=np.int64)
    for start in range(0, relevant.size, step):
        queries = torch.arange(start, min(start + step, relevant.size))
        scores = _scores(score, queries, item_count)
        mine = relevant.take(queries)
        left_out = None
        if exclude is not None:
            scores = scores.copy()  # they may be a view of the caller's
            left_out = _left_out(exclude.take(queries), mine, item_count)
            scores[left_out] = np.nan  # neither above nor equal to anything
        ranks.append(_ranks_of(scores, mine, ties))
        if top_count:
            top[start : start + len(queries)] = _top(scores, left_out, top_count)
    values = np.concatenate(ranks) if ranks else np.empty(0)
    return CatalogueRanking(Ranks(Candidates.FULL, values, relevant.offsets.numpy()), top)


def sampled_ranks(relevant: ArrayLike, others: ArrayLike, *, ties: Ties | str = Ties.MIDDLE) -> Ranks:
    """The rank of one right item a query among sampled others (``draw_negatives`` gives them).

    Args:
        relevant: the score of the right item, shape (queries,).
        others: the scores of the sampled items, shape (queries, count).
        ties: what stands above the right item among equals.

    Raises:
        ValueError: shapes do not fit, or a score is NaN.
    """
    right, rest = np.asarray(relevant), np.asarray(others)
    if right.ndim != 1 or rest.ndim != 2 or len(right) != len(rest):
        raise ValueError(
            f"scores must be (queries,) right and (queries, count) others, got {right.shape} and {rest.shape}"
        )
    if np.isnan(right).any() or np.isnan(rest).any():
        raise ValueError("a score is NaN; a model that scores NaN cannot be ranked")
    above = (rest > right[:, None]).sum(axis=1)
    equal = (rest == right[:, None]).sum(axis=1)
    return Ranks(Candidates.SAMPLED, 1.0 + above + equal * _share(Ties(ties)), np.arange(len(right) + 1))


def _share(ties: Ties) -> float:
    return 0.5 if ties is Ties.MIDDLE else 1.0


def _check_places(name: str, places: Jagged, query_count: int, item_count: int) -> None:
    if places.size != query_count:
        raise ValueError(f"{name} has {places.size} rows for {query_count} queries")
    if len(places.values) and not 0 <= int(places.values.min()) <= int(places.values.max()) < item_count:
        lowest, highest = int(places.values.min()), int(places.values.max())
        raise ValueError(f"{name} holds places {lowest} to {highest}; the catalogue has {item_count} items")


def _scores(score: ScoreItems, queries: Tensor, item_count: int) -> NDArray[Any]:
    """The scores of all items for ``queries``, in memory that NumPy counts in: many times faster than torch does."""
    scores = score(queries)
    if scores.shape != (len(queries), item_count):
        raise ValueError(f"scores must have shape {(len(queries), item_count)}, got {tuple(scores.shape)}")
    told: NDArray[Any] = (scores if scores.dtype is torch.float64 else scores.float()).detach().cpu().numpy()
    is_nan = np.isnan(told.min(axis=1, initial=0))
    if is_nan.any():
        raise ValueError(f"a score of query {int(queries[0]) + int(is_nan.argmax())} is NaN")
    return told


def _rows_of(jagged: Jagged) -> NDArray[np.int64]:
    """The row of each value, shape (total,)."""
    return np.repeat(np.arange(jagged.size), jagged.lengths.numpy())


def _left_out(exclude: Jagged, relevant: Jagged, item_count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Query and item of what must not be ranked."""
    out, kept = (_rows_of(one) * item_count + one.values.numpy() for one in (exclude, relevant))
    rows, items = np.divmod(np.setdiff1d(out, kept), item_count)
    return rows, items


def _ranks_of(scores: NDArray[Any], relevant: Jagged, ties: Ties) -> NDArray[np.float64]:
    """Ranks of the relevant items, ascending in each query, shape (relevant,)."""
    row, items = _rows_of(relevant), relevant.values.numpy()
    own = scores[row, items]
    order = np.lexsort((-own, row))
    row, own = row[order], own[order]
    above, not_below = np.empty(len(row), dtype=np.int64), np.empty(len(row), dtype=np.int64)
    for pair, (query, told) in enumerate(zip(row, own, strict=True)):
        above[pair] = np.count_nonzero(scores[query] > told)
        not_below[pair] = np.count_nonzero(scores[query] >= told)
    # Both counts are over all candidates; what is relevant itself stands in them too, and is taken out again.
    new_row = np.ones(len(row), dtype=bool)
    new_row[1:] = np.diff(row) != 0
    new_group = new_row.copy()
    new_group[1:] |= own[1:] != own[:-1]
    places = np.arange(len(row))
    place = places - np.maximum.accumulate(np.where(new_row, places, 0))
    relevant_above = place - (places - np.maximum.accumulate(np.where(new_group, places, 0)))
    group = np.cumsum(new_group) - 1
    relevant_equal = np.bincount(group)[group] if len(row) else places
    others_above = above - relevant_above
    others_equal = not_below - above - relevant_equal
    ranks: NDArray[np.float64] = 1.0 + place + others_above + others_equal * _share(ties)
    return ranks


def _top(
    scores: NDArray[Any], left_out: tuple[NDArray[np.int64], NDArray[np.int64]] | None, count: int
) -> NDArray[np.int64]:
    if left_out is not None:
        scores[left_out] = -np.inf  # torch takes NaN for the largest
    best, places = torch.from_numpy(scores).topk(min(count, scores.shape[1]), dim=1)
    top = np.full((len(scores), count), -1, dtype=np.int64)
    top[:, : places.shape[1]] = places.masked_fill(best == -torch.inf, -1).numpy()
    return top

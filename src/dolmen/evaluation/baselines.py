"""What every recommender must beat: scores that are counted and not learned, to rank with ``rank_catalogue``.

Both take the training part as one row an action, people and items as places from 0, and give a function from pasts
(places of items, one row a query) to the scores of the whole catalogue, shape (queries, items).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from dolmen.features import Jagged

__all__ = ["item_knn", "popularity"]


def popularity(items: Tensor, item_count: int) -> Callable[[Jagged], Tensor]:
    """How often each item was acted on, whoever asks; ``items``: int64, shape (actions,).

    >>> popularity(torch.tensor([2, 0, 2]), 3)(Jagged.from_lists([[], [1]])).tolist()
    [[1.0, 0.0, 2.0], [1.0, 0.0, 2.0]]
    """
    counts = torch.bincount(items, minlength=item_count).to(torch.float32)
    return lambda past: counts.expand(past.size, -1)


def item_knn(people: Tensor, items: Tensor, item_count: int) -> Callable[[Jagged], Tensor]:
    """Cosine of two items' columns of the matrix of people and items, summed over the past, all items as neighbours.

    Source: B. Sarwar et al., "Item-Based Collaborative Filtering Recommendation Algorithms", WWW 2001, section 3.1.1.
    An item that is met twice by a person, or stands twice in a past, counts twice.

    Args:
        people: who acted, int64, shape (actions,).
        items: on what, int64, shape (actions,).
        item_count: how many items the catalogue has.
    """
    shape = (int(people.max()) + 1 if len(people) else 0, item_count)
    met = torch.sparse_coo_tensor(torch.stack([people, items]), torch.ones(len(items)), shape, check_invariants=True)
    met = met.coalesce()
    lengths = torch.sparse.sum(met.pow(2), dim=0).to_dense().sqrt().clamp(min=1)
    by_item = met.t().coalesce()

    def score(past: Jagged) -> Tensor:
        owners = torch.repeat_interleave(past.lengths)
        told = torch.zeros(item_count, past.size)
        told.index_put_((past.values, owners), 1 / lengths[past.values], accumulate=True)
        scores: Tensor = torch.sparse.mm(by_item, torch.sparse.mm(met, told)) / lengths.unsqueeze(1)
        return scores.t()

    return score

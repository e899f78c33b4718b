"""Matrix factorisation by a library that many use, as a baseline: implicit's alternating least squares.

Source: Y. Hu, Y. Koren, C. Volinsky, "Collaborative Filtering for Implicit Feedback Datasets", ICDM 2008. The library
comes with the extra ``dolmen[studies]``.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dolmen.errors import ConfigError
from dolmen.features import Jagged

__all__ = ["als"]


def als(
    people: Tensor, items: Tensor, item_count: int, *, factors: int, weight: float, seed: int
) -> Callable[[Jagged], Tensor]:
    """Factors of people and items, to rank with ``rank_catalogue`` as ``item_knn`` does.

    Whose past is asked for is solved for anew, as the library does for people whom it has not met.

    Args:
        people: who acted, int64, shape (actions,).
        items: on what, int64, shape (actions,).
        item_count: how many items the catalogue has.
        factors: numbers of a person or an item.
        weight: of an action, where none weighs 1.
        seed: of the factors at the start.

    Raises:
        ConfigError: the library is not installed.
    """
    try:
        library, sparse = import_module("implicit.cpu.als"), import_module("scipy.sparse")
        limits = import_module("threadpoolctl").threadpool_limits  # which the library asks for, and comes with
    except ModuleNotFoundError as problem:
        raise ConfigError(f"the arm als needs {problem.name}: pip install 'dolmen[studies]'") from problem

    def matrix(owners: Tensor, met: Tensor, count: int) -> Any:
        return sparse.csr_matrix((np.ones(len(met), np.float32), (owners, met)), shape=(count, item_count))

    with limits(1, "blas"):
        model = library.AlternatingLeastSquares(factors=factors, alpha=weight, num_threads=1, random_state=seed)
        model.fit(matrix(people, items, int(people.max()) + 1), show_progress=False)
    of_items = torch.from_numpy(np.asarray(model.item_factors))

    def score(past: Jagged) -> Tensor:
        asked = matrix(torch.repeat_interleave(past.lengths), past.values, past.size)
        with limits(1, "blas"):
            solved = model.recalculate_user(np.arange(past.size), asked)
        return torch.from_numpy(np.asarray(solved)) @ of_items.T

    return score

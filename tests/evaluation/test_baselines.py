"""Counted baselines against their definitions, written as loops."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dolmen.evaluation import item_knn
from dolmen.features import Jagged

ITEMS = 5
ACTIONS = st.lists(st.tuples(st.integers(0, 3), st.integers(0, ITEMS - 1)), min_size=1, max_size=20)


@pytest.mark.property
@settings(max_examples=60, deadline=None)
@given(ACTIONS, st.lists(st.lists(st.integers(0, ITEMS - 1), max_size=4), min_size=1, max_size=3))
def test_item_knn_sums_the_cosines_of_columns(actions: list[tuple[int, int]], pasts: list[list[int]]) -> None:
    met = np.zeros((4, ITEMS))
    for person, item in actions:
        met[person, item] += 1
    lengths = np.linalg.norm(met, axis=0)
    norms = np.outer(lengths, lengths)
    cosines = np.divide(
        met.T @ met, norms, out=np.zeros((ITEMS, ITEMS)), where=norms > 0
    )  # nobody met it: like nothing
    expected = [[sum(cosines[other, item] for other in past) for item in range(ITEMS)] for past in pasts]

    people, items = (torch.tensor(column) for column in zip(*actions, strict=True))
    found = item_knn(people, items, ITEMS)(Jagged.from_lists(pasts))

    np.testing.assert_allclose(found.numpy(), expected, atol=1e-6)  # float32

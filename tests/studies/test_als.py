"""The library's factors, as the studies ask for them, against the formula of their paper."""

import numpy as np
import torch
from implicit.cpu.als import AlternatingLeastSquares
from scipy.sparse import csr_matrix
from threadpoolctl import threadpool_limits

from dolmen.features import Jagged
from dolmen.studies.als import als

PEOPLE, ITEMS, FACTORS, WEIGHT, SEED = 40, 25, 4, 5.0, 3


def test_a_past_is_scored_by_the_factors_that_solve_for_it() -> None:
    """Hu, Koren and Volinsky, equation 4: x = (Y'CY + lambda I)^-1 Y'C p; C is the weight where there was an action."""
    random = np.random.default_rng(0)
    people, items = random.integers(0, PEOPLE, 300), random.integers(0, ITEMS, 300)
    met = csr_matrix((np.ones(300, np.float32), (people, items)), shape=(PEOPLE, ITEMS))
    with threadpool_limits(1, "blas"):
        model = AlternatingLeastSquares(factors=FACTORS, alpha=WEIGHT, num_threads=1, random_state=SEED)
        model.fit(met, show_progress=False)
    factors = np.asarray(model.item_factors, dtype=np.float64)
    pasts = [[1, 4, 9], [], list(range(20))]
    expected = []
    for past in pasts:
        weights, acted = np.ones(ITEMS), np.zeros(ITEMS)
        weights[past], acted[past] = WEIGHT, 1.0
        solved = factors.T @ (weights[:, None] * factors) + model.regularization * np.eye(FACTORS)
        expected.append(factors @ np.linalg.solve(solved, factors.T @ (weights * acted)))
    score = als(torch.from_numpy(people), torch.from_numpy(items), ITEMS, factors=FACTORS, weight=WEIGHT, seed=SEED)
    # The library ends its conjugate gradients after three steps, so the larger pasts are solved for but nearly.
    np.testing.assert_allclose(score(Jagged.from_lists(pasts)).numpy(), expected, atol=0.05)

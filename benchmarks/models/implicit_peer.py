"""What implicit's ALS scores, for factors.py: runs in an environment of its own (implicit 0.7.3).

    python benchmarks/models/implicit_peer.py IN.npz OUT.npz FACTORS SEED

IN has ``people`` and ``items`` (places, one row an action), ``item_count``, and a past for each person asked as
``values`` and ``offsets``. A person's vector is solved anew from the past, as implicit does for people whom it has not
met. OUT has scores, (people asked, items), by the weight of an action.
"""

import sys

import implicit
import numpy as np
from scipy.sparse import csr_matrix

WEIGHTS, REGULARISATION, ITERATIONS = (1.0, 5.0, 20.0), 1.0, 15


def main() -> None:
    """Learn and score with each weight."""
    given, factors, seed = np.load(sys.argv[1]), int(sys.argv[3]), int(sys.argv[4])
    shape = (int(given["people"].max()) + 1, int(given["item_count"]))
    met = csr_matrix((np.ones(len(given["items"]), np.float32), (given["people"], given["items"])), shape=shape)
    values, offsets = given["values"], given["offsets"]
    past = csr_matrix((np.ones(len(values), np.float32), values, offsets), shape=(len(offsets) - 1, shape[1]))
    scores = {}
    for weight in WEIGHTS:
        model = implicit.als.AlternatingLeastSquares(
            factors=factors,
            regularization=REGULARISATION,
            alpha=weight,
            iterations=ITERATIONS,
            num_threads=1,
            random_state=seed,
        )
        model.fit(met, show_progress=False)
        people = model.recalculate_user(np.arange(past.shape[0]), past)
        scores[f"{weight:g}"] = np.asarray(people) @ np.asarray(model.item_factors).T
    np.savez(sys.argv[2], **scores)


if __name__ == "__main__":
    main()

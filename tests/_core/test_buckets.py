"""The core's side of SimHash refuses what does not fit. `models/test_sdim.py` holds what it computes against torch."""

import numpy as np
import pytest

from dolmen._core import hash_into_buckets, read_buckets

PEOPLE, ROUNDS, BITS, BUCKETS, WIDTH, QUERIES = 2, 3, 2, 4, 5, 6


@pytest.mark.parametrize(
    ("projections", "bits", "out", "message"),
    [
        ((WIDTH, 7), BITS, (QUERIES, ROUNDS), r"projections must have the shape \(5, 6\) \(width, rounds \* bits\)"),
        (
            (WIDTH, 6),
            BITS,
            (QUERIES + 1, ROUNDS),
            r"out must have the shape \(6, 3\) \(vectors, rounds\), got \(7, 3\)",
        ),
        ((WIDTH, 159), 53, (QUERIES, ROUNDS), "bits must be at most 52, got 53"),
    ],
)
def test_hashing_refuses_what_does_not_fit(
    projections: tuple[int, int], bits: int, out: tuple[int, int], message: str
) -> None:
    vectors = np.ones((QUERIES, WIDTH), dtype=np.float32)
    with pytest.raises(ValueError, match=message):
        hash_into_buckets(vectors, np.ones(projections), bits, np.empty(out, dtype=np.int64))


@pytest.mark.parametrize(
    ("owner", "bucket", "out", "message"),
    [
        (PEOPLE, 0, WIDTH, "owners must be at least 0 and below 2, got 2"),
        (-1, 0, WIDTH, "owners must be at least 0 and below 2, got -1"),
        (0, BUCKETS, WIDTH, "buckets must be at least 0 and below 4, got 4"),
        (0, 0, WIDTH + 1, r"out must have the shape \(6, 5\) \(owners, width\), got \(6, 6\)"),
    ],
)
def test_reading_refuses_what_is_not_there(owner: int, bucket: int, out: int, message: str) -> None:
    sums = np.ones((PEOPLE, ROUNDS, BUCKETS, WIDTH), dtype=np.float32)
    owners, buckets = np.zeros(QUERIES, dtype=np.int64), np.zeros((QUERIES, ROUNDS), dtype=np.int64)
    owners[-1], buckets[-1, -1] = owner, bucket
    with pytest.raises(ValueError, match=message):
        read_buckets(sums, owners, buckets, 1e-6, np.empty((QUERIES, out), dtype=np.float32))

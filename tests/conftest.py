"""What tests of several folders are made of."""

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray


def mixed(x: int) -> int:
    """SplitMix64's finaliser."""
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 % (1 << 64)
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB % (1 << 64)
    return x ^ (x >> 31)


@pytest.fixture(scope="session")
def sketch_crowd() -> Callable[[int, int], NDArray[np.int64]]:
    """``sketch_crowd(seed, slot)``: FIDs that a sketch of capacity 600 has too few cells for, by two.

    All begin their search at the first cell, each with a signature of its own. Sixteen fill the cells of the split that
    is written, sixteen those of the split ahead, and the last two find none.
    """

    def crowd(seed: int, slot: int) -> NDArray[np.int64]:
        place_count = 600 // 6 + 600 // 6 // 5
        found: dict[int, int] = {}  # by signature
        for fid in range(slot << 53, (slot << 53) + 10_000):
            hashed = mixed(fid ^ seed)
            if hashed * place_count >> 64 == 0:
                found.setdefault(hashed % 4096, fid)
        return np.array(list(found.values())[:34])

    return crowd

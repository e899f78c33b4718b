"""Randomness that repeats: one seed for a run, from which each part draws its own, by name.

A part's seed depends on the run's seed and the part's name only, never on the order in which parts were made.
"""

from __future__ import annotations

import hashlib
from typing import Final

import numpy as np

__all__ = ["SEED_MAX", "derive_seed", "generator", "uniform_of"]

SEED_MAX: Final = (1 << 64) - 1


def derive_seed(seed: int, *names: str | int) -> int:
    """A 63-bit seed for the part called ``names`` in the run with ``seed``.

    >>> derive_seed(1, "trainer") == derive_seed(1, "trainer") != derive_seed(1, "joiner")
    True
    """
    text = "\0".join([str(seed), *map(str, names)])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1


def generator(seed: int, *names: str | int) -> np.random.Generator:
    """A NumPy generator for the part called ``names``."""
    return np.random.default_rng(derive_seed(seed, *names))


def uniform_of(seed: int, *names: str | int) -> float:
    """One number in [0, 1) that belongs to ``names``: the same after a restart, and in any order of events."""
    return (derive_seed(seed, *names) >> 10) / float(1 << 53)

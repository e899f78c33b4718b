"""Random numbers that belong to names, in bulk: the same (seed, ids) gives the same number, in any order and number.

A counter-based generator: ids are mixed with splitmix64's finaliser (G. Steele, D. Lea, C. Flood, "Fast Splittable
Pseudorandom Number Generators", OOPSLA 2014). So a simulated person's taste at any instant can be computed on its own,
without storing or replaying anything.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["normals", "uniforms"]

_GOLDEN: Final = np.uint64(0x9E3779B97F4A7C15)
_FIRST: Final = np.uint64(0xBF58476D1CE4E5B9)
_SECOND: Final = np.uint64(0x94D049BB133111EB)


def uniforms(seed: int, *ids: ArrayLike) -> NDArray[np.float64]:
    """Numbers in [0, 1), one for each of the ids (integers), which are broadcast against each other.

    >>> bool(uniforms(1, [5, 6])[1] == uniforms(1, 6))
    True
    """
    return _to_unit(_bits(seed, *ids))


def normals(seed: int, *ids: ArrayLike) -> NDArray[np.float64]:
    """Standard normal numbers (Box-Muller), one for each of the ids (integers), which are broadcast."""
    bits = _bits(seed, *ids)
    radius = np.sqrt(-2.0 * np.log1p(-_to_unit(bits)))
    with np.errstate(over="ignore"):
        angle = 2.0 * np.pi * _to_unit(_mix(bits + _GOLDEN))
    normal: NDArray[np.float64] = radius * np.cos(angle)
    return normal


def _bits(seed: int, *ids: ArrayLike) -> NDArray[np.uint64]:
    state = np.asarray(seed, dtype=np.uint64)
    with np.errstate(over="ignore"):  # arithmetic modulo 2^64 is what is meant
        for one in ids:
            state = _mix(state + _GOLDEN + np.asarray(one, dtype=np.int64).view(np.uint64))
    return state


def _mix(state: NDArray[np.uint64]) -> NDArray[np.uint64]:
    state = (state ^ (state >> np.uint64(30))) * _FIRST
    state = (state ^ (state >> np.uint64(27))) * _SECOND
    return state ^ (state >> np.uint64(31))


def _to_unit(bits: NDArray[np.uint64]) -> NDArray[np.float64]:
    unit: NDArray[np.float64] = (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53
    return unit

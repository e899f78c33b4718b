"""Who of a slot's ids gets a row, what an id without one reads as, and whose row leaves when the slot is full."""

from enum import StrEnum
from typing import Final

__all__ = ["SKETCHED_SIGHTS_MAX", "Absent", "Admission", "Eviction"]

SKETCHED_SIGHTS_MAX: Final = 16
"""The largest ``admit_after`` that a sketch's and a Bloom filter's counters of four bits can tell."""


class Admission(StrEnum):
    """How sights of an id that has no row are counted. The table's page compares them."""

    EXACT = "exact"  # a counter for each id, 40 bytes
    SKETCH = "sketch"  # Monolith's sliding sketch, 3 bytes for each id
    BLOOM = "bloom"  # a counting Bloom filter, 1 to 5 bytes for each id
    PROBABILISTIC = "probabilistic"  # nothing is kept: each sight has the same chance, n sights make 95 %
    PROPORTIONAL = "proportional"  # nothing is kept: j sights in one batch have the chance j / n


class Absent(StrEnum):
    """What an id without a row reads as."""

    ZEROS = "zeros"  # a vector of zeros
    START = "start"  # the values that its row would begin with


class Eviction(StrEnum):
    """Whose row leaves when a slot has more rows than its capacity."""

    LRU = "lru"  # that was not seen for the longest
    LFU = "lfu"  # that was seen least often
    SCORE = "score"  # whose count, halved for each half-life since its last sight, is least

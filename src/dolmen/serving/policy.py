"""Which items stand where: the best ones, and by chance some new ones, so that they get seen at all.

Each position of a slate is, with odds ``share`` and independently, given to exploration: then an item is drawn evenly
from the *pool* (new items that the person may be shown and that do not stand above). Otherwise, and where the pool is
empty, the best remaining candidate takes it. So the odds with which the item that stands at a position came to stand
there, given those above it, are exact and cheap. They are the *propensity* that is logged, for whoever wants to undo
the policy's bias later.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.typing import NDArray

from dolmen.serving.catalogue import Rows

__all__ = ["Draw", "Place", "Pool", "compose", "draw"]


@final
@dataclass(frozen=True)
class Pool:
    """The new items: their rows, and the same as a mask by row."""

    rows: Rows
    mask: NDArray[np.bool_]

    @classmethod
    def of(cls, rows: Rows) -> Pool:
        """The pool of ``rows``."""
        mask = np.zeros(int(rows.max(initial=-1)) + 1, dtype=np.bool_)
        mask[rows] = True
        return cls(rows, mask)

    def __contains__(self, row: int) -> bool:
        return row < len(self.mask) and bool(self.mask[row])


@final
@dataclass(frozen=True)
class Draw:
    """The chance part of one slate, settled before ranking, so that what was drawn is scored with the candidates.

    ``explores``: for each position, whether it goes to exploration. ``rows``: distinct items in the order drawn, evenly
    from the ``usable_count`` items of ``pool`` that the person may be shown.
    """

    share: float
    explores: Sequence[bool]
    rows: Sequence[int]
    usable_count: int
    pool: Pool


@final
@dataclass(frozen=True)
class Place:
    """What stands at one position: the item's row, the odds of that, and whether exploration put it there."""

    row: int
    propensity: float
    explored: bool


def draw(chance: random.Random, pool: Pool, usable: NDArray[np.bool_], count: int, share: float) -> Draw:
    """Decide which of ``count`` positions explore, and draw items for them.

    Args:
        chance: where the randomness comes from.
        pool: the new items.
        usable: by row, whether this person may be shown it.
        count: positions of the slate.
        share: odds with which a position explores.
    """
    explores = [chance.random() < share for _ in range(count)]
    rows = pool.rows[usable[pool.rows]]
    # As many as there are positions: any of them may be passed over because it already stands above, by rank.
    drawn = chance.sample(range(len(rows)), min(count, len(rows))) if any(explores) else []
    return Draw(share, explores, rows[drawn].tolist(), len(rows), pool)


def compose(ranked: Sequence[int], drawn: Draw) -> list[Place]:
    """The slate: one place for each position that was drawn for, or fewer where candidates run out.

    Args:
        ranked: rows of the candidates, best first, none hidden.
        drawn: by ``draw``.
    """
    places: list[Place] = []
    taken: set[int] = set()
    best, fresh = iter(ranked), iter(drawn.rows)
    top = _next(best, taken)
    left = drawn.usable_count
    for explores in drawn.explores:
        share = drawn.share if left > 0 else 0.0
        explored = explores and left > 0
        row = _next(fresh, taken) if explored else top
        if row is None:
            break
        odds = share / left if row in drawn.pool and left > 0 else 0.0
        if row == top:
            odds += 1.0 - share
        places.append(Place(row, odds, explored))
        taken.add(row)
        left -= row in drawn.pool
        if row == top:
            top = _next(best, taken)
    return places


def _next(rows: Iterator[int], taken: set[int]) -> int | None:
    return next((row for row in rows if row not in taken), None)

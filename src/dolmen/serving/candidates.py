"""Which items compete for a slate: the nearest to the person, the popular ones, and what exploration draws.

What the person is not shown again, and what left the catalogue, is out before ranking.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, final

import numpy as np
from numpy.typing import NDArray

from dolmen.features import Batch
from dolmen.indexes import Vectors
from dolmen.models import Ability, retriever
from dolmen.seeds import derive_seed
from dolmen.serving.catalogue import Catalogue, Rows
from dolmen.serving.exposure import Exposure
from dolmen.serving.policy import Draw, Pool, draw
from dolmen.serving.settings import ServeSettings
from dolmen.serving.shelf import Shelf
from dolmen.training.snapshot import Parameters

__all__ = ["Candidates", "Field", "Wish"]

_LISTED_SECONDS: Final = 1.0  # how old the lists of popular and new items may be
_HIDDEN_FETCH_MAX: Final = 2_000  # retrieval asks for so many more at most, to make up for hidden items
_NO_ROWS: Final = np.empty(0, dtype=np.int64)


@final
@dataclass(frozen=True)
class Wish:
    """A slate to fill: with ``count`` items, without the rows ``hidden``; chance comes from seed and ``request_id``."""

    request_id: str
    count: int
    hidden: Rows


@final
@dataclass(frozen=True)
class Field:
    """Distinct ``rows`` to score. ``competes`` is false for those that were only drawn: they do not win by rank.

    ``affinities``: each item's inner product with the nearest of the person's interests; 0 where nothing retrieves.
    """

    rows: Rows
    competes: NDArray[np.bool_]
    drawn: Draw
    affinities: NDArray[np.float64]


@final
class Candidates:
    """Finds the field for each request. For one thread."""

    def __init__(self, settings: ServeSettings, catalogue: Catalogue, exposure: Exposure, shelf: Shelf) -> None:
        self._settings, self._catalogue, self._exposure, self._shelf = settings, catalogue, exposure, shelf
        self._listed_until = -math.inf
        self._listed_count = -1
        self.popularity: NDArray[np.float64] = np.empty(0)
        self._popular: Rows = _NO_ROWS
        self._pool = Pool.of(_NO_ROWS)

    def list_items(self, now_us: int) -> None:
        """List the popular and the new items anew, once a second and whenever the catalogue grows."""
        now = time.monotonic()
        if now < self._listed_until and self._listed_count == self._catalogue.row_count:
            return
        self._listed_count = self._catalogue.row_count
        self.popularity = self._exposure.popularity(now_us)
        self._popular = np.argsort(-self.popularity, kind="stable")
        self._pool = Pool.of(self._exposure.new_rows())
        self._listed_until = now + _LISTED_SECONDS

    def fields(self, wishes: Sequence[Wish | None], people: Batch, parameters: Parameters | None) -> list[Field | None]:
        """The field for each wish, ``None`` for ``None``. ``people`` has one example for each.

        ``parameters`` retrieve if they can.
        """
        alive = self._catalogue.alive()
        if not any(wishes):
            return [None] * len(wishes)
        if parameters is None or Ability.RETRIEVES not in parameters.model.abilities:
            return [wish and self._field(wish, None, alive) for wish in wishes]
        with parameters.computing():
            told = retriever(parameters.model).queries(parameters.placed(people))
        queries = told.float().cpu().numpy()  # (wish, interest, dim)
        return [wish and self._field(wish, interests, alive) for wish, interests in zip(wishes, queries, strict=True)]

    def _nearest(self, wish: Wish, interests: Vectors) -> Rows:
        """Rows by nearness; may hold hidden ones, and -1."""
        count = self._settings.candidate_count + min(len(wish.hidden), _HIDDEN_FETCH_MAX)
        rows, scores = self._shelf.search(interests, count)
        return rows[0] if len(rows) == 1 else _merged(rows, scores)

    def _field(self, wish: Wish, interests: Vectors | None, alive: NDArray[np.bool_]) -> Field:
        near = self._nearest(wish, interests) if interests is not None else _NO_ROWS
        settings = self._settings
        usable = alive.copy()
        usable[wish.hidden] = False
        near = _only(near, usable)[: settings.candidate_count]
        # Popular items beside them, and enough to fill the slate.
        popular = _only(self._popular, usable)[: max(settings.popular_count, wish.count - len(near))]
        chance = random.Random(derive_seed(settings.seed, "explore", wish.request_id))
        drawn = draw(chance, self._pool, usable, wish.count, settings.explore_share)
        competes = np.zeros(len(usable), dtype=np.bool_)
        competes[near] = competes[popular] = True
        chosen = competes.copy()
        chosen[list(drawn.rows)] = True
        rows = np.flatnonzero(chosen)
        affinities = np.zeros(len(rows)) if interests is None else self._shelf.affinities(interests, rows)
        return Field(rows, competes[rows], drawn, affinities)


def _only(rows: Rows, usable: NDArray[np.bool_]) -> Rows:
    """Those of ``rows`` that are usable, in order."""
    rows = rows[(rows >= 0) & (rows < len(usable))]
    kept: Rows = rows[usable[rows]]
    return kept


def _merged(rows: Rows, scores: NDArray[np.float32]) -> Rows:
    """The finds of several interests as one list, best first, each once."""
    ordered = rows.ravel()[np.argsort(-scores.ravel(), kind="stable")]
    _, first = np.unique(ordered, return_index=True)
    merged: Rows = ordered[np.sort(first)]
    return merged

"""From "what next, for this person, now?" to a slate: retrieve, filter, rank, decide.

Requests that wait together are answered together: one pass of the model scores the candidates of all of them, since a
pass costs more than the rows in it. Everything about items is gathered by row in a few calls; Python objects are
touched for the few items that are shown.
"""

from __future__ import annotations

import math
import random
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, final

import numpy as np
import torch
from numpy.typing import NDArray

from dolmen.clock import Clock
from dolmen.errors import DolmenError, NotReadyError, SchemaError
from dolmen.events import Features, Impression
from dolmen.features import Batch, Jagged, RawId, Side, extract_rows
from dolmen.features.schema import suggestion
from dolmen.models import Ability, retriever, scorer
from dolmen.seeds import derive_seed
from dolmen.serving.behaviours import Behaviours
from dolmen.serving.catalogue import Catalogue, Rows
from dolmen.serving.exposure import Exposure
from dolmen.serving.policy import Draw, Place, Pool, compose, draw
from dolmen.serving.replica import Replica
from dolmen.serving.settings import ServeSettings
from dolmen.serving.shelf import Shelf
from dolmen.training.snapshot import Parameters

__all__ = ["Ask", "Recommender", "Slate"]

_LISTED_SECONDS: Final = 1.0  # how old the lists of popular and new items may be
_HIDDEN_FETCH_MAX: Final = 2_000  # retrieval asks for so many more at most, to make up for hidden items


@final
@dataclass(frozen=True)
class Ask:
    """One request. ``items``: rank these; ``None``: recommend ``count`` of the catalogue. ``context``: the moment's."""

    user: RawId
    count: int = 0
    items: Sequence[RawId] | None = None
    context: Mapping[str, Any] = field(default_factory=dict)


@final
@dataclass(frozen=True)
class Slate:
    """What is answered and logged. ``attributes`` and ``explored`` go with the impression's items.

    ``parameters``: that ranked it; ``None``: popularity did.
    """

    impression: Impression
    attributes: Sequence[Mapping[str, Any] | None]
    explored: Sequence[bool]
    parameters: Parameters | None


@dataclass
class _Task:
    """One request on its way.

    ``rows``: the items to score, by row of the catalogue; -1 where it does not know them (``ids`` then says which).
    ``competes``: which of them may stand where the best stands; those that were only drawn may not.
    """

    ask: Ask
    request_id: str
    time_us: int
    person: dict[str, list[int]]
    person_dense: dict[str, float]
    rows: Rows = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    competes: NDArray[np.bool_] = field(default_factory=lambda: np.empty(0, dtype=np.bool_))
    hidden: Rows = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    drawn: Draw | None = None


@final
class Recommender:
    """Answers requests. ``answer`` is called by one thread at a time; it reads, and changes nothing."""

    def __init__(
        self,
        settings: ServeSettings,
        clock: Clock,
        *,
        catalogue: Catalogue,
        behaviours: Behaviours,
        exposure: Exposure,
        replica: Replica,
        shelf: Shelf,
    ) -> None:
        self._settings, self._clock, self._schema = settings, clock, settings.schema
        self._catalogue, self._behaviours, self._exposure = catalogue, behaviours, exposure
        self._replica, self._shelf = replica, shelf
        self._request_slots = [slot.name for slot in self._schema.slots_of(Side.REQUEST)]
        self._request_dense = [one.name for one in self._schema.dense_of(Side.REQUEST)]
        self._person_slots = [s.name for side in (Side.USER, Side.REQUEST) for s in self._schema.slots_of(side)]
        self._person_dense = [d.name for side in (Side.USER, Side.REQUEST) for d in self._schema.dense_of(side)]
        self._logit_shift = math.log(settings.uncorrected_negative_rate)
        self._listed_until = -math.inf
        self._listed_count = -1
        self._popularity: NDArray[np.float64] = np.empty(0)
        self._popular: Rows = np.empty(0, dtype=np.int64)
        self._pool = Pool.of(self._popular, 0)
        self.fallback_count = 0
        self.broken_score_count = 0

    def usable_parameters(self) -> Parameters | None:
        """The parameters, once they have learned enough to be trusted."""
        parameters = self._replica.parameters
        if parameters is None or parameters.version < self._settings.model_from_version:
            return None
        return parameters

    def answer(self, asks: Sequence[Ask]) -> list[Slate | DolmenError]:
        """One slate, or what is wrong with the request, for each of ``asks``."""
        now_us = self._clock.now_us()
        self._list_items(now_us)
        outcomes: list[Slate | DolmenError | None] = []
        tasks: list[_Task] = []
        for ask in asks:
            try:
                tasks.append(self._begin(ask, now_us))
                outcomes.append(None)
            except DolmenError as problem:
                outcomes.append(problem)
        slates = iter(self._slates(tasks, now_us) if tasks else ())
        return [next(slates) if outcome is None else outcome for outcome in outcomes]

    def _begin(self, ask: Ask, now_us: int) -> _Task:
        context = self._context(ask.context)
        profile = self._catalogue.profile_of(ask.user)
        person = {**profile.slots, **self._behaviours.history_of(ask.user)}
        person |= {name: jagged.values.tolist() for name, jagged in context.slots.items()}
        dense = {**profile.dense, **{name: column.item() for name, column in context.dense.items()}}
        task = _Task(ask, _request_id(now_us), now_us, person, dense)
        if ask.items is not None:
            task.rows = np.array([self._catalogue.row_or_absent(raw) for raw in ask.items], dtype=np.int64)
        elif len(self._catalogue) == 0:
            raise NotReadyError("the catalogue is empty; send items to /v1/items first")
        else:
            task.hidden = np.unique(self._catalogue.rows_of(self._behaviours.hidden_of(ask.user, now_us)))
        return task

    def _context(self, context: Mapping[str, Any]) -> Batch:
        for name in context:
            if name not in self._request_slots and name not in self._request_dense:
                known = [*self._request_slots, *self._request_dense]
                raise SchemaError(f"context: the schema has no request feature {name!r}{suggestion(name, known)}")
        try:
            return extract_rows(self._schema, [context], slots=self._request_slots, dense=self._request_dense)
        except SchemaError as problem:
            raise SchemaError(f"context: {str(problem).removeprefix('row 0: ')}") from None

    def _slates(self, tasks: Sequence[_Task], now_us: int) -> list[Slate]:
        parameters = self.usable_parameters()
        people = self._people(tasks, now_us)
        self._retrieve([task for task in tasks if task.ask.items is None], tasks, people, parameters)
        counts = [len(task.rows) for task in tasks]
        items = self._items(tasks)
        owners = torch.repeat_interleave(torch.tensor(counts))
        logits = self._logits(parameters, people.take(owners).beside(items)) if parameters is not None else None
        if logits is None:
            parameters = None
            self.fallback_count += len(tasks)
        slates, start = [], 0
        for task, count in zip(tasks, counts, strict=True):
            part = slice(start, start + count)
            scores, probabilities = self._judged(task.rows, None if logits is None else logits[part])
            places = self._places(task, scores)
            chosen = np.array([place.row for place in places], dtype=np.int64)
            shown = items.take(torch.from_numpy(chosen + start))
            slates.append(self._slate(task, places, shown, probabilities[chosen], parameters))
            start += count
        return slates

    def _people(self, tasks: Sequence[_Task], now_us: int) -> Batch:
        return Batch(
            size=len(tasks),
            slots={name: Jagged.from_lists([task.person[name] for task in tasks]) for name in self._person_slots},
            dense={
                name: torch.tensor([task.person_dense[name] for task in tasks], dtype=torch.float32)
                for name in self._person_dense
            },
            event_times_us=torch.full((len(tasks),), now_us, dtype=torch.int64),
        )

    def _retrieve(
        self, asking: Sequence[_Task], tasks: Sequence[_Task], people: Batch, parameters: Parameters | None
    ) -> None:
        """Find what may be shown to those who ask for a recommendation, and settle what is left to chance."""
        if not asking:
            return
        nearest: dict[int, Rows] = {}
        if parameters is not None and Ability.RETRIEVES in parameters.model.abilities:
            places = [place for place, task in enumerate(tasks) if task.ask.items is None]
            some = people if len(asking) == len(tasks) else people.take(torch.tensor(places))
            with torch.inference_mode():
                queries = retriever(parameters.model).queries(some).numpy()  # (asking, interest, dim)
            for task, interests in zip(asking, queries, strict=True):
                count = self._settings.candidate_count + min(len(task.hidden), _HIDDEN_FETCH_MAX)
                rows, scores = self._shelf.search(interests, count)
                nearest[id(task)] = rows.ravel()[np.argsort(-scores.ravel(), kind="stable")]
        alive = self._catalogue.alive()
        for task in asking:
            usable = alive.copy()
            usable[task.hidden] = False
            near = _usable(nearest.get(id(task), _NO_ROWS), usable)[: self._settings.candidate_count]
            # Popular items beside them, and enough to fill the slate.
            wanted = max(self._settings.popular_count, task.ask.count - len(near))
            contenders = np.union1d(near, _usable(self._popular, usable)[:wanted])
            chance = random.Random(derive_seed(self._settings.seed, "explore", task.request_id))
            task.drawn = draw(chance, self._pool, usable, task.ask.count, self._settings.explore_share)
            task.rows = np.union1d(contenders, np.array(task.drawn.rows, dtype=np.int64))
            task.competes = np.isin(task.rows, contenders)

    def _items(self, tasks: Sequence[_Task]) -> Batch:
        """The item side of all tasks' rows, one task after the other."""
        rows = np.concatenate([task.rows for task in tasks])
        if len(rows) == 0 or int(rows.min()) >= 0:
            return self._catalogue.items(rows)
        strangers = [
            raw
            for task in tasks
            if task.ask.items is not None
            for raw, row in zip(task.ask.items, task.rows.tolist(), strict=True)
            if row < 0
        ]
        slots = [slot.name for slot in self._schema.slots_of(Side.ITEM)]
        dense = [one.name for one in self._schema.dense_of(Side.ITEM)]
        unknown = extract_rows(self._schema, [{"item": raw} for raw in strangers], slots=slots, dense=dense)
        known = self._catalogue.items(rows[rows >= 0])
        order = np.empty(len(rows), dtype=np.int64)
        order[rows >= 0] = np.arange(known.size)
        order[rows < 0] = known.size + np.arange(unknown.size)
        return Batch.concat([known, unknown]).take(torch.from_numpy(order))

    def _logits(self, parameters: Parameters, batch: Batch) -> NDArray[np.float64] | None:
        """What the model says, shape (rows,); ``None`` where it cannot be used."""
        if Ability.SCORES not in parameters.model.abilities:
            return None
        with torch.inference_mode():
            logits = scorer(parameters.model).score(batch).numpy().astype(np.float64)
        if np.isfinite(logits).all():
            shifted: NDArray[np.float64] = logits + self._logit_shift
            return shifted
        self.broken_score_count += 1  # learning went astray: people still get an answer
        return None

    def _judged(
        self, rows: Rows, logits: NDArray[np.float64] | None
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """By what to sort, and the probabilities to tell."""
        if logits is not None:
            return logits, 1.0 / (1.0 + np.exp(-np.clip(logits, -60.0, 60.0)))
        known = np.where((rows >= 0) & (rows < len(self._popularity)), rows, 0)
        popularity = self._popularity[known] if len(self._popularity) else np.zeros(len(rows))
        return np.where(rows >= 0, popularity, -1.0), self._exposure.rates(rows)

    def _places(self, task: _Task, scores: NDArray[np.float64]) -> list[Place]:
        """Which of the task's rows stand where; ``Place.row`` counts within the task here."""
        order = np.argsort(-scores, kind="stable")
        if task.drawn is None:
            return [Place(int(place), 1.0, explored=False) for place in order]
        order = order[task.competes[order]]
        place_of = {row: place for place, row in enumerate(task.rows.tolist())}
        places = compose(task.rows[order].tolist(), task.drawn)
        return [Place(place_of[one.row], one.propensity, one.explored) for one in places]

    def _slate(
        self,
        task: _Task,
        places: Sequence[Place],
        shown: Batch,
        probabilities: NDArray[np.float64],
        parameters: Parameters | None,
    ) -> Slate:
        rows = [int(task.rows[place.row]) for place in places]
        raw_ids = (
            [task.ask.items[place.row] for place in places]
            if task.ask.items is not None
            else [self._catalogue.ids[row] for row in rows]
        )
        impression = Impression(
            request_id=task.request_id,
            event_time_us=task.time_us,
            user=task.ask.user,
            version=parameters.version if parameters is not None else 0,
            surface="rank" if task.ask.items is not None else "recommend",
            shared=Features(task.person, task.person_dense),
            items=raw_ids,
            item_slots={name: jagged.to_lists() for name, jagged in shown.slots.items()},
            item_dense={name: column.tolist() for name, column in shown.dense.items()},
            probabilities=probabilities.tolist(),
            propensities=[place.propensity for place in places],
        )
        attributes = [self._catalogue.attributes[row] if row >= 0 else None for row in rows]
        return Slate(impression, attributes, [place.explored for place in places], parameters)

    def _list_items(self, now_us: int) -> None:
        """The popular and the new items, listed anew every second and whenever the catalogue grows."""
        now = time.monotonic()
        if now < self._listed_until and self._listed_count == self._catalogue.row_count:
            return
        self._listed_count = self._catalogue.row_count
        self._popularity = self._exposure.popularity(now_us)
        self._popular = np.argsort(-self._popularity, kind="stable")
        self._pool = Pool.of(self._exposure.new_rows(), self._listed_count)
        self._listed_until = now + _LISTED_SECONDS


_NO_ROWS: Final = np.empty(0, dtype=np.int64)


def _usable(rows: Rows, usable: NDArray[np.bool_]) -> Rows:
    """Those of ``rows`` that are, each once, in order."""
    rows = rows[(rows >= 0) & (rows < len(usable))]
    rows = rows[usable[rows]]
    _, first = np.unique(rows, return_index=True)
    kept: Rows = rows[np.sort(first)]
    return kept


def _request_id(now_us: int) -> str:
    """128 bits, of which the first 48 are the time in milliseconds: ids of one moment lie together in any store."""
    return f"{now_us // 1000:012x}{secrets.token_hex(10)}"

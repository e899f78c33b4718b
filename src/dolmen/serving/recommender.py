"""From "what next, for this person, now?" to a slate: retrieve, filter, rank, decide.

Requests that wait together are answered together: one pass of the model scores the candidates of all of them, since a
pass costs more than the rows in it. Everything about items is gathered by row in a few calls; Python objects are
touched for the few items that are shown.
"""

from __future__ import annotations

import math
import secrets
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
from dolmen.models import Ability, scorer
from dolmen.serving.behaviours import Behaviours
from dolmen.serving.candidates import Candidates, Field, Wish
from dolmen.serving.catalogue import Catalogue, Rows
from dolmen.serving.exposure import Exposure
from dolmen.serving.policy import Place, compose
from dolmen.serving.replica import Replica
from dolmen.serving.settings import ServeSettings
from dolmen.serving.shelf import Shelf
from dolmen.settings import suggestion
from dolmen.training.snapshot import Parameters

__all__ = ["Ask", "Recommender", "Slate"]


@final
@dataclass(frozen=True)
class Ask:
    """One request. ``items``: rank these; ``None``: recommend ``count`` of the catalogue. ``context``: the moment's.

    ``learn``: false where nobody will act on the answer; it is recorded, and neither learned from nor counted as shown.
    """

    user: RawId
    count: int = 0
    items: Sequence[RawId] | None = None
    context: Mapping[str, Any] = field(default_factory=dict)
    learn: bool = True


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
    """One request on its way. ``rows``: the items to score, by row of the catalogue; -1 where it does not know them."""

    ask: Ask
    request_id: str
    time_us: int
    person: dict[str, list[int]]
    person_dense: dict[str, float]
    rows: Rows
    hidden: Rows
    field: Field | None = None


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
        self._replica = replica
        assert settings.history_slots is not None, "filled when made"
        self._liked = {
            name: (source, settings.history_slots[name], self._schema.slot(name).max_len or settings.history_max)
            for name, source in self._schema.history_slots.items()
            if source != "item" and name in settings.history_slots
        }
        self._candidates = Candidates(settings, catalogue, exposure, shelf)
        schema = settings.schema
        self._request_slots = [slot.name for slot in schema.slots_of(Side.REQUEST)]
        self._request_dense = [one.name for one in schema.dense_of(Side.REQUEST)]
        self._person_slots = [slot.name for slot in schema.slots_of(Side.USER)] + self._request_slots
        self._person_dense = [one.name for one in schema.dense_of(Side.USER)] + self._request_dense
        self._logit_shift = math.log(settings.uncorrected_negative_rate)
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
        self._candidates.list_items(now_us)
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
        profile = self._catalogue.profile_of(ask.user)
        person = {**profile.slots, **self._behaviours.history_of(ask.user), **self._likes(ask.user)}
        dense = dict(profile.dense)
        if ask.context or self._request_slots or self._request_dense:
            context = self._context(ask.context)
            person |= {name: jagged.values.tolist() for name, jagged in context.slots.items()}
            dense |= {name: column.item() for name, column in context.dense.items()}
        request_id = _request_id(now_us)
        if ask.items is not None:
            rows = np.array([self._catalogue.row_or_absent(raw) for raw in ask.items], dtype=np.int64)
            return _Task(ask, request_id, now_us, person, dense, rows=rows, hidden=_NO_ROWS)
        if len(self._catalogue) == 0:
            raise NotReadyError("the catalogue is empty; send items to /v1/items first")
        hidden = self._catalogue.rows_of(self._behaviours.hidden_of(ask.user, now_us))
        return _Task(ask, request_id, now_us, person, dense, rows=_NO_ROWS, hidden=hidden)

    def _likes(self, user: RawId) -> dict[str, list[int]]:
        """What the items in a person's history are like: for each such slot the FIDs, of the oldest item first."""
        if not self._liked:
            return {}
        acts = self._behaviours.acts_of(user)
        likes = {}
        for name, (source, kinds, length) in self._liked.items():
            rows = self._catalogue.rows_of([act.item for act in acts if act.kind in kinds][-length:])
            likes[name] = self._catalogue.fids(source, rows)[-length:]
        return likes

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
        self._find([task for task in tasks if task.ask.items is None], parameters)
        items = self._items(tasks)
        logits = self._logits(parameters, self._beside_people(tasks, items, now_us)) if parameters is not None else None
        if logits is None:
            parameters = None
            self.fallback_count += len(tasks)
        columns = {name: jagged.to_lists() for name, jagged in items.slots.items()}
        dense = {name: column.tolist() for name, column in items.dense.items()}
        slates, start = [], 0
        for task in tasks:
            end = start + len(task.rows)
            scores, probabilities = self._judged(task.rows, None if logits is None else logits[start:end])
            places = self._places(task, scores, is_by_model=logits is not None)
            chosen = [start + place.row for place in places]
            impression = self._impression(
                task,
                places,
                probabilities,
                item_slots={name: [lists[at] for at in chosen] for name, lists in columns.items()},
                item_dense={name: [values[at] for at in chosen] for name, values in dense.items()},
                version=parameters.version if parameters is not None else 0,
            )
            slates.append(self._slate(task, places, impression, parameters))
            start = end
        return slates

    def _find(self, asking: Sequence[_Task], parameters: Parameters | None) -> None:
        """What may be shown to those who ask for a recommendation."""
        if not asking:
            return
        wishes = [Wish(task.request_id, task.ask.count, task.hidden) for task in asking]
        people = Batch(
            size=len(asking),
            slots={name: Jagged.from_lists([task.person[name] for task in asking]) for name in self._person_slots},
            dense={name: torch.tensor([task.person_dense[name] for task in asking]) for name in self._person_dense},
        )
        for task, found in zip(asking, self._candidates.fields(wishes, people, parameters), strict=True):
            task.field, task.rows = found, found.rows

    def _beside_people(self, tasks: Sequence[_Task], items: Batch, now_us: int) -> Batch:
        """``items`` with the features of whoever asks about each."""
        counts = [len(task.rows) for task in tasks]
        slots = {name: _tiled([task.person[name] for task in tasks], counts, items.size) for name in self._person_slots}
        dense = {
            name: torch.from_numpy(np.repeat(np.array([t.person_dense[name] for t in tasks], dtype=np.float32), counts))
            for name in self._person_dense
        }
        return Batch(
            size=items.size,
            slots={**slots, **items.slots},
            dense={**dense, **items.dense},
            event_times_us=torch.full((items.size,), now_us, dtype=torch.int64),
        )

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
        popularity = np.full(len(rows), -1.0)
        is_known = (rows >= 0) & (rows < len(self._candidates.popularity))
        popularity[is_known] = self._candidates.popularity[rows[is_known]]
        return popularity, self._exposure.rates(rows)

    def _places(self, task: _Task, scores: NDArray[np.float64], *, is_by_model: bool) -> list[Place]:
        """Which of the task's rows stand where; ``Place.row`` counts within the task here."""
        if task.field is not None and is_by_model:
            # How likely it is liked once it is looked at, times how likely this person looks at it at all: the ranker
            # has only seen what was shown, the retriever tells an item from the whole catalogue.
            scores = self._settings.affinity_weight * task.field.affinities - np.logaddexp(0.0, -scores)
        order = np.argsort(-scores, kind="stable")
        if task.field is None:
            return [Place(int(place), 1.0, explored=False) for place in order]
        order = order[task.field.competes[order]]
        place_of = {row: place for place, row in enumerate(task.rows.tolist())}
        places = compose(task.rows[order].tolist(), task.field.drawn)
        return [Place(place_of[one.row], one.propensity, one.explored) for one in places]

    def _impression(
        self,
        task: _Task,
        places: Sequence[Place],
        probabilities: NDArray[np.float64],
        *,
        item_slots: dict[str, list[list[int]]],
        item_dense: dict[str, list[float]],
        version: int,
    ) -> Impression:
        given, ids = task.ask.items, self._catalogue.ids
        return Impression(
            request_id=task.request_id,
            event_time_us=task.time_us,
            user=task.ask.user,
            version=version,
            surface="rank" if given is not None else "recommend",
            shared=Features(task.person, task.person_dense),
            items=[given[place.row] if given is not None else ids[int(task.rows[place.row])] for place in places],
            item_slots=item_slots,
            item_dense=item_dense,
            probabilities=[float(probabilities[place.row]) for place in places],
            propensities=[place.propensity for place in places],
            learn=task.ask.learn,
        )

    def _slate(
        self, task: _Task, places: Sequence[Place], impression: Impression, parameters: Parameters | None
    ) -> Slate:
        rows = [int(task.rows[place.row]) for place in places]
        attributes = [self._catalogue.attributes[row] if row >= 0 else None for row in rows]
        return Slate(impression, attributes, [place.explored for place in places], parameters)


_NO_ROWS: Final = np.empty(0, dtype=np.int64)


def _tiled(people: Sequence[list[int]], counts: Sequence[int], size: int) -> Jagged:
    """The FIDs of each person, once for each of the person's items."""
    offsets = np.zeros(size + 1, dtype=np.int64)
    np.cumsum(np.repeat([len(fids) for fids in people], counts), out=offsets[1:])
    tiles = [
        np.broadcast_to(np.array(fids, dtype=np.int64), (count, len(fids))).reshape(-1)
        for fids, count in zip(people, counts, strict=True)
    ]
    return Jagged(torch.from_numpy(np.concatenate(tiles)), torch.from_numpy(offsets))


def _request_id(now_us: int) -> str:
    """128 bits, of which the first 48 are the time in milliseconds: ids of one moment lie together in any store."""
    return f"{now_us // 1000:012x}{secrets.token_hex(10)}"

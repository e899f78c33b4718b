"""From "what next, for this person, now?" to a slate: retrieve, filter, rank, decide.

Requests that wait together are answered together: one pass of the model scores the candidates of all of them, since a
pass costs more than the rows in it. Everything about items is gathered by row in a few calls; Python objects are
touched for the few items that are shown.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dolmen.clock import Clock
from dolmen.errors import DolmenError, NotReadyError
from dolmen.events import Features, Impression
from dolmen.features import Batch, RawId
from dolmen.models import Ability, condenser, scorer
from dolmen.request_ids import new_request_id
from dolmen.serving.behaviour_sums import BehaviourSums
from dolmen.serving.behaviours import Behaviours
from dolmen.serving.candidates import Candidates, Field, Wish
from dolmen.serving.catalogue import Catalogue, Rows
from dolmen.serving.exposure import Exposure
from dolmen.serving.inputs import Inputs
from dolmen.serving.policy import Place, compose
from dolmen.serving.replica import Replica
from dolmen.serving.settings import ServeSettings
from dolmen.serving.shelf import Shelf
from dolmen.telemetry import logger
from dolmen.training.snapshot import Parameters

__all__ = ["Ask", "Recommender", "Slate"]

_log = logger(__name__)


@final
@dataclass(frozen=True)
class Ask:
    """One request. ``items``: rank these; ``None``: recommend ``count`` of the catalogue. ``context``: the moment's.

    ``learn``: false where nobody will act on the answer; it is recorded, and neither learned from nor counted as shown.
    ``request_id``: the asker's name for it; ``None``: one is made, and nobody can ask for the same slate again.
    """

    user: RawId
    count: int = 0
    items: Sequence[RawId] | None = None
    context: Mapping[str, Any] = field(default_factory=dict)
    learn: bool = True
    request_id: str | None = None


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
    person: Features
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
        sums: BehaviourSums,
        exposure: Exposure,
        replica: Replica,
        shelf: Shelf,
    ) -> None:
        self._settings, self._clock = settings, clock
        self._catalogue, self._behaviours, self._exposure = catalogue, behaviours, exposure
        self._sums, self._replica = sums, replica
        self._inputs = Inputs(settings, catalogue, behaviours)
        self._candidates = Candidates(settings, catalogue, exposure, shelf)
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
            except Exception:  # a fault of ours: the others are answered
                _log.exception("request not begun", user=ask.user)
                outcomes.append(DolmenError("ranking failed"))
        slates = iter(self._slates_of_those_who_can(tasks, now_us) if tasks else ())
        return [next(slates) if outcome is None else outcome for outcome in outcomes]

    def _slates_of_those_who_can(self, tasks: Sequence[_Task], now_us: int) -> list[Slate | DolmenError]:
        """A slate for each task; where they fail together each is tried alone, so that one fault is one person's."""
        try:
            return [*self._slates(tasks, now_us)]
        except Exception:  # a fault of ours, such as a model that cannot take its batch
            _log.exception("requests not ranked", count=len(tasks), user=tasks[0].ask.user if len(tasks) == 1 else None)
            if len(tasks) == 1:
                return [DolmenError("ranking failed")]
        return [outcome for task in tasks for outcome in self._slates_of_those_who_can([task], now_us)]

    def _begin(self, ask: Ask, now_us: int) -> _Task:
        person = self._inputs.person(ask.user, ask.context)
        request_id = ask.request_id if ask.request_id is not None else new_request_id(now_us)
        if ask.items is not None:
            rows = np.array([self._catalogue.row_or_absent(raw) for raw in ask.items], dtype=np.int64)
            return _Task(ask, request_id, now_us, person, rows=rows, hidden=_NO_ROWS)
        if len(self._catalogue) == 0:
            raise NotReadyError("the catalogue is empty; send items to /v1/items first")
        hidden = self._catalogue.rows_of(self._behaviours.hidden_of(ask.user, now_us))
        return _Task(ask, request_id, now_us, person, rows=_NO_ROWS, hidden=hidden)

    def _slates(self, tasks: Sequence[_Task], now_us: int) -> list[Slate]:
        parameters = self.usable_parameters()
        people = self._inputs.people([task.person for task in tasks])
        self._find(tasks, people, parameters)
        items = self._inputs.items([(task.rows, task.ask.items) for task in tasks])
        logits = None
        if parameters is not None:
            logits = self._logits(parameters, tasks, people, items, now_us)
        if logits is None:
            parameters = None
            self.fallback_count += len(tasks)
        dense = {name: column.numpy() for name, column in items.dense.items()}
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
                item_slots={name: jagged.to_lists(chosen) for name, jagged in items.slots.items()},
                item_dense={name: values[chosen].tolist() for name, values in dense.items()},
                version=parameters.version if parameters is not None else 0,
            )
            slates.append(self._slate(task, places, impression, parameters))
            start = end
        return slates

    def _find(self, tasks: Sequence[_Task], people: Batch, parameters: Parameters | None) -> None:
        """What may be shown to those who ask for a recommendation."""
        wishes = [
            None if task.ask.items is not None else Wish(task.request_id, task.ask.count, task.hidden) for task in tasks
        ]
        for task, found in zip(tasks, self._candidates.fields(wishes, people, parameters), strict=True):
            if found is not None:
                task.field, task.rows = found, found.rows

    def _logits(
        self, parameters: Parameters, tasks: Sequence[_Task], people: Batch, items: Batch, now_us: int
    ) -> NDArray[np.float64] | None:
        """What the model says of ``items``, shape (rows,); ``None`` where it cannot be used."""
        if Ability.SCORES not in parameters.model.abilities:
            return None
        with parameters.computing():
            logits = self._scores(parameters, tasks, people, items, now_us).double().cpu().numpy()
        if np.isfinite(logits).all():
            shifted: NDArray[np.float64] = logits + self._logit_shift
            return shifted
        self.broken_score_count += 1  # learning went astray: people still get an answer
        return None

    def _scores(
        self, parameters: Parameters, tasks: Sequence[_Task], people: Batch, items: Batch, now_us: int
    ) -> Tensor:
        counts = [len(task.rows) for task in tasks]
        able = condenser(parameters.model)
        if able is None:
            batch = self._inputs.beside(people, counts, items, now_us)
            return scorer(parameters.model).score(parameters.placed(batch))
        newest = {name: people.slot(name).last(able.recent_count) for name in able.past_slots}
        sums = self._sums.of(parameters, [task.ask.user for task in tasks])
        owners = torch.repeat_interleave(torch.tensor(counts))
        batch = self._inputs.beside(replace(people, slots={**people.slots, **newest}), counts, items, now_us)
        return able.score_condensed(parameters.placed(batch), sums, owners)

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
            shared=task.person,
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
        attributes = [self._catalogue.answered(row) if row >= 0 else None for row in rows]
        return Slate(impression, attributes, [place.explored for place in places], parameters)


_NO_ROWS: Final = np.empty(0, dtype=np.int64)

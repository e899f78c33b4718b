"""The HTTP API: what a shop calls. Handlers check, hand over, and answer; the work is in the parts they are given."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Annotated, Any, Final

import msgspec
from fastapi import APIRouter, Path, Query, Response

from dolmen.clock import TIME_US_MIN, Clock, time_mend
from dolmen.errors import SchemaError
from dolmen.events import Action, CatalogueChange, encode
from dolmen.features import RawId, Side
from dolmen.serving.behaviours import Behaviours
from dolmen.serving.catalogue import Catalogue, check_attributes
from dolmen.serving.ids import key_of, resolve
from dolmen.serving.ingest import Writer
from dolmen.serving.parts import Parts
from dolmen.serving.problems import Refusal
from dolmen.serving.recommender import Ask, Recommender
from dolmen.serving.routes import BodyRoute, QueryRoute
from dolmen.serving.scoring import Scoring, told_parameters
from dolmen.serving.settings import ServeSettings
from dolmen.serving.shelf import Shelf
from dolmen.serving.status import StatusBoard
from dolmen.serving.wire import (
    ITEMS_MAX,
    Accepted,
    CatalogueEntry,
    ErrorAnswer,
    Events,
    Items,
    OneEvent,
    People,
    PeopleAnswer,
    PersonAnswer,
    RankAsk,
    RecommendAsk,
    SimilarAnswer,
    SlateAnswer,
    StatusAnswer,
)

__all__ = ["routers"]

_LISTED_MAX: Final = 100
_ID_CHARACTERS_MAX: Final = 256

_REFUSED: Final[dict[int | str, dict[str, Any]]] = {
    401: {"model": ErrorAnswer, "description": "The token is missing or wrong."},
    413: {"model": ErrorAnswer, "description": "The body is too large."},
    422: {"model": ErrorAnswer, "description": "A field cannot be used; the message names it and the mend."},
    503: {"model": ErrorAnswer, "description": "Too much is waiting, or a part is not ready. `Retry-After` says when."},
}
_NOT_FOUND: Final[dict[int | str, dict[str, Any]]] = {404: {"model": ErrorAnswer, "description": "Nobody of that id."}}

_encoder: Final = msgspec.json.Encoder()

PathId = Annotated[
    str,
    Path(min_length=1, max_length=_ID_CHARACTERS_MAX, description="Digits mean the integer, where that one is known."),
]


def routers(parts: Parts) -> list[APIRouter]:
    """All routes, each with the parts that it needs."""
    names = _Names(parts.catalogue, parts.behaviours)
    slates = _slates(parts.settings, names, parts.scoring)
    return [
        # The framework looks for a route one after the other: what is asked most stands first.
        _events(parts.settings, parts.clock, names, parts.actions),
        *slates,
        _catalogue(parts.settings, parts.clock, names, parts.changes),
        _similar(parts, names, parts.shelf, parts.recommender),
        _people(names, parts.catalogue, parts.behaviours),
        _operations(parts, parts.board),
    ]


class _Names:
    """Which person or item an id means."""

    def __init__(self, catalogue: Catalogue, behaviours: Behaviours) -> None:
        self._catalogue, self._behaviours = catalogue, behaviours

    def user(self, raw: RawId) -> RawId:
        return resolve(raw, self.is_known_user)

    def item(self, raw: RawId) -> RawId:
        return resolve(raw, self._catalogue.is_known_item)

    def is_known_user(self, raw: RawId) -> bool:
        return self._catalogue.is_known_user(raw) or self._behaviours.is_known(raw)


def _events(settings: ServeSettings, clock: Clock, names: _Names, writer: Writer) -> APIRouter:
    router = APIRouter(prefix="/v1", tags=["events"], responses=_REFUSED, route_class=BodyRoute)
    ahead_us = settings.us("event_ahead_max")

    @router.post("/events", status_code=202, response_model=Accepted)
    async def post_events(body: Events) -> Response:
        """Tell what people did. Answered once the events are on disk; each person's next slate knows of them."""
        now_us = clock.now_us()
        actions = [_action(place, event, names, now_us, ahead_us) for place, event in enumerate(body.events)]
        values = [encode(action) for action in actions]
        keys = [action.request_id.encode() if action.request_id else key_of(action.user) for action in actions]
        arrived = await writer.write(values, actions, keys)
        return _json({"accepted": len(actions), "positions": arrived.positions}, status=202)

    return router


def _action(place: int, event: OneEvent, names: _Names, now_us: int, ahead_us: int) -> Action:
    time_us = event.event_time_us if event.event_time_us is not None else now_us
    if not TIME_US_MIN <= time_us <= now_us + ahead_us:
        field = f"events[{place}].event_time_us"
        mend = time_mend(time_us, now_us + ahead_us)
        raise Refusal(422, "invalid", f"{field}: {time_us} lies outside 1990 .. now ({now_us}); {mend}", field=field)
    return Action(
        event_id=event.event_id,
        request_id=event.request_id,
        user=names.user(event.user),
        item=names.item(event.item),
        kind=event.kind,
        value=event.value,
        event_time_us=time_us,
    )


def _catalogue(settings: ServeSettings, clock: Clock, names: _Names, writer: Writer) -> APIRouter:
    router = APIRouter(prefix="/v1", tags=["catalogue"], responses=_REFUSED, route_class=BodyRoute)

    async def write(of: Side, name: str, entries: Sequence[CatalogueEntry]) -> Response:
        resolved = [(names.item if of is Side.ITEM else names.user)(entry.id) for entry in entries]
        described = [(raw, entry.attributes) for raw, entry in zip(resolved, entries, strict=True)]
        try:
            await asyncio.to_thread(check_attributes, settings.schema, of, described)
        except SchemaError as problem:
            row, _, message = str(problem).removeprefix("row ").partition(": ")
            field = f"{name}[{row}].attributes"
            raise Refusal(422, "invalid", f"{field}: {message}", field=field) from None
        now_us = clock.now_us()
        changes = [
            CatalogueChange(
                "item" if of is Side.ITEM else "user", raw, dict(entry.attributes), entry.removed, event_time_us=now_us
            )
            for raw, entry in zip(resolved, entries, strict=True)
        ]
        arrived = await writer.write([encode(change) for change in changes], changes, [key_of(raw) for raw in resolved])
        return _json({"accepted": len(changes), "positions": arrived.positions}, status=202)

    @router.post("/items", status_code=202, response_model=Accepted)
    async def post_items(body: Items) -> Response:
        """Add, replace or remove items. They can be shown from the next answer on."""
        return await write(Side.ITEM, "items", body.items)

    @router.post("/users", status_code=202, response_model=Accepted)
    async def post_users(body: People) -> Response:
        """Add, replace or forget what is known of people. Nobody needs to be added first: a new id works at once."""
        return await write(Side.USER, "users", body.users)

    return router


def _slates(settings: ServeSettings, names: _Names, scoring: Scoring) -> tuple[APIRouter, APIRouter]:
    router = APIRouter(prefix="/v1", tags=["slates"], responses=_REFUSED, route_class=QueryRoute)
    bodies = APIRouter(prefix="/v1", tags=["slates"], responses=_REFUSED, route_class=BodyRoute)

    async def answer(ask: Ask) -> Response:
        if ask.count > settings.slate_max:
            raise Refusal(422, "invalid", f"count must be at most {settings.slate_max}, got {ask.count}", field="count")
        return Response(await scoring.answer(ask), media_type="application/json")

    @router.get("/recommend", response_model=SlateAnswer)
    async def get_recommend(
        user: Annotated[str, Query(min_length=1, max_length=_ID_CHARACTERS_MAX, examples=["7"])],
        count: Annotated[int, Query(ge=1, le=ITEMS_MAX)] = 10,
        learn: Annotated[bool, Query(description="False where nobody will act on the answer.")] = True,
        request_id: Annotated[
            str | None, Query(min_length=1, max_length=128, description="Your name for it; a retry has the same.")
        ] = None,
    ) -> Response:
        """The next slate for a person, known or not."""
        return await answer(Ask(names.user(user), count=count, learn=learn, request_id=request_id))

    @bodies.post("/recommend", response_model=SlateAnswer)
    async def post_recommend(body: RecommendAsk) -> Response:
        """The next slate for a person, known or not. What this person did is not shown again (see `serving.hide`)."""
        user = names.user(body.user)
        return await answer(
            Ask(user, count=body.count, context=body.context, learn=body.learn, request_id=body.request_id)
        )

    @bodies.post("/rank", response_model=SlateAnswer)
    async def post_rank(body: RankAsk) -> Response:
        """Your items in the order in which this person should see them; they count as shown. Unknown items work."""
        items = [names.item(raw) for raw in body.items]
        if len(set(items)) < len(items):
            twice = next(raw for place, raw in enumerate(items) if raw in items[:place])
            raise Refusal(422, "invalid", f"items: {twice!r} is listed twice; list each item once", field="items")
        user = names.user(body.user)
        return await answer(Ask(user, items=items, context=body.context, learn=body.learn, request_id=body.request_id))

    return bodies, router


def _similar(parts: Parts, names: _Names, shelf: Shelf, recommender: Recommender) -> APIRouter:
    router = APIRouter(prefix="/v1", tags=["catalogue"], responses={**_REFUSED, **_NOT_FOUND}, route_class=QueryRoute)
    catalogue, board, clock = parts.catalogue, parts.board, parts.clock

    @router.get("/items/{item_id:path}/similar", response_model=SimilarAnswer)
    async def get_similar(item_id: PathId, count: Annotated[int, Query(ge=1, le=_LISTED_MAX)] = 10) -> Response:
        """The items nearest to one item, by the vectors that retrieval uses."""
        raw = names.item(item_id)
        row = catalogue.row_of(raw)
        if row is None:
            raise Refusal(404, "not_found", f"there is no item {item_id!r}; send it to /v1/items", field="item_id")
        rows, similarities = await asyncio.to_thread(shelf.similar, row, count)
        items = [
            {"item": catalogue.ids[near], "similarity": similarity, "attributes": catalogue.answered(near)}
            for near, similarity in zip(rows.tolist(), similarities.tolist(), strict=True)
        ]
        told = told_parameters(recommender.usable_parameters(), clock.now_us(), is_stale=board.is_stale())
        return _json({"item": raw, "items": items, "parameters": told})

    return router


def _people(names: _Names, catalogue: Catalogue, behaviours: Behaviours) -> APIRouter:
    router = APIRouter(prefix="/v1", tags=["people"], responses=_REFUSED, route_class=QueryRoute)

    @router.get("/users", response_model=PeopleAnswer)
    async def get_users(
        prefix: Annotated[str, Query(max_length=_ID_CHARACTERS_MAX, description="Of the id, as text.")] = "",
        limit: Annotated[int, Query(ge=1, le=_LISTED_MAX)] = 20,
    ) -> Response:
        """Some people of the catalogue. Who was added within the last second may be missing."""
        users = await asyncio.to_thread(catalogue.users, prefix, limit)
        return _json({"users": [{"id": raw, "attributes": attributes} for raw, attributes in users]})

    @router.get("/users/{user_id:path}", response_model=PersonAnswer, responses=_NOT_FOUND)
    async def get_user(user_id: PathId) -> Response:
        """What is known of a person: attributes, and what they did, newest last."""
        raw = names.user(user_id)
        acts = behaviours.acts_of(raw)
        if not acts and not catalogue.is_known_user(raw):
            message = f"nobody is called {user_id!r} yet; whoever asks for a slate or acts needs no entry first"
            raise Refusal(404, "not_found", message, field="user_id")
        history = []
        for act in acts:
            row = catalogue.row_of(act.item)
            history.append(
                {
                    "item": act.item,
                    "kind": act.kind,
                    "value": act.value,
                    "event_time_us": act.event_time_us,
                    "attributes": catalogue.answered(row) if row is not None else {},
                }
            )
        return _json({"id": raw, "attributes": catalogue.profile_of(raw).attributes, "history": history})

    return router


def _operations(parts: Parts, board: StatusBoard) -> APIRouter:
    router = APIRouter(tags=["operations"], route_class=QueryRoute)

    @router.get("/v1/status", response_model=StatusAnswer, responses={401: _REFUSED[401]})
    async def get_status() -> Response:
        """The whole loop: every stage, the figures of now, and those of the last ten minutes."""
        return _json(board.answer())

    @router.get("/healthz", responses={500: {"model": ErrorAnswer, "description": "A part has died: restart."}})
    async def get_healthz() -> dict[str, str]:
        """Whether this process works."""
        dead = parts.dead_threads()
        if dead:
            raise Refusal(500, "unhealthy", f"these parts have died: {', '.join(dead)}; restart the server")
        return {"status": "ok"}

    @router.get("/readyz", responses={503: _REFUSED[503]})
    async def get_readyz() -> dict[str, int | str | None]:
        """Whether this server should get requests. It serves by popularity while nothing is learned yet."""
        if not parts.is_ready:
            raise Refusal(503, "not_ready", "the server is starting or stopping", retry=True)
        parameters = parts.recommender.usable_parameters()
        version = parameters.version if parameters is not None else None
        return {"status": "ready", "version": version, "items": len(parts.catalogue)}

    @router.get("/metrics", response_class=Response, responses={401: _REFUSED[401]})
    async def get_metrics() -> Response:
        """Metrics in Prometheus's text format."""
        return Response(parts.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    return router


def _json(value: Any, *, status: int = 200) -> Response:
    return Response(_encoder.encode(value), status_code=status, media_type="application/json")

"""Routes that take what they declare and nothing else: a JSON body, which a shop sends all the time, or a query.

Such a body is read and checked in one go. The framework's general way (which also knows forms, files and injected
parts) takes several times as long, and all requests of a server share one interpreter.
"""

from __future__ import annotations

from typing import Any, Final, final
from urllib.parse import parse_qsl

from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import TypeAdapter, ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from dolmen.settings import suggestion

__all__ = ["BodyRoute", "QueryRoute"]

_NO_JSON: Final = {"type": "model_type", "loc": ("body",), "msg": "the body is not sent as JSON", "input": None}


@final
class BodyRoute(APIRoute):
    """A route for ``APIRouter(route_class=…)``; its handler is ``async def handler(body: Model) -> Response``."""

    def __init__(self, path: str, endpoint: Any, **options: Any) -> None:
        super().__init__(path, endpoint, **options)
        body = self.body_field.field_info.annotation if self.body_field is not None else None
        assert body is not None, f"{path}: its handler must take a body"
        assert not self.dependant.query_params, f"{path}: a body is all that its handler may take"
        self._body: TypeAdapter[Any] = TypeAdapter(body)

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or raise what ``problems`` answers."""
        if scope["method"] != "POST":
            raise HTTPException(405, headers={"Allow": "POST"})
        if scope["query_string"]:
            _check_query(scope, frozenset())
        body = await _read(receive)
        if not _is_json(scope):
            raise RequestValidationError([_NO_JSON])
        try:
            value = self._body.validate_json(body)
        except ValidationError as problem:
            errors = problem.errors(include_url=False)
            raise RequestValidationError([{**one, "loc": ("body", *one["loc"])} for one in errors]) from None
        response = await self.endpoint(value)
        await response(scope, receive, send)


@final
class QueryRoute(APIRoute):
    """A route that takes what its handler declares of the address, each once, and refuses the rest."""

    def __init__(self, path: str, endpoint: Any, **options: Any) -> None:
        super().__init__(path, endpoint, **options)
        self._known = frozenset(one.alias for one in self.dependant.query_params)

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or raise what ``problems`` answers."""
        if scope["query_string"]:
            _check_query(scope, self._known)
        await super().handle(scope, receive, send)


def _check_query(scope: Scope, known: frozenset[str]) -> None:
    """Refuse a query parameter that is not known or comes twice: passed over, it would be a mistake that nobody finds.

    Raises:
        RequestValidationError: names it, and the nearest one that is known.
    """
    seen: set[str] = set()
    for name, value in parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True):
        if name not in known:
            message = f"unknown query parameter {name[:64]!r}{suggestion(name[:64], known)}"
        elif name in seen:
            message = f"query parameter {name!r} comes twice; send it once"
        else:
            seen.add(name)
            continue
        raise RequestValidationError(
            [{"type": "unusable", "loc": ("query", name[:64]), "msg": message, "input": value[:80]}]
        )


async def _read(receive: Receive) -> bytes:
    parts: list[bytes] = []
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise ClientDisconnect
        parts.append(message.get("body", b""))
        if not message.get("more_body", False):
            return parts[0] if len(parts) == 1 else b"".join(parts)


def _is_json(scope: Scope) -> bool:
    """What a form or a plain text page may send from elsewhere is not asked for."""
    for name, value in scope["headers"]:
        if name == b"content-type":
            kind: bytes = value.partition(b";")[0].strip().lower()
            return kind == b"application/json" or (kind.startswith(b"application/") and kind.endswith(b"+json"))
    return False

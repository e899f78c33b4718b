"""Errors over HTTP: one JSON shape on every route, with a message that says what to mend."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from dolmen.errors import (
    BadEventError,
    DolmenError,
    LogError,
    NotReadyError,
    OverloadedError,
    SchemaError,
)
from dolmen.settings import expectation, shown

__all__ = ["Refusal", "broken", "install", "refusal"]

_CODES: Final = {
    400: "bad_request",
    401: "unauthorized",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    408: "timeout",
    413: "too_large",
    415: "unsupported_media_type",
    422: "invalid",
}
_RETRY_AFTER_SECONDS: Final = 1.0


class Refusal(Exception):  # noqa: N818 - an answer, not a failure of ours
    """Raised by a handler that refuses a request: ``status`` and the fields of the error's JSON."""

    def __init__(self, status: int, code: str, message: str, *, field: str | None = None, retry: bool = False) -> None:
        super().__init__(message)
        self.status, self.code, self.field, self.retry = status, code, field, retry


def refusal(
    status: int,
    code: str,
    message: str,
    *,
    field: str | None = None,
    retry: bool = False,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """The response that says so."""
    error: dict[str, Any] = {"code": code, "message": message, "retry": retry}
    if field is not None:
        error["field"] = field
    return Response(
        msgspec.json.encode({"error": error}),
        status_code=status,
        media_type="application/json",
        headers=dict(headers) if headers is not None else None,
    )


def install(app: FastAPI) -> None:
    """Answer every error that a handler of ``app`` raises on purpose in our shape; ``Guard`` answers the others."""
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(Refusal, _refused)
    app.add_exception_handler(DolmenError, _failed)


async def _invalid(_: Request, problem: Exception) -> Response:
    assert isinstance(problem, RequestValidationError)
    first = problem.errors()[0]
    field = _field(first["loc"])
    if first["type"] == "json_invalid":
        return refusal(400, "bad_request", f"the body is no JSON: {first['ctx']['error']}")
    if first["type"] == "model_type" and field == "":
        message = "the body must be a JSON object, sent with Content-Type: application/json"
        return refusal(422, "invalid", message)
    return refusal(422, "invalid", _said(field or "the body", first), field=field or None)


async def _http(request: Request, problem: Exception) -> Response:
    assert isinstance(problem, HTTPException)
    message = str(problem.detail)
    if problem.status_code == 404 and message == "Not Found":
        message = f"there is nothing at {request.url.path[:200]}; /openapi.json lists what there is"
    if problem.status_code == 405:
        message = f"{request.method} does not go with {request.url.path[:200]}; /openapi.json lists what does"
    code = _CODES.get(problem.status_code, "error")
    return refusal(problem.status_code, code, message, retry=problem.status_code >= 500, headers=problem.headers)


async def _refused(_: Request, problem: Exception) -> Response:
    assert isinstance(problem, Refusal)
    return refusal(problem.status, problem.code, str(problem), field=problem.field, retry=problem.retry)


async def _failed(_: Request, problem: Exception) -> Response:
    match problem:
        case OverloadedError():
            return _later("overloaded", problem, problem.retry_after_seconds)
        case NotReadyError():
            return _later("not_ready", problem, _RETRY_AFTER_SECONDS)
        case LogError():
            return _later("log_unavailable", problem, _RETRY_AFTER_SECONDS)
        case SchemaError() | BadEventError():
            return refusal(422, "invalid", str(problem))
    return broken()


def broken() -> Response:
    """The response where a request met a fault of ours; whoever found it has logged it."""
    return refusal(500, "internal", "the server failed on this request; its log says why", retry=True)


def _later(code: str, problem: Exception, seconds: float) -> Response:
    headers = {"Retry-After": str(max(1, math.ceil(seconds)))}
    return refusal(503, code, str(problem), retry=True, headers=headers)


def _field(place: Sequence[int | str]) -> str:
    """("body", "events", 3, "item") → "events[3].item"."""
    written = ""
    for part in place[1:]:
        if isinstance(part, int):
            written += f"[{part}]"
        else:
            written += f".{part}" if written else part
    return written[:200]


def _said(field: str, error: Mapping[str, Any]) -> str:
    given = error.get("input")
    if error["type"] in ("unknown_field", "unusable"):
        return f"{field}: {error['msg']}"
    came = "" if error["type"] == "missing" else f", got {_shown(given)}"
    return f"{field} must {expectation(error)}{came}"


def _shown(value: Any) -> str:
    """Of a list or an object how many entries it has: it may be as large as the body."""
    if isinstance(value, (dict, list)):
        entries = f"{len(value)} {'entry' if len(value) == 1 else 'entries'}"
        return f"an object of {entries}" if isinstance(value, dict) else entries
    return shown(value)

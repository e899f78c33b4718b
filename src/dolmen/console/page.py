"""The console's page and its files, served by the same server as the API.

Nothing is built and nothing comes from outside: a handful of hand-written files lies beside this module, is read
once, and is answered with a strict content security policy. The page talks to the server only through the public
HTTP API, like any other client.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib import resources
from typing import Final

from fastapi import FastAPI, HTTPException, Request, Response

__all__ = ["SECURITY_HEADERS", "mount"]

_MEDIA_TYPES: Final = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml; charset=utf-8",
}

SECURITY_HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'self'; base-uri 'none'; object-src 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    # Asked again each time (the ETag makes that cheap), so that a restarted server never meets a page of an older one.
    "Cache-Control": "no-cache",
}


@dataclass(frozen=True)
class _Asset:
    body: bytes
    media_type: str
    etag: str

    def answer(self, request: Request) -> Response:
        headers = {**SECURITY_HEADERS, "ETag": self.etag}
        if request.headers.get("if-none-match") == self.etag:
            return Response(status_code=304, headers=headers)
        return Response(self.body, media_type=self.media_type, headers=headers)


def _read_assets() -> dict[str, _Asset]:
    assets = {}
    for entry in resources.files("dolmen.console").joinpath("static").iterdir():
        kind = entry.name.rpartition(".")[2]
        if kind in _MEDIA_TYPES:
            body = entry.read_bytes()
            assets[entry.name] = _Asset(body, _MEDIA_TYPES[kind], f'"{hashlib.sha256(body).hexdigest()[:32]}"')
    return assets


def mount(app: FastAPI) -> None:
    """Add the page at ``/`` and its files below ``/console/``. They are left out of the OpenAPI document.

    Only names that were there when the server started are answered, so a path cannot climb out of the folder.
    """
    assets = _read_assets()
    index = assets.pop("index.html")

    @app.api_route("/", methods=["GET", "HEAD"], include_in_schema=False)
    async def page(request: Request) -> Response:
        return index.answer(request)

    @app.api_route("/console/{name}", methods=["GET", "HEAD"], include_in_schema=False)
    async def asset(name: str, request: Request) -> Response:
        found = assets.get(name)
        if found is None:
            raise HTTPException(status_code=404, detail=f"the console has no file {name!r}")
        return found.answer(request)

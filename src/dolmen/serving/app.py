"""The application, and the server that runs it."""

from __future__ import annotations

import contextlib
import gc
import logging
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any, Final, final

import uvicorn
from fastapi import FastAPI
from fastapi.middleware.asyncexitstack import AsyncExitStackMiddleware
from fastapi.responses import JSONResponse
from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.types import ASGIApp

import dolmen
from dolmen.clock import Clock, SystemClock
from dolmen.errors import ConfigError
from dolmen.events import EmbeddedLog, Log
from dolmen.serving.address import listening_socket
from dolmen.serving.api import routers
from dolmen.serving.connections import BoundedHttp, connections_max
from dolmen.serving.guard import Guard
from dolmen.serving.parts import Parts
from dolmen.serving.problems import install
from dolmen.serving.routes import BodyRoutes
from dolmen.serving.settings import ServeSettings
from dolmen.telemetry import logger

__all__ = ["create_app", "run_server"]

_log = logger(__name__)
_BACKLOG: Final = 1024
_GRACE_SECONDS: Final = 5
_SWITCH_SECONDS: Final = 0.001  # how long a thread may keep the interpreter from the others; Python's default is 5 ms

_ABOUT: Final = """\
What next, for this person, now? Send what people do, ask for slates; each answer learns from the last within seconds.

Ids are integers or strings. Errors have one shape: `{"error": {"code", "message", "field", "retry"}}`.
"""


def create_app(settings: ServeSettings, *, log: Log | None = None, clock: Clock | None = None) -> FastAPI:
    """The application, with all its parts; they start and stop with it.

    Args:
        settings: of the server.
        log: where events go; the embedded log in ``settings.log_folder`` if ``None``. Who hands one over closes it.
        clock: the time; the machine's if ``None``.

    Raises:
        LogError: log or state cannot be opened.
    """
    own_log = log if log is not None else EmbeddedLog(settings.log_folder)
    parts = Parts(settings, own_log, clock if clock is not None else SystemClock())

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await parts.start()
        try:
            yield
        finally:
            await parts.stop()
            if log is None:
                own_log.close()

    app = _App(
        parts,
        title="dolmen",
        version=dolmen.__version__,
        description=_ABOUT,
        lifespan=lifespan,
        docs_url=None,  # those pages load scripts from elsewhere
        redoc_url=None,
        default_response_class=JSONResponse,
        telemetry={"tracing": False, "metrics": False, "logs": False},  # /metrics is ours; looked up at each request
    )
    install(app)
    for router in routers(parts):
        app.router.routes.extend(router.routes)  # an included router would be searched anew at each request
    return app


def run_server(
    app: FastAPI,
    settings: ServeSettings,
    stop: threading.Event,
    *,
    extend: Callable[[FastAPI], None] | None = None,
    listening: Callable[[str], None] | None = None,
) -> None:
    """Serve ``app`` until ``stop`` is set; then finish what is under way and return.

    Args:
        app: by ``create_app``.
        settings: the same that made it.
        stop: signals are the caller's business; they set this.
        extend: may add to the application, as the console does.
        listening: told the address once the socket is open (with port 0, the port is known only then).

    Raises:
        ConfigError: the address cannot be listened on.
        RuntimeError: a fault of ours ended the thread of a part. The server does not go on without it: it finishes what
            is under way and ends, so that whoever supervises the process starts it again. The log has the fault.
    """
    if extend is not None:
        extend(app)
    listener = listening_socket(settings)
    host, port = listener.getsockname()[:2]
    address = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    config = uvicorn.Config(
        app,
        http=BoundedHttp,
        log_config=None,
        access_log=False,
        server_header=False,
        backlog=_BACKLOG,
        limit_concurrency=connections_max(),
        timeout_keep_alive=65,
        timeout_graceful_shutdown=_GRACE_SECONDS,
        lifespan="on",
        proxy_headers=False,
    )
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    server = _Server(config)
    ended: list[str] = []

    def on_fault(name: str) -> None:
        ended.append(name)
        server.should_exit = True

    parts: Parts = app.state.parts
    parts.on_fault(on_fault)
    threading.Thread(target=_stop_when_told, args=(server, stop), name="stopper", daemon=True).start()
    _log.info("listening", address=address)
    if listening is not None:
        listening(address)
    with contextlib.closing(listener), _quick_threads():
        server.run(sockets=[listener])
    if ended:
        raise RuntimeError(f"stopped, since a fault ended the threads {', '.join(ended)}; the log above has it")
    if not server.started:
        raise ConfigError("the server could not start; the log above says why")
    _log.info("server stopped")


@final
class _App(FastAPI):
    """The framework's application, with the layers around its router that are of use here.

    It would add others that answer for failures, bound bodies and trace: ``Guard`` does the first two, and each layer
    costs every request.
    """

    def __init__(self, parts: Parts, **options: Any) -> None:
        super().__init__(**options)
        self.state.parts = parts

    def build_middleware_stack(self) -> ASGIApp:
        """Called once, before the first request."""
        parts: Parts = self.state.parts
        # The router of the framework counts on the innermost of its own layers.
        routed = BodyRoutes(AsyncExitStackMiddleware(self.router), self.routes)
        answering = ExceptionMiddleware(routed, handlers=self.exception_handlers)
        return Guard(answering, settings=parts.settings, timed=parts.timed)


@final
class _Server(uvicorn.Server):
    """uvicorn's server without its signal handlers: signals belong to whoever runs the stage."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@contextlib.contextmanager
def _quick_threads() -> Iterator[None]:
    """An interpreter that is fair to threads that answer people, as long as the server runs."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(_SWITCH_SECONDS)
    gc.collect()
    gc.freeze()  # what lives as long as the server need not be looked at again and again
    try:
        yield
    finally:
        gc.unfreeze()
        sys.setswitchinterval(before)


def _stop_when_told(server: uvicorn.Server, stop: threading.Event) -> None:
    stop.wait()
    server.should_exit = True

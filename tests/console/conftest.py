"""A headless browser, and a server in a thread. The browser stays away from everything but the machine itself."""

from __future__ import annotations

import contextlib
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Literal

import pytest
import uvicorn
from fastapi import FastAPI
from playwright.sync_api import Browser, ConsoleMessage, Page, Request, sync_playwright

BROWSER_NAMES = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")
BROWSER_ARGUMENTS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One Chromium for the tests of a module.

    Not for the whole session: Playwright keeps an event loop running in this thread for as long as it lives.
    """
    path = next(filter(None, map(shutil.which, BROWSER_NAMES)), None)
    if path is None:
        pytest.skip(f"no browser: none of {', '.join(BROWSER_NAMES)} is on the PATH (Debian: apt-get install chromium)")
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=path, args=list(BROWSER_ARGUMENTS))
        yield launched
        launched.close()


@dataclass
class Watched:
    """A page, and whatever went wrong on it or left the machine."""

    page: Page
    problems: list[str] = field(default_factory=list)
    strangers: list[str] = field(default_factory=list)

    def note(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.problems.append(f"{message.type}: {message.text}")

    def note_failure(self, request: Request) -> None:
        if request.failure != "net::ERR_ABORTED":  # the page itself takes back what it does not need any more
            self.problems.append(f"failed: {request.url} {request.failure}")


@pytest.fixture
def open_page(browser: Browser) -> Iterator[Callable[..., Watched]]:
    """``open_page(address, width=…, height=…, scheme=…)`` gives a ``Watched`` page of its own context."""
    with contextlib.ExitStack() as stack:

        def opened(
            address: str,
            *,
            width: int = 1280,
            height: int = 900,
            scheme: Literal["light", "dark"] = "light",
            calm: bool = False,
        ) -> Watched:
            context = browser.new_context(
                viewport={"width": width, "height": height},
                color_scheme=scheme,
                reduced_motion="reduce" if calm else "no-preference",
            )
            stack.callback(context.close)
            watched = Watched(context.new_page())
            page = watched.page
            page.set_default_timeout(15_000)
            page.on("console", watched.note)
            page.on("pageerror", lambda error: watched.problems.append(f"exception: {error}"))
            page.on("requestfailed", watched.note_failure)
            page.on(
                "request",
                lambda request: None if request.url.startswith(address) else watched.strangers.append(request.url),
            )
            page.goto(address)
            return watched

        yield opened


class ServerThread:
    """An application on a free port of this machine, in a thread."""

    def __init__(self, app: FastAPI, port: int = 0) -> None:
        config = uvicorn.Config(app, host="127.0.0.1", port=port, log_level="warning", ws="none", lifespan="on")
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, name="console-test-server", daemon=True)
        self._thread.start()
        while not self._server.started:
            assert self._thread.is_alive(), "the server did not start"
            self._thread.join(0.01)
        self.port: int = self._server.servers[0].sockets[0].getsockname()[1]
        self.address = f"http://127.0.0.1:{self.port}/"

    def stop(self) -> None:
        self._server.should_exit = True
        self._thread.join(20)
        assert not self._thread.is_alive(), "the server did not stop"


@pytest.fixture(scope="module")
def serve_app() -> Iterator[Callable[..., ServerThread]]:
    """``serve_app(app, port=0)`` gives a running ``ServerThread``; all are stopped in the end."""
    with contextlib.ExitStack() as stack:

        def served(app: FastAPI, port: int = 0) -> ServerThread:
            server = ServerThread(app, port)
            stack.callback(server.stop)
            return server

        yield served

"""The real loop with a thread for each stage, on one log, fed by a replay of a small simulated world."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fastapi import FastAPI

from dolmen.client import Client
from dolmen.cluster import Config
from dolmen.console import mount
from dolmen.datasets.world import World, WorldConfig
from dolmen.demo.freshness import Freshness
from dolmen.demo.replay import Replay
from dolmen.events import Joiner
from dolmen.serving import create_app
from dolmen.training import run_trainer

WORLD = WorldConfig(users=60, items=150, genre_count=6, base_click_rate=0.3, seed=5)
SLATES_BEFORE = 120  # enough that every item has a row and the model knows something
SLATES_TOGETHER = 20_000
TRICKLE_PER_SECOND = 40.0


class Worker:
    """A thread with a stop of its own; what it raises is raised again by ``stop``."""

    def __init__(self, name: str, work: Callable[[threading.Event], None]) -> None:
        self._work, self._stop = work, threading.Event()
        self._raised: list[BaseException] = []
        self._thread = threading.Thread(target=self._run, name=f"console test {name}", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._work(self._stop)
        except BaseException as raised:
            self._raised.append(raised)

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(60)
        assert not self._thread.is_alive(), f"{self._thread.name} did not stop"
        if self._raised:
            raise self._raised[0]


class Loop:
    """Everything that turns. ``serve`` makes a server thread of an application and a port."""

    def __init__(self, folder: Path, serve: Callable[[FastAPI, int], Any]) -> None:
        self.dataset = World(WORLD).dataset(SLATES_TOGETHER)
        self._serve = serve
        self.config = Config.from_dict(
            {
                "dataset": "a small world",
                "simulated": True,
                "schema": self.dataset.schema.to_dict(),
                "join": {"window": "1s"},
                "trainer": {"freeze_after_examples": 400},
                "serving": {"port": 0},
            },
            base=folder,
        )
        self.server = self._start_server(0)
        self.address: str = self.server.address
        self.joiner = Worker("joiner", self._join)
        self.trainer = Worker("trainer", self._train)
        self.client = Client(self.address)
        self._fill()

    def _start_server(self, port: int) -> Any:
        app = create_app(self.config.serving)
        mount(app)
        return self._serve(app, port)

    def restart_server(self, between: Callable[[], None]) -> None:
        """Stop the server, do something while nobody answers, and start a new one at the same address."""
        port = self.server.port
        self.server.stop()
        between()
        self.server = self._start_server(port)

    def stop_trainer(self) -> None:
        self.trainer.stop()

    def start_trainer(self) -> None:
        self.trainer = Worker("trainer", self._train)

    def _join(self, stop: threading.Event) -> None:
        log = self.config.open_log()
        try:
            Joiner(self.config.schema, log, self.config.join_folder, self.config.join).run(stop)
        finally:
            log.close()

    def _train(self, stop: threading.Event) -> None:
        log = self.config.open_log()
        try:
            run_trainer(self.config.trainer, log, stop)
        finally:
            log.close()

    def _fill(self) -> None:
        for add, table in ((self.client.add_items, self.dataset.items), (self.client.add_users, self.dataset.users)):
            rows = table.to_pylist()
            add([{"id": row.pop("id"), "attributes": {k: v for k, v in row.items() if v is not None}} for row in rows])
        slate_size = WORLD.slate_size
        first = self._replay(2000.0, done=0, count=SLATES_BEFORE * slate_size)
        first.start()
        assert first.join(120), "the first slates took too long"
        self.trickle = self._replay(TRICKLE_PER_SECOND, done=SLATES_BEFORE, count=None)
        self.trickle.start()

    def _replay(self, rate: float, *, done: int, count: int | None) -> Replay:
        slates = self.dataset.slates()
        return Replay(
            self.client, slates, Freshness(), events_per_second=rate, event_count=count, slate_count_done=done
        )

    def stop(self) -> None:
        self.trickle.stop()
        self.client.close()
        self.joiner.stop()
        self.trainer.stop()

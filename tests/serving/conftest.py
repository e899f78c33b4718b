"""A real server on a free port of loopback, with a real log; and a trainer's hand that publishes what it likes."""

from __future__ import annotations

import dataclasses
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch

from dolmen.clock import Clock, SystemClock
from dolmen.events import EmbeddedLog, Log
from dolmen.features import Batch, Dense, Label, Schema, Slot, extract_rows
from dolmen.serving import ServeSettings, create_app, run_server
from dolmen.training import TrainConfig, Trainer, new_trainer
from dolmen.training.publish import Publisher
from dolmen.training.snapshot import SnapshotFolder, load_snapshot

SCHEMA = Schema(
    Slot("user", dim=8),
    Slot("age", dim=8, of="user"),
    Slot("item", dim=8),
    Slot("genres", dim=8, many=True, of="item"),
    Slot("history", dim=8, table="item", many=True, ordered=True, max_len=10, of="user"),
    Slot("place", dim=8),
    Dense("price", of="item", default=1.0),
    Dense("hour"),
    Label("click"),
)
MODEL_OPTIONS = {
    "ranker_options": {"hidden": [16]},
    "retriever_options": {"hidden": [16], "dim": 8, "recent_items": 64, "negatives": 16, "frequency_buckets": 256},
}
GENRES = ("drama", "comedy", "horror", "western", "musical")


@dataclass
class Served:
    """A running server."""

    address: str
    settings: ServeSettings
    client: httpx.Client
    stop: threading.Event
    thread: threading.Thread

    def get(self, path: str, **params: Any) -> httpx.Response:
        return self.client.get(path, params=params)

    def post(self, path: str, body: Any) -> httpx.Response:
        return self.client.post(path, json=body)

    def recommend(self, user: int | str, count: int = 10) -> dict[str, Any]:
        answer = self.post("/v1/recommend", {"user": user, "count": count})
        assert answer.status_code == 200, answer.text
        body: dict[str, Any] = answer.json()
        return body

    def click(self, user: int | str, item: int | str, **more: Any) -> dict[str, Any]:
        answer = self.post("/v1/events", {"events": [{"user": user, "item": item, "kind": "click", **more}]})
        assert answer.status_code == 202, answer.text
        body: dict[str, Any] = answer.json()
        return body

    def add_items(self, ids: Sequence[int]) -> None:
        for start in range(0, len(ids), 500):
            answer = self.post("/v1/items", {"items": [catalogue_entry(one) for one in ids[start : start + 500]]})
            assert answer.status_code == 202, answer.text

    def end(self) -> None:
        self.stop.set()
        self.thread.join(20)
        assert not self.thread.is_alive()
        self.client.close()


def catalogue_entry(item: int) -> dict[str, Any]:
    """Item 7 is a horror: genres go round."""
    return {
        "id": item,
        "attributes": {"title": f"Title {item}", "genres": [GENRES[item % 5]], "price": float(item % 3)},
    }


def until(condition: Callable[[], Any], *, seconds: float = 20.0) -> Any:
    """What ``condition`` says once it is true; asks again and again, since the other side is another thread."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.01)
    return value


@dataclass
class Hand:
    """A trainer that publishes when told to, into the folders that a server reads."""

    log: Log
    folder: SnapshotFolder
    clock: Clock
    trainer: Trainer
    publisher: Publisher = field(init=False)

    def __post_init__(self) -> None:
        self.publisher = Publisher(self.trainer, self.log, self.clock)

    def snapshot(self) -> None:
        self.folder.write(
            self.trainer.contents(created_time_us=self.clock.now_us(), parameters_offset=self.publisher.next_offset)
        )

    def learn(self, steps: int, *, seed: int = 0) -> None:
        """Person p likes genre p % 5, whoever's price and whatever hour."""
        rng = np.random.default_rng(seed)
        for _ in range(steps):
            self.trainer.step(taste_batch(rng, self.clock.now_us()))
        self.trainer.positions["actions/0"] = self.trainer.version

    def publish(self, *, with_dense: bool = True) -> None:
        self.publisher.publish(with_dense=with_dense)


def taste_batch(rng: np.random.Generator, now_us: int, size: int = 64) -> Batch:
    """Half of the rows are of the genre that the person's history is made of, and those are clicked."""
    rows = []
    for _ in range(size):
        taste = int(rng.integers(5))
        item = int(rng.integers(100)) * 5 + (taste if rng.random() < 0.5 else int(rng.integers(5)))
        rows.append(
            {
                "user": int(rng.integers(1000)),
                "item": item,
                "genres": [GENRES[item % 5]],
                "history": [int(one) * 5 + taste for one in rng.integers(100, size=int(rng.integers(1, 6)))],
                "price": float(item % 3),
                "hour": 12.0,
                "click": float(item % 5 == taste),
            }
        )
    plain = extract_rows(SCHEMA, rows, with_labels=True)
    return dataclasses.replace(plain, event_times_us=torch.full((size,), now_us, dtype=torch.int64))


@pytest.fixture
def wait() -> Callable[..., Any]:
    return until


@pytest.fixture
def await_up() -> Callable[[httpx.Client], None]:
    """Returns when the server that ``client`` asks is ready."""
    return lambda client: until(lambda: is_up(client))


@pytest.fixture(autouse=True)
def one_torch_thread() -> None:
    torch.set_num_threads(1)


def settings_in(folder: Path) -> ServeSettings:
    return ServeSettings(
        schema=SCHEMA,
        log_folder=folder / "log",
        snapshot_folder=folder / "trainer" / "snapshots",
        state_folder=folder / "serving",
        port=0,
        dataset="tests",
        simulated=True,
    )


@pytest.fixture
def settings(tmp_path: Path) -> ServeSettings:
    return settings_in(tmp_path)


@pytest.fixture
def log(settings: ServeSettings) -> Iterator[EmbeddedLog]:
    with EmbeddedLog(settings.log_folder) as opened:
        yield opened


_CONFIG = TrainConfig(learning_rate=0.01)


@pytest.fixture
def hand(settings: ServeSettings, log: EmbeddedLog) -> Hand:
    """A trainer that has learned nothing."""
    return Hand(log, SnapshotFolder(settings.snapshot_folder), SystemClock(), new_hand())


def new_hand() -> Trainer:
    return new_trainer(SCHEMA, "joint", MODEL_OPTIONS, _CONFIG)


@pytest.fixture(scope="session")
def tastes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The snapshots of a trainer that has learned everybody's taste, in 150 steps."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("tastes")
    with EmbeddedLog(folder / "log") as log:
        hand = Hand(log, SnapshotFolder(folder / "snapshots"), SystemClock(), new_hand())
        hand.learn(150)
        hand.snapshot()
    return folder / "snapshots"


@pytest.fixture
def knowing_hand(settings: ServeSettings, log: EmbeddedLog, tastes: Path) -> Hand:
    """A trainer that has learned everybody's taste."""
    shutil.copytree(tastes, settings.snapshot_folder)
    trainer = Trainer.resume(load_snapshot(settings.snapshot_folder), _CONFIG)
    return Hand(log, SnapshotFolder(settings.snapshot_folder), SystemClock(), trainer)


Serve = Callable[..., Served]


@pytest.fixture
def serve(settings: ServeSettings) -> Iterator[Serve]:
    """Starts servers: with other settings, or a log of one's own."""
    with serving(settings) as start:
        yield start


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One server for the tests of a module that leave nothing behind; it has three items."""
    with serving(settings_in(tmp_path_factory.mktemp("shared"))) as start:
        served = start()
        served.add_items(range(3))
        yield served


@contextmanager
def serving(settings: ServeSettings) -> Iterator[Serve]:
    running: list[Served] = []

    def start(*, log: Log | None = None, clock: Clock | None = None, ready: bool = True, **changes: Any) -> Served:
        own = dataclasses.replace(settings, **changes)
        stop, told = threading.Event(), threading.Event()
        addresses: list[str] = []
        app = create_app(own, log=log, clock=clock)

        def listening(address: str) -> None:
            addresses.append(address)
            told.set()

        thread = threading.Thread(target=run_server, args=(app, own, stop), kwargs={"listening": listening})
        thread.start()
        assert told.wait(20)
        headers = {"Authorization": f"Bearer {own.token}"} if own.token else {}
        served = Served(
            addresses[0], own, httpx.Client(base_url=addresses[0], headers=headers, timeout=20), stop, thread
        )
        running.append(served)
        if ready:
            until(lambda: is_up(served.client))
        return served

    try:
        yield start
    finally:
        for served in running:
            if served.thread.is_alive():
                served.end()


def is_up(client: httpx.Client) -> bool:
    try:
        return client.get("/readyz").status_code == 200
    except httpx.TransportError:
        return False

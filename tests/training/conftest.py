"""A small world to learn from: half of the items are good, and people click on good ones."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from dolmen.embedding import Embeddings
from dolmen.events import EmbeddedLog, Topic, encode_examples
from dolmen.features import Batch, Dense, Label, Schema, Slot, extract_rows
from dolmen.training import TrainConfig, Trainer, new_trainer

_DAY_US = 86_400_000_000
_FIRST_US = 10_000 * _DAY_US
_SMALL_MODEL = {
    "ranker_options": {"hidden": [16], "slots": ["user", "item", "history"]},
    "retriever_options": {"hidden": [8], "dim": 8, "recent_items": 32, "negatives": 8, "frequency_buckets": 64},
}


class World:
    """Examples by seed: batch ``number`` of a seed is always the same."""

    schema = Schema(
        Slot("user", dim=8, capacity=40),
        Slot("item", dim=8, admit_after=2, expire_after="10d"),
        Slot("genres", dim=4, many=True, of="item"),
        Slot("history", dim=8, table="item", many=True, ordered=True, max_len=5, of="user"),
        Dense("hour"),
        Label("click"),
    )
    model = "joint"
    options = _SMALL_MODEL

    def batch(self, number: int, size: int = 16, *, seed: int = 0) -> Batch:
        """Each batch is six hours later than the one before, and its items drift through a catalogue of 400."""
        rng = np.random.default_rng((seed, number))
        users = rng.integers(0, 50, size)
        items = rng.integers(0, 60, size) + number % 340
        rows = [
            {
                "user": int(user),
                "item": int(item),
                "genres": ["even" if item % 2 == 0 else "odd", f"genre-{item % 5}"],
                "history": [int(one) for one in rng.integers(0, 400, rng.integers(0, 5))],
                "hour": float(number % 24),
                "click": float(rng.random() < (0.7 if item % 2 == 0 else 0.1)),
            }
            for user, item in zip(users, items, strict=True)
        ]
        plain = extract_rows(self.schema, rows, with_labels=True)
        times_us = _FIRST_US + number * _DAY_US // 4 + torch.arange(size)
        served = torch.from_numpy(rng.random(size).astype(np.float32))
        return Batch(
            size=size,
            slots=plain.slots,
            dense=plain.dense,
            labels=plain.labels,
            served_probabilities=torch.where(served < 0.5, torch.nan, served),
            event_times_us=times_us,
        )

    def record(self, number: int, size: int = 16) -> bytes:
        """The batch as the joiner writes it, accounting for ten actions and one impression more each time."""
        positions = {"actions/0": 10 * (number + 1), "impressions/0": number + 1}
        return encode_examples(self.schema, self.batch(number, size).to_examples(self.schema), positions)

    def trainer(self, config: TrainConfig | None = None) -> Trainer:
        """One that has learned nothing."""
        return new_trainer(self.schema, self.model, self.options, config)


@pytest.fixture(scope="session")
def world() -> World:
    return World()


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def log(tmp_path: Path) -> Iterator[EmbeddedLog]:
    with EmbeddedLog(tmp_path / "log") as log:
        yield log


@pytest.fixture
def filled_log(log: EmbeddedLog, world: World) -> EmbeddedLog:
    """Sixty records of examples."""
    log.append(Topic.EXAMPLES, [world.record(number) for number in range(60)])
    return log


def rows_of(trainer_or_embeddings: object) -> dict[str, list[object]]:
    """Everything that tables hold, but the epochs: those say when things were shipped, which a clock decides."""
    embeddings = getattr(trainer_or_embeddings, "embeddings", trainer_or_embeddings)
    found: dict[str, list[object]] = {}
    for dim, table in embeddings.tables.items():
        columns: dict[str, list[bytes]] = {}
        for chunk in table.export_chunks():
            for name in ("fids", "vectors", "states", "last_seen_us", "counts", "row_numbers"):
                columns.setdefault(name, []).append(getattr(chunk, name).tobytes())
        pending = table.pending()
        found[f"table {dim}"] = [
            *(b"".join(parts) for _, parts in sorted(columns.items())),
            pending.fids.tobytes(),
            pending.counts.tobytes(),
            pending.last_seen_us.tobytes(),
        ]
    return found


def dense_of(model: nn.Module) -> dict[str, bytes]:
    """Every byte of a model's parameters and buffers."""
    return {name: tensor.numpy().tobytes() for name, tensor in model.state_dict().items()}


def vectors_of(embeddings: Embeddings) -> dict[int, dict[int, bytes]]:
    """What replicas hold: each FID's vector, by dim."""
    found: dict[int, dict[int, bytes]] = {}
    for dim, table in embeddings.tables.items():
        found[dim] = {
            int(fid): vector.tobytes()
            for chunk in table.export_chunks()
            for fid, vector in zip(chunk.fids, chunk.vectors, strict=True)
        }
    return found


@pytest.fixture(scope="session")
def rows() -> Callable[[object], dict[str, list[object]]]:
    return rows_of


@pytest.fixture(scope="session")
def dense() -> Callable[[nn.Module], dict[str, bytes]]:
    return dense_of


@pytest.fixture(scope="session")
def vectors() -> Callable[[Embeddings], dict[int, dict[int, bytes]]]:
    return vectors_of


@pytest.fixture
def running() -> Callable[..., object]:
    """Runs a function in a thread with a stop event; what it raises is raised here."""

    @contextmanager
    def run(function: Callable[[threading.Event], None]) -> Iterator[threading.Event]:
        stop, problems = threading.Event(), list[BaseException]()

        def guarded() -> None:
            try:
                function(stop)
            except BaseException as problem:  # handed to the test's own thread
                problems.append(problem)

        thread = threading.Thread(target=guarded)
        thread.start()
        try:
            yield stop
        finally:
            stop.set()
            thread.join(60)
        if problems:
            raise problems[0]
        assert not thread.is_alive()

    return run


@pytest.fixture
def eventually() -> Callable[[Callable[[], bool]], None]:
    """Waits until something in another thread or process is so."""

    def wait(holds: Callable[[], bool], seconds: float = 60.0) -> None:
        end = time.monotonic() + seconds
        while not holds():
            assert time.monotonic() < end, "waited in vain"
            time.sleep(0.005)

    return wait

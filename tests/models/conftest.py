"""A small world with known truth, for tests that a model learns: people like some genres, and click accordingly."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pytest
import torch

from dolmen.embedding import AdaGrad, Embed, Embeddings
from dolmen.features import Batch, Label, Schema, Side, Slot, extract_rows, extract_table, values_of
from dolmen.models import Model

PEOPLE, ITEMS, GENRES = 300, 240, 6
EXAMPLES, HISTORY = 24_000, 10


@dataclass(frozen=True)
class GenreWorld:
    """``batch``: all examples in time order. ``chances``: the true chance of a click in each. ``genre_of``: by item."""

    schema: Schema
    batch: Batch
    chances: np.ndarray
    genre_of: np.ndarray

    def split(self, count: int) -> tuple[Batch, Batch]:
        """The first ``count`` examples, and those that came after them."""
        return self.batch.take(torch.arange(count)), self.batch.take(torch.arange(count, EXAMPLES))

    @staticmethod
    def batches(examples: Batch, size: int) -> Iterator[Batch]:
        for first in range(0, examples.size, size):
            yield examples.take(torch.arange(first, min(first + size, examples.size)))

    def clicks_by_item(self, examples: Batch) -> np.ndarray:
        items = values_of(examples.slot("item").values.numpy())
        return np.bincount(items, examples.labels["click"].numpy(), ITEMS)

    @staticmethod
    def with_rates(examples: Batch, rates: torch.Tensor) -> Batch:
        return replace(examples, sampling_rates=rates)

    def catalogue(self) -> Batch:
        rows = [{"item": item, "genres": [f"g{self.genre_of[item]}"]} for item in range(ITEMS)]
        return extract_rows(self.schema, rows, slots=["item", "genres"])

    def person(self, user: int | str, history: list[int]) -> Batch:
        return extract_rows(self.schema, [{"user": user, "history": history}], slots=["user", "history"])


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def genre_world() -> GenreWorld:
    random = np.random.default_rng(20_260_101)
    genre_of = random.integers(0, GENRES, ITEMS)
    popularity = random.permutation(1 / np.arange(1, ITEMS + 1) ** 0.8)
    quality = random.normal(0, 0.5, ITEMS)
    taste = random.normal(0, 2, (PEOPLE, GENRES))
    users = random.integers(0, PEOPLE, EXAMPLES)
    items = random.choice(ITEMS, EXAMPLES, p=popularity / popularity.sum())
    chances = 1 / (1 + np.exp(-(taste[users, genre_of[items]] + quality[items] - 1)))
    clicks = random.random(EXAMPLES) < chances
    clicked: list[list[int]] = [[] for _ in range(PEOPLE)]
    history = []
    for user, item, click in zip(users.tolist(), items.tolist(), clicks.tolist(), strict=True):
        history.append(clicked[user][-HISTORY:])
        if click:
            clicked[user].append(item)
    schema = Schema(
        Slot("user", dim=9),
        Slot("item", dim=9),
        Slot("genres", dim=9, many=True, of=Side.ITEM),
        Slot("history", dim=9, table="item", many=True, ordered=True, max_len=HISTORY, of=Side.USER),
        Label("click"),
    )
    table = pa.table(
        {
            "user": users,
            "item": items,
            "genres": pa.array([[f"g{genre}"] for genre in genre_of[items]]),
            "history": pa.array(history, pa.list_(pa.int64())),
            "click": clicks.astype(np.float32),
            "event_time": np.arange(EXAMPLES) * 1_000_000,
        }
    )
    return GenreWorld(schema, extract_table(schema, table), chances, genre_of)


@pytest.fixture
def make_embed() -> Callable[[Schema], Embed]:
    """A look-up over empty tables."""
    return lambda schema: Embed(Embeddings(schema, optimizer=AdaGrad(learning_rate=0.1)))


@pytest.fixture
def learn() -> Callable[[Model, Embed, Iterable[Batch]], None]:
    """What a trainer does, in its shortest form: a row follows the summed loss of a batch, the layers its mean."""

    def learned(model: Model, embed: Embed, batches: Iterable[Batch]) -> None:
        optimizer = torch.optim.Adam(model.parameters(), lr=0.002)
        model.train()
        torch.manual_seed(0)
        for batch in batches:
            with embed.recording(int(batch.event_times_us.max())) as tape:
                optimizer.zero_grad()
                torch.autograd.backward(model.loss(batch) * batch.size)
                for parameter in model.parameters():
                    if parameter.grad is not None:
                        parameter.grad /= batch.size
                optimizer.step()
                tape.apply()
        model.eval()

    return learned

"""Gradients of attention and of losses against finite differences, in double, over ragged and empty pasts."""

from collections.abc import Callable, Mapping
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from dolmen.embedding import Embed, Embeddings
from dolmen.features import Batch, Dense, Jagged, Label, Schema, Side, Slot, extract_rows
from dolmen.models import build
from dolmen.models.layers import catalogue
from dolmen.models.layers.attention import ActivationUnit, attend, attend_by_angle, softmax_of_each
from dolmen.models.layers.behaviours import Past, pooled
from dolmen.models.layers.catalogue import softmax_loss
from dolmen.models.layers.losses import log_loss
from dolmen.models.layers.rows import slot_vectors
from dolmen.models.retrieval import two_tower
from dolmen.models.retrieval.ssl_two_tower import SSLTwoTower

WIDTH = 3
PASTS = {"ragged": [3, 0, 1, 5], "one empty": [0], "all empty": [0, 0], "no example": []}

Function = Callable[..., Tensor]
Attention = Callable[[Tensor, Past], Tensor]


def numbers(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, requires_grad=True)


def past_of(vectors: Tensor, lengths: list[int]) -> Past:
    offsets = torch.zeros(len(lengths) + 1, dtype=torch.int64)
    offsets[1:] = torch.tensor(lengths, dtype=torch.int64).cumsum(0)
    return Past(vectors, torch.repeat_interleave(torch.tensor(lengths, dtype=torch.int64)), offsets)


def by_products(queries: Tensor, past: Past) -> Tensor:
    return attend(queries, past, temperature=0.7)


def by_angle(queries: Tensor, past: Past) -> Tensor:
    return attend_by_angle(queries, past, temperature=0.7)


def by_first_number(_: Tensor, past: Past) -> Tensor:
    return softmax_of_each(past.vectors[:, 0], past)


@pytest.mark.parametrize("lengths", PASTS.values(), ids=PASTS)
@pytest.mark.parametrize("weigh", [by_first_number, by_products, by_angle])
def test_gradients_of_attention(weigh: Attention, lengths: list[int]) -> None:
    torch.manual_seed(3)

    def interest(queries: Tensor, vectors: Tensor) -> Tensor:
        past = past_of(vectors, lengths)
        return pooled(past, weigh(queries, past))

    assert torch.autograd.gradcheck(interest, (numbers(len(lengths), WIDTH), numbers(sum(lengths), WIDTH)))


@pytest.mark.parametrize("lengths", PASTS.values(), ids=PASTS)
def test_gradients_of_the_activation_unit_reach_both_sides_and_every_layer(lengths: list[int]) -> None:
    torch.manual_seed(4)
    unit = ActivationUnit(WIDTH, (4, 2), lambda _: nn.Sigmoid()).double()

    def interest(queries: Tensor, vectors: Tensor, *_: Tensor) -> Tensor:
        past = past_of(vectors, lengths)
        return pooled(past, unit(queries, past))

    # The unit's own layers are handed over: they are moved where they lie.
    inputs = (numbers(len(lengths), WIDTH), numbers(sum(lengths), WIDTH), *unit.parameters())
    assert torch.autograd.gradcheck(interest, inputs)


@pytest.mark.parametrize("size", [0, 1, 6])
def test_gradients_of_the_log_loss_by_weights_and_sampling_rates(size: int) -> None:
    torch.manual_seed(5)
    batch = Batch(
        size=size,
        slots={},
        labels={"click": (torch.arange(size) % 2).double()},
        weights=torch.rand(size, dtype=torch.float64) + 0.5,
        sampling_rates=torch.rand(size, dtype=torch.float64) / 2 + 0.5,
    )
    assert torch.autograd.gradcheck(lambda logits: log_loss(logits, batch, "click"), (numbers(size),))


@pytest.mark.parametrize("chunk", [1, 1 << 20])
@pytest.mark.parametrize("is_drawn", [False, True])
@pytest.mark.parametrize("count", [0, 1, 5])
def test_gradients_of_the_softmax_over_all_items_and_over_drawn_ones(
    monkeypatch: pytest.MonkeyPatch, count: int, is_drawn: bool, chunk: int
) -> None:
    monkeypatch.setattr(catalogue, "_CHUNK_LOGITS", chunk)
    torch.manual_seed(6)
    places, weights = torch.randint(0, 7, (count,)), torch.rand(count, dtype=torch.float64)
    # Of drawn candidates some stand for several items, and a target that was not drawn for none.
    log_counts = torch.tensor([0.3, 0.0, 2.0, -1.0, -torch.inf, 1.0, 0.5], dtype=torch.float64) if is_drawn else None

    def loss(queries: Tensor, rows: Tensor) -> Tensor:
        return softmax_loss(queries, rows, places, weights, log_counts)

    assert torch.autograd.gradcheck(loss, (numbers(count, WIDTH), numbers(7, WIDTH)))


SCHEMA = Schema(
    Slot("user", dim=4),
    Slot("item", dim=4),
    Slot("genres", dim=4, many=True, of=Side.ITEM),
    Slot("tags", dim=4, many=True, of=Side.ITEM),
    Dense("age", of=Side.USER),
    Dense("price", of=Side.ITEM),
    Label("click"),
)


LOSSES: Mapping[str, Function] = {
    "InfoNCE": lambda model, batch: model.contrast(batch, ["genres"]),
    "spread": lambda model, batch: model.spread(batch),
    "softmax of the batch, less ln q": lambda model, batch: model.towers.loss(batch),
}


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("is_bare", [False, True], ids=["ragged", "empty"])
def test_gradients_of_losses_that_tell_items_apart(monkeypatch: pytest.MonkeyPatch, name: str, is_bare: bool) -> None:
    """Of every layer; and so of the vectors that are compared, since each goes through one."""
    embed = Embed(Embeddings(SCHEMA, seed=1))
    torch.manual_seed(7)
    options = {"value_dropout": 0.0, "towers": {"dim": 3, "hidden": [], "content_weight": 0.0}}
    model = build("ssl_two_tower", options, embed)
    assert isinstance(model, SSLTwoTower)
    rows = [
        {
            **{"user": n, "item": n % 4, "click": n % 3 > 0, "age": n / 5, "price": 1 / (n + 1)},
            **{"genres": [n, 2, 3][: n % 3], "tags": [n, 9][: n % 2]},
        }
        for n in range(5)
    ]
    batch = extract_rows(SCHEMA, rows, with_labels=True)
    with embed.recording(1) as tape:
        torch.autograd.backward(model.train().loss(batch))
        tape.apply()
    # Rows are of single precision; numbers beside them, or this, make what is computed of them double.
    monkeypatch.setattr(two_tower, "slot_vectors", lambda *read: [vectors.double() for vectors in slot_vectors(*read)])
    batch = replace(batch, dense={name: column.double() for name, column in batch.dense.items()})
    if is_bare:
        bare = {name: Jagged.empty(batch.size) for name in ("genres", "tags")}
        batch = replace(batch, slots={**batch.slots, **bare})
    model.double().eval()
    loss, parameters = LOSSES[name], tuple(model.parameters())
    # What is handed over are the model's own layers: they are moved where they lie.
    assert torch.autograd.gradcheck(lambda *_: loss(model, batch), parameters)
    grads = torch.autograd.grad(loss(model, batch), parameters, allow_unused=True)
    assert any(grad is not None and bool(grad.any()) for grad in grads)

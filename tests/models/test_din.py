"""DIN against its formula, against average pooling, and on worlds where only attention can see the reason."""

from collections.abc import Callable, Iterable

import numpy as np
import pyarrow as pa
import pytest
import torch

from dolmen.embedding import Embed
from dolmen.errors import ConfigError, SchemaError
from dolmen.evaluation import auc
from dolmen.features import Batch, Dense, Label, Schema, Side, Slot, extract_rows, extract_table
from dolmen.models import Model, build
from dolmen.models.ranking.average_pooling import AveragePooling
from dolmen.models.ranking.din import DIN
from dolmen.testing import example_batch, example_schema

Learn = Callable[[Model, Embed, Iterable[Batch]], None]
MakeEmbed = Callable[[Schema], Embed]


def schema_of(dim: int, length: int = 20) -> Schema:
    """Goods as item and category, in candidate and past."""
    return Schema(
        Slot("user", dim=4),
        Slot("item", dim=dim),
        Slot("category", dim=dim, of=Side.ITEM),
        Slot("history", dim=dim, table="item", many=True, ordered=True, max_len=length, of=Side.USER),
        Slot("history_category", dim=dim, table="category", many=True, ordered=True, max_len=length, of=Side.USER),
        Dense("price", of=Side.ITEM),
        Label("click"),
    )


def test_logits_equal_the_formula(make_embed: MakeEmbed) -> None:
    schema = schema_of(3)
    embed = make_embed(schema)
    options = {"history": ["history", "history_category"], "attention_hidden": [5], "hidden": [7]}
    model = build("din", {**options, "activation": "relu"}, embed).eval()
    assert isinstance(model, DIN)
    raw = [
        {"user": 1, "item": 1, "category": "a", "price": 20.0, "history": [2, 3], "history_category": ["a", "b"]},
        {"user": 2, "item": 3, "category": "b", "price": -2.0, "history": [], "history_category": []},
    ]
    batch = extract_rows(schema, raw)
    random = np.random.default_rng(0)
    for name in ("user", "item", "category", "history", "history_category"):
        fids = np.unique(batch.slot(name).values.numpy())
        table = embed.embeddings.table_of(name)
        table.assign(fids, random.normal(size=(len(fids), table.dim)).astype(np.float32))
    with torch.no_grad():
        model.tower.bias.fill_(0.3)
    for i, row in enumerate(raw):

        def rows(name: str, i: int = i) -> torch.Tensor:
            return embed.embeddings.lookup(name, batch.slot(name).take(torch.tensor([i])).values)

        q = torch.cat([rows("item")[0, 1:], rows("category")[0, 1:]])
        interest = torch.zeros(4)
        for item, category in zip(rows("history")[:, 1:], rows("history_category")[:, 1:], strict=True):
            k = torch.cat([item, category])
            unit = model.unit
            interest += unit.rest(torch.relu(unit.first(torch.cat([q, k, q - k, q * k])))) * k
        price = torch.tensor([np.sign(row["price"]) * np.log1p(abs(row["price"]))], dtype=torch.float32)
        inputs = torch.cat([interest, q, interest * q, rows("user")[0, 1:], price])
        expected = 0.3 + model.tower.layers(inputs.unsqueeze(0)).item() + rows("item")[0, 0].item()
        assert model.score(batch)[i].item() == pytest.approx(expected, abs=1e-4)


def test_equal_weights_make_it_average_pooling(make_embed: MakeEmbed) -> None:
    schema = example_schema()
    embed = make_embed(schema)
    plain, model = build("average_pooling", {}, embed).eval(), build("din", {"weighing": "softmax"}, embed).eval()
    assert isinstance(plain, AveragePooling)
    assert isinstance(model, DIN)
    model.tower.load_state_dict(plain.tower.state_dict())
    with torch.no_grad():
        model.unit.rest.layers[-1].weight.zero_()  # every behaviour gets the same score
    batch = example_batch(schema, 16)
    with embed.recording(1):
        embed(batch, ["item", "history"])
    assert torch.allclose(model.score(batch), plain.score(batch), atol=1e-6)


def test_shares_of_a_past_begin_as_its_mean_and_need_not_sum_to_one(make_embed: MakeEmbed) -> None:
    schema = example_schema()
    embed = make_embed(schema)
    plain, model = build("average_pooling", {}, embed).eval(), build("din", {"weighing": "share"}, embed).eval()
    assert isinstance(plain, AveragePooling)
    assert isinstance(model, DIN)
    model.tower.load_state_dict(plain.tower.state_dict())
    batch = example_batch(schema, 16)
    with embed.recording(1):
        embed(batch, ["item", "history"])
    assert torch.allclose(model.score(batch), plain.score(batch), atol=1e-6)
    with torch.no_grad():
        model.unit.rest.layers[-1].bias.fill_(0.5)
    past = model.fields.past(batch)
    sums = torch.zeros(past.size).index_add(0, past.owners, model.weights(model.fields.candidates(batch), past))
    assert torch.allclose(sums, 1.5 * (past.lengths > 0), atol=1e-6)


def test_the_order_of_a_past_does_not_matter(make_embed: MakeEmbed) -> None:
    schema = example_schema()
    embed = make_embed(schema)
    model = build("din", {}, embed).eval()
    rows = [{"user": 1, "item": 5, "history": past} for past in ([1, 2, 3, 4], [4, 2, 1, 3])]
    batch = extract_rows(schema, rows)
    with embed.recording(1):
        embed(batch, ["item", "history"])
    one, other = model.score(batch).tolist()
    assert one == pytest.approx(other, abs=1e-6)


def world_of(items: np.ndarray, pasts: list[list[int]], clicks: np.ndarray) -> tuple[Schema, Batch]:
    schema = Schema(
        Slot("item", dim=9),
        Slot("history", dim=9, table="item", many=True, ordered=True, of=Side.USER),
        Label("click"),
    )
    columns = {"item": items, "history": pa.array(pasts, pa.list_(pa.int64())), "click": clicks.astype(np.float32)}
    return schema, extract_table(schema, pa.table({**columns, "event_time": np.arange(len(items))}))


def auc_of(
    name: str, options: dict[str, object], world: tuple[Schema, Batch], make_embed: MakeEmbed, learn: Learn
) -> float:
    """On the last 1000 examples, after three passes over the others."""
    schema, batch = world
    embed = make_embed(schema)
    model = build(name, {"hidden": [32], "window": 500, **options}, embed)
    trained = batch.size - 1000
    order = [torch.arange(first, min(first + 64, trained)) for first in range(0, trained, 64)]
    learn(model, embed, [batch.take(rows) for _ in range(3) for rows in order])
    last = batch.take(torch.arange(trained, batch.size))
    with torch.no_grad():
        return auc(model.score(last), last.labels["click"])


def test_an_interest_hidden_among_others_is_found_by_attention_and_lost_in_the_mean(
    make_embed: MakeEmbed, learn: Learn
) -> None:
    # Of 8 behaviours, none, one or two are the candidate itself, of 12 items; clicked where there is any.
    random = np.random.default_rng(1)
    size = 6000
    items = random.integers(0, 12, size)
    others = (items[:, None] + random.integers(1, 12, (size, 8))) % 12
    alike = random.integers(0, 3, size)
    is_alike = random.permuted(np.tile(np.arange(8), (size, 1)), axis=1) < alike[:, None]
    world = world_of(items, np.where(is_alike, items[:, None], others).tolist(), alike > 0)
    din = auc_of("din", {"product": False}, world, make_embed, learn)
    mean = auc_of("average_pooling", {"product": False}, world, make_embed, learn)
    assert din > 0.95
    assert din > mean + 0.05


def test_only_unnormalised_weights_tell_how_strong_an_interest_is(make_embed: MakeEmbed, learn: Learn) -> None:
    # Everybody likes one thing, some of them six times as much. Any mean of equal vectors is that vector.
    random = np.random.default_rng(2)
    liked, counts = random.integers(0, 10, 2500), random.choice([1, 6], 2500)
    world = world_of(liked, [[item] * count for item, count in zip(liked, counts, strict=True)], counts > 1)
    assert auc_of("din", {}, world, make_embed, learn) > 0.95
    # 1000 coins: the AUC of chance has a standard error of 0.018.
    assert auc_of("din", {"weighing": "softmax"}, world, make_embed, learn) < 0.56


def test_a_schema_without_a_past_is_refused_with_the_mend(make_embed: MakeEmbed) -> None:
    bare = Schema(Slot("user", dim=4), Slot("item", dim=4), Slot("tags", dim=4, many=True), Label("click"))
    for name in ("din", "sdim", "tin", "average_pooling"):
        with pytest.raises(SchemaError, match=r'add such as Slot\("history", table="item"'):
            build(name, {}, make_embed(bare))
    with pytest.raises(SchemaError, match="slot 'tags' is no history"):
        build("din", {"history": ["tags"]}, make_embed(bare))
    with pytest.raises(ConfigError, match="attention_hidden must name at least one"):
        build("din", {"attention_hidden": []}, make_embed(example_schema()))


def test_slots_of_a_past_that_do_not_go_together_are_named(make_embed: MakeEmbed) -> None:
    schema = schema_of(3)
    model = build("din", {"history": ["history", "history_category"]}, make_embed(schema))
    batch = extract_rows(schema, [{"user": 1, "item": 1, "history": [1, 2], "history_category": ["a"]}])
    with pytest.raises(SchemaError, match="leave 'history_category' out of the history, or fill what is missing"):
        model.loss(batch)

"""The plain rankers against their formulas written as loops."""

from collections.abc import Callable
from itertools import combinations

import numpy as np
import pytest
import torch

from dolmen.embedding import Embed
from dolmen.errors import ConfigError, SchemaError
from dolmen.features import Batch, Dense, Label, Schema, Slot, extract_rows
from dolmen.models import build
from dolmen.models.ranking.logistic_regression import LogisticRegression
from dolmen.models.ranking.pnn import PNN
from dolmen.models.ranking.wide_deep import WideDeep

MakeEmbed = Callable[[Schema], Embed]

SCHEMA = Schema(
    Slot("user", dim=4), Slot("item", dim=4), Slot("tags", dim=4, many=True), Dense("price"), Label("click")
)
RAW = [{"user": 1, "item": 2, "tags": [1, 2, 3], "price": 20.0}, {"user": 1, "item": 3, "price": -2.0}]


@pytest.fixture
def embed(make_embed: MakeEmbed) -> Embed:
    made, random = make_embed(SCHEMA), np.random.default_rng(0)
    for name in SCHEMA.slots:
        fids = np.unique(batch_of(RAW).slot(name).values.numpy())
        made.embeddings.table_of(name).assign(fids, random.normal(size=(len(fids), 4)).astype(np.float32))
    return made


def batch_of(rows: list[dict[str, object]]) -> Batch:
    return extract_rows(SCHEMA, rows)


def pooled_rows(embed: Embed, row: int, slots: tuple[str, ...] = ("user", "item", "tags")) -> list[np.ndarray]:
    batch, rows = batch_of(RAW), []
    for name in slots:
        found = embed.embeddings.lookup(name, batch.slot(name).take(torch.tensor([row])).values).numpy()
        rows.append(found.mean(axis=0) if len(found) else np.zeros(4, dtype=np.float32))
    return rows


def price_of(row: int) -> float:
    price = float(RAW[row]["price"])
    return float(np.sign(price) * np.log1p(abs(price)))


def test_logistic_regression_adds_up_linear_weights(embed: Embed) -> None:
    model = build("logistic_regression", {}, embed)
    assert isinstance(model, LogisticRegression)
    with torch.no_grad():
        model.linear.bias.fill_(0.3)
        model.linear.weights.fill_(-0.7)
    for i, actual in enumerate(model.score(batch_of(RAW)).tolist()):
        expected = 0.3 - 0.7 * price_of(i) + sum(row[0] for row in pooled_rows(embed, i))
        assert actual == pytest.approx(expected, abs=1e-5)


def test_wide_and_deep_is_the_sum_of_its_two_parts(embed: Embed) -> None:
    model = build("wide_deep", {"hidden": [5], "wide": ["item"]}, embed)
    assert isinstance(model, WideDeep)
    for i, actual in enumerate(model.score(batch_of(RAW)).tolist()):
        wide = pooled_rows(embed, i, ("item",))[0][0] + model.wide.weights.item() * price_of(i) + model.wide.bias.item()
        inputs = np.concatenate([*(row[1:] for row in pooled_rows(embed, i)), [price_of(i)]])
        deep = model.deep(torch.tensor(inputs, dtype=torch.float32).unsqueeze(0)).item()
        assert actual == pytest.approx(wide + deep, abs=1e-5)


def test_pnn_lays_the_product_of_every_pair_beside_the_vectors(embed: Embed) -> None:
    model = build("pnn", {"hidden": [5]}, embed)
    assert isinstance(model, PNN)
    for i, actual in enumerate(model.score(batch_of(RAW)).tolist()):
        vectors = [row[1:] for row in pooled_rows(embed, i)]
        products = [one @ other for one, other in combinations(vectors, 2)]
        inputs = torch.tensor(np.concatenate([*vectors, products, [price_of(i)]]), dtype=torch.float32)
        assert actual == pytest.approx(model.layers(inputs.unsqueeze(0)).item(), abs=1e-5)


def test_options_that_cannot_be_met_are_named(make_embed: MakeEmbed) -> None:
    embed = make_embed(SCHEMA)
    with pytest.raises(SchemaError, match="no slot 'itm'; did you mean 'item'"):
        build("logistic_regression", {"slots": ["itm"]}, embed)
    with pytest.raises(SchemaError, match="no dense feature 'prize'; did you mean 'price'"):
        build("logistic_regression", {"dense": ["prize"]}, embed)
    with pytest.raises(ConfigError, match=r"model\.options\.wide must name at least one"):
        build("wide_deep", {"wide": []}, embed)
    with pytest.raises(SchemaError, match="need one dim"):
        build("pnn", {}, make_embed(Schema(Slot("user", dim=4), Slot("item", dim=8), Label("click"))))

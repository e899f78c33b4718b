"""DeepFM against its formula written as loops, and learning on a world whose truth is known."""

from collections.abc import Callable, Iterable
from itertools import combinations

import numpy as np
import pytest
import torch

from dolmen.embedding import Embed
from dolmen.errors import SchemaError
from dolmen.evaluation import auc, calibration_ratio
from dolmen.features import Batch, Dense, Label, Schema, Slot, extract_rows
from dolmen.models import Model, build
from dolmen.models.ranking.deepfm import DeepFM, DeepFMConfig

Learn = Callable[[Model, Embed, Iterable[Batch]], None]


def test_logits_equal_the_formula(make_embed: Callable[[Schema], Embed]) -> None:
    schema = Schema(
        Slot("user", dim=4), Slot("item", dim=4), Slot("tags", dim=4, many=True), Dense("price"), Label("click")
    )
    embed = make_embed(schema)
    model = DeepFM(DeepFMConfig(hidden=(5,)), embed)
    with torch.no_grad():
        model.bias.fill_(0.3)
        model.dense_weights.fill_(-0.7)
    raw = [{"user": 1, "item": 2, "tags": [1, 2, 3], "price": 20.0}, {"user": 1, "item": 3, "price": -2.0}]
    batch = extract_rows(schema, raw)
    random = np.random.default_rng(0)
    for name in schema.slots:
        fids = np.unique(batch.slot(name).values.numpy())
        embed.embeddings.table_of(name).assign(fids, random.normal(size=(len(fids), 4)).astype(np.float32))
    actual = model.score(batch)
    for i, row in enumerate(raw):
        rows = []
        for name in schema.slots:
            fids = batch.slot(name).take(torch.tensor([i])).values
            found = embed.embeddings.lookup(name, fids).numpy()
            rows.append(found.mean(axis=0) if len(found) else np.zeros(4))
        price = np.sign(row["price"]) * np.log1p(abs(row["price"]))
        linear = sum(row[0] for row in rows)
        vectors = [row[1:] for row in rows]
        pairs = sum(float(one @ other) for one, other in combinations(vectors, 2))
        first, last = model.deep.layers[0], model.deep.layers[2]
        inputs = torch.tensor(np.concatenate([*vectors, [price]]), dtype=torch.float32)
        deep = last(torch.relu(first(inputs))).item()
        assert actual[i].item() == pytest.approx(0.3 + linear - 0.7 * price + pairs + deep, abs=1e-5)


def test_one_pass_learns_most_of_what_can_be_known(
    genre_world, make_embed: Callable[[Schema], Embed], learn: Learn
) -> None:
    # No model can beat the true chances. Half of their lead over a coin must be learned from 20,000 examples seen once:
    # 300 people each with 67 examples over 6 genres, of which the popular ones alone settle that much.
    trained, judged = genre_world.split(20_000)
    embed = make_embed(genre_world.schema)
    model = build("deepfm", {"hidden": [32, 16]}, embed)
    labels = judged.labels["click"]
    with torch.no_grad():
        assert abs(auc(model.score(judged), labels) - 0.5) < 0.05
    learn(model, embed, genre_world.batches(trained, 64))
    with torch.no_grad():
        probabilities = model.score(judged).sigmoid()
    best = auc(genre_world.chances[20_000:], labels)
    assert auc(probabilities, labels) > 0.5 + (best - 0.5) / 2
    # 4,000 labels of rate 0.34: three standard errors of the ratio are 6.6 %.
    assert calibration_ratio(probabilities, labels) == pytest.approx(1, abs=0.1)


def test_dropping_negatives_leaves_the_probabilities_right(
    genre_world, make_embed: Callable[[Schema], Embed], learn: Learn
) -> None:
    # One negative in five is kept. Without the rates, predictions would be about 0.72 where 0.34 is true.
    rate = 0.2
    trained, judged = genre_world.split(20_000)
    is_kept = (trained.labels["click"] == 1) | (torch.rand(trained.size, generator=torch.manual_seed(1)) < rate)
    sampled = trained.take(is_kept.nonzero().squeeze(1))
    rates = torch.where(sampled.labels["click"] == 1, 1.0, rate)
    results = {}
    for name, kept_rates in (("told", rates), ("untold", torch.ones(sampled.size))):
        embed = make_embed(genre_world.schema)
        model = build("deepfm", {"hidden": [32, 16]}, embed)
        learn(model, embed, genre_world.batches(genre_world.with_rates(sampled, kept_rates), 64))
        with torch.no_grad():
            results[name] = calibration_ratio(model.score(judged).sigmoid(), judged.labels["click"])
    assert results["told"] == pytest.approx(1, abs=0.15)
    assert results["untold"] > 1.7


def test_options_that_the_schema_cannot_meet_are_named(make_embed: Callable[[Schema], Embed]) -> None:
    schema = Schema(Slot("user", dim=4), Slot("item", dim=8), Label("click"))
    with pytest.raises(SchemaError, match="need one dim, got user 4, item 8"):
        build("deepfm", {}, make_embed(schema))
    with pytest.raises(SchemaError, match="no slot 'itm'; did you mean 'item'"):
        build("deepfm", {"slots": ["itm"]}, make_embed(schema))
    with pytest.raises(SchemaError, match="dim must be at least 2 here"):
        build("deepfm", {}, make_embed(Schema(Slot("user", dim=1), Label("click"))))
    with pytest.raises(SchemaError, match="the schema has no label"):
        build("deepfm", {}, make_embed(Schema(Slot("user", dim=4))))
    with pytest.raises(SchemaError, match="no dense feature 'price'"):
        build("deepfm", {"dense": ["price"]}, make_embed(Schema(Slot("user", dim=4), Label("click"))))
    with pytest.raises(SchemaError, match="no label 'clic'; did you mean 'click'"):
        build("deepfm", {"label": "clic"}, make_embed(Schema(Slot("user", dim=4), Label("click"))))

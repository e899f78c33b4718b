"""TwoTower against its loss written as loops, and what people expect of it: strangers, the popular, one example."""

from collections.abc import Callable, Iterable
from dataclasses import replace

import numpy as np
import pytest
import torch

from dolmen.embedding import Embed
from dolmen.errors import ConfigError, SchemaError
from dolmen.features import Batch, Label, Schema, Side, Slot
from dolmen.models import Model, build, retriever
from dolmen.models.retrieval.two_tower import TwoTower, TwoTowerConfig
from dolmen.testing import example_batch, example_schema

Learn = Callable[[Model, Embed, Iterable[Batch]], None]
MakeEmbed = Callable[[Schema], Embed]


def step(model: Model, embed: Embed, batch: Batch) -> None:
    model.train()
    with embed.recording(now_us=1) as tape:
        torch.autograd.backward(model.loss(batch))
        tape.apply()
    model.eval()


def test_the_loss_equals_its_definition(make_embed: MakeEmbed) -> None:
    schema = example_schema()
    embed = make_embed(schema)
    config = TwoTowerConfig(dim=6, hidden=(5,), recent_items=12, negatives=12, content_weight=0.0)
    model = TwoTower(config, embed)
    for seed in range(3):
        step(model, embed, example_batch(schema, 10, seed=seed))
    batch = replace(example_batch(schema, 10, seed=7), weights=torch.linspace(0.5, 2, 10))
    recent = model.recent.spread(12)
    with torch.no_grad():
        actual = model.loss(batch).item()
        queries, items, recent_items = model.queries(batch)[:, 0], model.items(batch), model.items(recent)
        total = 0.0
        positives = [i for i in range(10) if batch.labels["click"][i] == 1]
        own = batch.slot("item").values.tolist()
        for i in positives:
            candidates = [(items[j], own[j], j == i) for j in positives]
            fids = recent.slot("item").values.tolist()
            candidates += [(vector, fid, False) for vector, fid in zip(recent_items, fids, strict=True)]
            logits, answer = [], None
            for vector, fid, is_answer in candidates:
                if fid == own[i] and not is_answer:
                    continue  # the positive itself is no negative
                corrected = (queries[i] @ vector).item() / config.temperature
                corrected -= model.frequency.log_chance(torch.tensor([fid])).item()
                answer = corrected if is_answer else answer
                logits.append(corrected)
            total += batch.weights[i].item() * (np.log(np.exp(logits).sum()) - answer)
    assert recent.size == 12
    assert any(fid in own for fid in recent.slot("item").values.tolist())  # an accidental hit is among them
    assert actual == pytest.approx(total / 10, rel=1e-4)


def test_content_draws_an_item_to_what_its_slots_say(make_embed: MakeEmbed) -> None:
    schema = example_schema()
    embed = make_embed(schema)
    model = TwoTower(TwoTowerConfig(content_weight=5.0), embed)
    batch = example_batch(schema, 8, seed=1)
    no_clicks = replace(batch, labels={"click": torch.zeros(8)})
    with embed.recording(now_us=1) as tape:
        torch.autograd.backward(model.train().loss(no_clicks))
        assert tape.gradients()["item"][1].any()
        assert not tape.gradients()["genres"][1].any()


def test_someone_new_who_clicks_five_of_a_genre_is_offered_that_genre(
    genre_world, make_embed: MakeEmbed, learn: Learn
) -> None:
    trained, _ = genre_world.split(20_000)
    embed = make_embed(genre_world.schema)
    model = retriever(build("two_tower", {}, embed))
    learn(model, embed, genre_world.batches(trained, 64))
    with torch.no_grad():
        items = model.items(genre_world.catalogue())
        shares: dict[int, list[float]] = {0: [], 5: []}
        for genre in range(genre_world.genre_of.max() + 1):
            liked = np.flatnonzero(genre_world.genre_of == genre)[:5].tolist()
            for count, found in shares.items():
                query = model.queries(genre_world.person("never seen", liked[:count]))[0, 0]
                slate = (items @ query).topk(20).indices.numpy()
                found.append(float((genre_world.genre_of[slate] == genre).mean()))
    assert all(after > before for before, after in zip(shares[0], shares[5], strict=True))
    # With the world's truth in hand (Bayes' rule over 20,000 drawn tastes) the share would be 0.64.
    assert np.mean(shares[5]) > 0.64 / 2 > np.mean(shares[0])


def test_someone_unknown_is_offered_what_is_popular(genre_world, make_embed: MakeEmbed, learn: Learn) -> None:
    # The correction by ln q makes scores follow p(item | person), not that over p(item): with nothing known of the
    # person, the popular comes first. Half way from a random slate to the best fixed one must be made.
    trained, judged = genre_world.split(20_000)
    embed = make_embed(genre_world.schema)
    model = retriever(build("two_tower", {}, embed))
    learn(model, embed, genre_world.batches(trained, 64))
    with torch.no_grad():
        scores = model.items(genre_world.catalogue()) @ model.queries(genre_world.person("never seen", []))[0, 0]
    clicks = genre_world.clicks_by_item(judged)
    best, offered = np.sort(clicks)[-20:].sum(), clicks[scores.topk(20).indices.numpy()].sum()
    random = clicks.mean() * 20
    assert offered > random + (best - random) / 2


def test_one_positive_at_a_time_still_learns_from_the_ring(make_embed: MakeEmbed) -> None:
    schema = example_schema()
    embed = make_embed(schema)
    model = build("two_tower", {"content_weight": 0.0}, embed)
    batch = example_batch(schema, 16, seed=3)
    with torch.no_grad():
        assert model.eval().loss(batch.take(torch.tensor([1]))).item() == 0.0  # alone there is nothing to tell apart
    for _ in range(3):
        for row in range(1, 16, 2):
            step(model, embed, batch.take(torch.tensor([row])))
    with torch.no_grad():
        assert model.loss(batch.take(torch.tensor([1]))).item() > 0.0


def test_vectors_have_length_one_and_no_knowledge_is_short(make_embed: MakeEmbed) -> None:
    schema = example_schema()
    embed = make_embed(schema)
    model = retriever(build("two_tower", {}, embed))
    batch = example_batch(schema, 32)
    chosen = batch.labels["click"] == 1  # others are nobody's positive, and may stay as short as they began

    def lengths() -> torch.Tensor:
        with torch.no_grad():
            return torch.cat([model.queries(batch)[chosen, 0], model.items(batch)[chosen]]).norm(dim=1)

    assert (lengths() < 0.5).all()  # no id was ever seen, only the numbers speak
    for _ in range(40):
        step(model, embed, batch)
    assert torch.allclose(lengths(), torch.ones(32), atol=1e-3)


def test_an_item_slot_that_cannot_name_an_item_is_refused(make_embed: MakeEmbed) -> None:
    schema = Schema(Slot("user"), Slot("item"), Slot("tags", many=True, of=Side.ITEM), Label("click"))
    for wrong in ("tags", "user", "film"):
        with pytest.raises(ConfigError, match=r"item_slot must be a single slot among the item's \(item, tags\)"):
            build("two_tower", {"item_slot": wrong}, make_embed(schema))
    with pytest.raises(SchemaError, match="the schema has no slot of the user"):
        build("two_tower", {}, make_embed(Schema(Slot("item"), Label("click"))))


def test_item_dropout_hides_each_slot_of_an_item_alone_and_in_training_only(make_embed: MakeEmbed) -> None:
    schema = example_schema()
    embed = make_embed(schema)
    model = TwoTower(TwoTowerConfig(item_dropout=0.5), embed)
    part = torch.ones(4000, 3)
    kept = model._some(part)
    assert set(kept.sum(dim=1).tolist()) == {0.0, 3.0}  # a slot is hidden whole
    assert kept[:, 0].mean().item() == pytest.approx(0.5, abs=0.04)  # five standard errors of 4,000 coins
    step(model, embed, example_batch(schema, 10, seed=1))
    batch = example_batch(schema, 10, seed=2)
    assert torch.equal(model.items(batch), model.items(batch))
    with pytest.raises(ConfigError, match="item_dropout must be at least 0 and below 1, got 1"):
        TwoTowerConfig(item_dropout=1.0)

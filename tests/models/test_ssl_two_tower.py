"""SSLTwoTower: the views, the contrast against its definition, mutual information, and the catalogue it draws from."""

import math
from collections import Counter
from collections.abc import Callable
from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dolmen.embedding import Embed
from dolmen.errors import ConfigError
from dolmen.features import Batch, Jagged, Label, Schema, Side, Slot, extract_rows
from dolmen.models import build
from dolmen.models.layers.stream import DistinctRows
from dolmen.models.retrieval.ssl_two_tower import SSLTwoTower, mutual_information
from dolmen.training import TrainConfig, new_trainer

MakeEmbed = Callable[[Schema], Embed]
SCHEMA = Schema(
    Slot("user", dim=5),
    Slot("item", dim=5),
    *(Slot(name, dim=5, many=True, of=Side.ITEM) for name in ("genres", "tags", "words", "brand")),
    Label("click"),
)
STILL = {"value_dropout": 0.0}


def examples(count: int, seed: int = 0) -> Batch:
    torch.manual_seed(seed)
    rows = [
        {
            "user": place % 3,
            "item": place % 11,
            "click": 1,
            **{name: torch.randint(0, 6, (2,)).unique().tolist() for name in ("genres", "tags", "words", "brand")},
        }
        for place in range(count)
    ]
    return extract_rows(SCHEMA, rows, with_labels=True)


def model_of(make_embed: MakeEmbed, **options: object) -> tuple[SSLTwoTower, Embed]:
    embed = make_embed(SCHEMA)
    model = build("ssl_two_tower", options, embed)
    assert isinstance(model, SSLTwoTower)
    for seed in range(3):
        with embed.recording(1) as tape:
            torch.autograd.backward(model.train().loss(examples(20, seed)))
            tape.apply()
    return model, embed


def test_each_feature_is_shown_in_exactly_one_view(make_embed: MakeEmbed) -> None:
    for masking, count in (("correlated", 3), ("random", 2)):  # of 4: a seed and half of them, or half of them
        model, _ = model_of(make_embed, masking=masking, **STILL)
        seen = set()
        for _ in range(20):
            hidden = model.first_hides()
            assert len(set(hidden)) == len(hidden) == count
            seen.add(tuple(sorted(hidden)))
            shown = [model._view(examples(4), hides) for hides in (set(hidden), set(model.features) - set(hidden))]
            for name in ("genres", "tags", "words", "brand"):
                is_default = [bool((view[name] == model._default(name, 4)).all()) for view in shown]
                assert sorted(is_default) == [False, True]
            assert all((view["item"] == model._default("item", 4)).all() for view in shown)
        assert len(seen) > 1


def test_what_tells_most_of_the_drawn_feature_is_hidden_with_it(make_embed: MakeEmbed) -> None:
    model, _ = model_of(make_embed, masking="correlated", **STILL)
    model.information.copy_(torch.tensor([[9, 5, 1, 0], [5, 9, 1, 0], [1, 1, 9, 4], [0, 0, 4, 9.0]]))
    hidden = {tuple(sorted(model.first_hides())) for _ in range(60)}
    # Three of four: the seed and the two that tell most of it. Of brand neither genres nor tags tell anything: a tie.
    assert ("genres", "tags", "words") in hidden
    assert {"words", "brand"} <= {name for one in hidden for name in one}
    assert hidden <= {("genres", "tags", "words"), ("brand", "genres", "words"), ("brand", "tags", "words")}


def test_the_contrast_equals_its_definition_and_ignores_the_order(make_embed: MakeEmbed) -> None:
    model, _ = model_of(make_embed, masking="random", temperature=0.3, **STILL)
    items, hidden = examples(9), ["genres", "words"]
    views = [model.towers.item_vectors(model._view(items, hides)) for hides in ({"genres", "words"}, {"tags", "brand"})]
    expected = 0.0
    for i in range(9):
        cosines = [torch.cosine_similarity(views[0][i], views[1][j], dim=0).item() / 0.3 for j in range(9)]
        expected += -cosines[i] + math.log(sum(math.exp(cosine) for cosine in cosines))
    assert model.contrast(items, hidden).item() == pytest.approx(expected / 9, rel=1e-4)
    mixed = items.take(torch.randperm(9))
    assert model.contrast(mixed, hidden).item() == pytest.approx(expected / 9, rel=1e-4)
    alike = items.take(torch.zeros(5, dtype=torch.int64))
    assert model.contrast(alike, hidden).item() == pytest.approx(math.log(5), rel=1e-5)


def test_views_without_masks_or_dropout_are_one(make_embed: MakeEmbed) -> None:
    model, _ = model_of(make_embed, masking="none", **STILL)
    one, other = (model.towers.item_vectors(model._view(examples(6), set())) for _ in range(2))
    assert torch.equal(one, other)
    dropping, _ = model_of(make_embed, masking="none", value_dropout=0.9)
    column = examples(40).slot("genres")
    shown = dropping._shown(column, "genres")
    assert (shown.abs().sum(dim=1) > 0).all()  # one value at least is left


def test_weight_nothing_is_the_two_towers_alone(make_embed: MakeEmbed) -> None:
    losses = []
    for name, options in (("ssl_two_tower", {"weight": 0.0}), ("two_tower", {})):
        embed = make_embed(SCHEMA)
        model = build(name, options, embed)
        torch.manual_seed(1)
        towers = build("two_tower", {}, embed, seed=3)
        (model.towers if isinstance(model, SSLTwoTower) else model).load_state_dict(towers.state_dict())
        torch.manual_seed(2)
        for seed in range(3):
            with embed.recording(1) as tape:
                loss = model.train().loss(examples(20, seed))
                torch.autograd.backward(loss)
                tape.apply()
            losses.append(loss.item())
    assert losses[:3] == losses[3:]


def test_drawn_items_count_no_sight(make_embed: MakeEmbed) -> None:
    model, embed = model_of(make_embed)
    fids = embed.live("genres")
    before = embed.sights("genres", fids)
    with embed.recording(2):
        model.contrast(model.catalogue.at(model.catalogue.known()), ["genres", "tags"])
    assert torch.equal(embed.sights("genres", fids), before)


def information_naively(one: list[list[int]], other: list[list[int]]) -> float:
    joint: Counter[tuple[int, int]] = Counter()
    for left, right in zip(one, other, strict=True):
        for pair in product(left, right):
            joint[pair] += 1 / (len(left) * len(right))
    total = sum(joint.values())
    chance = {pair: weight / total for pair, weight in joint.items()}
    lefts, rights = Counter(), Counter()
    for (a, b), p in chance.items():
        lefts[a] += p
        rights[b] += p
    return sum(p * math.log(p / (lefts[a] * rights[b])) for (a, b), p in chance.items())


VALUES = st.lists(st.lists(st.integers(0, 3), max_size=2, unique=True), min_size=6, max_size=6)


@pytest.mark.property
@settings(max_examples=60, deadline=None)
@given(VALUES, VALUES)
def test_mutual_information_is_symmetric_not_negative_and_entropy_of_oneself(
    one: list[list[int]], other: list[list[int]]
) -> None:
    found = mutual_information(Jagged.from_lists(one), Jagged.from_lists(other))
    assert found == pytest.approx(information_naively(one, other), abs=1e-9)
    assert found == pytest.approx(mutual_information(Jagged.from_lists(other), Jagged.from_lists(one)), abs=1e-9)
    assert found >= -1e-9
    single = [row[:1] for row in one]
    counts = Counter(row[0] for row in single if row)
    entropy = -sum(n / counts.total() * math.log(n / counts.total()) for n in counts.values())
    assert mutual_information(Jagged.from_lists(single), Jagged.from_lists(single)) == pytest.approx(entropy, abs=1e-9)


def test_the_catalogue_holds_each_item_once_as_it_was_last_told() -> None:
    kept = DistinctRows("item", {"tags": 2}, (), 1 << 12)  # so many places that these few do not meet
    told: dict[int, list[int]] = {}
    for seed in range(4):
        batch = examples(25, seed)
        kept.push(batch)
        for item, tags in zip(batch.slot("item").values.tolist(), batch.slot("tags").to_lists(), strict=True):
            told[item] = tags[-2:]
    places = kept.known()
    known = dict(zip(kept.keys[places].tolist(), kept.at(places).slot("tags").to_lists(), strict=True))
    assert known == told


def test_too_few_features_are_refused_with_the_mend(make_embed: MakeEmbed) -> None:
    bare = Schema(Slot("user"), Slot("item"), Slot("genres", many=True, of=Side.ITEM), Label("click"))
    with pytest.raises(ConfigError, match="needs two features of the item beside 'item', got genres"):
        build("ssl_two_tower", {}, make_embed(bare))
    build("ssl_two_tower", {"masking": "none"}, make_embed(bare))


def test_rows_of_an_item_that_nobody_was_shown_learn_from_the_contrast_once_the_catalogue_told_of_it() -> None:
    schema = Schema(
        *(Slot("user", dim=5), Slot("item", dim=5), Slot("genres", dim=5, many=True, of=Side.ITEM)),
        *(Slot("words", dim=5, many=True, of=Side.ITEM), Label("click")),
    )
    trainer = new_trainer(schema, "ssl_two_tower", {"towers": {"content_weight": 0.0}}, TrainConfig(seed=1))
    shown = [{"user": 1, "item": item, "genres": [item % 3], "words": [item, 7], "click": 1} for item in range(9)]
    unseen = extract_rows(schema, [{"item": 99, "genres": [1], "words": [99, 98]}])
    words, item = unseen.slot("words").values, unseen.slot("item").values
    batch = extract_rows(schema, shown, with_labels=True)
    trainer.step(batch)
    assert not trainer.embed.peek("words", words).any()  # no row, and no gradient could reach it
    before = trainer.parameters().version
    trainer.meet(unseen)
    assert trainer.parameters().version == before + 1
    assert trainer.embed.sights("item", item).tolist() == [1.0]
    told = trainer.embed.peek("words", words)
    assert (told.abs().sum(dim=1) > 0).all()
    with trainer.embed.recording(1) as tape:
        model = trainer.model.train()
        assert isinstance(model, SSLTwoTower)
        torch.autograd.backward(model.contrast(model.catalogue.at(model.catalogue.known()), ["genres"]))
        fids, grads = tape.gradients()["words"]
    moved = set(fids[grads.abs().sum(dim=1) > 0].tolist())
    assert set(words.tolist()) & moved  # one of the two may have been dropped
    for _ in range(3):
        trainer.step(batch)
    assert not torch.equal(trainer.embed.peek("words", words), told)
    assert trainer.embed.sights("words", words).tolist() == [1.0, 1.0]  # drawing counts no sight


def test_the_two_towers_learn_nothing_of_what_they_meet_but_give_it_rows() -> None:
    trainer = new_trainer(SCHEMA, "two_tower", {}, TrainConfig(seed=1))
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    items = extract_rows(SCHEMA, [{"item": 99, "genres": [1]}], slots=["item", "genres"])
    assert trainer.meet(items).is_learned
    assert all(torch.equal(before[name], value) for name, value in trainer.model.state_dict().items())
    assert trainer.embed.peek("item", items.slot("item").values).any()


def test_the_spread_is_the_mean_squared_cosine_of_different_items_ids_included(make_embed: MakeEmbed) -> None:
    model, _ = model_of(make_embed, aim="spread")
    known = model.catalogue.known()
    items = model.catalogue.at(known)
    assert set(items.slots) == set(model.item_slots)
    model.eval()
    vectors = model.items(items)
    pairs = [(i, j) for i in range(items.size) for j in range(items.size) if i != j]
    expected = sum(torch.cosine_similarity(vectors[i], vectors[j], dim=0).item() ** 2 for i, j in pairs) / len(pairs)
    assert model.spread(items).item() == pytest.approx(expected, rel=1e-4)

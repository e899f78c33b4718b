"""Joint: two parts, one loss, one reading of the tables."""

from collections.abc import Callable
from typing import cast

import pytest
import torch

from dolmen.embedding import Embed
from dolmen.errors import ConfigError
from dolmen.features import Schema
from dolmen.models import Ability, Condenses, build, condenser, decider, retriever, scorer
from dolmen.models.joint import Joint
from dolmen.testing import example_batch, example_schema

MakeEmbed = Callable[[Schema], Embed]


def test_its_loss_and_answers_are_those_of_its_parts(make_embed: MakeEmbed) -> None:
    schema = example_schema()
    model = build("joint", {"retriever_weight": 0.25}, make_embed(schema)).eval()
    assert isinstance(model, Joint)
    batch = example_batch(schema, 12)
    with torch.no_grad():
        parts = model.ranker.loss(batch) + 0.25 * model.retriever.loss(batch)
        assert model.loss(batch).item() == pytest.approx(parts.item())
        assert torch.equal(scorer(model).score(batch), model.ranker.score(batch))
        assert torch.equal(retriever(model).queries(batch), model.retriever.queries(batch))
        assert torch.equal(retriever(model).items(batch), model.retriever.items(batch))
    assert set(model.slots) == set(schema.slots)
    assert set(model.dense) == set(schema.dense)


def test_both_parts_read_a_batch_once(make_embed: MakeEmbed) -> None:
    schema = example_schema()
    embed = make_embed(schema)
    model = build("joint", {"retriever_options": {"negatives": 0}}, embed)
    batch = example_batch(schema, 12)
    with embed.recording(now_us=1):
        model.loss(batch)
    for name in schema.slots:
        if schema.owner(name).name == name != "item":
            sights = embed.embeddings.table_of(name).total_count(schema.slot_number(name))
            assert sights == len(batch.slot(name).values)


def test_parts_that_lack_the_ability_are_refused(make_embed: MakeEmbed) -> None:
    embed = make_embed(example_schema())
    with pytest.raises(ConfigError, match=r"TwoTower does not declare Scores \(it can: Retrieves\)"):
        build("joint", {"ranker": "two_tower"}, embed)
    with pytest.raises(ConfigError, match="Joint does not declare Decides"):
        decider(build("joint", {}, embed))
    plain, hashing = build("joint", {}, embed), build("joint", {"ranker": "sdim"}, embed)
    assert plain.abilities == {Ability.SCORES, Ability.CONDENSES, Ability.RETRIEVES}
    assert condenser(plain) is None
    assert condenser(hashing) is hashing
    with pytest.raises(ConfigError, match="'deepfm' condenses no past"):
        cast("Condenses", plain).condense(example_batch(embed.schema, 1))

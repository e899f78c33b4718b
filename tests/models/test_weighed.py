"""What models say that behaviours count: the same weights by which they rank, on what these multiply."""

from collections.abc import Callable

import pytest
import torch

from dolmen.embedding import Embed
from dolmen.errors import ConfigError
from dolmen.features import Schema
from dolmen.models import build, weigher
from dolmen.models.layers.behaviours import pooled
from dolmen.models.ranking.din import DIN
from dolmen.models.ranking.sdim import SDIM
from dolmen.models.ranking.tin import TIN
from dolmen.testing import example_batch, example_schema

MakeEmbed = Callable[[Schema], Embed]


@pytest.mark.parametrize("product", [True, False])
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("tin", {}),
        ("tin", {"temperature": 0.5}),
        ("tin", {"has_attention": False}),
        ("tin", {"has_positions": False}),
        ("din", {}),
        ("din", {"weighing": "share"}),
        ("din", {"weighing": "softmax"}),
    ],
)
def test_the_weights_told_are_those_that_rank(
    name: str, options: dict[str, object], product: bool, make_embed: MakeEmbed
) -> None:
    embed = make_embed(example_schema())
    model = build(name, {**options, "product": product}, embed).eval()
    assert isinstance(model, TIN | DIN)
    batch = example_batch(embed.schema, 20)
    with embed.recording(1):
        embed(batch, ["user", "item"])
    told = weigher(model).weighed(batch)
    candidates = model.encoded(batch)[0] if isinstance(model, TIN) else model.fields.candidates(batch)
    logits = model.tower(batch, candidates, [pooled(told.past, told.weights)])
    assert torch.allclose(logits, model.score(batch), atol=1e-5)
    expected = [
        abs(weight) * (value * candidates[owner] if product else value).norm()
        for weight, value, owner in zip(told.weights, told.past.vectors, told.past.owners, strict=True)
    ]
    assert torch.allclose(told.strengths, torch.stack(expected), atol=1e-6)


@pytest.mark.parametrize("how", ["hashed", "attended", "averaged"])
def test_sdim_tells_how_it_reads_the_whole_past(how: str, make_embed: MakeEmbed) -> None:
    embed = make_embed(example_schema())
    model = build("sdim", {"long_past": how, "recent": 1}, embed).eval()
    assert isinstance(model, SDIM)
    batch = example_batch(embed.schema, 20)
    told = weigher(model).weighed(batch)
    candidates = model.fields.candidates(batch)
    recent = told.past.newest(1)
    interests = [pooled(recent, model.unit(candidates, recent)), pooled(told.past, told.weights)]
    assert torch.allclose(model.tower(batch, candidates, interests), model.score(batch), atol=1e-5)


def test_a_model_that_knows_no_single_behaviours_says_so(make_embed: MakeEmbed) -> None:
    for name in ("average_pooling", "two_tower"):
        with pytest.raises(ConfigError, match="does not declare Weighs"):
            weigher(build(name, {}, make_embed(example_schema())))

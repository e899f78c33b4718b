"""Options as plain dicts and back, and messages that name option, value and mend."""

import json
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import tomli_w
import torch

from dolmen.embedding import Embed
from dolmen.errors import ConfigError
from dolmen.features import Schema
from dolmen.models import build, describe, entry, names
from dolmen.models.config import at_least, not_empty, positive
from dolmen.models.jobs import JOBS
from dolmen.models.joint import Joint, JointConfig
from dolmen.models.retrieval.two_tower import TwoTowerConfig
from dolmen.settings import NONE, read_settings, write_settings
from dolmen.testing import example_schema

MakeEmbed = Callable[[Schema], Embed]


@dataclass(frozen=True, kw_only=True)
class OvenConfig:
    slots: tuple[str, ...] | None = None
    heat: float = 1.0
    layers: tuple[int, ...] = (2, 1)
    is_hot: bool = False
    count: int = 3

    def __post_init__(self) -> None:
        not_empty(self, "slots")
        at_least(self, 1, "layers", "count")
        positive(self, "heat")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"slots": ()}, "OvenConfig.slots must name at least one, none twice"),
        ({"slots": ("a", "a")}, "OvenConfig.slots must name at least one, none twice"),
        ({"heat": 0.0}, "OvenConfig.heat must be above 0, got 0.0"),
        ({"heat": float("nan")}, "OvenConfig.heat must be above 0, got nan"),
        ({"count": 0}, "OvenConfig.count must be at least 1, got 0"),
        ({"layers": (4, 0)}, r"OvenConfig.layers must be at least 1, got \(4, 0\)"),
        ({"layers": (4, 10**9)}, r"OvenConfig.layers must be at most 16,777,216, got \(4, 1000000000\)"),
        ({"count": 10**23}, "OvenConfig.count must be at most 16,777,216, got 1000000000"),
    ],
)
def test_a_bad_option_is_named_with_its_mend(options: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        OvenConfig(**options)


@pytest.mark.parametrize("name", names())
def test_every_model_is_built_described_and_built_again(name: str, make_embed: MakeEmbed) -> None:
    model = build(name, {}, make_embed(example_schema()))
    described = json.loads(json.dumps(describe(model)))
    assert described["name"] == name
    twin = build(described["name"], described["options"], make_embed(example_schema()))
    assert twin.config == model.config
    assert {key: value.shape for key, value in twin.state_dict().items()} == {
        key: value.shape for key, value in model.state_dict().items()
    }
    assert type(model) is entry(name).model
    assert model.abilities == entry(name).abilities


@pytest.mark.parametrize("name", names())
def test_the_options_of_every_model_survive_toml(name: str) -> None:
    config = entry(name).config()
    written = tomllib.loads(tomli_w.dumps(write_settings(config, none=NONE)))
    assert read_settings(entry(name).config, written, "model.options") == config


def test_options_of_a_part_that_are_none_survive_toml(make_embed: MakeEmbed) -> None:
    joint = JointConfig(retriever_options={"hide_slot": None})
    options = tomllib.loads(tomli_w.dumps(write_settings(joint, none=NONE)))
    model = build("joint", options, make_embed(example_schema()))
    assert isinstance(model, Joint)
    assert model.retriever.config == TwoTowerConfig(hide_slot=None)


def test_the_list_that_loads_no_model_names_each_with_its_job() -> None:
    assert {name: entry(name).job for name in names()} == JOBS


def test_an_unknown_model_or_option_offers_the_nearest(make_embed: MakeEmbed) -> None:
    embed = make_embed(example_schema())
    with pytest.raises(ConfigError, match="there is no model 'deepfn'; did you mean 'deepfm'"):
        build("deepfn", {}, embed)
    with pytest.raises(ConfigError, match=r"model\.options: unknown setting 'hiden'; did you mean 'hidden'"):
        build("deepfm", {"hiden": [3]}, embed)
    with pytest.raises(ConfigError, match=r"model\.options\.ranker_options: unknown setting 'hiden'"):
        build("joint", {"ranker_options": {"hiden": [3]}}, embed)


@pytest.mark.parametrize(
    ("name", "options", "told"),
    [
        ("din", {"hidden": [10**9]}, r"model\.options\.hidden must be at most 16,777,216, got \(1000000000,\)"),
        ("bert4rec", {"length": 10**9}, r"model\.options\.length must be at most"),
        ("tin", {"positions": 10**10}, r"model\.options\.positions must be at most"),
        ("two_tower", {"recent_items": 9 * 10**12}, r"model\.options\.recent_items must be at most"),
        (
            "deepfm",
            {"hidden": [1 << 16, 1 << 24, 1 << 24]},
            r"model\.options: the layers of 'deepfm' do not fit into memory with hidden=\(65536, 16777216, 16777216\);",
        ),
        (
            "joint",
            {"ranker_options": {"hidden": [1 << 16, 1 << 24, 1 << 24]}},
            r"model\.options\.ranker_options: the layers of 'deepfm' do not fit into memory",
        ),
    ],
)
def test_sizes_that_no_machine_holds_are_named(
    make_embed: MakeEmbed, name: str, options: dict[str, object], told: str
) -> None:
    with pytest.raises(ConfigError, match=told):
        build(name, options, make_embed(example_schema()))


def test_building_leaves_the_global_random_state_alone_and_follows_its_seed(make_embed: MakeEmbed) -> None:
    before = torch.get_rng_state()
    one, same, other = (build("joint", {}, make_embed(example_schema()), seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    weights = [model.state_dict()["parts.ranker.deep.layers.0.weight"] for model in (one, same, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"temperature": 0.0}, "TwoTowerConfig.temperature must be above 0"),
        ({"hide_rate": 1.5}, "TwoTowerConfig.hide_rate must be at most 1, got 1.5"),
        ({"dim": 0}, "TwoTowerConfig.dim must be at least 1, got 0"),
        ({"negatives": -1}, "TwoTowerConfig.negatives must be at least 0, got -1"),
    ],
)
def test_two_tower_options_are_checked(options: dict[str, object], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        TwoTowerConfig(**options)

"""One file describes a whole dolmen, and says what is wrong with it."""

from pathlib import Path
from typing import Any

import pytest

from dolmen.cluster import Config
from dolmen.errors import ConfigError, SchemaError
from dolmen.events import DEFAULT_RETENTION, Group, Retention

LEAST: dict[str, Any] = {"schema": {"slot": [{"name": "item"}], "label": [{"name": "click"}]}}


def config(**sections: Any) -> Config:
    return Config.from_dict({**LEAST, **sections}, base=Path("base"))


def test_retention_that_is_set_keeps_the_defaults_of_what_it_does_not_name() -> None:
    kept = config(log={"retention": {"actions": {"max_age": "1d"}, "catalogue": {"max_bytes": 5}}}).retention
    assert kept["actions"] == Retention(
        max_bytes=DEFAULT_RETENTION["actions"].max_bytes, max_age="1d", readers=(Group.JOINER, Group.SERVER)
    )
    assert kept["catalogue"] == Retention(max_bytes=5)


def test_readers_can_be_named() -> None:
    kept = config(log={"retention": {"examples": {"readers": ["trainer", "archive"]}}}).retention
    assert kept["examples"].readers == ("trainer", "archive")


@pytest.mark.parametrize(
    ("log", "message"),
    [
        ({"retention": {"action": {"max_age": "1d"}}}, "there is no topic 'action'; did you mean 'actions'"),
        (
            {"retention": {"actions": {"max_agee": "1d"}}},
            r"log\.retention\.actions: .*'max_agee'; did you mean 'max_age'",
        ),
        ({"retention": {"actions": "1d"}}, r"log\.retention\.actions must be a table, got '1d'"),
        ({"retention": "1d"}, r"log\.retention must be a table"),
        ({"retention": {"actions": {"max_age": "soon"}}}, "'soon'"),
    ],
)
def test_retention_that_cannot_be_is_named(log: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config(log=log)


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"join": {"window": 30}}, r'join\.window must be a duration with its unit, such as "30s" or "2h", got 30'),
        ({"join": {"negative_rate": 2}}, r"join\.negative_rate must be above 0 and at most 1, got 2"),
        ({"join": {"widow": "30s"}}, r"join: unknown setting 'widow'; did you mean 'window'"),
        ({"train": {"expire_every": 5}}, r"train\.expire_every must be a duration with its unit"),
        (
            {"optimizer": {"learningrate": 1.0}},
            r"optimizer: .* 'learningrate'; did you mean 'learning_rate'",
        ),
        ({"optimizer": {"learning_rate": "x"}}, r"optimizer\.learning_rate must be a number, got 'x'"),
        ({"model": {"name": "deepfn"}}, r"model\.name: there is no model 'deepfn'; did you mean 'deepfm'"),
        ({"model": {"options": {"ranker": "dinn"}}}, r"model\.options\.ranker: .* 'dinn'; did you mean 'din'"),
        ({"model": {"options": {"retriever": "towtower"}}}, r"model\.options\.retriever: .*; did you mean 'two_tower'"),
        ({"train": {"seed": -5}}, r"train\.seed must be between 0 and \d+, got -5"),
        ({"train": {"seed": 10**23}}, r"train\.seed must be between 0 and \d+, got 1000"),
        ({"model": {"name": ":Taste"}}, r"model\.name: ':Taste' is not of the form module:Class"),
        (
            {"model": {"options": {"ranker": "./taste.py:Taste"}}},
            r"model\.options\.ranker: .* of the form module:Class",
        ),
        ({"simulated": "yes"}, r"simulated must be true or false, got 'yes'"),
    ],
)
def test_a_mistake_is_told_with_its_key_value_and_mend_without_loading_a_model(
    sections: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        config(**sections)


@pytest.mark.parametrize(
    ("model", "error", "message"),
    [
        ('options = { rankr = "din" }', ConfigError, "unknown setting 'rankr'; did you mean 'ranker'"),
        ('options = { ranker_options = { hidden = "8" } }', ConfigError, r"ranker_options\.hidden must be a list"),
        ("options = { retriever_options = { dim = -3 } }", ConfigError, r"dim must be at least 1, got -3"),
        ('options = { ranker_options = { slots = ["itme"] } }', SchemaError, "'itme'"),
    ],
)
def test_building_the_model_names_the_file_and_the_option(
    tmp_path: Path, model: str, error: type[Exception], message: str
) -> None:
    path = tmp_path / "shop.toml"
    path.write_text(
        '[[schema.slot]]\nname = "user"\n[[schema.slot]]\nname = "item"\n[[schema.label]]\nname = "click"\n'
        f"[model]\n{model}\n"
    )
    Config.from_toml(path)
    with pytest.raises(error, match=rf"shop\.toml: .*{message}"):
        Config.from_toml(path, with_model=True)


def test_the_model_is_tried_and_not_built_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody's own, which is sound until it is asked."""
    (tmp_path / "untried.py").write_text(
        "from dolmen.models.ranking.logistic_regression import LogisticRegression, LogisticRegressionConfig\n"
        "from torch import nn\n\n"
        "class Model(nn.Module):\n"
        "    abilities = LogisticRegression.abilities\n"
        "    def __init__(self, config: LogisticRegressionConfig, embed):\n"
        "        super().__init__()\n"
        "        self.config, self.inner = config, LogisticRegression(config, embed)\n"
        "        self.slots, self.dense = self.inner.slots, self.inner.dense\n"
        "    def score(self, batch):\n"
        "        return self.inner.score(batch)\n"
        "    def loss(self, batch):\n"
        "        raise RuntimeError('boom in my loss')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    path = tmp_path / "shop.toml"
    path.write_text(
        '[[schema.slot]]\nname = "user"\n[[schema.slot]]\nname = "item"\n[[schema.label]]\nname = "click"\n'
        '[model]\noptions = { ranker = "untried:Model" }\n'
    )
    Config.from_toml(path)
    with pytest.raises(
        ConfigError, match=r"shop\.toml: .* raises RuntimeError: boom in my loss \(.*untried\.py, line 13"
    ):
        Config.from_toml(path, with_model=True)

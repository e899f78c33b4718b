"""What ``dolmen models`` tells of models can be laid side by side."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from toy import toy

from dolmen.models import entry
from dolmen.models.layers.behaviours import TowerConfig
from dolmen.studies import measured, registry, tin
from dolmen.studies.clicks import AMAZON
from dolmen.studies.study import Shown


def test_the_line_names_figure_case_seeds_arm_and_study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = replace(toy(), shows={"deepfm": Shown(case="films", arm="better", figure="auc")})
    monkeypatch.setattr(registry, "_STUDIES", {"toy": study})
    cells = [{"case": "films", "arm": "better", "figures": {"auc": value}} for value in (0.7, 0.8, None)]
    (tmp_path / "toy.json").write_text(json.dumps({"cells": cells}))
    assert measured(tmp_path) == {"deepfm": "auc 0.7500 ± 0.0707 on films, 2 seeds (arm better of study toy)"}


def test_models_that_rank_by_behaviour_are_shown_on_one_case_as_they_are_by_default() -> None:
    """One study gives them all the same layers and slots; DIN and the mean once stood without the product here."""
    told = {
        (model, shown.case): (study.name, shown.arm)
        for study in map(registry.study, registry.names())
        for model, shown in study.shows.items()
        if issubclass(entry(model).config, TowerConfig)
    }
    beside = {model: told[model, case] for model, case in told if case == AMAZON}
    assert sorted(beside) == ["average_pooling", "din", "tin"]
    for model, (study_name, arm) in beside.items():
        assert study_name == "tin"
        assert tin._MODELS[arm] == (model, {})

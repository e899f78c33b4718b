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
    values = enumerate((0.7, 0.8, None))
    cells = [{"case": "films", "arm": "better", "seed": seed, "figures": {"auc": value}} for seed, value in values]
    (tmp_path / "toy.json").write_text(json.dumps({"cells": cells}))
    assert measured(tmp_path) == {"deepfm": "auc 0.7500 ± 0.0707 on films, 2 seeds (arm better of study toy)"}


def test_models_on_one_case_are_told_of_the_seeds_that_all_of_them_ran(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TIN once stood with eight seeds above the mean with three, and was below it on those three."""
    shows = {
        "tin": Shown(case="films", arm="better", figure="auc"),
        "din": Shown(case="films", arm="plain", figure="auc"),
        "pnn": Shown(case="books", arm="better", figure="auc"),  # on another case
        "deepfm": Shown(case="films", arm="never-run", figure="auc"),
    }
    arms = {"plain": "", "better": "", "never-run": ""}
    monkeypatch.setattr(registry, "_STUDIES", {"toy": replace(toy(), arms=arms, shows=shows)})
    ran = {("films", "better"): (0.5, 0.6, 0.9), ("films", "plain"): (0.7, 0.6), ("books", "better"): (0.5, 0.6, 0.7)}
    cells = [
        {"case": case, "arm": arm, "seed": seed, "figures": {"auc": value}}
        for (case, arm), values in ran.items()
        for seed, value in enumerate(values)
    ]
    (tmp_path / "toy.json").write_text(json.dumps({"cells": cells}))
    found = {model: line.split(" (")[0] for model, line in measured(tmp_path).items()}
    assert found == {
        "din": "auc 0.6500 ± 0.0707 on films, 2 seeds",
        "pnn": "auc 0.6000 ± 0.1000 on books, 3 seeds",
        "tin": "auc 0.5500 ± 0.0707 on films, 2 seeds",
    }


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

"""DIN and SDIM in the loop, in DeepFM's place by one line. Nothing is timed here: other tests may run beside it."""

import tomllib
from pathlib import Path
from typing import Any

import pytest

from dolmen.training import find_snapshot, read_manifest

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]


@pytest.mark.parametrize("ranker", ["din", "sdim"])
def test_the_loop_learns_and_serves_with_another_ranker_named_in_one_line(
    tmp_path: Path, running_demo: Any, assert_books_balance: Any, ranker: str
) -> None:
    arguments = ["--data", "world-drifting", "--headless", "--events", "8000", "--ranker", ranker]
    with running_demo(tmp_path, *arguments) as demo:
        report = demo.report()
    # The line of the documents: `[model] options = { ranker = "din" }`. Nothing else tells which model ranks.
    configuration = tomllib.loads((demo.state / "dolmen.toml").read_text())
    assert configuration["model"] == {"name": "joint", "options": {"ranker": ranker}}
    newest = find_snapshot(demo.state / "trainer" / "snapshots")
    assert read_manifest(newest).model_options["ranker"] == ranker

    assert_books_balance(report)
    assert report["restarts"] == {"serve": 0, "join": 0, "train": 0}
    assert report["failures"] == {"replay": 0, "recommend": 0, "first": None}
    # Visitors were served, and each action was in what was served soon after.
    assert report["recommend_latency_ms"]["count"] > 0
    assert report["staleness_seconds"]["count"] == report["events"]["actions_acknowledged"]
    # What was answered when the items of the second half were shown: some 600 clicks among 1,400 examples that were
    # kept. A model that learned nothing has 0.5, give or take sqrt((1/600 + 1/800) / 12) = 0.016. Measured: 0.61, 0.63.
    assert report["progressive"]["online"]["auc"] > 0.55, report["progressive"]

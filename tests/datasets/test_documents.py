import doctest
from dataclasses import fields
from pathlib import Path

import pytest

from dolmen import datasets
from dolmen.datasets import World, WorldConfig
from dolmen.datasets.world import DRIFTING, STEADY

DOCS = Path(__file__).resolve().parents[2] / "docs"
REFERENCE = (DOCS / "reference" / "datasets.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("page", ["how-to/data.md", "reference/datasets.md"])
def test_examples_run(page: str) -> None:
    assert doctest.testfile(str(DOCS / page), module_relative=False).failed == 0


def test_the_reference_has_every_data_set_with_its_counts() -> None:
    rows = {line.split("|")[1].strip(): line for line in REFERENCE.splitlines() if line.startswith("| `")}
    for name in datasets.names():
        row = rows[f"`{name}`"]
        info = datasets.describe(name)
        counts = dict(info.statistics)
        if info.simulated:
            dataset = datasets.load(name)
            counts = {"users": dataset.users.num_rows, "items": dataset.items.num_rows, "interactions": len(dataset)}
        for what in ("users", "items", "interactions"):
            assert f" {counts[what]:,} " in row


def test_the_reference_has_every_knob_of_the_world_with_its_value() -> None:
    rows = {line.split("|")[1].strip(): line for line in REFERENCE.splitlines() if line.startswith("| `")}
    for knob in fields(WorldConfig):
        _, _, steady, drifting, *_ = (cell.strip(' `"') for cell in rows[f"`{knob.name}`"].split("|"))
        if knob.name != "start_us":
            assert steady == str(getattr(STEADY, knob.name))
            assert (drifting or steady) == str(getattr(DRIFTING, knob.name))


def test_the_reference_has_every_method_of_the_world() -> None:
    for method in ("items_at", "click_probability", "slates", "dataset", "respond", "margin"):
        assert hasattr(World, method)
        assert f"`{method}(" in REFERENCE

"""What and when together, of a data set that is small enough to count by hand."""

import json
import re
from math import log2
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from typer.testing import CliRunner

from dolmen import datasets
from dolmen.cli import app
from dolmen.datasets import Dataset, DatasetInfo
from dolmen.errors import ConfigError, DataError
from dolmen.evaluation import GivenSplit
from dolmen.features import Label, Schema, Slot
from dolmen.studies import measure_correlation, write_correlation

# Two people took a red thing, one a blue one, one a thing of no colour at all (that is not in the catalogue).
# Then a red thing is shown to all, which those two take. A last row is of the test part, and would change everything.
ACTIONS = [
    ("ann", "apple", 1),
    ("bob", "apple", 1),
    ("cat", "sea", 1),
    ("dan", "ghost", 1),
    ("ann", "rose", 1),
    ("bob", "rose", 1),
    ("cat", "rose", 0),
    ("dan", "rose", 0),
    ("cat", "rose", 1),
]
TIMES = pa.array(np.arange(len(ACTIONS)) * 1_000_000, pa.timestamp("us", tz="UTC"))


def shop(*, colours: pa.Array | None = None, clicks: list[int] | None = None, ghost: str = "ghost") -> Dataset:
    users, items, clicked = (list(column) for column in zip(*ACTIONS, strict=True))
    items = [ghost if item == "ghost" else item for item in items]
    clicked = clicked if clicks is None else clicks
    told = pa.array([["red"], ["red"], ["blue"], None], pa.list_(pa.string())) if colours is None else colours
    return Dataset(
        DatasetInfo(
            name="shop", title="", summary="", source_url="", citation="", terms="", terms_url="", simulated=True
        ),
        Schema(Slot("user"), Slot("item"), Label("click")),
        pa.table({"id": ["apple", "rose", "sea", "air"], "colours": told}),
        pa.table({"id": ["ann", "bob", "cat", "dan"]}),
        pa.table(
            {
                "user": users,
                "item": items,
                "slate": np.arange(len(users)),
                "position": pa.array(np.zeros(len(users)), pa.int16()),
                "event_time": TIMES,
                "action_time": pa.array(
                    [time if one else None for time, one in zip(TIMES, clicked, strict=True)], TIMES.type
                ),
                "click": pa.array(clicked, pa.int8()),
            }
        ),
        rule=GivenSplit(np.array([0] * 8 + [2], dtype=np.int8)),
    )


def bits_of(joint: list[list[int]]) -> float:
    """The mutual information of a two by two table of counts."""
    total = sum(map(sum, joint))
    return sum(
        count / total * log2(count * total / (sum(joint[row]) * sum(one[column] for one in joint)))
        for row in (0, 1)
        for column in (0, 1)
        if (count := joint[row][column])
    )


def test_the_grid_is_what_one_counts_by_hand() -> None:
    report = measure_correlation(shop(), "colours", position_max=2)
    assert (report.example_count, report.positive_count, report.categories) == (8, 6, ("red", "blue"))
    red, blue = report.grids
    # Of six red candidates four were taken. Two of these four, and no other, have a red behaviour just before; one of
    # the two others has a blue one.
    assert red.example_count == 6
    assert red.counts.tolist() == [[2, 0], [1, 0]]
    assert red.bits[:, 0] == pytest.approx([bits_of([[2, 0], [2, 2]]), bits_of([[0, 1], [4, 1]])])
    # The only blue candidate came first: no behaviour lies before it.
    assert (blue.example_count, blue.counts.sum(), blue.bits.sum()) == (1, 0, 0)
    assert report.same_bits == pytest.approx([6 / 7 * red.bits[0, 0], 0])
    assert report.other_bits == pytest.approx([6 / 7 * red.bits[1, 0], 0])
    assert report.chance_bits == pytest.approx((6 * red.chance_bits + blue.chance_bits) / 7)


def test_a_column_of_single_values_tells_the_same_as_one_of_lists() -> None:
    single = measure_correlation(shop(colours=pa.array(["red", "red", "blue", None])), "colours")
    several = measure_correlation(shop(), "colours")
    assert single.categories == several.categories
    assert [grid.bits.tolist() for grid in single.grids] == [grid.bits.tolist() for grid in several.grids]


def test_one_category_has_no_other(tmp_path: Path) -> None:
    report = measure_correlation(shop(), "colours", category_count=1)
    assert report.categories == ("red",)
    assert np.isnan(report.other_bits).all()
    written = write_correlation(report, tmp_path, command="dolmen data correlation shop colours")
    assert json.loads(written[0].read_text())["by_position"]["other"] == [None] * 10


@pytest.mark.parametrize(
    ("dataset", "attribute", "message"),
    [
        (shop(), "colour", "shop: its items have no column 'colour'; did you mean 'colours'?"),
        (
            shop(colours=pa.array([{"of": 1}] * 4)),
            "colours",
            "a category is one plain value, and 'colours' holds struct",
        ),
        (shop(colours=pa.nulls(4, pa.string())), "colours", "no item of the training part has a value of 'colours'"),
        (shop(clicks=[1] * 9), "colours", "click is 1 in every example, so there is nothing to tell apart. Put random"),
        (shop().with_rule(GivenSplit(np.full(9, 2, np.int8))), "colours", "leaves nothing to train on"),
    ],
)
def test_what_cannot_be_measured_is_refused_with_the_mend(dataset: Dataset, attribute: str, message: str) -> None:
    with pytest.raises((ConfigError, DataError), match=re.escape(message)):
        measure_correlation(dataset, attribute)


def test_random_items_can_stand_for_what_was_passed_over() -> None:
    report = measure_correlation(shop(clicks=[1] * 9, ghost="air"), "colours", negatives=1)
    assert (report.example_count, report.positive_count, report.negatives) == (16, 8, 1)


def test_the_command_prints_a_table_and_writes_what_it_found(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    arguments = ["data", "correlation", "world", "genres", "--positions", "3", "--out", str(tmp_path)]
    ended = CliRunner().invoke(app, arguments, env={"COLUMNS": "200"})
    assert ended.exit_code == 0, ended.output
    told = json.loads((tmp_path / "correlation-world-genres.json").read_text())
    assert told["command"] == f"dolmen data correlation world genres --positions 3 --out {tmp_path}"
    assert told["examples"] == len(datasets.load("world").rows("train"))
    assert len(told["candidates"]) == len(told["categories"]) <= 10
    assert all(np.shape(one["bits"]) == (len(told["categories"]), 3) for one in told["candidates"])
    page = (tmp_path / "correlation-world-genres.md").read_text()
    assert "**Simulated: no real person or item is in it.**" in page
    assert "![bits by category and position](correlation-world-genres.svg)" in page
    assert (tmp_path / "correlation-world-genres.svg").read_bytes().startswith(b"<?xml")
    for name, one in zip(told["categories"], told["candidates"], strict=True):
        assert name in ended.output
        assert f"| {name} | {one['examples']:,} |" in page

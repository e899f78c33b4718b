"""What and when together, of a data set that is small enough to count by hand."""

import json
import re
import shlex
from dataclasses import dataclass, replace
from math import log2
from pathlib import Path
from typing import ClassVar, final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import torch
from torch import Tensor, nn
from typer.testing import CliRunner

from dolmen import datasets
from dolmen.cli import app
from dolmen.datasets import Dataset, DatasetInfo
from dolmen.embedding import Embed
from dolmen.errors import ConfigError, DataError
from dolmen.evaluation import GivenSplit
from dolmen.features import Batch, Label, Schema, Side, Slot
from dolmen.models import Ability
from dolmen.models.layers.behaviours import BehaviourFields, TowerConfig, Weighed
from dolmen.models.layers.losses import log_loss
from dolmen.studies import Learner, measure_correlation, write_correlation
from dolmen.studies.learned import OVER

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


@final
@dataclass(frozen=True, kw_only=True)
class FadingConfig(TowerConfig):
    """Options of ``Fading``: those of ``TowerConfig``, and how much the candidate's own category counts."""

    own: float = 3.0


@final
class Fading(nn.Module):
    """Learns nothing but a bias, and says that a behaviour counts one over its position, the candidate itself thrice.

    Source: made up.
    """

    abilities: ClassVar[frozenset[Ability]] = frozenset({Ability.SCORES, Ability.WEIGHS})

    def __init__(self, config: FadingConfig, embed: Embed) -> None:
        super().__init__()
        self.config, self.embed = config, embed
        self.fields = BehaviourFields(embed, config)
        self.slots, self.dense = self.fields.slots, self.fields.dense
        self.bias = nn.Parameter(torch.zeros(()))

    def weighed(self, batch: Batch) -> Weighed:
        past = self.fields.past(batch)
        candidates = self.fields.candidates(batch).index_select(0, past.owners)
        is_same = (candidates == past.vectors).all(dim=1)
        weights = -(1 + (self.config.own - 1) * is_same) / past.positions
        return Weighed(past, weights, torch.ones(len(weights), 1))

    def score(self, batch: Batch) -> Tensor:
        return self.bias + 0 * self.fields.candidates(batch).sum(dim=1)

    def loss(self, batch: Batch) -> Tensor:
        return log_loss(self.score(batch), batch, "click")


def street(*, length: int = 8, **columns: pa.Array) -> Dataset:
    """Thirty people take a walk past three shops of three trades, and buy what they will; a last row tests."""
    random, people = np.random.default_rng(2), 30
    users = np.repeat(np.arange(people), length)
    items = random.integers(0, 3, len(users))
    clicks = random.integers(0, 2, len(users))
    times = pa.array(np.arange(len(users)) * 1_000_000, pa.timestamp("us", tz="UTC"))
    schema = Schema(
        Slot("user", dim=5),
        Slot("item", dim=5),
        Slot("trade", dim=5, of=Side.ITEM),
        Slot("history", dim=5, table="item", many=True, ordered=True, max_len=6, of=Side.USER),
        Label("click"),
    )
    info = shop().info
    return Dataset(
        replace(info, name="street"),
        schema,
        pa.table({"id": [0, 1, 2], "trade": ["ale", "bread", "cloth"], **columns}),
        pa.table({"id": np.arange(people)}),
        pa.table(
            {
                "user": users,
                "item": items,
                "slate": np.arange(len(users)),
                "position": pa.array(np.zeros(len(users)), pa.int16()),
                "event_time": times,
                "action_time": pc.if_else(pa.array(clicks == 1), times, None),
                "click": pa.array(clicks, pa.int8()),
            }
        ),
        rule=GivenSplit(np.array([0] * (len(users) - 4) + [2] * 4, dtype=np.int8)),
    )


FADING = Learner(model=f"{__name__}:Fading", epochs=1)


def test_what_a_model_says_of_behaviours_lies_beside_what_the_data_tell() -> None:
    report = measure_correlation(street(), "trade", position_max=3, learner=FADING)
    learned = report.learned
    assert learned is not None
    assert learned.model_options["history"] == ["history", "history_trade"]
    weights = np.array([1, 1 / 2, 1 / 3])
    lengths = [
        sum(clicks[:place])
        for clicks in np.split(street().interactions["click"].to_numpy(), 30)
        for place in range(len(clicks))
    ][:-4]
    assert learned.example_count == sum(length >= 3 for length in lengths)
    for place, grid in enumerate(learned.grids):
        for row in range(3):
            assert learned.mean_strength * grid[row] == pytest.approx((3 if row == place else 1) * weights)
    assert learned.same == pytest.approx(3 * weights / learned.mean_strength)
    assert learned.other == pytest.approx(weights / learned.mean_strength)
    plain = measure_correlation(street(), "trade", position_max=3)
    assert plain.learned is None
    assert [grid.bits.tolist() for grid in plain.grids] == [grid.bits.tolist() for grid in report.grids]


def test_a_model_that_orders_as_the_data_do_correlates_fully() -> None:
    report = measure_correlation(street(), "trade", position_max=2, category_count=1, learner=FADING)
    assert report.learned is not None
    grid = replace(report.grids[0], bits=np.array([[0.9, 0.8]]))
    alike, turned = (
        replace(report.learned, measured=(replace(grid, bits=bits),)) for bits in (grid.bits, grid.bits[:, ::-1])
    )
    for one, expected in ((alike, 1), (turned, -1)):
        assert one.rank_correlations == pytest.approx(dict.fromkeys(OVER, expected))


def test_a_category_that_not_each_item_has_is_not_read_beside_it() -> None:
    learner = Learner(model="tin", options={"hidden": (4,)}, epochs=1)
    dataset = street(trade=pa.array(["ale", None, "cloth"]))
    report = measure_correlation(dataset, "trade", position_max=2, learner=learner)
    assert report.learned is not None
    assert report.learned.model_options["history"] == ["history"]


@pytest.mark.parametrize(
    ("learner", "positions", "message"),
    [
        (Learner(model="din", options={"hiden": [4]}), 2, "model.options: unknown setting 'hiden'; did you mean"),
        (Learner(model="din"), 7, "--positions 7: din reads the newest 6 behaviours of street; look back no farther"),
        (Learner(model="sdim", options={"long_past": "left_out", "hidden": (4,)}), 2, "counts no behaviour at all"),
    ],
)
def test_a_model_that_cannot_be_asked_is_refused_with_the_mend(learner: Learner, positions: int, message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        measure_correlation(street(length=20), "trade", position_max=positions, learner=learner)


def test_pasts_that_are_too_short_for_a_model_are_told_with_the_mend() -> None:
    with pytest.raises(DataError, match=r"no past has 9 behaviours, the longest has 7; .*--positions 7"):
        measure_correlation(street(), "trade", position_max=9, learner=FADING)


def test_a_model_that_cannot_tell_is_refused_before_anything_is_read() -> None:
    for name in ("average_pooling", "two_tower", "joint"):
        with pytest.raises(ConfigError, match=f"'{name}' cannot tell .*; name one that can: din, sdim, tin"):
            Learner(model=name)


def test_the_command_lays_what_a_model_learned_beside_the_data(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    arguments = ["data", "correlation", "world", "genres", "--positions", "3", "--model", "tin"]
    arguments += ["--option", "hidden=[4]", "--option", "temperature=0.5", "--epochs", "1", "--out", str(tmp_path)]
    ended = CliRunner().invoke(app, arguments, env={"COLUMNS": "200"})
    assert ended.exit_code == 0, ended.output
    stem = "correlation-world-genres-tin-hidden-4-temperature-0.5-epochs-1"
    told = json.loads((tmp_path / f"{stem}.json").read_text())
    assert told["command"] == shlex.join(["dolmen", *arguments])
    learned = told["learned"]
    assert (learned["model"], learned["options"]["temperature"], learned["epochs"]) == ("tin", 0.5, 1)
    assert np.shape(learned["candidates"]) == (len(told["categories"]), len(told["categories"]), 3)
    assert learned["test_auc"] > 0.5
    page = (tmp_path / f"{stem}.md").read_text()
    assert "## What tin hidden=[4] temperature=0.5 epochs=1 learned" in page
    assert f"On the part that tests its AUC is {learned['test_auc']:.4f}." in page
    for name, grid in zip(told["categories"], learned["candidates"], strict=True):
        own = grid[told["categories"].index(name)]
        assert f"| {name} | {' | '.join(f'{one:.2f}' for one in own)} |" in page
    for over, value in learned["rank_correlation"].items():
        assert f"| {'' if value is None else f'{value:.2f}'} | {OVER[over]} |" in page
    assert (tmp_path / f"{stem}.svg").read_bytes().startswith(b"<?xml")

"""The set-up of the studies of the next item: cut off and gone on, and baselines against their formulas."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch import Tensor

from dolmen.datasets.dataset import Dataset, DatasetInfo, Order, actions_table
from dolmen.evaluation import LeaveOneOut
from dolmen.features import Jagged, Label, Schema, Side, Slot
from dolmen.studies import Cell, Setting, bert4rec, next_item

ITEMS, PEOPLE, ACTIONS = 15, 12, 9
CELL = Cell(case="tiny", arm="sasrec", seed=1)


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Twelve people walk over fifteen items, each by a step of their own."""
    people = np.repeat(np.arange(PEOPLE), ACTIONS)
    items = (people * 4 + (people % 3 + 1) * np.tile(np.arange(ACTIONS), PEOPLE)) % ITEMS
    schema = Schema(
        Slot("user"),
        Slot("item"),
        Slot("history", table="item", many=True, ordered=True, of=Side.USER),
        Label("click"),
    )
    info = DatasetInfo(name="tiny", title="", summary="", source_url="", citation="", terms="", terms_url="")
    dataset = Dataset(
        info,
        schema,
        pa.table({"id": np.arange(ITEMS)}),
        pa.table({"id": np.arange(PEOPLE)}),
        actions_table(people, items),
        order=Order.PERSON,
        rule=LeaveOneOut(),
    )
    monkeypatch.setattr(next_item, "_dataset", lambda _: dataset)
    monkeypatch.setattr(next_item, "_CASES", {"tiny": next_item._Case(length=5, stride=2, batch=4)})
    monkeypatch.setattr(next_item, "_SAMPLED", 4)
    next_item._data.cache_clear()
    yield
    next_item._data.cache_clear()


def setting(scratch: Path) -> Setting:
    return Setting(settings={"passes": {"tiny": 4}}, scratch=scratch)


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize("of_pairs", [False, True])
def test_a_cell_that_was_cut_off_goes_on_to_the_same_figures(
    of_pairs: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arm = next_item.Arm(model="sasrec", options={})
    if of_pairs:
        arm = next_item.Arm(model="two_tower", options=bert4rec._FACTORS, of_pairs=True)
    whole = next_item.run_arm(CELL, arm, setting(tmp_path / "whole"))
    save, saved = next_item.Trainer.save, []

    def cut_off(*given: Any, **named: Any) -> Path:
        saved.append(save(*given, **named))
        if len(saved) == 2:
            raise KeyboardInterrupt  # after the snapshot, before it is known of: the piece is learned again
        return saved[-1]

    monkeypatch.setattr(next_item.Trainer, "save", cut_off)
    with pytest.raises(KeyboardInterrupt):
        next_item.run_arm(CELL, arm, setting(tmp_path / "pieces"))
    pieces = next_item.run_arm(CELL, arm, setting(tmp_path / "pieces"))
    for name, value in whole.items():
        if name != "examples_per_cpu_second":
            assert pieces[name] == value, name


@pytest.mark.usefixtures("tiny")
def test_what_is_tested_and_drawn_was_never_met_before() -> None:
    data = next_item._data("tiny")
    for part, length in ((data.validation, ACTIONS - 2), (data.test, ACTIONS - 1)):
        for past, right, others in zip(part.past.to_lists(), part.right.to_lists(), part.others.tolist(), strict=True):
            assert len(past) == length
            assert not {*right, *past} & {*others}
    assert data.pairs.size == PEOPLE * (ACTIONS - 2)


@pytest.mark.usefixtures("tiny")
def test_of_several_counted_ones_that_is_judged_which_is_best_on_the_validation_part() -> None:
    def following(people: Tensor, items: Tensor, item_count: int) -> Callable[[Jagged], Tensor]:
        del people, items
        return lambda past: _scores_of(past, item_count, 1.0)

    def avoiding(people: Tensor, items: Tensor, item_count: int) -> Callable[[Jagged], Tensor]:
        del people, items
        return lambda past: _scores_of(past, item_count, -1.0)

    alone = [next_item.run_counts(CELL, one) for one in (following, avoiding)]
    assert alone[0] != alone[1]
    part = next_item._data("tiny").validation
    on_validation = [
        next_item._figures(lambda asked, sign=sign: _scores_of(part.past.take(asked), ITEMS, sign), part)
        for sign in (1.0, -1.0)
    ]
    best = alone[int(on_validation[1]["full_ndcg@10"] > on_validation[0]["full_ndcg@10"])]
    assert next_item.run_counts(CELL, following, avoiding) == best
    assert next_item.run_counts(CELL, avoiding, following) == best


def _scores_of(past: Jagged, item_count: int, sign: float) -> Tensor:
    """Items after the last one, near ones first, or last."""
    last = past.values[past.offsets[1:] - 1].unsqueeze(1)
    return -sign * (torch.arange(item_count) - last).remainder(item_count).float()

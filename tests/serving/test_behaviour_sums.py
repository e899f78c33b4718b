"""Sums of behaviours against sums over the history: while people act, ask and return, and rows are learned."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule
from torch import Tensor

from dolmen.clock import ManualClock
from dolmen.events import Action, CatalogueChange, EmbeddedLog, Impression, Topic, decode, encode
from dolmen.features import Batch, Jagged, Label, Schema, Slot, extract_rows
from dolmen.models import condenser, scorer
from dolmen.serving import ServeSettings
from dolmen.serving.parts import Parts
from dolmen.serving.recommender import Ask, Slate
from dolmen.training import TrainConfig, Trainer, new_trainer
from dolmen.training.snapshot import Parameters

_SECOND = 1_000_000
_ITEMS = range(20)
_OPTIONS = {"history": ("history", "history_brand"), "recent": 3, "hidden": [8]}


def schema_of(length: int) -> Schema:
    return Schema(
        Slot("user", dim=4),
        Slot("item", dim=5),
        Slot("brand", dim=5, of="item"),
        Slot("history", dim=5, table="item", many=True, ordered=True, max_len=length, of="user"),
        Slot("history_brand", dim=5, table="brand", many=True, ordered=True, max_len=length, of="user"),
        Label("click"),
    )


def taught(schema: Schema) -> Trainer:
    """A trainer whose items and brands all have rows that learning moved."""
    trainer = new_trainer(schema, "sdim", _OPTIONS, TrainConfig(evaluate_every=0))
    learn(trainer)
    return trainer


def learn(trainer: Trainer) -> None:
    rows = [
        {
            "user": 1,
            "item": item,
            "brand": f"b{item % 4}",
            "history": [item],
            "history_brand": [f"b{item % 4}"],
            "click": item % 2,
        }
        for item in _ITEMS
    ]
    trainer.step(extract_rows(trainer.schema, rows, with_labels=True))


class Shop:
    """The parts of a server without threads, and the parameters that a trainer has by now."""

    def __init__(self, folder: Path, length: int, **changes: Any) -> None:
        schema = schema_of(length)
        self.settings = ServeSettings(
            schema=schema,
            log_folder=folder / "log",
            snapshot_folder=folder / "snapshots",
            state_folder=folder / "state",
            behaviour_sums_age_max="10s",
            **{"history_max": 500, **changes},
        )
        self.log, self.clock = EmbeddedLog(self.settings.log_folder), ManualClock(1_700_000_000 * _SECOND)
        entries = [CatalogueChange("item", one, attributes={"brand": f"b{one % 4}"}) for one in _ITEMS]
        self.log.append(Topic.CATALOGUE, [encode(one) for one in entries])
        self.parts = Parts(self.settings, self.log, self.clock)
        self.parts.catalogue.tail.catch_up()
        self.trainer = taught(schema)
        self.done: dict[int, list[int]] = {}

    def close(self) -> None:
        self.parts.state.close()
        self.log.close()

    @property
    def parameters(self) -> Parameters:
        self.trainer.model.eval()
        return self.trainer.parameters()

    def act(self, user: int, item: int) -> None:
        self.parts.behaviours.prepare([Action(None, None, user, item, "click", 1.0, self.clock.now_us())])()
        self.done.setdefault(user, []).append(item)

    def kept(self, *users: int) -> Tensor:
        return self.parts.sums.of(self.parameters, users)

    def recomputed(self, items: list[int]) -> Tensor:
        """What the model makes of a whole history, read at once."""
        rows = [{"history": items, "history_brand": [f"b{one % 4}" for one in items]}]
        schema = schema_of(10_000)
        columns = extract_rows(schema, rows, slots=["history", "history_brand"])
        able = condenser(self.trainer.model)
        assert able is not None
        with torch.no_grad():
            return able.condense(columns)[0]


class SumsAgainstHistory(RuleBasedStateMachine):
    """Whoever acts, asks, is forgotten, or is looked after by the thread: sums have the bits of the whole history's.

    Of 15 behaviours none may have left, so the history is the newest 15 exactly.
    """

    def __init__(self) -> None:
        super().__init__()
        torch.set_num_threads(1)
        self.shop = Shop(Path(tempfile.mkdtemp()), 15, behaviour_sums_people_max=2)

    @rule(user=st.integers(0, 2), items=st.lists(st.sampled_from(_ITEMS), min_size=1, max_size=6))
    def act(self, user: int, items: list[int]) -> None:
        for item in items:
            self.shop.act(user, item)

    @rule(users=st.lists(st.integers(0, 2), min_size=1, max_size=2))
    def ask(self, users: list[int]) -> None:
        expected = torch.stack([self.shop.recomputed(self.shop.done.get(user, [])[-15:]) for user in users])
        assert torch.equal(self.shop.kept(*users), expected)

    @rule()
    def the_thread_takes_a_turn(self) -> None:
        self.shop.parts.sums._turn({0, 1, 2})

    @rule(seconds=st.sampled_from([1, 6, 11]))
    def time_goes_by(self, seconds: int) -> None:
        self.shop.clock.advance(f"{seconds}s")

    def teardown(self) -> None:
        self.shop.close()


TestSumsAgainstHistory = SumsAgainstHistory.TestCase
TestSumsAgainstHistory.settings = hypothesis_settings(max_examples=12, stateful_step_count=20, deadline=None)


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Callable[..., Shop]]:
    opened: list[Shop] = []

    def start(length: int, **changes: Any) -> Shop:
        opened.append(Shop(tmp_path, length, **changes))
        return opened[-1]

    yield start
    for one in opened:
        one.close()


def test_of_a_full_history_a_sixteenth_may_have_left_before_it_is_read_anew(shop: Callable[..., Shop]) -> None:
    open_shop = shop(64)
    for step in range(64):
        open_shop.act(1, step % 20)
    assert torch.equal(open_shop.kept(1)[0], open_shop.recomputed(open_shop.done[1]))
    for left in range(1, 12):
        open_shop.act(1, (7 * left) % 20)
        covered = 64 + left % 5 if left < 5 else 64 + (left - 5) % 5
        assert torch.equal(open_shop.kept(1)[0], open_shop.recomputed(open_shop.done[1][-covered:])), left
    assert open_shop.parts.sums.renewed_count == 1 + 2


def test_rows_that_learning_moved_are_in_the_sums_before_they_are_too_old(shop: Callable[..., Shop]) -> None:
    open_shop = shop(50)
    open_shop.act(1, 3)
    before = open_shop.kept(1)
    learn(open_shop.trainer)
    open_shop.clock.advance("9s")
    assert torch.equal(open_shop.kept(1), before)
    assert not torch.equal(open_shop.recomputed([3]), before[0])
    open_shop.act(1, 5)  # with the rows of now, beside the older ones
    assert torch.equal(open_shop.kept(1)[0], before[0] + open_shop.recomputed([5]))
    open_shop.clock.advance("2s")
    assert torch.equal(open_shop.kept(1)[0], open_shop.recomputed([3, 5]))


def test_the_thread_renews_the_sums_of_those_who_ask_so_that_no_request_has_to(shop: Callable[..., Shop]) -> None:
    open_shop = shop(50)
    for user in (1, 2):
        open_shop.act(user, 3)
    open_shop.kept(1, 2)
    open_shop.clock.advance("6s")
    open_shop.kept(2)
    open_shop.clock.advance("5s")
    learn(open_shop.trainer)
    open_shop.parts.sums._turn(set())  # 1 has not asked for 11 s
    assert open_shop.parts.sums.renewed_count == 2 + 1
    assert torch.equal(open_shop.kept(2)[0], open_shop.recomputed([3]))
    assert open_shop.parts.sums.renewed_count == 2 + 1
    open_shop.trainer.begin_lineage()  # rows of another course of learning are not added to these
    open_shop.kept(2)
    assert open_shop.parts.sums.renewed_count == 2 + 2


def test_a_behaviour_without_a_brand_is_summed_as_one_of_unknown_brand(shop: Callable[..., Shop]) -> None:
    open_shop = shop(50)
    open_shop.act(1, 3)
    open_shop.kept(1)
    open_shop.act(1, 999)  # not of the catalogue: nobody knows its brand
    added = open_shop.kept(1)
    open_shop.clock.advance("11s")
    assert torch.equal(open_shop.kept(1), added)
    assert open_shop.parts.sums.renewed_count == 2
    assert open_shop.parts.sums.added_count == 1 + 1 + 2


def test_people_who_are_ranked_together_each_get_what_the_model_says_of_them_alone(shop: Callable[..., Shop]) -> None:
    open_shop = shop(50)
    for user in (1, 2, 3):
        for step in range(8 * user):
            open_shop.act(user, (user * step) % 20)
    parameters = open_shop.parameters
    recommender = open_shop.parts.recommender
    open_shop.parts.replica.parameters = parameters
    slates = recommender.answer([Ask(1, items=[1, 2, 3]), Ask(2, items=[4]), Ask(3, items=[1, 5])])
    for slate in slates:
        assert isinstance(slate, Slate), slate
        shown = slate.impression
        count = len(shown.items)
        whole = Batch(
            size=count,
            slots={name: Jagged.from_lists([fids] * count) for name, fids in shown.shared.slots.items()}
            | {name: Jagged.from_lists(rows) for name, rows in shown.item_slots.items()},
        )
        assert len(shown.shared.slots["history"]) == 8 * shown.user  # the whole is logged, to be learned from
        with torch.no_grad():
            expected = scorer(parameters.model).score(whole).sigmoid()
        assert shown.probabilities == pytest.approx(expected.tolist(), abs=1e-6)


def test_through_the_api_an_action_is_in_the_sums_of_the_very_next_ranking(
    serve: Callable[..., Any], settings: ServeSettings, log: EmbeddedLog, wait: Callable[..., Any]
) -> None:
    model = {"ranker": "sdim", "ranker_options": {"recent": 1, "hidden": [8]}}
    trainer = new_trainer(settings.schema, "joint", model, TrainConfig(evaluate_every=0))
    rows = [{"user": 1, "item": item, "history": [item, item + 1], "click": item % 2} for item in range(20)]
    trainer.step(extract_rows(settings.schema, rows, with_labels=True))
    trainer.save(settings.snapshot_folder)
    served = serve()
    served.add_items(range(20))
    wait(lambda: served.get("/readyz").json()["version"] == 1)
    answers = []
    for item in (3, 4, 5):
        served.click("anna", item)
        answer = served.post("/v1/rank", {"user": "anna", "items": [7, 8]}).json()
        answers.append([one["probability"] for one in sorted(answer["items"], key=lambda one: one["item"])])
    shown = [decode(Impression, record.value) for record in log.read(Topic.IMPRESSIONS, 0, 0)]
    able = scorer(trainer.model.eval())
    for one, told in zip(shown, answers, strict=True):
        order = sorted(range(2), key=lambda place: one.items[place])
        batch = Batch(
            size=2,
            slots={name: Jagged.from_lists([fids] * 2) for name, fids in one.shared.slots.items()}
            | {name: Jagged.from_lists([rows[place] for place in order]) for name, rows in one.item_slots.items()},
            dense={name: torch.full((2,), value) for name, value in one.shared.dense.items()}
            | {name: torch.tensor([values[place] for place in order]) for name, values in one.item_dense.items()},
        )
        with torch.inference_mode():
            assert told == pytest.approx(able.score(batch).sigmoid().tolist(), abs=1e-6)
    figures = served.get("/metrics").text
    assert "dolmen_behaviour_sums_people_count 1.0" in figures
    assert "dolmen_behaviour_sums_added_total 3.0" in figures

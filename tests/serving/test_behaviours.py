"""People's memory against a naive twin that replays every action, over restarts."""

from __future__ import annotations

import dataclasses
import itertools
import shutil
import tempfile
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings as rules
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from dolmen.errors import LogError
from dolmen.events import Action, CatalogueChange, EmbeddedLog, Topic, encode
from dolmen.features import Label, Schema, Slot, encode_values
from dolmen.serving.actions import Actions
from dolmen.serving.behaviours import PEOPLE_TABLE, Behaviours
from dolmen.serving.catalogue import ITEMS_TABLE, USERS_TABLE, Catalogue
from dolmen.serving.exposure import COUNTS_TABLE, TOTALS_TABLE, Exposure
from dolmen.serving.settings import ServeSettings
from dolmen.serving.state import State

_SCHEMA = Schema(
    Slot("user", dim=4),
    Slot("item", dim=4),
    Slot("history", dim=4, table="item", many=True, ordered=True, max_len=3, of="user"),
    Slot("bought", dim=4, table="item", many=True, of="user"),
    Label("click"),
)
_HOUR_US = 3_600_000_000
_NOW_US = 1_700_000_000_000_000

USERS = st.sampled_from([7, "7", "anna", -1, 1 << 60])
ITEMS = st.sampled_from([1, 2, "2", "b", "é" * 100])
KINDS = st.sampled_from(["click", "buy", "view"])
_IDS_MAX = 4


def opened(settings: ServeSettings, log: EmbeddedLog) -> tuple[State, Actions, Behaviours, Exposure]:
    """What a server knows of actions, as of its state; ``tail.catch_up`` brings it up to the log."""
    state = State(settings.state_folder, [PEOPLE_TABLE, ITEMS_TABLE, USERS_TABLE, COUNTS_TABLE, TOTALS_TABLE])
    catalogue = Catalogue(settings, log, state)
    catalogue.tail.catch_up()
    behaviours, exposure = Behaviours(settings, state), Exposure(settings, log, state, catalogue)
    return state, Actions(settings, log, state, behaviours, exposure), behaviours, exposure


class PeopleAgainstList(RuleBasedStateMachine):
    """Whatever is done, saved, forgotten or lost, a person is what replaying all actions gives, and so are counts."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.settings = ServeSettings(
            schema=_SCHEMA,
            log_folder=self.folder / "log",
            snapshot_folder=self.folder / "snapshots",
            state_folder=self.folder / "state",
            history_slots={"history": ("click", "buy"), "bought": ("buy",)},
            hide={"buy": "1h", "click": "always"},
            history_max=5,
            people_in_memory=2,
            event_ids_max=_IDS_MAX,
            popularity_half_life="10000d",
        )
        self.log = EmbeddedLog(self.settings.log_folder)
        self.log.append(Topic.CATALOGUE, [encode(CatalogueChange("item", 1))])
        self.done: list[Action] = []

    @initialize()
    def begin(self) -> None:
        self.state, self.actions, self.behaviours, self.exposure = opened(self.settings, self.log)
        self.actions.tail.catch_up()

    @rule(
        user=USERS,
        item=ITEMS,
        kind=KINDS,
        ago=st.integers(0, 2),
        event_id=st.one_of(st.none(), st.sampled_from(["a", "b"])),
        is_ours=st.booleans(),
    )
    def act(self, user: Any, item: Any, kind: str, ago: int, event_id: str | None, is_ours: bool) -> None:
        action = Action(event_id, None, user, item, kind, 1.0, _NOW_US - ago * _HOUR_US + 1)
        appended = self.log.append(Topic.ACTIONS, [encode(action)])
        if is_ours:
            self.actions.tail.wrote(appended, [action])
        self.done.append(action)

    @rule()
    def save(self) -> None:
        self.state.save(self.actions)

    @rule()
    def crash_and_restart(self) -> None:
        self.state.close()
        self.begin()

    @invariant()
    def knows_what_happened(self) -> None:
        self.actions.tail.catch_up()
        new = self.new_ones()
        clicked = sum(action.item == 1 and action.kind == "click" for action in new)
        # Decay over hours is nothing beside this half-life.
        assert self.exposure.popularity(_NOW_US) == pytest.approx([clicked], rel=1e-3)
        for user in {action.user for action in self.done}:
            acts = [action for action in new if action.user == user and type(action.user) is type(user)]
            assert [(act.item, act.kind) for act in self.behaviours.acts_of(user)] == [
                (action.item, action.kind) for action in acts[-5:]
            ]
            liked = [action.item for action in acts if action.kind in ("click", "buy")]
            bought = [action.item for action in acts if action.kind == "buy"]
            history = self.behaviours.history_of(user)
            # After a restart a history is made of the acts that are remembered, never of more.
            fids = encode_values(_SCHEMA.slot_number("item"), liked).tolist()
            assert history["history"] == fids[len(fids) - len(history["history"]) :]
            remembered = [action for action in acts[-5:] if action.kind in ("click", "buy")]
            assert len(history["history"]) >= min(3, len(remembered))
            assert len(history["history"]) <= 3
            assert len(history["bought"]) <= len(bought)
            assert set(self.behaviours.hidden_of(user, _NOW_US)) == {
                action.item
                for action in acts
                if action.kind == "click" or (action.kind == "buy" and action.event_time_us + _HOUR_US > _NOW_US)
            }

    def new_ones(self) -> list[Action]:
        """All actions but those whose id one of the last few before them had."""
        return [
            action
            for place, action in enumerate(self.done)
            if action.event_id is None
            or all(action.event_id != one.event_id for one in self.done[max(0, place - _IDS_MAX) : place])
        ]

    def teardown(self) -> None:
        self.state.close()
        self.log.close()
        shutil.rmtree(self.folder)


TestPeopleAgainstList = pytest.mark.property(PeopleAgainstList.TestCase)
TestPeopleAgainstList.settings = rules(max_examples=25, stateful_step_count=20, deadline=None)


class Failing:
    """Fails at the call with this number, and calls what it stands for at the others."""

    def __init__(self, call: Callable[..., Any], number: int) -> None:
        self.call, self.left = call, number

    def __call__(self, *args: Any) -> Any:
        self.left -= 1
        if self.left == 0:
            raise LogError("the disk failed")
        return self.call(*args)


def known(behaviours: Behaviours, exposure: Exposure) -> tuple[dict[str, list[int]], list[float]]:
    """What is remembered of people, and counted for the items 1 and 2."""
    acts = {user: [int(act.item) for act in behaviours.acts_of(user)] for user in ("anna", "bob", "eve")}
    return acts, [round(count, 6) for count in exposure.popularity(_NOW_US).tolist()]


@pytest.mark.fault
@pytest.mark.parametrize("is_ours", [True, False])
@pytest.mark.parametrize(
    ("part", "name"),
    [("state", "get"), ("behaviours", "prepare"), ("exposure", "prepare"), ("exposure", "_reserve")],
)
def test_actions_are_taken_in_once_wherever_and_however_often_that_fails(
    settings: Any, monkeypatch: pytest.MonkeyPatch, part: str, name: str, is_ours: bool
) -> None:
    sent = [
        Action(f"{user}-{item}", None, user, item, "click", 1.0, _NOW_US)
        for item in (1, 2, 1)  # the last ones are repeats
        for user in ("anna", "bob", "eve")
    ]
    expected = {"anna": [1, 2], "bob": [1, 2], "eve": [1, 2]}, [3.0, 3.0]
    for number in itertools.count(1):
        folder = settings.state_folder / str(number)
        own = dataclasses.replace(settings, log_folder=folder / "log", state_folder=folder / "state")
        with EmbeddedLog(own.log_folder) as log:
            log.append(Topic.CATALOGUE, [encode(CatalogueChange("item", item)) for item in (1, 2)])
            state, actions, behaviours, exposure = opened(own, log)
            appended = log.append(Topic.ACTIONS, [encode(action) for action in sent])
            failing = {"state": state, "behaviours": behaviours, "exposure": exposure}[part]
            has_failed = True
            for _ in range(2):
                with monkeypatch.context() as patch:
                    patch.setattr(failing, name, Failing(getattr(failing, name), number))
                    try:
                        actions.tail.wrote(appended, sent) if is_ours else actions.tail.catch_up()
                        has_failed = False
                    except LogError:
                        pass
                assert known(behaviours, exposure) == (
                    ({"anna": [], "bob": [], "eve": []}, [0.0, 0.0]) if has_failed else expected
                )
            actions.tail.catch_up()
            for _ in range(2):
                assert known(behaviours, exposure) == expected
                state.save(actions)
                state.close()
                state, actions, behaviours, exposure = opened(own, log)
                assert actions.tail.catch_up() == 0
            state.close()
        if not has_failed:  # there are not so many calls
            assert number > 1
            break


@pytest.mark.fault
@pytest.mark.parametrize("where", ["time", "load", "count"])
def test_a_record_that_was_set_aside_was_applied_to_nothing_and_those_beside_it_once(
    settings: Any, log: EmbeddedLog, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    log.append(Topic.CATALOGUE, [encode(CatalogueChange("item", item)) for item in (1, 2)])
    bad_time_us = _NOW_US if where != "time" else (1 << 63) + 5
    log.append(
        Topic.ACTIONS,
        [
            encode(Action("a", None, "anna", 1, "click", 1.0, _NOW_US)),
            encode(Action("b", None, "eve", 2, "poison" if where == "count" else "click", 1.0, bad_time_us)),
            encode(Action("c", None, "anna", 2, "click", 1.0, _NOW_US)),
            encode(Action("d", None, "bob", 2, "click", 1.0, _NOW_US)),
        ],
    )
    state, actions, behaviours, exposure = opened(settings, log)
    get, prepare = state.get, exposure.prepare

    def get_but_eve(table: str, key: bytes) -> bytes | None:
        if key == b"seve":
            raise ZeroDivisionError("a fault")
        return get(table, key)

    def count_but_poison(some: Sequence[Action]) -> Callable[[], None]:
        if any(action.kind == "poison" for action in some):
            raise ZeroDivisionError("a fault")
        return prepare(some)

    with monkeypatch.context() as patch:
        if where == "load":
            patch.setattr(state, "get", get_but_eve)
        patch.setattr(exposure, "prepare", count_but_poison)
        assert actions.tail.recover() > 0
    assert actions.tail.aside_count == 1
    expected = {"anna": [1, 2], "bob": [2], "eve": []}, [1.0, 2.0]
    assert known(behaviours, exposure) == expected
    for _ in range(2):
        state.save(actions)
        state.close()
        state, actions, behaviours, exposure = opened(settings, log)
        assert actions.tail.catch_up() == 0
        assert known(behaviours, exposure) == expected
    state.close()


@pytest.mark.fault
def test_an_action_is_taken_in_once_though_whoever_is_told_of_it_fails(settings: Any, log: EmbeddedLog) -> None:
    state, actions, behaviours, _ = opened(settings, log)
    told: list[Any] = []

    def listen(_user: Any, item: Any, _slots: Sequence[str]) -> None:
        told.append(item)
        if item == 2:
            raise ZeroDivisionError("a fault")

    behaviours.tell(listen)
    sent = [_click(item) for item in (1, 2, 3)]
    actions.tail.wrote(log.append(Topic.ACTIONS, [encode(action) for action in sent]), sent)
    assert actions.tail.catch_up() == 0
    assert [act.item for act in behaviours.acts_of(1)] == told == [1, 2, 3]
    state.close()


def test_nobody_waits_while_another_is_read_from_disk(
    settings: Any, log: EmbeddedLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    state, actions, behaviours, _ = opened(settings, log)
    get, reading, go_on = state.get, threading.Event(), threading.Event()

    def get_slowly(table: str, key: bytes) -> bytes | None:
        if key == b"sslow":
            reading.set()
            assert go_on.wait(20)
        return get(table, key)

    monkeypatch.setattr(state, "get", get_slowly)
    sent = [Action(None, None, "slow", 1, "click", 1.0, _NOW_US)]
    appended = log.append(Topic.ACTIONS, [encode(sent[0])])
    with ThreadPoolExecutor() as pool:
        writing = pool.submit(actions.tail.wrote, appended, sent)
        try:
            assert reading.wait(20)
            assert pool.submit(behaviours.history_of, 1).result(20) == {"history": []}
        finally:
            go_on.set()
        writing.result(20)
    assert behaviours.is_known("slow")
    state.close()


def test_a_stranger_has_an_empty_history(settings: Any, log: EmbeddedLog) -> None:
    state, _, behaviours, _ = opened(settings, log)
    assert behaviours.history_of("nobody") == {"history": []}
    assert behaviours.hidden_of("nobody", 0) == []
    assert not behaviours.is_known("nobody")
    state.close()


def test_a_damaged_action_in_the_log_is_passed_over_and_counted(settings: Any, log: EmbeddedLog) -> None:
    good = Action(None, None, 1, 2, "click", 1.0, _NOW_US)
    log.append(Topic.ACTIONS, [b"garbage", encode(good), b""])
    state, actions, behaviours, _ = opened(settings, log)
    assert actions.tail.catch_up() == 3
    assert actions.tail.bad_count == 2
    assert [act.item for act in behaviours.acts_of(1)] == [2]
    state.close()


def test_what_retention_deleted_is_counted_as_lost_and_the_rest_applied(settings: Any, log: EmbeddedLog) -> None:
    actions = [_click(item) for item in range(5)]
    for action in actions:
        log.append(Topic.ACTIONS, [encode(action)])
    state, first, _, _ = opened(settings, log)
    first.tail.catch_up()
    state.save(first)
    state.close()
    for item in range(5, 10):
        log.append(Topic.ACTIONS, [encode(_click(item))])
    log.truncate(Topic.ACTIONS, 0, 8)
    state, second, behaviours, _ = opened(settings, log)
    second.tail.catch_up()
    assert second.tail.lost_count == 3
    assert [act.item for act in behaviours.acts_of(1)] == [0, 1, 2, 3, 4, 8, 9]
    state.close()


def _click(item: int) -> Action:
    return Action(None, None, 1, item, "click", 1.0, _NOW_US)


def test_who_did_nothing_for_too_long_is_forgotten_and_nobody_else(settings: Any, log: EmbeddedLog) -> None:
    """Also on disk, else it would grow with everybody who ever came by."""
    days_us = 24 * _HOUR_US
    for user, ago in (("old", 401), ("back again", 401), ("fresh", 399)):
        log.append(Topic.ACTIONS, [encode(Action(None, None, user, 1, "click", 1.0, _NOW_US - ago * days_us))])
    state, actions, behaviours, _ = opened(settings, log)
    actions.tail.catch_up()
    state.save(actions)
    back = Action(None, None, "back again", 2, "click", 1.0, _NOW_US)
    behaviours.sweep(_NOW_US)
    actions.tail.wrote(log.append(Topic.ACTIONS, [encode(back)]), [back])  # between the sweep and the save
    state.save(actions)
    assert not behaviours.is_known("old")
    assert [act.item for act in behaviours.acts_of("fresh")] == [1]
    assert [act.item for act in behaviours.acts_of("back again")][-1] == 2
    assert len(list(state.scan(PEOPLE_TABLE))) == 2
    state.close()

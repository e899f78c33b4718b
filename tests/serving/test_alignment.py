"""Several histories tell of the same behaviours, value by value, whatever becomes of the items; and one person's fault
is nobody else's.
"""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from dolmen.clock import ManualClock
from dolmen.errors import DolmenError
from dolmen.events import Action, CatalogueChange, EmbeddedLog, JoinConfig, Joiner, Topic, encode
from dolmen.features import Label, RawId, Schema, Slot, encode_values
from dolmen.serving import ServeSettings
from dolmen.serving import catalogue as catalogue_module
from dolmen.serving.parts import Parts
from dolmen.serving.recommender import Ask, Slate
from dolmen.training import TrainConfig, TrainerSettings, load_snapshot, new_trainer, run_trainer

_LENGTH, _REMEMBERED = 4, 6
_OPTIONS = {"history": ("history", "history_brand"), "hidden": [8]}
_ITEMS = st.integers(0, 5)


def schema_of(length: int) -> Schema:
    return Schema(
        Slot("user", dim=4),
        Slot("item", dim=5),
        Slot("brand", dim=5, of="item"),
        Slot("genres", dim=4, many=True, of="item"),
        Slot("history", dim=5, table="item", many=True, ordered=True, max_len=length, of="user"),
        Slot("history_brand", dim=5, table="brand", many=True, ordered=True, max_len=length, of="user"),
        Slot("history_genres", dim=4, table="genres", many=True, ordered=True, max_len=length, of="user"),
        Label("click"),
    )


class HistoriesAgainstActs(RuleBasedStateMachine):
    """Items come, change, leave, are forgotten; other actions push clicks out of memory; the server starts again."""

    def __init__(self) -> None:
        super().__init__()
        folder = Path(tempfile.mkdtemp())
        kinds = dict.fromkeys(("history", "history_brand", "history_genres"), ("click",))
        self.settings = ServeSettings(
            schema=schema_of(_LENGTH),
            log_folder=folder / "log",
            snapshot_folder=folder / "snapshots",
            state_folder=folder / "state",
            history_max=_REMEMBERED,
            removed_items_max=0,
            history_slots=kinds,
        )
        self.log, self.clock = EmbeddedLog(self.settings.log_folder), ManualClock(1_700_000_000_000_000)
        self.parts = Parts(self.settings, self.log, self.clock)
        self.acts: list[tuple[int, str]] = []
        self.brands: dict[int, str] = {}
        self.gone: set[int] = set()

    @rule(item=_ITEMS, kind=st.sampled_from(["click", "view"]))
    def act(self, item: int, kind: str) -> None:
        self.parts.behaviours.prepare([Action(None, None, 1, item, kind, 1.0, self.clock.now_us())])()
        self.acts = [*self.acts, (item, kind)][-_REMEMBERED:]

    @rule(item=_ITEMS, brand=st.sampled_from(["", "a", "b", None]))
    def describe(self, item: int, brand: str | None) -> None:
        self._change(CatalogueChange("item", item, {"genres": ["x", "y"]} | ({"brand": brand} if brand else {})))
        self.brands[item] = brand or ""
        self.gone.discard(item)

    @rule(item=_ITEMS)
    def remove(self, item: int) -> None:
        self._change(CatalogueChange("item", item, removed=True))
        self.gone.add(item)

    @rule()
    def forget_what_was_removed(self) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(catalogue_module, "_UNDER_WAY_SECONDS", 0.0)
            self.parts.catalogue.forget_removed(lambda *_: None)
        self._are_forgotten()

    @rule()
    def start_again(self) -> None:
        self.parts.save()
        self.parts.state.close()
        self.parts = Parts(self.settings, self.log, self.clock)
        self._are_forgotten()

    @invariant()
    def each_remembered_click_is_in_every_slot(self) -> None:
        clicked = [item for item, kind in self.acts if kind == "click"][-_LENGTH:]
        told = self.parts.recommender._inputs.person(1, {}).slots
        assert told["history"] == self._fids("item", clicked)
        assert told["history_brand"] == self._fids("brand", [self.brands.get(item, "") for item in clicked])
        assert len(told["history_genres"]) == min(_LENGTH, sum(2 for item in clicked if item in self.brands))
        past = self.parts.recommender._inputs.past(1, ["history_brand", "history"])
        assert past == {name: told[name] for name in ("history_brand", "history")}
        for item in set(clicked):
            entering = self.parts.recommender._inputs.behaviour(item, ["history", "history_brand"])
            assert entering == (*self._fids("item", [item]), *self._fids("brand", [self.brands.get(item, "")]))

    def _change(self, change: CatalogueChange) -> None:
        self.log.append(Topic.CATALOGUE, [encode(change)])
        self.parts.catalogue.tail.catch_up()

    def _are_forgotten(self) -> None:
        for item in self.gone:
            self.brands.pop(item, None)
        self.gone.clear()

    def _fids(self, slot: str, values: Sequence[RawId]) -> list[int]:
        fids: list[int] = encode_values(self.settings.schema.slot_number(slot), values).tolist()
        return fids

    def teardown(self) -> None:
        self.parts.state.close()
        self.log.close()


TestHistoriesAgainstActs = HistoriesAgainstActs.TestCase
TestHistoriesAgainstActs.settings = hypothesis_settings(max_examples=12, stateful_step_count=20, deadline=None)


@pytest.mark.e2e
def test_a_click_on_an_item_that_nobody_knows_is_learned_from_and_ranked_by(
    serve: Callable[..., Any], settings: ServeSettings, tmp_path: Path, wait: Callable[..., Any]
) -> None:
    schema = schema_of(10)
    served = serve(schema=schema, history_slots=None, model_from_version=1)
    items = [{"id": one, "attributes": {"brand": f"b{one % 4}"}} for one in range(9)]
    assert served.post("/v1/items", {"items": items}).status_code == 202
    for item in (4, 999):
        served.click("anna", item)
    slate = served.recommend("anna", 3)
    assert slate["ranked_by"] == "popularity"
    served.click("anna", slate["items"][0]["item"], request_id=slate["request_id"])
    stop = threading.Event()
    trainer = TrainerSettings(
        folder=settings.snapshot_folder.parent, schema=schema, model="sdim", model_options={**_OPTIONS, "recent": 2}
    )
    with EmbeddedLog(settings.log_folder) as log:
        joiner = Joiner(schema, log, tmp_path / "join", JoinConfig(window="1ms"))
        threads = [
            threading.Thread(target=joiner.run, args=(stop,)),
            threading.Thread(target=run_trainer, args=(trainer, log, stop)),
        ]
        try:
            for thread in threads:
                thread.start()
            ranked = wait(lambda: (found := served.recommend("anna", 3))["ranked_by"] == "model" and found)
            assert ranked["parameters"]["version"] >= 1
            assert served.post("/v1/items", {"items": [{"id": 4, "removed": True}]}).status_code == 202
            served.click("anna", 998)
            assert served.recommend("anna", 3)["ranked_by"] == "model"
        finally:
            stop.set()
            for thread in threads:
                thread.join(30)
    counters = load_snapshot(settings.snapshot_folder).manifest.counters
    assert counters["records_bad"] == counters["examples_refused"] == 0


@pytest.fixture
def parts(tmp_path: Path) -> Any:
    settings = ServeSettings(
        schema=schema_of(10),
        log_folder=tmp_path / "log",
        snapshot_folder=tmp_path / "snapshots",
        state_folder=tmp_path / "state",
        model_from_version=0,
    )
    with EmbeddedLog(settings.log_folder) as log:
        log.append(Topic.CATALOGUE, [encode(CatalogueChange("item", one, {"brand": "a"})) for one in range(9)])
        opened = Parts(settings, log, ManualClock(1_700_000_000_000_000))
        opened.catalogue.tail.catch_up()
        model = new_trainer(settings.schema, "din", _OPTIONS, TrainConfig())
        model.model.eval()
        opened.replica.parameters = model.parameters()
        yield opened
        opened.state.close()


@pytest.mark.fault
@pytest.mark.parametrize("stage", ["model", "person"])
def test_of_people_who_are_ranked_together_only_who_is_at_fault_gets_the_error(
    parts: Parts, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    recommender = parts.recommender
    asks = [Ask(1, count=3, request_id="a"), Ask(2, items=[4, 5]), Ask(3, items=[6]), Ask(2, count=1)]
    expected = recommender.answer(asks)
    (culprit,) = encode_values(parts.catalogue.schema.slot_number("user"), [2]).tolist()
    parameters = parts.replica.parameters
    assert parameters is not None
    score, person = parameters.model.score, recommender._inputs.person

    def failing_score(batch: Any) -> Any:
        if culprit in batch.slot("user").values.tolist():
            raise RuntimeError("cannot take this one")
        return score(batch)

    def failing_person(user: RawId, context: Any) -> Any:
        if user == 2:
            raise OSError("disk")
        return person(user, context)

    if stage == "model":
        monkeypatch.setattr(parameters.model, "score", failing_score)
    else:
        monkeypatch.setattr(recommender._inputs, "person", failing_person)
    outcomes = recommender.answer(asks)
    assert [type(one) for one in outcomes] == [Slate, DolmenError, Slate, DolmenError]
    for place in (0, 2):
        slate, before = outcomes[place], expected[place]
        assert isinstance(slate, Slate)
        assert isinstance(before, Slate)
        assert slate.impression.items == before.impression.items
        assert slate.impression.probabilities == pytest.approx(before.impression.probabilities, abs=1e-6)
    assert isinstance(outcomes[1], DolmenError)
    assert str(outcomes[1]) == "ranking failed"
    monkeypatch.undo()
    assert all(isinstance(one, Slate) for one in recommender.answer(asks))

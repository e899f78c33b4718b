"""Serving with a model that learns: from popularity to the model, fresh vectors, histories that move the next slate."""

from __future__ import annotations

import contextlib
import dataclasses
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from dolmen.events import CatalogueChange, EmbeddedLog, Impression, Topic, decode, encode
from dolmen.features import Batch, Jagged, Label, Schema, Slot
from dolmen.serving.catalogue import ITEMS_TABLE, USERS_TABLE, Catalogue
from dolmen.serving.shelf import Shelf
from dolmen.serving.state import State
from dolmen.training.snapshot import load_snapshot

Serve = Callable[..., Any]


def version(served: Any) -> int | None:
    found: int | None = served.get("/readyz").json()["version"]
    return found


def shares(slate: dict[str, Any]) -> Counter[str]:
    return Counter(genre for one in slate["items"] for genre in one["attributes"]["genres"])


@pytest.fixture
def ready(serve: Serve, knowing_hand: Any, wait: Callable[..., Any]) -> Any:
    """A server with 500 items and a model that knows tastes."""
    assert knowing_hand.trainer.version == 150
    served = serve(explore_share=0.0)
    served.add_items(range(500))
    wait(lambda: served.get("/v1/status").json()["stages"]["serve"]["figures"]["indexed_item_count"] == 500)
    return served


def test_the_first_snapshot_takes_over_from_popularity(serve: Serve, hand: Any, wait: Callable[..., Any]) -> None:
    hand.snapshot()  # version 0: nothing learned
    served = serve()
    served.add_items(range(20))
    assert served.recommend(1)["ranked_by"] == "popularity"
    hand.learn(3)
    hand.publish()
    wait(lambda: version(served) == 3)
    slate = served.recommend(1)
    assert slate["ranked_by"] == "model"
    assert slate["parameters"]["positions"] == {"actions/0": 3}
    assert 0 <= slate["parameters"]["staleness_seconds"] < 60


def test_five_clicks_of_one_genre_raise_its_share_in_the_very_next_slate(ready: Any) -> None:
    before = shares(ready.recommend("newcomer", 20))
    for step in range(5):
        ready.click("newcomer", 2 + 5 * step)  # horror
    after = shares(ready.recommend("newcomer", 20))
    assert version(ready) == 150  # nothing was learned in between: the history alone did it
    assert after["horror"] > before["horror"]
    assert after.most_common(1)[0][0] == "horror"


def test_the_served_probability_is_that_of_the_model(ready: Any, knowing_hand: Any) -> None:
    slate = ready.post("/v1/rank", {"user": 5, "items": [4, 9, 2], "context": {"hour": 12.0}}).json()
    with EmbeddedLog(ready.settings.log_folder) as log:
        [record] = log.read(Topic.IMPRESSIONS, 0, 0)
    shown = decode(Impression, record.value)
    count = len(shown.items)
    batch = Batch(
        size=count,
        slots={name: Jagged.from_lists([fids] * count) for name, fids in shown.shared.slots.items()}
        | {name: Jagged.from_lists(rows) for name, rows in shown.item_slots.items()},
        dense={name: torch.full((count,), value) for name, value in shown.shared.dense.items()}
        | {name: torch.tensor(values) for name, values in shown.item_dense.items()},
    )
    with torch.inference_mode():
        expected = knowing_hand.trainer.model.eval().score(batch).sigmoid()
    assert [one["probability"] for one in slate["items"]] == pytest.approx(expected.tolist(), abs=1e-5)


def test_rows_of_one_byte_a_value_rank_almost_alike(
    ready: Any, serve: Serve, wait: Callable[..., Any], knowing_hand: Any
) -> None:
    body = {"user": 5, "items": [4, 9, 2, 13, 21], "context": {"hour": 12.0}}
    exact = [one["probability"] for one in ready.post("/v1/rank", body).json()["items"]]
    ready.end()
    narrow = serve(precision="int8", explore_share=0.0)
    wait(lambda: version(narrow) == 150)
    # A value is off by at most 1/254 of its row's largest, and a probability moves by at most a quarter of its logit.
    ranked = [one["probability"] for one in narrow.post("/v1/rank", body).json()["items"]]
    assert ranked == pytest.approx(exact, abs=0.05)
    assert ranked != exact
    for step in range(5):
        narrow.click("newcomer", 2 + 5 * step)  # horror
    assert shares(narrow.recommend("newcomer", 20)).most_common(1)[0][0] == "horror"
    knowing_hand.learn(1)
    knowing_hand.publish()
    wait(lambda: version(narrow) == 151)  # a delta's rows are stored as narrow as those of the snapshot


def test_a_server_may_rank_in_bfloat16(ready: Any, serve: Serve, wait: Callable[..., Any]) -> None:
    body = {"user": 5, "items": [4, 9, 2, 13, 21], "context": {"hour": 12.0}}
    exact = [one["probability"] for one in ready.post("/v1/rank", body).json()["items"]]
    ready.end()
    rounding = serve(arithmetic="bfloat16", device="auto", explore_share=0.0)
    wait(lambda: version(rounding) == 150)
    ranked = [one["probability"] for one in rounding.post("/v1/rank", body).json()["items"]]
    # Products are off by 2^-8 of themselves, logits here are below 8, and a probability moves by a quarter of a logit.
    assert ranked == pytest.approx(exact, abs=8 * 2**-8)
    assert ranked != exact
    for step in range(5):
        rounding.click("newcomer", 2 + 5 * step)  # horror
    assert shares(rounding.recommend("newcomer", 20)).most_common(1)[0][0] == "horror"


def test_an_uncorrected_model_is_corrected_by_ln_of_its_negative_rate(
    ready: Any, serve: Serve, wait: Callable[..., Any]
) -> None:
    rate = 0.25
    body = {"user": 5, "items": [4], "context": {"hour": 12.0}}
    plain = ready.post("/v1/rank", body).json()["items"][0]["probability"]
    ready.end()
    other = serve(uncorrected_negative_rate=rate)
    wait(lambda: version(other) == 150)
    corrected = other.post("/v1/rank", body).json()["items"][0]["probability"]
    assert corrected == pytest.approx(plain / (plain + (1 - plain) / rate), rel=1e-4)


def test_similar_items_share_the_genre(ready: Any) -> None:
    answer = ready.get("/v1/items/3/similar", count=20).json()
    assert answer["item"] == 3
    assert 3 not in [one["item"] for one in answer["items"]]
    similarities = [one["similarity"] for one in answer["items"]]
    assert similarities == sorted(similarities, reverse=True)
    assert shares(answer).most_common(1)[0][0] == "western"


def test_vectors_follow_what_is_learned_and_new_items_are_found(
    ready: Any, knowing_hand: Any, wait: Callable[..., Any]
) -> None:
    ready.add_items([10_002])
    wait(lambda: ready.get("/v1/items/10002/similar").status_code == 200)
    before = ready.get("/v1/items/3/similar", count=50).json()
    knowing_hand.learn(30, seed=1)
    knowing_hand.publish()
    wait(lambda: version(ready) == 180)

    def has_moved() -> bool:
        return bool(ready.get("/v1/items/3/similar", count=50).json()["items"] != before["items"])

    wait(has_moved)


def test_what_changed_while_no_model_retrieved_is_let_go_and_yet_found_and_followed_later(
    settings: Any, log: EmbeddedLog, tastes: Path
) -> None:
    log.append(Topic.CATALOGUE, [encode(CatalogueChange("item", item)) for item in range(9)])
    own = dataclasses.replace(settings, refresh_items_per_second=1)
    parameters = load_snapshot(tastes, for_serving=True).parameters
    with contextlib.closing(State(settings.state_folder, [ITEMS_TABLE, USERS_TABLE])) as state:
        catalogue = Catalogue(own, log, state)
        catalogue.tail.catch_up()
        shelf = Shelf(own, catalogue)
        shelf._turn(None, set(), False)
        assert len(catalogue.take_changed_rows()) == 0
        shelf._turn(parameters, set(), True)
        assert len(shelf) == shelf.encoded_count == 9
        shelf._turn(parameters, set(catalogue.fids("item", catalogue.rows_of([5]))), False)
        assert shelf.encoded_count == 11  # the touched one, and one in turn


def test_items_that_come_and_go_leave_nothing_behind_on_the_shelf(
    settings: Any, log: EmbeddedLog, tastes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows are used again, and FIDs never are: who remembered each would fill memory with what was sold last year."""
    monkeypatch.setattr("dolmen.serving.catalogue._UNDER_WAY_SECONDS", 0.0)
    own = dataclasses.replace(settings, refresh_items_per_second=1, removed_items_max=0)
    parameters = load_snapshot(tastes, for_serving=True).parameters
    with contextlib.closing(State(settings.state_folder, [ITEMS_TABLE, USERS_TABLE])) as state:
        catalogue = Catalogue(own, log, state)
        shelf = Shelf(own, catalogue)

        def change(first: int, end: int, *, removed: bool) -> None:
            changes = [CatalogueChange("item", item, removed=removed) for item in range(first, end)]
            log.append(Topic.CATALOGUE, [encode(one) for one in changes])
            catalogue.tail.catch_up()

        for first in range(0, 50, 10):
            change(first, first + 10, removed=False)
            shelf._turn(parameters, set(), first == 0)
            change(first + 2, first + 10, removed=True)  # two of each ten stay
            if first % 20:  # others take rows of which the shelf has not heard that they became free
                shelf._turn(parameters, set(), False)
            catalogue.forget_removed(lambda *_: None)
        shelf._turn(parameters, set(), False)
        rows = catalogue.rows_of(first + more for first in range(0, 50, 10) for more in (0, 1))
        assert catalogue.row_count < 30
        assert shelf._rows_by_fid == dict(zip(catalogue.fids("item", rows), rows.tolist(), strict=True))
        assert sorted(shelf._fids_by_row) == sorted(rows.tolist())
        assert len(shelf) == 10


def test_serving_goes_on_while_training_is_away_and_says_that_it_is_stale(ready: Any) -> None:
    slate = ready.recommend(1)
    assert slate["ranked_by"] == "model"
    assert slate["parameters"]["stale"] is True  # no trainer ever told of itself here


@pytest.mark.fault
def test_a_gap_in_the_deltas_leads_back_to_the_newest_snapshot(
    ready: Any, knowing_hand: Any, wait: Callable[..., Any]
) -> None:
    knowing_hand.learn(5, seed=2)
    knowing_hand.trainer.embeddings.advance_epoch()
    knowing_hand.publisher.version = knowing_hand.trainer.version  # a delta that nobody will ever see
    knowing_hand.learn(5, seed=3)
    knowing_hand.publish()

    def has_problem() -> bool:
        figures = ready.get("/v1/status").json()["stages"]["serve"]["figures"]
        return "gap" in (figures["replica_problem"] or "")

    wait(has_problem)
    assert ready.recommend(1)["parameters"]["version"] == 150  # the old parameters go on answering
    knowing_hand.snapshot()
    wait(lambda: version(ready) == 160)
    knowing_hand.learn(5, seed=4)
    knowing_hand.publish()
    wait(lambda: version(ready) == 165)
    assert ready.recommend(1)["ranked_by"] == "model"


@pytest.mark.fault
def test_a_damaged_delta_is_not_applied(ready: Any, knowing_hand: Any, log: Any, wait: Callable[..., Any]) -> None:
    log.append(Topic.PARAMETERS, [b"not a delta at all"])
    knowing_hand.learn(5, seed=2)
    knowing_hand.publish()
    knowing_hand.snapshot()
    wait(lambda: version(ready) == 155)
    assert ready.recommend(1)["ranked_by"] == "model"


@pytest.mark.fault
def test_a_snapshot_of_another_schema_is_refused_and_popularity_answers(
    serve: Serve, hand: Any, wait: Callable[..., Any]
) -> None:
    hand.learn(2)
    hand.snapshot()
    served = serve(schema=Schema(Slot("user"), Slot("item"), Label("click")), history_slots=None, hide=None)
    served.post("/v1/items", {"items": [{"id": 1}, {"id": 2}]})

    def is_told() -> bool:
        problem = served.get("/v1/status").json()["stages"]["serve"]["figures"]["replica_problem"]
        return "schema" in (problem or "")

    wait(is_told)
    assert served.recommend(1, 2)["ranked_by"] == "popularity"


@pytest.mark.fault
def test_scores_that_are_no_numbers_never_reach_people(ready: Any, knowing_hand: Any, wait: Callable[..., Any]) -> None:
    knowing_hand.learn(1, seed=9)
    with torch.no_grad():
        for weight in knowing_hand.trainer.model.parameters():
            weight.fill_(float("nan"))
    knowing_hand.publish()
    wait(lambda: version(ready) == 151)
    slate = ready.recommend(1, 5)
    assert slate["ranked_by"] == "popularity"
    assert len(slate["items"]) == 5
    assert all(0 < one["probability"] < 1 for one in slate["items"])

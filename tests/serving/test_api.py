"""The API as a shop meets it: real HTTP against a real server with a real log."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from dolmen.events import Action, CatalogueChange, EmbeddedLog, Impression, Topic, decode
from dolmen.features import Label, Schema, Side, Slot, encode_values
from dolmen.serving import ServeSettings

Serve = Callable[..., Any]


def impressions(log: EmbeddedLog) -> list[Impression]:
    return [decode(Impression, record.value) for record in log.read(Topic.IMPRESSIONS, 0, 0)]


def error(answer: Any) -> dict[str, Any]:
    found: dict[str, Any] = answer.json()["error"]
    assert set(found) <= {"code", "message", "field", "retry"}
    return found


def test_a_stranger_gets_a_slate_from_a_new_catalogue(serve: Serve) -> None:
    served = serve()
    served.add_items(range(50))
    slate = served.recommend("nobody met this one", 7)
    assert len({one["item"] for one in slate["items"]}) == 7
    assert [one["position"] for one in slate["items"]] == list(range(7))
    assert slate["ranked_by"] == "popularity"
    assert slate["parameters"]["version"] == 0
    assert slate["parameters"]["staleness_seconds"] is None
    first = slate["items"][0]
    assert first["attributes"]["title"] == f"Title {first['item']}"


def test_get_and_post_recommend_answer_alike(serve: Serve) -> None:
    served = serve(explore_share=0.0)
    served.add_items(range(20))
    posted = served.recommend(7, 5)
    got = served.get("/v1/recommend", user="7", count=5).json()
    assert [one["item"] for one in got["items"]] == [one["item"] for one in posted["items"]]
    assert got["request_id"] != posted["request_id"]


def test_a_history_slot_holds_what_past_items_are_like_from_the_next_request_on(
    serve: Serve, log: EmbeddedLog, settings: ServeSettings
) -> None:
    plain, tastes = settings.schema, Slot("tastes", dim=8, table="genres", many=True, max_len=3, of=Side.USER)
    schema = Schema(*plain.slots.values(), tastes, *plain.dense.values(), *plain.labels.values())
    served = serve(schema=schema, history_slots=None, hide=None)
    served.add_items(range(10))
    for item in (1, 2, 3, 404):  # the last is no item of the catalogue, so nothing is known of it
        served.click("anna", item)
    served.recommend("anna", count=2)
    [shown] = impressions(log)
    genres = encode_values(schema.slot_number("genres"), ["horror", "western"]).tolist()  # of items 2 and 3
    assert shown.shared.slots["tastes"] == genres
    assert len(shown.shared.slots["history"]) == 4
    served.recommend("a stranger", count=2)
    assert impressions(log)[1].shared.slots["tastes"] == []


def test_an_impression_is_in_the_log_before_its_slate_is_answered(serve: Serve, log: EmbeddedLog) -> None:
    served = serve()
    served.add_items(range(30))
    served.post("/v1/users", {"users": [{"id": 7, "attributes": {"age": 31}}]})
    served.click(7, 12)
    body = {"user": 7, "count": 6, "context": {"place": "home", "hour": 5}}
    slate = served.post("/v1/recommend", body).json()
    [shown] = impressions(log)
    assert shown.request_id == slate["request_id"]
    assert shown.items == [one["item"] for one in slate["items"]]
    assert shown.probabilities == [one["probability"] for one in slate["items"]]
    assert shown.propensities == [one["propensity"] for one in slate["items"]]
    assert (shown.user, shown.surface) == (7, "recommend")
    # The features as served are those of the schema, person and moment apart from the items.
    assert set(shown.shared.slots) == {"user", "age", "history", "place"}
    assert len(shown.shared.slots["history"]) == 1
    assert shown.shared.dense == {"hour": 5.0}
    assert set(shown.item_slots) == {"item", "genres"}
    assert shown.item_dense["price"] == [float(item % 3) for item in shown.items]


def test_ranking_orders_what_was_asked_known_or_not(serve: Serve, log: EmbeddedLog) -> None:
    served = serve()
    served.add_items(range(5))
    served.click(1, 3)
    served.click(2, 3)
    slate = served.post("/v1/rank", {"user": 9, "items": [0, "never heard of", 3]}).json()
    assert [one["item"] for one in slate["items"]] == [3, 0, "never heard of"]
    assert slate["items"][2]["attributes"] == {}
    assert all(one["propensity"] == 1.0 and not one["explored"] for one in slate["items"])
    [shown] = impressions(log)
    assert (shown.surface, len(shown.item_slots["item"])) == ("rank", 3)
    assert [len(row) for row in shown.item_slots["genres"]] == [1, 1, 0]


def test_events_are_in_the_log_when_acknowledged(serve: Serve, log: EmbeddedLog) -> None:
    served = serve()
    events = [
        {"user": 1, "item": "a", "kind": "click", "request_id": "r", "event_id": "e-1", "value": 2},
        {"user": "u", "item": 2, "kind": "rate", "event_time_us": 1_600_000_000_000_000, "type": "action"},
    ]
    before_us = time.time_ns() // 1000
    answer = served.post("/v1/events", {"events": events})
    assert (answer.status_code, answer.json()) == (202, {"accepted": 2, "positions": {"actions/0": 2}})
    first, second = [decode(Action, record.value) for record in log.read(Topic.ACTIONS, 0, 0)]
    assert first == Action("e-1", "r", 1, "a", "click", 2.0, first.event_time_us)
    assert first.event_time_us >= before_us
    assert second == Action(None, None, "u", 2, "rate", 1.0, 1_600_000_000_000_000)


def test_what_a_person_did_is_not_recommended_again_and_others_still_see_it(serve: Serve) -> None:
    served = serve(explore_share=0.0)
    served.add_items(range(10))
    clicked = served.recommend(1, 3)["items"][0]["item"]
    served.click(1, clicked)
    assert clicked not in [one["item"] for one in served.recommend(1, 10)["items"]]
    assert clicked in [one["item"] for one in served.recommend(2, 10)["items"]]


def test_kinds_hide_items_for_as_long_as_they_are_set_to(serve: Serve) -> None:
    served = serve(hide={"buy": "1h", "click": "1us"})
    served.add_items(range(4))
    served.click(1, 0)
    hour_ago_us = time.time_ns() // 1000 - 3_700_000_000
    for item, more in ((1, {}), (2, {"event_time_us": hour_ago_us})):
        served.post("/v1/events", {"events": [{"user": 1, "item": item, "kind": "buy", **more}]})
    assert {one["item"] for one in served.recommend(1, 4)["items"]} == {0, 2, 3}


def test_when_everything_was_seen_the_slate_is_empty_and_nothing_is_logged(serve: Serve, log: EmbeddedLog) -> None:
    served = serve()
    served.add_items(range(3))
    for item in range(3):
        served.click(1, item)
    assert served.recommend(1, 5)["items"] == []
    assert impressions(log) == []


def test_a_persons_page_shows_attributes_and_history(serve: Serve) -> None:
    served = serve()
    served.add_items(range(10))
    served.post("/v1/users", {"users": [{"id": 7, "attributes": {"age": 31, "occupation": "writer"}}]})
    assert served.get("/v1/users/8").status_code == 404
    served.click(7, 3, event_time_us=1_600_000_000_000_000)
    served.click("guest/1", 4)
    known = served.get("/v1/users/7").json()
    assert known["attributes"] == {"age": 31, "occupation": "writer"}
    assert known["history"] == [
        {
            "item": 3,
            "kind": "click",
            "value": 1.0,
            "event_time_us": 1_600_000_000_000_000,
            "attributes": {"title": "Title 3", "genres": ["western"], "price": 0.0},
        }
    ]
    assert served.get("/v1/users/guest%2F1").json()["history"][0]["item"] == 4


@pytest.mark.parametrize("named", [None, ["title", "audience"]])
def test_no_answer_tells_who_chose_an_item_unless_that_is_asked_for(serve: Serve, named: list[str] | None) -> None:
    schema = Schema(
        Slot("user", dim=8),
        Slot("item", dim=8),
        Slot("audience", dim=8, table="user", many=True, of="item"),
        Slot("history", dim=8, table="item", many=True, ordered=True, of="user"),
        Label("click"),
    )
    served = serve(schema=schema, explore_share=0.0, attributes_answered=named)
    attributes = {"title": "T", "genres": ["drama"], "audience": [7, "somebody"]}
    answer = served.post("/v1/items", {"items": [{"id": one, "attributes": attributes} for one in range(4)]})
    assert answer.status_code == 202, answer.text
    served.click(9, 3)
    answers = [
        served.recommend(1, 3)["items"],
        served.post("/v1/rank", {"user": 1, "items": [2, 1]}).json()["items"],
        served.get("/v1/users/9").json()["history"],
    ]
    for told in answers:
        assert told
        expected = ("title", "genres") if named is None else named
        assert [one["attributes"] for one in told] == [{name: attributes[name] for name in expected}] * len(told)


def test_digits_from_a_page_mean_the_integer_that_the_catalogue_knows(serve: Serve) -> None:
    served = serve()
    served.add_items(range(10))
    served.post("/v1/users", {"users": [{"id": 7}, {"id": "0042"}]})
    served.click("7", "3")
    assert served.get("/v1/users/7").json()["history"][0]["item"] == 3
    assert served.get("/v1/users/0042").json()["id"] == "0042"
    served.click("99", 3)  # nobody knows 99: a text stays a text
    assert served.get("/v1/users/99").json()["id"] == "99"


def test_people_are_found_by_the_beginning_of_their_id(serve: Serve, wait: Callable[..., Any]) -> None:
    served = serve()
    served.post("/v1/users", {"users": [{"id": one, "attributes": {"age": one}} for one in (1, 12, 120, 2)]})
    served.post("/v1/users", {"users": [{"id": "1x"}]})
    wait(lambda: len(served.get("/v1/users").json()["users"]) == 5)
    found = served.get("/v1/users", prefix="12").json()["users"]
    assert found == [{"id": 12, "attributes": {"age": 12}}, {"id": 120, "attributes": {"age": 120}}]
    assert [one["id"] for one in served.get("/v1/users", prefix="1", limit=4).json()["users"]] == [1, 12, 120, "1x"]


def test_a_removed_item_is_never_recommended_and_comes_back_when_sent_again(serve: Serve, log: EmbeddedLog) -> None:
    served = serve()
    served.add_items(range(5))
    served.post("/v1/items", {"items": [{"id": 2, "removed": True}]})
    assert {one["item"] for one in served.recommend(1, 5)["items"]} == {0, 1, 3, 4}
    assert served.get("/v1/items/2/similar").status_code == 404
    served.add_items([2])
    assert {one["item"] for one in served.recommend(1, 5)["items"]} == {0, 1, 2, 3, 4}
    changes = [decode(CatalogueChange, record.value) for record in log.read(Topic.CATALOGUE, 0, 0)]
    assert [change.removed for change in changes if change.id == 2] == [False, True, False]


@pytest.mark.parametrize(
    ("method", "address", "field", "says"),
    [
        ("GET", "/v1/recommend?user=1&cuont=3", "cuont", "unknown query parameter 'cuont'; did you mean 'count'?"),
        ("GET", "/v1/recommend?user=1&user=2", "user", "query parameter 'user' comes twice; send it once"),
        ("GET", "/v1/users?limt=3", "limt", "did you mean 'limit'?"),
        ("GET", "/v1/items/1/similar?n=3", "n", "known are count"),
        ("GET", "/v1/status?x=1", "x", "unknown query parameter 'x'; known are none"),
        ("GET", "/healthz?x=1", "x", "unknown query parameter 'x'; known are none"),
        ("POST", "/v1/events?dry_run=1", "dry_run", "unknown query parameter 'dry_run'; known are none"),
        ("GET", "/v1/recommend?user=1&count=many", "count", "count must be a whole number, got 'many'"),
    ],
)
def test_what_an_address_asks_for_in_vain_is_told(
    shared: Any, method: str, address: str, field: str, says: str
) -> None:
    found = shared.client.request(method, address, json={"events": []} if method == "POST" else None)
    assert (found.status_code, error(found)["field"]) == (422, field)
    assert says in error(found)["message"]


def test_an_event_that_is_sent_twice_counts_once(serve: Serve) -> None:
    served = serve()
    for _ in range(2):
        served.click(1, 5, event_id="same")
    assert len(served.get("/v1/users/1").json()["history"]) == 1


@pytest.mark.parametrize(
    ("path", "body", "field", "says"),
    [
        ("/v1/events", {"events": [{"user": 1, "itm": 2, "kind": "click"}]}, "events[0]", "did you mean 'item'"),
        ("/v1/events", {"events": [{"user": 1, "item": 2}]}, "events[0].kind", "must be given"),
        ("/v1/events", {"events": [{"user": True, "item": 2, "kind": "c"}]}, "events[0].user", "integer"),
        ("/v1/events", {"events": [{"user": 1.5, "item": 2, "kind": "c"}]}, "events[0].user", "1.5"),
        ("/v1/events", {"events": [{"user": "", "item": 2, "kind": "c"}]}, "events[0].user", "1 to 256"),
        ("/v1/events", {"events": [{"user": "x" * 257, "item": 2, "kind": "c"}]}, "events[0].user", "256"),
        ("/v1/events", {"events": [{"user": 1 << 70, "item": 2, "kind": "c"}]}, "events[0].user", "64 bits"),
        ("/v1/events", {"events": []}, "events", "must have at least 1 entry, got 0 entries"),
        ("/v1/events", {"events": {"user": 1}}, "events", "must be a list, got an object of 1 entry"),
        ("/v1/events", {"events": [{"user": None, "item": 2, "kind": "c"}]}, "events[0].user", "got null"),
        (
            "/v1/events",
            {"events": [{"user": 1, "item": 2, "kind": "c", "value": "1"}]},
            "events[0].value",
            "must be a number (write 1 without quotes), got '1'",
        ),
        (
            "/v1/events",
            {"events": [{"user": 1, "item": 2, "kind": "c", "value": True}]},
            "events[0].value",
            "must be a number, got true",
        ),
        ("/v1/events", {"events": [{"user": 1, "item": 2, "kind": "c"}] * 1001}, "events", "1000"),
        (
            "/v1/events",
            {"events": [{"user": 1, "item": 2, "kind": "c", "event_time_us": 1_700_000_000}]},
            "events[0].event_time_us",
            "these are seconds, it seems: multiply by 1,000,000",
        ),
        (
            "/v1/events",
            {"events": [{"user": 1, "item": 2, "kind": "c", "event_time_us": 1_700_000_000_000}]},
            "events[0].event_time_us",
            "these are milliseconds, it seems: multiply by 1,000",
        ),
        (
            "/v1/events",
            {"events": [{"user": 1, "item": 2, "kind": "c", "event_time_us": 1_700_000_000_000_000_000}]},
            "events[0].event_time_us",
            "these are nanoseconds, it seems: divide by 1,000",
        ),
        (
            "/v1/events",
            {"events": [{"user": 1, "item": 2, "kind": "c", "event_time_us": 17}]},
            "events[0].event_time_us",
            "send microseconds since 1970 UTC",
        ),
        (
            "/v1/events",
            {"events": [{"user": 1, "item": 2, "kind": "c", "event_time_us": 1 << 62}]},
            "events[0].event_time_us",
            "not in the future",
        ),
        ("/v1/recommend", {"user": 1, "count": 0}, "count", "count must be at least 1, got 0"),
        ("/v1/recommend", {"user": 1, "count": 101}, "count", "at most 100"),
        ("/v1/recommend", {"user": 1, "context": {"plce": "x"}}, None, "did you mean 'place'"),
        ("/v1/recommend", {"user": 1, "context": {"place": ["a", "b"]}}, None, "place takes one value"),
        ("/v1/recommend", {"user": 1, "context": {"place": {"a": 1}}}, "context", "place: a value is"),
        ("/v1/rank", {"user": 1, "items": [1, 2, 1]}, "items", "1 is listed twice"),
        ("/v1/rank", {"user": 1, "items": list(range(1001))}, "items", "1000"),
        (
            "/v1/items",
            {"items": [{"id": 1}, {"id": 2, "attributes": {"genres": "drama"}}]},
            "items[1].attributes",
            "genres",
        ),
        ("/v1/items", {"items": [{"id": 1, "attributes": {"price": "dear"}}]}, "items[0].attributes", "price"),
        ("/v1/items", {"items": [{"id": 1, "attributes": {"a": [[1]]}}]}, "items[0].attributes", "a: a value is"),
        ("/v1/users", {"users": [{"id": 1, "attributes": {"age": [1, 2]}}]}, "users[0].attributes", "age"),
        ("/v1/events", [1, 2], None, "JSON object"),
    ],
)
def test_a_bad_request_is_told_the_field_and_the_mend_and_nothing_is_kept(
    shared: Any, path: str, body: Any, field: str | None, says: str
) -> None:
    answer = shared.post(path, body)
    found = error(answer)
    assert (answer.status_code, found["code"], found["retry"]) == (422, "invalid", False), answer.text
    assert says in found["message"]
    assert found.get("field") == field
    with EmbeddedLog(shared.settings.log_folder) as log:
        assert log.bounds(Topic.ACTIONS) == (0, 0)
        assert log.bounds(Topic.CATALOGUE) == (0, 3)


def test_what_is_no_json_or_nowhere_is_told_in_the_same_shape(shared: Any) -> None:
    served = shared
    json_type = {"Content-Type": "application/json"}
    garbage = served.client.post("/v1/events", content=b'{"events": [', headers=json_type)
    assert (garbage.status_code, error(garbage)["code"]) == (400, "bad_request")
    binary = served.client.post("/v1/events", content=b"\xff\xfe\x00", headers=json_type)
    assert (binary.status_code, error(binary)["code"]) == (400, "bad_request")
    deep = served.client.post("/v1/events", content=b'{"events":' + b"[" * 100_000, headers=json_type)
    assert (deep.status_code, error(deep)["code"]) == (400, "bad_request")
    digits = served.client.post("/v1/rank", content=b'{"user": ' + b"9" * 10_000 + b"}", headers=json_type)
    assert digits.status_code in (400, 422)
    untyped = served.client.post("/v1/events", content=b'{"events": []}', headers={"Content-Type": "text/plain"})
    assert (untyped.status_code, error(untyped)["code"]) == (422, "invalid")
    nowhere = served.get("/v1/nothing")
    assert (nowhere.status_code, error(nowhere)["code"]) == (404, "not_found")
    wrong = served.client.delete("/v1/events")
    assert (wrong.status_code, error(wrong)["code"]) == (405, "method_not_allowed")
    assert served.get("/healthz").json() == {"status": "ok"}


def test_an_empty_catalogue_says_so_and_that_later_helps(serve: Serve) -> None:
    served = serve()
    answer = served.post("/v1/recommend", {"user": 1})
    assert (answer.status_code, error(answer)["code"], error(answer)["retry"]) == (503, "not_ready", True)
    assert int(answer.headers["Retry-After"]) >= 1
    assert served.post("/v1/rank", {"user": 1, "items": [1]}).status_code == 200


def test_status_tells_of_the_loop(serve: Serve, wait: Callable[..., Any]) -> None:
    served = serve()
    served.add_items(range(5))
    served.recommend(1, 5)
    served.click(1, 2)
    wait(lambda: served.get("/v1/status").json()["now"]["events_total"] == 6)  # five items shown, one action
    status = served.get("/v1/status").json()
    assert (status["simulated"], status["dataset"]) == (True, "tests")
    stage = status["stages"]["serve"]
    assert stage["alive"]
    assert stage["figures"]["item_count"] == 5
    assert status["now"]["recommend_p99_ms"] > 0
    assert status["history"][-1].keys() == {"time_us", *status["now"]}
    assert status["now"]["version"] is None


def test_metrics_are_prometheus_text_with_a_meaning_each(serve: Serve) -> None:
    served = serve()
    served.add_items(range(5))
    served.recommend(1, 5)
    text = served.get("/metrics").text
    lines = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    assert float(lines["dolmen_serve_shown_items_total"]) == 5
    assert float(lines['dolmen_serve_requests_total{route="/v1/recommend",status="200"}']) == 1
    names = {line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")}
    helped = {line.split()[2] for line in text.splitlines() if line.startswith("# HELP") and len(line.split()) > 3}
    assert names == helped
    assert all(name.startswith("dolmen_") for name in names)


def test_the_openapi_document_describes_every_route(shared: Any) -> None:
    document = shared.get("/openapi.json").json()
    paths = document["paths"]
    expected = {
        "/v1/events",
        "/v1/items",
        "/v1/users",
        "/v1/recommend",
        "/v1/rank",
        "/v1/items/{item_id}/similar",
        "/v1/users/{user_id}",
        "/v1/status",
        "/healthz",
        "/readyz",
        "/metrics",
    }
    assert expected == set(paths)
    for path, methods in paths.items():
        for method, told in methods.items():
            assert told["description"], f"{method} {path} has no description"
    assert "example" in str(document["components"]["schemas"]["Events"])
    assert document["components"]["schemas"]["ErrorAnswer"]

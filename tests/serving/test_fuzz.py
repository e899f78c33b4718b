"""Whatever is sent, the server answers in its shape, never with a failure of its own, and goes on."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

POSTS = ("/v1/events", "/v1/items", "/v1/users", "/v1/recommend", "/v1/rank")
_FIELDS = ["events", "items", "users", "user", "item", "kind", "id", "attributes", "count", "context", "value"]
_ATTRIBUTES = ["genres", "age", "place", "hour", "price", "", "\x00", "ключ"]
NAMES = st.sampled_from([*_FIELDS, *_ATTRIBUTES, "event_time_us", "request_id", "event_id", "removed", "type"])
LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(1 << 80), 1 << 80),
    st.integers(0, 5),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=8),
    st.sampled_from(["click", "7", "\ud800", "a" * 300]),
)
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=4), max_leaves=12
)
# Near what is right, so that the fuzz gets past the first check.
EVENTS = st.fixed_dictionaries(
    {"user": LEAVES, "item": LEAVES, "kind": st.sampled_from(["click", "", 3])}, optional={"value": LEAVES}
)
ENTRIES = st.fixed_dictionaries({"id": LEAVES}, optional={"attributes": VALUES, "removed": LEAVES})
NEAR = st.one_of(
    st.fixed_dictionaries({"events": st.lists(EVENTS, max_size=3)}),
    st.fixed_dictionaries({"items": st.lists(ENTRIES, max_size=3)}),
    st.fixed_dictionaries({"users": st.lists(ENTRIES, max_size=3)}),
    st.fixed_dictionaries(
        {"user": LEAVES}, optional={"items": st.lists(LEAVES, max_size=3), "count": LEAVES, "context": VALUES}
    ),
)


@pytest.mark.property
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(path=st.sampled_from(POSTS), body=st.one_of(NEAR, VALUES))
def test_any_json_gets_an_answer_in_the_one_shape(shared: Any, path: str, body: Any) -> None:
    answer = shared.client.post(path, content=json.dumps(body).encode(), headers={"Content-Type": "application/json"})
    assert answer.status_code in (200, 202, 400, 422), answer.text
    if answer.status_code >= 400:
        error = answer.json()["error"]
        assert error["message"]
        assert error["retry"] is False


@pytest.mark.property
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(path=st.sampled_from(POSTS), body=st.binary(max_size=200))
def test_any_bytes_get_an_answer_in_the_one_shape(shared: Any, path: str, body: bytes) -> None:
    answer = shared.client.post(path, content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code in (400, 422)
    assert answer.json()["error"]["message"]


@pytest.mark.property
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    path=st.sampled_from(["/v1/users/{}", "/v1/items/{}/similar", "/v1/recommend?user={}", "/v1/users?prefix={}"]),
    text=st.text(min_size=1, max_size=20),
)
def test_any_id_in_a_url_gets_an_answer(shared: Any, path: str, text: str) -> None:
    answer = shared.client.get(path.format(quote(text.encode(errors="surrogatepass"), safe="")))
    assert answer.status_code in (200, 404, 422, 503), answer.text
    assert shared.get("/healthz").status_code == 200

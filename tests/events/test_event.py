import math
from typing import Any

import msgspec
import pytest

from dolmen.errors import BadEventError
from dolmen.events import Action, CatalogueChange, Features, Impression, decode, encode


def slate(**changes: Any) -> Impression:
    plain: dict[str, Any] = {
        "request_id": "r1",
        "event_time_us": 5,
        "user": 7,
        "version": 3,
        "surface": "home",
        "shared": Features(slots={"user": [7]}, dense={"hour": 0.5}),
        "items": ["a", 2],
        "item_slots": {"item": [[1], [2]], "genres": [[3, 4], []]},
        "item_dense": {"price": [1.0, 2.0]},
        "probabilities": [0.25, 0.5],
        "propensities": [1.0, 1.0],
    }
    return Impression(**{**plain, **changes})


@pytest.mark.parametrize(
    "event",
    [
        slate(),
        slate(probabilities=[], propensities=[], item_dense={}),
        Action("e1", "r1", "ann", 2, "click", 1.0, 9),
        Action(None, None, 1, "x", "buy"),
        CatalogueChange("item", "x", {"title": "Zürich", "genres": ["a", "b"], "price": 1.5, "new": None}),
        CatalogueChange("user", 3, removed=True, event_time_us=4),
    ],
    ids=lambda event: type(event).__name__,
)
def test_event_survives_the_log(event: Any) -> None:
    assert decode(type(event), encode(event)) == event


@pytest.mark.parametrize(
    ("event", "told"),
    [
        (slate(items=[]), "between 1 and"),
        (slate(items=["a", "a"]), "'a' is shown twice"),
        (slate(item_slots={"item": [[1]]}), r"item_slots\['item'\] has 1 entries for 2 items"),
        (slate(item_dense={"price": [1.0]}), "has 1 entries for 2 items"),
        (slate(item_dense={"price": [1.0, math.nan]}), "price must be finite"),
        (slate(probabilities=[0.5]), "probabilities has 1 entries"),
        (slate(probabilities=[0.5, 1.5]), r"probabilities must be in \[0, 1\], got \[0.5, 1.5\]; of logits"),
        (slate(shared=Features(dense={"hour": math.inf})), "finite"),
        (slate(request_id=""), "request_id must have 1 to"),
        (slate(request_id="x" * 201), "request_id must have 1 to"),
        (Action(None, "r\x00", 1, 2, "click"), "no NUL"),
        (Action(None, "r", 1, 2, ""), "kind must have"),
        (Action(None, "r", 1, 2, "click", math.nan), "value must be finite"),
        (Action(None, "r", 1, 1 << 70, "click"), "ids are integers of 64 bits"),
        (CatalogueChange("item", 1, {"cover": b"x" * (5 << 20)}), "at most"),
    ],
)
def test_event_that_cannot_be_used_is_refused_when_written(event: Any, told: str) -> None:
    with pytest.raises(BadEventError, match=told):
        encode(event)


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"\xc1",
        encode(slate())[:-3],
        encode(Action(None, "r", 1, 2, "click")),
        msgspec.msgpack.encode(slate(items=["a"])),  # written by someone who did not check
        msgspec.msgpack.encode(slate(item_slots={"item": [[1], [-2]]})),
        msgspec.msgpack.encode(slate(item_slots={"item": [[1], [1 << 63]]})),
    ],
)
def test_bytes_that_are_no_such_event_are_refused_when_read(value: bytes) -> None:
    with pytest.raises(BadEventError):
        decode(Impression, value)

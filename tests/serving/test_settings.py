"""Settings of a server: what cannot be is refused at the start, with the mend."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from dolmen.errors import ConfigError
from dolmen.features import Label, Schema, Slot


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"host": "0.0.0.0"}, "token"),
        ({"host": "shop.example"}, "token"),
        ({"token": "short"}, "16 characters"),
        ({"port": 70_000}, "serving.port must be between 0 and 65535, got 70000"),
        ({"explore_share": 1.5}, "explore_share must be between 0 and 1"),
        ({"candidate_count": True}, "candidate_count"),
        ({"queue_wait_max": "soon"}, "queue_wait_max"),
        ({"stale_after": "0s"}, "above 0"),
        ({"hide": {"click": "for good"}}, r"hide\.click"),
        ({"index": "tree"}, "auto, graph, exact"),
        ({"precision": "int4"}, "serving.precision must be one of float32, float16, bfloat16, int8, got 'int4'"),
        ({"history_slots": {"histori": ("click",)}}, "did you mean 'history'"),
        ({"attributes_answered": "video_title"}, "attributes_answered must be a list of names, got 'video_title'"),
        ({"schema": Schema(Slot("user"), Label("click"))}, "slot 'item'"),
    ],
)
def test_a_setting_that_cannot_be_is_refused_by_name(settings: Any, changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        dataclasses.replace(settings, **changes)


def test_an_attribute_that_shares_the_rows_of_people_is_not_answered_unless_it_is_named(settings: Any) -> None:
    schema = Schema(
        *settings.schema.slots.values(),
        Slot("audience", dim=8, table="user", many=True, of="item"),
        Slot("ages", dim=8, table="age", many=True, of="item"),
        Slot("friends", dim=8, table="user", many=True, of="user"),
        Label("click"),
    )
    told = {"title": "T", "genres": ["drama"], "audience": [1, 2], "ages": [31], "friends": [3]}
    kept = dataclasses.replace(settings, schema=schema)
    assert kept.answered(told) == {"title": "T", "genres": ["drama"], "friends": [3]}
    assert kept.answered({"title": "T"}) == {"title": "T"}
    for named in (("title", "audience"), (), ("nothing",)):
        named_only = dataclasses.replace(kept, attributes_answered=named)
        assert named_only.answered(told) == {name: told[name] for name in told if name in named}


def test_other_machines_may_ask_where_there_is_a_token(settings: Any) -> None:
    assert dataclasses.replace(settings, host="0.0.0.0", token="a" * 16).host == "0.0.0.0"
    assert dataclasses.replace(settings, host="::1").token is None


def test_histories_and_hidden_kinds_follow_the_labels(settings: Any) -> None:
    schema = Schema(
        *settings.schema.slots.values(), *settings.schema.dense.values(), Label("click"), Label("sold", action="buy")
    )
    changed = dataclasses.replace(settings, schema=schema, hide=None, history_slots=None)
    assert changed.history_slots == {"history": ("click", "buy")}
    assert set(changed.hide_us) == {"click", "buy"}

"""Counts of what was shown and done: new, popular, clicked; over restarts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from dolmen.events import Action, CatalogueChange, EmbeddedLog, Features, Impression, Topic, encode
from dolmen.serving.catalogue import ITEMS_TABLE, USERS_TABLE, Catalogue
from dolmen.serving.exposure import COUNTS_TABLE, TOTALS_TABLE, Exposure
from dolmen.serving.state import State

_DAY_US = 86_400_000_000
_NOW_US = 1_700_000_000_000_000


@pytest.fixture
def parts(settings: Any, log: EmbeddedLog) -> Iterator[tuple[State, Catalogue, Exposure]]:
    log.append(Topic.CATALOGUE, [encode(CatalogueChange("item", item)) for item in range(6)])
    state = State(settings.state_folder, [ITEMS_TABLE, USERS_TABLE, COUNTS_TABLE, TOTALS_TABLE])
    catalogue = Catalogue(settings, log, state)
    catalogue.tail.catch_up()
    yield state, catalogue, Exposure(settings, log, state, catalogue)
    state.close()


def show(log: EmbeddedLog, exposure: Exposure, *items: Any, times: int = 1) -> None:
    slate = Impression("r", _NOW_US, 1, 0, "rank", Features(), list(items))
    for _ in range(times):
        exposure.shown_tail.wrote(log.append(Topic.IMPRESSIONS, [encode(slate)]), [slate.items])


def act(exposure: Exposure, item: Any, *, ago_us: int = 0, kind: str = "click") -> None:
    exposure.prepare([Action(None, None, 1, item, kind, 1.0, _NOW_US - ago_us)])()


def test_an_item_is_new_until_it_was_shown_often_enough(settings: Any, log: EmbeddedLog, parts: Any) -> None:
    _, _, exposure = parts
    show(log, exposure, 0, 1, times=settings.explore_below)
    show(log, exposure, 2, "unknown", times=settings.explore_below - 1)
    assert exposure.new_rows().tolist() == [2, 3, 4, 5]


def test_popularity_halves_with_every_half_life(parts: Any) -> None:
    _, _, exposure = parts
    act(exposure, 0, ago_us=14 * _DAY_US)
    act(exposure, 1, ago_us=7 * _DAY_US)
    act(exposure, 2)
    act(exposure, 3)
    act(exposure, 3, ago_us=7 * _DAY_US)  # came late
    act(exposure, 4, kind="view")  # no label is made of it
    assert exposure.popularity(_NOW_US) == pytest.approx([0.25, 0.5, 1.0, 1.5, 0.0, 0.0])


def test_popular_items_stand_in_order_however_popular_they_are(serve: Any) -> None:
    served = serve(explore_share=0.0)
    served.add_items(range(5))
    for item, count in ((3, 900), (1, 800)):
        for _ in range(count // 100):
            events = [{"user": "crowd", "item": item, "kind": "click"}] * 100
            assert served.post("/v1/events", {"events": events}).status_code == 202
    served.add_items([5])  # the lists of popular items are made anew when the catalogue grows
    assert [one["item"] for one in served.recommend("newcomer", 2)["items"]] == [3, 1]


def test_rates_start_at_the_average_and_learn_from_what_is_shown(log: EmbeddedLog, parts: Any) -> None:
    _, _, exposure = parts
    show(log, exposure, 0, 1, times=200)
    for _ in range(100):
        act(exposure, 0)
    rates = exposure.rates(np.array([0, 1, 2, -1]))
    assert rates[0] == pytest.approx(0.5, abs=0.05)
    assert rates[1] < 0.05
    assert rates[2] == rates[3] == pytest.approx(100 / 400, abs=0.02)


def test_counts_survive_a_restart_saved_or_not(settings: Any, log: EmbeddedLog, parts: Any) -> None:
    state, catalogue, exposure = parts
    show(log, exposure, 0, 1, times=3)
    act(exposure, 0)
    state.save(exposure)
    show(log, exposure, 1, 2, times=2)
    unsaved = Action(None, None, 1, 2, "click", 1.0, _NOW_US)
    exposure.prepare([unsaved])()
    again = Exposure(settings, log, state, catalogue)
    again.shown_tail.catch_up()
    again.prepare([unsaved])()
    assert again.shown_count == exposure.shown_count == 10
    assert again.popularity(_NOW_US) == pytest.approx(exposure.popularity(_NOW_US))
    rows = np.arange(6)
    assert again.rates(rows) == pytest.approx(exposure.rates(rows))
    assert state.save(exposure) > 0
    assert state.save(exposure) == 0  # nothing changed since


def test_a_failed_save_is_made_up_for_by_the_next(
    settings: Any, log: EmbeddedLog, parts: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    state, catalogue, exposure = parts
    show(log, exposure, 0, times=4)

    def fail(*_: Any) -> None:
        raise OSError("no space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(state._store, "write", fail)
        with pytest.raises(OSError, match="space"):
            state.save(exposure)
    state.save(exposure)
    again = Exposure(settings, log, state, catalogue)
    assert again.shown_tail.catch_up() == 0
    assert again.shown_count == 4
    assert again.rates(np.array([0])) == pytest.approx(exposure.rates(np.array([0])))


def test_items_that_come_and_go_take_no_more_rows_and_leave_no_counts(
    settings: Any, log: EmbeddedLog, parts: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a shop that renews its catalogue every day would fill memory and disk with what it sold last year."""
    monkeypatch.setattr("dolmen.serving.catalogue._UNDER_WAY_SECONDS", 0.0)
    object.__setattr__(settings, "removed_items_max", 2)
    state, catalogue, exposure = parts

    def change(item: int, *, removed: bool) -> None:
        one = CatalogueChange("item", item, {"title": f"T{item}"}, removed=removed)
        catalogue.tail.wrote(log.append(Topic.CATALOGUE, [encode(one)]), [one])

    for item in range(6, 60):
        change(item, removed=False)
        show(log, exposure, item, times=3)
        state.save(exposure)
        change(item - 6, removed=True)
        catalogue.forget_removed(exposure.forget)
    state.save(exposure)
    assert catalogue.row_count <= 6 + 2 + 1
    assert len(list(state.scan(COUNTS_TABLE))) <= 6 + 2
    assert exposure.rates(catalogue.rows_of([59]))[0] < exposure.rates(np.array([-1]))[0], "its own counts hold"
    again = Exposure(settings, log, state, catalogue)
    again.shown_tail.catch_up()
    assert again.rates(catalogue.rows_of([55, 59])) == pytest.approx(exposure.rates(catalogue.rows_of([55, 59])))

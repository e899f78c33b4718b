"""The page's plain functions, asked inside the browser that runs them. No API is there, so the page is *away*."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import pytest
from fastapi import FastAPI
from playwright.sync_api import Browser, Page

from dolmen.console import mount

UNKNOWN = "\N{EN DASH}"

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def page(browser: Browser, serve_app: Callable[[FastAPI], Any]) -> Iterator[Page]:
    app = FastAPI()
    mount(app)
    opened = browser.new_page()
    opened.goto(serve_app(app).address)
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def ask(page: Page) -> Callable[..., Any]:
    """``ask("scale.js", "niceTicks", 0, 10)`` calls an exported function with JSON-like arguments."""

    def asked(module: str, function: str, *arguments: Any) -> Any:
        return page.evaluate(
            "async ([module, name, given]) => (await import(`/console/${module}`))[name](...given)",
            [module, function, list(arguments)],
        )

    return asked


@pytest.mark.parametrize(
    ("low", "high"),
    [(0, 1), (0, 1204), (0.69, 0.76), (3e8, 4.2e8), (0, 0.003), (5, 5), (0, 0), (-2, 7), (0.7, 0.7000001)],
)
def test_ticks_are_even_round_few_and_hold_the_data(ask: Callable[..., Any], low: float, high: float) -> None:
    ticks = ask("scale.js", "niceTicks", low, high)
    steps = [after - before for before, after in pairwise(ticks)]
    assert 2 <= len(ticks) <= 6
    assert ticks[0] <= low
    assert ticks[-1] >= high
    assert max(steps) == pytest.approx(min(steps), rel=1e-3)
    leading = steps[0] / 10 ** math.floor(math.log10(steps[0]) + 1e-6)
    assert min(abs(leading - one) for one in (1, 2, 5)) < 0.01


@pytest.mark.parametrize("wanted", [-5, 0, 4.9, 5, 5.1, 14, 15, 99, 1e9])
def test_the_nearest_moment_is_that_of_a_plain_search(ask: Callable[..., Any], wanted: float) -> None:
    times = [0, 10, 11, 30, 100]
    found = ask("scale.js", "nearest", times, wanted)
    assert abs(times[found] - wanted) == min(abs(time - wanted) for time in times)


@pytest.mark.parametrize(
    ("function", "value", "words"),
    [
        ("count", 0, "0"),
        ("count", 0.42, "0.42"),
        ("count", 7.3, "7.3"),
        ("count", 1204.4, "1,204"),
        ("count", 9999.4, "9,999"),
        ("count", 12_900, "12.9k"),
        ("count", 3_410_000, "3.41M"),
        ("count", None, UNKNOWN),
        ("seconds", 0.0421, "42 ms"),
        ("seconds", 0.61, "0.61 s"),
        ("seconds", 3.14, "3.1 s"),
        ("seconds", 75, "75 s"),
        ("seconds", 600, "10 min"),
        ("seconds", -0.2, "0 s"),
        ("milliseconds", 3.14, "3.1 ms"),
        ("milliseconds", 41.6, "42 ms"),
        ("bytes", 999, "999 B"),
        ("bytes", 4.2e8, "420 MB"),
        ("bytes", 1.26e9, "1.3 GB"),
        ("score", 0.75, "0.7500"),
        ("percent", 0.004, "0.4 %"),
        ("percent", 0.126, "13 %"),
        ("percent", None, UNKNOWN),
    ],
)
def test_numbers_are_short_and_unknown_ones_a_dash(
    ask: Callable[..., Any], function: str, value: float | None, words: str
) -> None:
    assert ask("format.js", function, value) == words


def test_one_dot_stands_for_enough_events_to_stay_calm(ask: Callable[..., Any]) -> None:
    for rate in (0, 0.2, 7, 9, 40, 1000, 123_456, 5e6):
        size = ask("motion.js", "eventsPerDot", [rate, 1])
        assert rate / size <= 8
        assert size == 1 or rate / size > 8 / 2.5, "larger than it must be"
        assert str(size)[0] in "125"
        assert int(str(size)[1:] or 0) == 0


def test_changes_between_slates_are_those_of_their_places(ask: Callable[..., Any]) -> None:
    before = [{"item": name} for name in "abcd"]
    after = [{"item": name} for name in "bxad"]
    assert ask("catalogue.js", "changesOf", before, after) == [
        {"kind": "up", "by": 1},
        {"kind": "in", "by": 0},
        {"kind": "down", "by": 2},
        {"kind": "same", "by": 0},
    ]
    assert {one["kind"] for one in ask("catalogue.js", "changesOf", [], after)} == {"first"}


def test_shares_count_an_item_once_for_each_of_its_genres(page: Page) -> None:
    items = [{"attributes": {"genres": genres}} for genres in (["War", "Drama"], ["War", "War"], "Drama|Crime", [])]
    shares = page.evaluate(
        "async (items) => Object.fromEntries((await import('/console/catalogue.js')).sharesOf(items))", items
    )
    assert shares == {"War": 0.5, "Drama": 0.5, "Crime": 0.25}


def test_the_genres_of_what_was_taken_stay_on_top_when_none_is_left_in_the_slate(page: Page) -> None:
    def some(*genres: str) -> list[dict[str, Any]]:
        return [{"item": place, "attributes": {"genres": [genre]}} for place, genre in enumerate(genres)]

    shown = page.evaluate(
        """async ([first, now, taken]) => {
          const host = document.createElement("div");
          (await import('/console/share.js')).showShares(host, first, now, taken);
          return [...host.querySelectorAll(".row")].map((row) => [row.querySelector("dt").textContent, row.className]);
        }""",
        [some("Drama", "Sci-Fi"), some("Drama", "War"), some("Sci-Fi", "Sci-Fi", "Horror")],
    )
    assert shown == [["Sci-Fi", "row less"], ["Horror", "row same"], ["Drama", "row same"], ["War", "row more"]]


@pytest.mark.parametrize(
    ("attributes", "title", "genres"),
    [
        ({"title": "Alien (1979)", "genres": ["Horror", "Sci-Fi"]}, "Alien (1979)", ["Horror", "Sci-Fi"]),
        ({"name": "A lamp", "category": "Light"}, "A lamp", ["Light"]),
        ({"brand": ["Oak"]}, "Item 7", ["Oak"]),
        ({}, "Item 7", []),
        (None, "Item 7", []),
    ],
)
def test_any_catalogue_has_titles_and_genres(
    ask: Callable[..., Any], attributes: Any, title: str, genres: list[str]
) -> None:
    assert ask("catalogue.js", "titleOf", 7, attributes) == title
    assert ask("catalogue.js", "genresOf", attributes) == genres


def test_parameters_include_a_click_when_every_acknowledged_position_is_reached(ask: Callable[..., Any]) -> None:
    def includes(seen: Any, acknowledged: Any) -> Any:
        return ask("tryit.js", "includes", seen, acknowledged)

    assert includes({"actions/0": 7}, {"actions/0": 7}) is True
    assert includes({"actions/0": 8, "impressions/0": 1}, {"actions/0": 7}) is True
    assert includes({"actions/0": 6}, {"actions/0": 7}) is False
    assert includes({"actions/0": 9}, {"actions/0": 7, "actions/1": 1}) is False
    assert includes(None, {"actions/0": 7}) is False
    assert includes({"actions/0": 9}, {}) is False, "nothing acknowledged is nothing included"


def test_a_stage_that_is_down_says_so_and_its_arrows_stand_still(ask: Callable[..., Any]) -> None:
    alive = {"alive": True, "age_seconds": 0.3, "figures": {}}
    down = {"alive": False, "age_seconds": 12.2, "figures": {}}
    now = {"events_per_second": 100, "joined_per_second": 80, "staleness_seconds": 14, "auc_online": 0.75}
    status = {"stages": {"serve": alive, "join": alive, "train": down}, "now": now}
    stages = {one["name"]: one for one in ask("stages.js", "readStages", status)}
    assert [name for name, one in stages.items() if not one["alive"]] == ["learn"]
    assert stages["learn"]["state"] == "down for 12 s"
    assert stages["sync"]["late"] is True
    rates = ask("stages.js", "readRates", status)
    assert rates["example"] == 0
    assert rates["event"] == 100


def test_what_is_served_may_age_while_nothing_comes_but_not_while_something_is_owed(ask: Callable[..., Any]) -> None:
    def sync(events_per_second: float, unread: int, backlog: int) -> Any:
        figures = {"join": {"slates_unread": 0, "actions_unread": unread}, "train": {"backlog_records": backlog}}
        alive = {"alive": True, "age_seconds": 0.3}
        told = {name: {**alive, "figures": figures.get(name, {})} for name in ("serve", "join", "train")}
        now = {"events_per_second": events_per_second, "staleness_seconds": 36}
        return {one["name"]: one for one in ask("stages.js", "readStages", {"stages": told, "now": now})}["sync"]

    assert (sync(0, 0, 0)["state"], sync(0, 0, 0).get("late")) == ("nothing new came", None)
    for owing in ((3, 0, 0), (0, 1, 0), (0, 0, 1)):
        assert sync(*owing)["late"] is True, owing


def test_join_shows_what_the_joiner_made_whether_or_not_anybody_learns_it(ask: Callable[..., Any]) -> None:
    alive = {"alive": True, "age_seconds": 0.3, "figures": {}}
    down = {"alive": False, "age_seconds": 12.2, "figures": {}}
    now = {"joined_per_second": 80, "examples_per_second": 0}
    status = {"stages": {"serve": alive, "join": alive, "train": down}, "now": now}
    stages = {one["name"]: one for one in ask("stages.js", "readStages", status)}
    assert stages["join"]["figure"] == "80"


def test_new_people_get_ids_of_their_own(page: Page) -> None:
    ids = page.evaluate(
        "async () => { const m = await import('/console/people.js'); return Array.from({length: 200}, m.newcomerId); }"
    )
    assert len(set(ids)) == 200
    assert all(one.startswith("guest-") for one in ids)


def test_without_an_answer_the_page_says_so_and_offers_to_try_again(page: Page) -> None:
    page.locator(".link[data-state=away]").wait_for()
    assert "404" in page.locator("#notice-text").inner_text()
    assert page.get_by_role("button", name="Try now").is_visible()
    assert page.locator(".ring.is-away").count() == 1


def test_a_stage_says_how_often_it_died_in_a_row_until_it_is_up_again(ask: Callable[..., Any]) -> None:
    now_us = 1_700_000_000_000_000

    def state(train: dict[str, Any] | None, count: int, *, died_seconds_ago: int = 6) -> str:
        died_us = now_us - died_seconds_ago * 1_000_000
        up = {
            "figures": {"deaths": {"train": {"count": count, "time_us": died_us, "status": "exit 1", "said": "boom"}}}
        }
        status = {"time_us": now_us, "stages": {"up": up, "train": train}}
        stages = ask("stages.js", "readStages", status)
        return next(str(one["state"]) for one in stages if one["name"] == "learn")

    assert state(None, 4) == "died 4 times"
    assert state({"alive": False, "age_seconds": 7}, 4) == "died 4 times"
    assert state({"alive": False, "age_seconds": 7}, 1) == "down for 7.0 s"
    assert state({"alive": True, "age_seconds": 0}, 4) == "up"
    # It came up again, and is silent for another reason: it hangs.
    assert state({"alive": False, "age_seconds": 7}, 4, died_seconds_ago=600) == "down for 7.0 s"

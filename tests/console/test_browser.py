"""The page against the real loop, in a real browser: what people see, click and type."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from playwright.sync_api import Browser, Page, expect

from dolmen.console import mount
from dolmen.features import Label, Schema, Slot
from dolmen.serving import ServeSettings, create_app

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]

STAGES = ("serve", "log", "join", "learn", "sync")
PATIENCE_MS = 30_000  # the loop turns in about a second; a busy machine may be slow


def _loop_class() -> Any:
    # Tests are imported one by one (importmode importlib), so a neighbour is loaded by its path.
    spec = spec_from_file_location("loop_in_threads", Path(__file__).with_name("loop_in_threads.py"))
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.Loop


@pytest.fixture(scope="module")
def loop(
    browser: Browser, serve_app: Callable[[FastAPI, int], Any], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Any]:
    """The real loop. It asks for ``browser`` first, so that nothing is started where there is none."""
    assert browser.is_connected()
    running = _loop_class()(tmp_path_factory.mktemp("loop"), serve_app)
    yield running
    running.stop()


def connected(watched: Any) -> Page:
    page: Page = watched.page
    expect(page.locator("#link")).to_have_attribute("data-state", "up", timeout=PATIENCE_MS)
    return page


def slate_of(page: Page) -> list[str]:
    found: list[str] = page.locator("#slate li").evaluate_all("nodes => nodes.map((node) => node.dataset.item)")
    return found


def become_someone_new(page: Page) -> None:
    page.get_by_role("button", name="Be someone new").click()
    expect(page.locator("#slate li")).to_have_count(10, timeout=PATIENCE_MS)


def stage(page: Page, name: str) -> Any:
    return page.locator(f".stone[data-stage={name}]")


def test_the_page_loads_without_errors_and_asks_nobody_else(loop: Any, open_page: Callable[..., Any]) -> None:
    watched = open_page(loop.address)
    page = connected(watched)
    become_someone_new(page)
    expect(page.locator(".chart")).to_have_count(6)
    assert watched.problems == []
    assert watched.strangers == []


def test_what_is_simulated_says_so(loop: Any, open_page: Callable[..., Any]) -> None:
    page = connected(open_page(loop.address))
    expect(page.locator("#source")).to_contain_text("Simulated world")
    expect(page.locator("#source")).to_contain_text("invented")


def test_each_stage_shows_a_figure_of_its_own_and_they_move(loop: Any, open_page: Callable[..., Any]) -> None:
    page = connected(open_page(loop.address))
    for name in STAGES:
        expect(stage(page, name).locator(".figure")).to_have_text(re.compile(r"\d"), timeout=PATIENCE_MS)
        assert not re.search(r"\bis-down\b", stage(page, name).get_attribute("class") or "")
    expect(page.locator(".hero")).to_have_text(re.compile(r"\d (ms|s|min)"))
    first = stage(page, "sync").locator(".figure").text_content()
    expect(stage(page, "sync").locator(".figure")).not_to_have_text(first or "", timeout=PATIENCE_MS)
    spoken = page.locator("#loop-words li").all_text_contents()
    assert [line.partition(":")[0] for line in spoken[:5]] == ["Serve", "Log", "Join", "Learn", "Sync"]
    assert all("not working" not in line for line in spoken)


def test_dots_run_along_the_arrows_unless_motion_is_unwanted(loop: Any, open_page: Callable[..., Any]) -> None:
    lively = connected(open_page(loop.address))
    expect(lively.locator(".dots .on-impression").first).to_be_attached(timeout=PATIENCE_MS)
    expect(lively.locator(".dots .on-example").first).to_be_attached(timeout=PATIENCE_MS)
    expect(lively.locator("#loop-hint")).to_contain_text("dot")
    calm = connected(open_page(loop.address, calm=True))
    expect(stage(calm, "serve").locator(".figure")).to_have_text(re.compile(r"\d"))
    assert calm.locator(".dots > *").count() == 0
    expect(calm.locator("#loop-hint")).to_contain_text("without motion")


def test_charts_draw_the_past_and_can_be_read_with_the_keyboard(loop: Any, open_page: Callable[..., Any]) -> None:
    page = connected(open_page(loop.address))
    chart = page.get_by_role("slider", name="Rows in the tables")
    expect(chart).to_have_attribute("aria-valuetext", re.compile(r"now: rows [\d,]+"), timeout=PATIENCE_MS)
    expect(chart.locator("path.line")).to_have_attribute("d", re.compile(r"^M[\d. ]+L"), timeout=PATIENCE_MS)
    chart.focus()
    page.keyboard.press("ArrowLeft")
    expect(chart).to_have_attribute("aria-valuetext", re.compile(r"^\d\d:\d\d:\d\d: rows"))
    at = page.locator(".chart .when").all_text_contents()
    assert len(set(at)) == 1, "all charts show the same moment"
    assert re.fullmatch(r"\d\d:\d\d:\d\d", at[0])
    page.keyboard.press("Home")
    first = chart.get_attribute("aria-valuenow")
    page.keyboard.press("ArrowRight")
    assert int(chart.get_attribute("aria-valuenow") or -1) == int(first or 0) + 1
    page.keyboard.press("Escape")
    expect(chart).to_have_attribute("aria-valuetext", re.compile("^now"))
    chart.hover()
    expect(page.locator(".chart .when").first).to_have_text(re.compile(r"\d\d:\d\d:\d\d"))


def test_the_figures_are_there_as_a_table_too(loop: Any, open_page: Callable[..., Any]) -> None:
    page = connected(open_page(loop.address))
    page.get_by_text("The same figures as a table").click()
    expect(page.locator("#numbers thead th")).to_have_count(9, timeout=PATIENCE_MS)
    assert "staleness" in (page.locator("#numbers thead").text_content() or "").lower()


def test_with_the_keyboard_alone_a_new_person_takes_five_of_a_genre_and_the_slate_follows(
    loop: Any, open_page: Callable[..., Any]
) -> None:
    watched = open_page(loop.address)
    page = connected(watched)
    _tab_to(page, "document.activeElement.id === 'newcomer'")
    page.keyboard.press("Enter")
    expect(page.locator("#slate li")).to_have_count(10, timeout=PATIENCE_MS)
    expect(page.locator("#person")).to_contain_text("guest-")
    first = slate_of(page)
    genre = page.locator("#slate .chip:not(.fresh)").first.inner_text()
    taken = []
    for _ in range(5):
        of_genre = f"[...document.activeElement.querySelectorAll('.chip')].some((c) => c.textContent === '{genre}')"
        anything = "document.activeElement.closest('#slate') !== null"
        has_genre = page.locator("#slate li .chip", has_text=genre).count() > 0
        _tab_to(page, f"({anything}) && ({of_genre})" if has_genre else anything)
        item = page.evaluate("document.activeElement.closest('li').dataset.item")
        page.keyboard.press("Enter")
        expect(page.locator(f"#slate li[data-item='{item}']")).to_have_count(0, timeout=PATIENCE_MS)
        assert page.evaluate("document.activeElement.closest('#slate') !== null"), "the focus stays in the slate"
        taken.append(item)
        for step in ("kept", "read", "learned"):
            expect(page.locator(f"#journey [data-step={step}]")).to_have_class(
                re.compile("reached"), timeout=PATIENCE_MS
            )
    last = slate_of(page)
    assert last != first
    assert not set(taken) & set(last), "what was taken is not shown again"
    expect(page.locator("#journey [data-step=learned] .took")).to_have_text(re.compile(r"after [\d.]+ (ms|s)"))
    expect(page.locator("#said")).to_contain_text("your click")
    assert page.locator("#slate [data-change=in], #slate [data-change=up], #slate [data-change=down]").count() > 0
    expect(page.locator("#share .row").first).to_be_visible()
    assert page.locator("#recent li").count() == 5
    assert watched.problems == []


def _tab_to(page: Page, condition: str) -> None:
    for _ in range(80):
        if page.evaluate(condition):
            return
        page.keyboard.press("Tab")
    raise AssertionError(f"80 times Tab did not lead to {condition}")


def test_an_existing_person_is_found_by_the_beginning_of_the_id(loop: Any, open_page: Callable[..., Any]) -> None:
    page = connected(open_page(loop.address))
    wanted = str(loop.dataset.users["id"].to_pylist()[0])
    field = page.get_by_role("combobox", name="Be a person, by id")
    field.fill(wanted)
    option = page.get_by_role("option").filter(has=page.locator(".id", has_text=re.compile(f"^{wanted}$")))
    expect(option).to_be_visible(timeout=PATIENCE_MS)
    field.press("ArrowDown")
    expect(option).to_have_attribute("aria-selected", "true")
    expect(field).to_have_attribute("aria-activedescendant", option.get_attribute("id") or "")
    with page.expect_response(re.compile("/v1/users")):
        page.evaluate("document.getElementById('person-id').dispatchEvent(new Event('input'))")
    page.wait_for_timeout(100)
    expect(option).to_have_attribute("aria-selected", "true")  # a list that comes late takes no choice away
    field.press("Enter")
    expect(page.locator("#slate li")).to_have_count(10, timeout=PATIENCE_MS)
    expect(page.locator("#person .who")).to_contain_text(wanted)
    expect(page.locator("#person dl.traits")).to_contain_text("segment")
    assert field.get_attribute("aria-expanded") == "false"


def test_an_id_that_nobody_has_is_somebody_new_and_no_id_is_a_friendly_error(
    loop: Any, open_page: Callable[..., Any]
) -> None:
    page = connected(open_page(loop.address))
    page.get_by_role("button", name="Be them").click()
    expect(page.locator("#pick-problem")).to_contain_text("Type an id first")
    page.get_by_role("combobox").fill("nobody / ?&#")
    page.get_by_role("button", name="Be them").click()
    expect(page.locator("#slate li")).to_have_count(10, timeout=PATIENCE_MS)
    expect(page.locator("#person")).to_contain_text("Nobody knows you yet")
    expect(page.locator("#pick-problem")).to_be_hidden()


def test_a_press_right_after_the_slate_moved_is_not_taken_for_what_stands_there_now(
    loop: Any, open_page: Callable[..., Any]
) -> None:
    page = connected(open_page(loop.address))
    become_someone_new(page)
    page.evaluate(
        """async () => {
          const { Slate } = await import("/console/slate.js");
          const list = document.createElement("ol");
          document.body.append(list);
          window.picked = [];
          window.probe = new Slate(list, (one) => window.picked.push(one.item));
          const item = (name) => ({ item: name, probability: 0.5, attributes: {} });
          window.probe.show([item("a"), item("b")], []);
          window.probe.show([item("b"), item("a")], [item("a"), item("b")]);
          const press = (detail) => list.querySelector("button").dispatchEvent(new MouseEvent("click", { detail }));
          press(1);
          press(0);
        }"""
    )
    assert page.evaluate("window.picked") == ["b"], "only the keyboard's press counts so early"


@pytest.mark.parametrize(("scheme", "other"), [("light", "Dark"), ("dark", "Light")])
def test_colours_follow_the_system_until_chosen_and_the_choice_is_remembered(
    loop: Any, open_page: Callable[..., Any], scheme: str, other: str
) -> None:
    page = connected(open_page(loop.address, scheme=scheme))

    def brightness() -> float:
        colour = page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
        return sum(int(part) for part in re.findall(r"\d+", colour)[:3]) / 3

    assert (brightness() > 128) is (scheme == "light")
    page.get_by_role("radio", name=other).check(force=True)
    assert (brightness() > 128) is (other == "Light")
    page.reload()
    assert (brightness() > 128) is (other == "Light")
    expect(page.get_by_role("radio", name=other)).to_be_checked()


OVERFLOW = """() => {
  const parts = document.querySelectorAll("main button, main input, .stone, #share *");
  const boxes = [...parts].map((node) => node.getBoundingClientRect());
  return [document.documentElement.scrollWidth - innerWidth,
          ...boxes.map((box) => Math.round(Math.max(box.right - innerWidth, -box.left)))];
}"""


def test_nothing_is_wider_than_the_page_from_a_phone_to_a_wide_screen(loop: Any, open_page: Callable[..., Any]) -> None:
    page = connected(open_page(loop.address, width=320))
    become_someone_new(page)
    page.get_by_role("combobox").focus()
    expect(page.get_by_role("option").first).to_be_visible(timeout=PATIENCE_MS)
    for width in (320, 360, 700, 1024, 1920):
        page.set_viewport_size({"width": width, "height": 780})
        shape = "wide" if width > 620 else "narrow"
        expect(page.locator(f".ring.{shape}")).to_have_count(1)
        assert max(page.evaluate(OVERFLOW)) <= 0, f"{width} pixels wide"


def test_on_a_phone_everything_that_is_pressed_is_large_enough(loop: Any, open_page: Callable[..., Any]) -> None:
    page = connected(open_page(loop.address, width=360, height=780))
    become_someone_new(page)
    sizes = page.locator("main button:visible, main input:visible").evaluate_all(
        "nodes => nodes.map((node) => Math.min(node.offsetWidth, node.offsetHeight))"
    )
    assert min(sizes) >= 24, "WCAG 2.2, success criterion 2.5.8: at least 24 by 24"


def test_focus_can_be_seen(loop: Any, open_page: Callable[..., Any]) -> None:
    page = connected(open_page(loop.address))
    become_someone_new(page)
    for name in ("#person-id", "#newcomer", "#again", "#slate li button"):
        page.locator(name).first.focus()
        page.keyboard.press("Shift")  # makes the focus one of the keyboard
        width = page.evaluate("parseFloat(getComputedStyle(document.activeElement).outlineWidth)")
        assert width >= 2, name


def test_who_tabs_meets_the_slate_before_asking_again_and_no_words_lie_on_a_line(
    loop: Any, open_page: Callable[..., Any]
) -> None:
    page = connected(open_page(loop.address))
    become_someone_new(page)
    page.locator("#newcomer").focus()
    met = []
    for _ in range(11):
        page.keyboard.press("Tab")
        met.append(
            page.evaluate("document.activeElement.closest('[data-item]')?.dataset.item ?? document.activeElement.id")
        )
    assert met == [*slate_of(page), "again"]
    expect(page.locator(".legend", has_text="promised: 1 s")).to_be_visible()
    assert "promised" not in "".join(page.locator(".plot").all_text_contents())


def test_a_server_that_asks_for_a_token_gets_one(
    open_page: Callable[..., Any], serve_app: Callable[[FastAPI], Any], tmp_path: Path
) -> None:
    schema = Schema(Slot("user"), Slot("item"), Label("click"))
    folders = {name: tmp_path / name for name in ("log_folder", "snapshot_folder", "state_folder")}
    app = create_app(ServeSettings(schema=schema, token="sixteen-letters-!", **folders))
    mount(app)
    page = open_page(serve_app(app).address).page
    expect(page.locator("#notice-text")).to_contain_text("access token", timeout=PATIENCE_MS)
    page.get_by_label("Access token").fill("sixteen-letters-!")
    page.get_by_role("button", name="Use it").click()
    expect(page.locator("#link")).to_have_attribute("data-state", "up", timeout=PATIENCE_MS)
    expect(page.locator("#notice")).to_be_hidden()


def test_a_trainer_that_is_down_is_shown_while_slates_go_on(loop: Any, open_page: Callable[..., Any]) -> None:
    page = connected(open_page(loop.address))
    become_someone_new(page)
    loop.stop_trainer()
    try:
        expect(stage(page, "learn")).to_have_class(re.compile("is-down"), timeout=PATIENCE_MS)
        expect(stage(page, "learn").locator(".unit")).to_have_text(re.compile("down for"))
        expect(stage(page, "sync").locator(".unit")).to_have_text("nothing new to bring")
        expect(stage(page, "join")).not_to_have_class(re.compile("is-down"))
        before = slate_of(page)
        page.locator("#slate li button").first.press("Enter")
        expect(page.locator(f"#slate li[data-item='{before[0]}']")).to_have_count(0, timeout=PATIENCE_MS)
        expect(page.locator("#journey [data-step=kept]")).to_have_class(re.compile("reached"))
    finally:
        loop.start_trainer()
    expect(stage(page, "learn")).not_to_have_class(re.compile("is-down"), timeout=PATIENCE_MS)
    expect(page.locator("#journey [data-step=learned]")).to_have_class(re.compile("reached"), timeout=PATIENCE_MS)


def test_the_page_says_that_the_server_is_away_and_goes_on_when_it_is_back(
    loop: Any, open_page: Callable[..., Any]
) -> None:
    page = connected(open_page(loop.address))
    become_someone_new(page)

    def while_nobody_answers() -> None:
        expect(page.locator("#link")).to_have_attribute("data-state", "away", timeout=PATIENCE_MS)
        expect(page.locator("#notice-text")).to_contain_text("not answering")
        expect(page.locator(".ring")).to_have_class(re.compile("is-away"))
        page.locator("#slate li button").first.press("Enter")
        expect(page.locator("#slate-problem")).to_contain_text("not answering", timeout=PATIENCE_MS)
        assert len(slate_of(page)) == 10, "what was shown stays"

    loop.restart_server(while_nobody_answers)
    connected_again = time.monotonic()
    expect(page.locator("#link")).to_have_attribute("data-state", "up", timeout=PATIENCE_MS)
    assert time.monotonic() - connected_again < 15
    expect(page.locator("#notice")).to_be_hidden()
    expect(page.locator("#slate-problem")).to_be_hidden()
    taken = slate_of(page)[0]
    page.locator("#slate li button").first.press("Enter")
    expect(page.locator(f"#slate li[data-item='{taken}']")).to_have_count(0, timeout=PATIENCE_MS)

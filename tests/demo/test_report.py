"""The demo's accounts and plan, without running it."""

import io
import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from dolmen.demo.freshness import Percentiles
from dolmen.demo.report import _COURSES, _MEASURES, Account, DemoReport, _accounts
from dolmen.demo.setup import DemoNotes, DemoOptions
from dolmen.errors import ConfigError

JOIN: dict[str, Any] = {
    "items_shown": 100,
    "positives": 7,
    "positives_late": 2,
    "negatives_kept": 20,
    "negatives_dropped": 70,
    "items_waiting": 3,
    "actions_read": 14,
    "actions_duplicate": 1,
    "actions_waiting": 4,
}
EVENTS = {
    "impressions_sent": 100,
    "impressions_acknowledged": 100,
    "impressions_joined": 100,
    "slates_unread": 0,
    "actions_sent": 15,
    "actions_acknowledged": 15,
    "actions_joined": 13,
    "actions_unread": 2,
    "examples": 29,
    "trained": 29,
}


def open_accounts(events: dict[str, int], join: dict[str, Any], *, is_alone: bool = True) -> list[str]:
    return [name for name, one in _accounts(events, join, is_alone=is_alone).items() if not one.closes]


def test_accounts_close_where_each_event_is_joined_or_unread() -> None:
    assert open_accounts(EVENTS, JOIN) == []


@pytest.mark.parametrize(
    ("where", "name", "off", "which"),
    [
        ("events", "impressions_joined", -1, "every acknowledged impression was joined"),
        ("events", "impressions_joined", 1, "every acknowledged impression was joined"),
        ("events", "slates_unread", 1, "no slate is unread"),
        ("events", "actions_unread", -1, "every acknowledged action was joined or is unread"),
        ("events", "actions_joined", 1, "every acknowledged action was joined or is unread"),
        ("events", "trained", 1, "every example was learned"),
        ("events", "trained", -1, "every example was learned"),
        ("join", "negatives_dropped", 1, "every item shown has one fate"),
        ("join", "actions_read", 1, "every action read has one fate"),
    ],
)
def test_one_event_too_many_or_too_few_leaves_the_accounts_open(where: str, name: str, off: int, which: str) -> None:
    events, join = dict(EVENTS), dict(JOIN)
    books: dict[str, Any] = events if where == "events" else join
    books[name] += off
    assert open_accounts(events, join) == [which]


def test_only_what_was_not_acknowledged_may_be_there_or_not() -> None:
    unsure = {**EVENTS, "impressions_sent": 110}
    for joined, closes in ((99, False), (100, True), (110, True), (111, False)):
        assert (not open_accounts({**unsure, "impressions_joined": joined}, JOIN)) == closes
    assert Account(5, 3, None).closes, "beside visitors of the page there may be more, never fewer"
    assert not Account(2, 3, None).closes
    assert open_accounts({**EVENTS, "impressions_joined": 130}, JOIN, is_alone=False) == []


def options(folder: Path, **changes: Any) -> DemoOptions:
    return DemoOptions(data="world", state=folder, **changes)


def test_a_demo_that_goes_on_keeps_its_plan(tmp_path: Path) -> None:
    first = DemoNotes(options(tmp_path, event_count=500, rate=30.0))
    assert first.is_new
    first.save(7)
    (tmp_path / "dolmen.toml").touch()
    again = DemoNotes(options(tmp_path, headless=True))
    assert (again.is_new, again.slate_count_done) == (False, 7)
    assert (again.event_count, again.events_per_second) == (500, 30.0), "left out: as it was begun"
    again.save(8)
    same = DemoNotes(options(tmp_path, event_count=500, rate=30.0))
    assert (same.slate_count_done, same.event_count) == (8, 500)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"event_count": 600}, "a demo with --events left out, not 600"),
        ({"rate": 60.0}, r"a demo with --rate 300\.0, not 60\.0"),
        ({"seed": 3}, "a demo with --seed 0, not 3"),
    ],
)
def test_another_plan_is_refused_and_changes_nothing(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    """Its window and its frozen copy were chosen for the first."""
    DemoNotes(options(tmp_path)).save(7)
    before = (tmp_path / "demo.json").read_text()
    with pytest.raises(ConfigError, match=message):
        DemoNotes(options(tmp_path, **changes))
    assert (tmp_path / "demo.json").read_text() == before
    assert DemoNotes(options(tmp_path, fresh=True, **changes)).is_new


@pytest.mark.parametrize("fresh", [True, False])
@pytest.mark.parametrize("left", ["log/actions-0/0.log", "dolmen.toml"])
def test_a_shops_folder_is_refused_and_left_as_it_is(tmp_path: Path, left: str, fresh: bool) -> None:
    (tmp_path / left).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / left).write_text("the shop's")
    with pytest.raises(ConfigError, match=r"is no demo's.*--state names another folder"):
        DemoNotes(options(tmp_path, fresh=fresh))
    assert (tmp_path / left).read_text() == "the shop's"


def test_only_what_a_demo_wrote_is_deleted_and_its_notes_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    DemoNotes(options(tmp_path)).save(7)
    for name in ("dolmen.toml", "mine.txt"):
        (tmp_path / name).write_text("")
    (tmp_path / "logs").mkdir()
    with monkeypatch.context() as patched:
        patched.setattr("shutil.rmtree", lambda _: 1 / 0)  # killed on the way
        with pytest.raises(ZeroDivisionError):
            DemoNotes(options(tmp_path, fresh=True))
    assert DemoNotes(options(tmp_path, fresh=True)).is_new
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


@pytest.mark.parametrize("name", ["movielens-100k", "world-drifting"])
def test_a_committed_report_has_the_shape_that_is_written_today(name: str) -> None:
    told = json.loads((Path(__file__).parents[2] / "docs" / "results" / f"demo-{name}.json").read_text())
    assert set(told) == {"program", "machine", "accounts_close", *(field.name for field in fields(DemoReport))}
    assert set(told["progressive"]) == set(_COURSES)
    for course in told["progressive"].values():
        assert set(course) == {*_MEASURES, "count"}


@pytest.mark.parametrize(("sent_by_others", "is_alone"), [(3, True), (0, True), (3, False)])
def test_what_others_sent_is_told_as_theirs(sent_by_others: int, is_alone: bool) -> None:
    """Beside a page others are expected; without one they spoil the books, and the summary must not leave that open."""
    events = {**EVENTS, "actions_joined": EVENTS["actions_joined"] + sent_by_others}
    known = {field.name: None for field in fields(DemoReport)}
    counts = {"positives": 9, "positives_late": 2, "negatives_kept": 20, "negatives_dropped": 70, "waiting": 0}
    never, empty = Percentiles(0, None, None, None), {"resident_bytes": {}, "progressive": {}}
    numbers = dict.fromkeys(("events_per_second", "items_shown_per_second", "wall_seconds"), 1.0)
    accounts = _accounts(events, JOIN, is_alone=is_alone)
    times = {"staleness_seconds": never, "recommend_latency_ms": never}
    told: dict[str, Any] = {**known, **numbers, **empty, **times, "events": events | counts, "accounts": accounts}
    report = DemoReport(**told)
    spoilt = sent_by_others > 0 and is_alone
    assert (report.of_others, report.accounts_close) == ((0, sent_by_others), not spoilt)
    console = Console(width=300, file=io.StringIO())
    with console.capture() as printed:
        console.print(report.table())
    told_of = f"during the run (0 items shown, {sent_by_others} actions), so its figures are not of the replay alone"
    assert (told_of in printed.get()) is (sent_by_others > 0)
    assert ("run it again" in printed.get()) is spoilt
    assert "9 positives (2 of them late), 20 negatives kept" in printed.get()
    assert ("exit status" in printed.get()) is spoilt

"""The joiner against a naive twin, its rules one by one, and its accounts."""

import json
import tempfile
import threading
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dolmen.clock import ManualClock, parse_duration_us
from dolmen.errors import ConfigError, LogError
from dolmen.events import (
    Action,
    EmbeddedLog,
    Examples,
    Features,
    Group,
    Impression,
    JoinConfig,
    Joiner,
    Retention,
    decode,
    decode_examples,
    encode,
)
from dolmen.events.sampling import is_kept
from dolmen.features import Dense, Label, Schema, Slot, values_of
from dolmen.features.fids import RawId

SCHEMA = Schema(
    Slot("user"),
    Slot("item"),
    Slot("history", table="item", many=True),
    Dense("hour", default=0.5),
    Dense("price"),
    Label("click"),
    Label("sold", action="buy"),
)
SECOND = 1_000_000
ITEMS = [0, 1, 2]


def slate(request_id: str, event_time_us: int, items: list[int] | None = None, **changes: Any) -> bytes:
    shown = ITEMS if items is None else items
    return encode(
        Impression(
            request_id=request_id,
            event_time_us=event_time_us,
            user=7,
            version=1,
            surface="home",
            shared=changes.pop("shared", Features(slots={"user": [7], "history": [1, 2]})),
            items=list(shown),
            item_slots={"item": [[item] for item in shown]},
            **changes,
        )
    )


def action(request_id: str | None, item: int, kind: str = "click", event_id: str | None = None) -> bytes:
    return encode(Action(event_id, request_id, 7, item, kind))


Row = tuple[str, RawId, float, float, float]  # request id, item, click, sold, sampling rate (rounded)


def examples_of(log: EmbeddedLog) -> list[Examples]:
    offset, end = log.bounds("examples")
    records = log.read("examples", 0, offset, max_records=max(end - offset, 1), max_bytes=1 << 30)
    return [decode_examples(SCHEMA, record.value) for record in records]


def rows_of(log: EmbeddedLog) -> Counter[Row]:
    rows: Counter[Row] = Counter()
    for examples in examples_of(log):
        batch = examples.batch
        items = values_of(batch.slot("item").values.numpy()).tolist()
        labels = zip(batch.labels["click"].tolist(), batch.labels["sold"].tolist(), strict=True)
        rates = [round(rate, 6) for rate in batch.sampling_rates.tolist()]
        for request_id, item, (click, sold), rate in zip(examples.request_ids, items, labels, rates, strict=True):
            rows[request_id, item, click, sold, rate] += 1
    return rows


def check_accounts(figures: dict[str, Any]) -> None:
    """Every item shown and every action read is in exactly one of its fates."""
    left = figures["positives"] + figures["negatives_kept"] + figures["negatives_dropped"]
    assert figures["items_shown"] == left + figures["items_waiting"]
    joined = figures["positives"] + figures["positives_again"] + figures["positives_late"]
    fates = ("duplicate", "other", "unattributed", "unmatched", "waiting", "expired", "bad")
    assert figures["actions_read"] == joined + sum(figures[f"actions_{fate}"] for fate in fates)
    assert figures["examples"] == joined + figures["negatives_kept"]


@dataclass
class TwinSlate:
    items: list[RawId]
    close_us: int
    is_closed: bool = False
    gone: set[RawId] = field(default_factory=set)  # items that have left
    kinds: dict[RawId, set[str]] = field(default_factory=dict)


@dataclass
class Twin:
    """The rules of the joiner over plain dictionaries, without disk, batches or cache."""

    config: JoinConfig
    stream_us: int = 0
    log_us: int = 0
    slates: dict[str, TwinSlate] = field(default_factory=dict)
    early: dict[str, tuple[int, list[tuple[RawId, str]]]] = field(default_factory=dict)
    rows: Counter[Row] = field(default_factory=Counter)

    def flow(self, time_us: int) -> None:
        if self.log_us:
            self.stream_us += max(time_us - self.log_us, 0)
        self.log_us = max(self.log_us, time_us)

    def take(self, time_us: int, event: Impression | Action) -> None:
        self.flow(time_us)
        if isinstance(event, Impression):
            ahead_us = parse_duration_us(self.config.ahead_max)
            self.stream_us = max(self.stream_us, min(event.event_time_us, time_us + ahead_us))
        self.meet_due()
        if isinstance(event, Impression):
            if event.request_id not in self.slates:
                close_us = self.stream_us + parse_duration_us(self.config.window)
                self.slates[event.request_id] = TwinSlate(event.items, close_us)
                for item, kind in self.early.pop(event.request_id, (0, []))[1]:
                    self.join(event.request_id, item, kind)
        elif event.kind in ("click", "buy") and event.request_id is not None:
            if event.request_id in self.slates:
                self.join(event.request_id, event.item, event.kind)
            else:
                due_us = self.stream_us + parse_duration_us(self.config.retention)
                waiting = self.early.setdefault(event.request_id, (due_us, []))[1]
                if (event.item, event.kind) not in waiting:
                    waiting.append((event.item, event.kind))

    def join(self, request_id: str, item: RawId, kind: str) -> None:
        found = self.slates[request_id]
        kinds = found.kinds.setdefault(item, set())
        if item in found.items and kind not in kinds:
            kinds.add(kind)
            found.gone.add(item)
            self.rows[request_id, item, float("click" in kinds), float("buy" in kinds), 1.0] += 1

    def meet_due(self) -> None:
        retention_us = parse_duration_us(self.config.retention)
        for request_id, found in list(self.slates.items()):
            if not found.is_closed and found.close_us <= self.stream_us:
                found.is_closed = True
                for item in set(found.items) - found.gone:
                    if is_kept(self.config.seed, request_id, item, self.config.negative_rate):
                        self.rows[request_id, item, 0.0, 0.0, self.config.negative_rate] += 1
            if found.close_us + retention_us <= self.stream_us:
                del self.slates[request_id]
        for request_id, (due_us, _) in list(self.early.items()):
            if due_us <= self.stream_us:
                del self.early[request_id]


REQUESTS = st.sampled_from(["r0", "r1", "r2", "r3"])
OPERATIONS = st.one_of(
    st.tuples(
        st.just("slate"),
        REQUESTS,
        st.sampled_from([0, 0, 0, -3 * SECOND, -(10**14), 3 * SECOND, 10**14]),  # event time against log time
        st.lists(st.sampled_from([0, 1, 2, 3]), min_size=1, max_size=4, unique=True),
    ),
    st.tuples(
        st.just("action"),
        st.one_of(REQUESTS, REQUESTS, REQUESTS, st.none()),
        st.sampled_from([0, 1, 2, 3]),
        st.sampled_from(["click", "click", "buy", "view"]),
    ),
    st.tuples(st.just("pass"), st.sampled_from(["1ms", "4s", "11s", "61s"])),
    st.tuples(st.just("step")),
    st.tuples(st.just("restart")),
)


@pytest.mark.property
@settings(max_examples=150, deadline=None)
@given(
    operations=st.lists(OPERATIONS, min_size=1, max_size=40),
    rate=st.sampled_from([1.0, 0.5]),
    cache_max=st.sampled_from([1, 100]),
)
def test_joiner_agrees_with_its_naive_twin(operations: list[Any], rate: float, cache_max: int) -> None:
    """Random order, duplicates, late and early events, bad clocks, restarts: the same examples, however steps fall."""
    config = JoinConfig(negative_rate=rate, cache_max=cache_max, retention="60s", batch_max=3, read_max=4, seed=3)
    clock = ManualClock(1_700_000_000 * SECOND)
    with tempfile.TemporaryDirectory() as folder, EmbeddedLog(Path(folder) / "log", clock=clock) as log:
        joiner = Joiner(SCHEMA, log, Path(folder) / "join", config, clock, map_size=1 << 17)
        for operation in [*operations, ("pass", "1ms"), ("step",)]:
            clock.advance("1us")  # so that each event has its own log time, and the order is plain
            match operation:
                case "slate", request_id, offset_us, items:
                    log.append("impressions", [slate(request_id, max(clock.now_us() + offset_us, 0), items)])
                case "action", request_id, item, kind:
                    log.append("actions", [action(request_id, item, kind)])
                case ("pass", duration):
                    clock.advance(duration)
                case ("step",):
                    while joiner.step():
                        check_accounts(joiner.figures())
                case _:
                    joiner.close()
                    joiner = Joiner(SCHEMA, log, Path(folder) / "join", config, clock)
        figures = joiner.figures()
        joiner.close()

        twin = Twin(config)
        inputs = [
            (record.time_us, decode(kind, record.value))
            for topic, kind in (("impressions", Impression), ("actions", Action))
            for record in log.read(topic, 0, 0)
        ]
        for time_us, event in sorted(inputs, key=lambda pair: pair[0]):
            twin.take(time_us, event)
        twin.flow(clock.now_us())
        twin.meet_due()
        assert rows_of(log) == twin.rows
        check_accounts(figures)
        assert figures["watermark_us"] == twin.stream_us or not inputs
        assert figures["actions_waiting"] == sum(len(waiting) for _, waiting in twin.early.values())


@pytest.fixture
def joiner(log: EmbeddedLog, clock: ManualClock, tmp_path: Path) -> Any:
    made = Joiner(SCHEMA, log, tmp_path / "join", JoinConfig(), clock)
    yield made
    check_accounts(made.figures())
    made.close()


def settle(joiner: Joiner) -> None:
    while joiner.step():
        pass


def test_positive_leaves_at_once_and_negatives_when_the_window_closes(
    log: EmbeddedLog, clock: ManualClock, joiner: Joiner
) -> None:
    log.append("impressions", [slate("r", clock.now_us())])
    log.append("actions", [action("r", 1)])
    settle(joiner)
    assert rows_of(log) == {("r", 1, 1.0, 0.0, 1.0): 1}
    clock.advance("9999ms")
    settle(joiner)
    assert (joiner.figures()["items_waiting"], sum(rows_of(log).values())) == (2, 1)
    clock.advance("1ms")
    joiner.step()
    assert rows_of(log) == {("r", 1, 1.0, 0.0, 1.0): 1, ("r", 0, 0.0, 0.0, 1.0): 1, ("r", 2, 0.0, 0.0, 1.0): 1}


def test_event_time_closes_windows_faster_than_the_clock(log: EmbeddedLog, joiner: Joiner) -> None:
    """A replay of the past: days pass in the events while the machine's clock stands nearly still."""
    past_us = 900_000_000 * SECOND
    log.append(
        "impressions", [slate("r1", past_us), slate("r2", past_us + 10 * SECOND), slate("r3", past_us + 5 * SECOND)]
    )
    settle(joiner)
    assert set(rows_of(log)) == {("r1", item, 0.0, 0.0, 1.0) for item in ITEMS}


def test_backlog_of_one_input_is_not_overtaken_by_the_other(
    tmp_path: Path, log: EmbeddedLog, clock: ManualClock
) -> None:
    """After downtime there are many actions and few slates: a later hour's slate must not close the first window."""
    log.append("impressions", [slate("r", clock.now_us())])
    for item in ITEMS:
        clock.advance("1s")
        log.append("actions", [action("r", item)])
    clock.advance("1h")
    log.append("impressions", [slate("later", clock.now_us())])
    joiner = Joiner(SCHEMA, log, tmp_path / "join", JoinConfig(read_max=2), clock)
    settle(joiner)
    figures = joiner.figures()
    assert (figures["positives"], figures["positives_late"], figures["negatives_kept"]) == (3, 0, 0)
    joiner.close()


def test_columns_hold_what_serving_saw(log: EmbeddedLog, clock: ManualClock, joiner: Joiner) -> None:
    shown_us = clock.now_us() - 5
    shared = Features(slots={"user": [7], "history": [3, 4], "unknown": [9]}, dense={"hour": 0.25})
    value = slate("r", shown_us, [5, 6], shared=shared, item_dense={"price": [1.5, 2.5]}, probabilities=[0.1, 0.2])
    log.append("impressions", [value])
    log.append("actions", [action("r", 6), action("r", 5)])
    settle(joiner)
    (examples,) = examples_of(log)
    batch = examples.batch
    assert batch.slot("item").to_lists() == [[6], [5]]
    assert batch.slot("user").to_lists() == [[7], [7]]
    assert batch.slot("history").to_lists() == [[3, 4], [3, 4]]
    assert batch.dense["price"].tolist() == [2.5, 1.5]
    assert batch.dense["hour"].tolist() == [0.25, 0.25]
    assert batch.served_probabilities.tolist() == torch.tensor([0.2, 0.1]).tolist()
    assert batch.event_times_us.tolist() == [shown_us, shown_us]
    assert batch.weights.tolist() == [1.0, 1.0]
    assert examples.positions == {"impressions/0": 1, "actions/0": 2}


def test_what_a_slate_lacks_is_empty_or_the_default(log: EmbeddedLog, clock: ManualClock, joiner: Joiner) -> None:
    log.append("impressions", [slate("r", clock.now_us(), [5], shared=Features())])
    log.append("actions", [action("r", 5)])
    settle(joiner)
    batch = examples_of(log)[0].batch
    assert (batch.slot("user").to_lists(), batch.slot("history").to_lists()) == ([[]], [[]])
    assert (batch.dense["hour"].tolist(), batch.dense["price"].tolist()) == ([0.5], [0.0])
    assert batch.served_probabilities.isnan().all()


def test_late_positive_follows_its_negative_and_is_counted(
    log: EmbeddedLog, clock: ManualClock, joiner: Joiner
) -> None:
    log.append("impressions", [slate("r", clock.now_us(), [5])])
    settle(joiner)
    clock.advance("2d")
    settle(joiner)
    log.append("actions", [action("r", 5)])
    settle(joiner)
    assert rows_of(log) == {("r", 5, 0.0, 0.0, 1.0): 1, ("r", 5, 1.0, 0.0, 1.0): 1}
    figures = joiner.figures()
    assert (figures["negatives_kept"], figures["positives"], figures["positives_late"]) == (1, 0, 1)


def test_every_late_action_is_found_on_disk_after_its_slate_left_memory(
    log: EmbeddedLog, clock: ManualClock, joiner: Joiner
) -> None:
    """The card's item 9: each action joins exactly once, and the hits on disk are the slates of late actions."""
    requests = [f"r{number}" for number in range(50)]
    log.append("impressions", [slate(request_id, clock.now_us()) for request_id in requests])
    log.append("actions", [action(request_id, 0) for request_id in requests[:30]])
    settle(joiner)
    assert joiner.figures()["slates_from_disk"] == 0
    clock.advance("1h")
    settle(joiner)
    log.append("actions", [action(request_id, 1) for request_id in requests[20:]])
    settle(joiner)
    figures = joiner.figures()
    assert (figures["positives"], figures["positives_late"], figures["slates_from_disk"]) == (30, 30, 30)


def test_action_of_another_kind_makes_a_further_example_with_all_labels_so_far(
    log: EmbeddedLog, clock: ManualClock, joiner: Joiner
) -> None:
    log.append("impressions", [slate("r", clock.now_us(), [5])])
    log.append("actions", [action("r", 5), action("r", 5, "buy"), action("r", 5), action("r", 5, "view")])
    settle(joiner)
    assert rows_of(log) == {("r", 5, 1.0, 0.0, 1.0): 1, ("r", 5, 1.0, 1.0, 1.0): 1}
    figures = joiner.figures()
    assert (figures["positives"], figures["positives_again"]) == (1, 1)
    assert (figures["actions_duplicate"], figures["actions_other"]) == (1, 1)


def test_slate_and_actions_are_forgotten_after_retention(tmp_path: Path, log: EmbeddedLog, clock: ManualClock) -> None:
    joiner = Joiner(SCHEMA, log, tmp_path / "join", JoinConfig(retention="60s"), clock)
    log.append("impressions", [slate("r", clock.now_us(), [5])])
    log.append("actions", [action("never shown", 5)])
    settle(joiner)
    assert joiner.figures()["actions_waiting"] == 1
    clock.advance("71s")
    settle(joiner)
    joiner.step()
    assert joiner.figures()["actions_expired"] == 1
    log.append("actions", [action("r", 5)])
    settle(joiner)
    figures = joiner.figures()
    assert (figures["actions_waiting"], figures["positives_late"]) == (1, 0)  # nothing is known of "r" any more
    check_accounts(figures)
    joiner.close()


def test_impression_from_a_clock_far_ahead_closes_no_other_window(
    log: EmbeddedLog, clock: ManualClock, joiner: Joiner
) -> None:
    log.append("impressions", [slate("good", clock.now_us()), slate("bad", clock.now_us() + 10**15)])
    settle(joiner)
    assert joiner.figures()["items_waiting"] == 6
    log.append("actions", [action("good", 1), action("bad", 1)])
    settle(joiner)
    assert joiner.figures()["positives"] == 2
    newest_us = max(int(examples.batch.event_times_us.max()) for examples in examples_of(log))
    assert newest_us <= clock.now_us() + SECOND


def test_windows_go_on_closing_after_the_clock_was_set_back(tmp_path: Path, log: EmbeddedLog) -> None:
    """First a machine whose clock is a year ahead, then the mended one; both in one log, as a restart leaves it."""
    ahead = ManualClock(1_800_000_000 * SECOND)
    with EmbeddedLog(log.folder, clock=ahead) as early_log:
        early_log.append("impressions", [slate("ahead", ahead.now_us())])
        joiner = Joiner(SCHEMA, early_log, tmp_path / "join", JoinConfig(), ahead)
        settle(joiner)
        joiner.close()
    right = ManualClock(1_770_000_000 * SECOND)
    with EmbeddedLog(log.folder, clock=right) as late_log:
        joiner = Joiner(SCHEMA, late_log, tmp_path / "join", JoinConfig(), right)
        late_log.append("impressions", [slate("right", right.now_us())])
        settle(joiner)
        assert joiner.figures()["items_waiting"] == 6  # nothing closed early
        right.advance("11s")
        joiner.step()
        joiner.step()
        assert joiner.figures()["items_waiting"] == 0
        joiner.close()


def test_only_the_last_batch_of_a_step_says_that_all_was_included(
    tmp_path: Path, log: EmbeddedLog, clock: ManualClock
) -> None:
    joiner = Joiner(SCHEMA, log, tmp_path / "join", JoinConfig(batch_max=2), clock)
    log.append("impressions", [slate("r", clock.now_us())])
    log.append("actions", [action("r", item) for item in ITEMS])
    settle(joiner)
    first, last = examples_of(log)
    assert (first.batch.size, last.batch.size) == (2, 1)
    assert first.positions == {"impressions/0": 0, "actions/0": 0}
    assert last.positions == {"impressions/0": 1, "actions/0": 3}
    joiner.close()


def test_slate_that_nobody_could_act_on_makes_no_example(log: EmbeddedLog, clock: ManualClock, joiner: Joiner) -> None:
    log.append("impressions", [slate("probe", clock.now_us(), learn=False), slate("person", clock.now_us())])
    log.append("actions", [action("person", 0)])
    joiner.step()
    clock.advance("1h")
    joiner.step()
    assert {request_id for request_id, *_ in rows_of(log)} == {"person"}
    assert joiner.figures()["slates_unlearned"] == 1
    check_accounts(joiner.figures())


def test_bad_events_are_counted_and_passed_over(log: EmbeddedLog, clock: ManualClock, joiner: Joiner) -> None:
    log.append("impressions", [b"nonsense", slate("r", clock.now_us(), [5])])
    log.append("actions", [b"", action("r", 5), action("r", 6), action(None, 5)])
    settle(joiner)
    figures = joiner.figures()
    assert (figures["slates_bad"], figures["actions_bad"], figures["positives"]) == (1, 1, 1)
    assert (figures["actions_unmatched"], figures["actions_unattributed"]) == (1, 1)
    assert [specimen[:22] for specimen in joiner.specimens] == ["impressions/0 offset 0", "actions/0 offset 0: Ac"]


def test_events_that_retention_deleted_before_they_were_read_are_counted(tmp_path: Path, clock: ManualClock) -> None:
    with EmbeddedLog(tmp_path / "log", clock=clock, retention={"actions": Retention(max_bytes=300)}) as log:
        for number in range(50):
            log.append("actions", [action("r", number)])
        first = log.bounds("actions")[0]
        assert first > 0
        joiner = Joiner(SCHEMA, log, tmp_path / "join", JoinConfig(), clock)
        settle(joiner)
        figures = joiner.figures()
        assert (figures["records_gone"], figures["actions_read"]) == (first, 50 - first)
        joiner.close()


def test_negatives_are_kept_at_the_rate_that_is_recorded(tmp_path: Path, log: EmbeddedLog, clock: ManualClock) -> None:
    rate, count = 0.2, 5000
    joiner = Joiner(SCHEMA, log, tmp_path / "join", JoinConfig(negative_rate=rate), clock)
    items = list(range(100))
    log.append("impressions", [slate(f"r{number}", clock.now_us(), items) for number in range(count // 100)])
    settle(joiner)
    clock.advance("10s")
    joiner.step()
    figures = joiner.figures()
    assert figures["negatives_kept"] + figures["negatives_dropped"] == count
    spread = (count * rate * (1 - rate)) ** 0.5
    assert abs(figures["negatives_kept"] - count * rate) < 4 * spread
    for examples in examples_of(log):
        assert examples.negative_rate == rate
        assert set(examples.batch.sampling_rates.tolist()) == {torch.tensor(rate).item()}
    joiner.close()


def test_second_joiner_on_the_same_state_is_refused(tmp_path: Path, log: EmbeddedLog, joiner: Joiner) -> None:
    with pytest.raises(LogError, match="another joiner"):
        Joiner(SCHEMA, log, tmp_path / "join")
    assert joiner.step() == 0


def test_log_that_ends_before_what_was_joined_is_refused(tmp_path: Path, log: EmbeddedLog) -> None:
    log.append("actions", [action("somewhere", 1)])
    joiner = Joiner(SCHEMA, log, tmp_path / "join")
    settle(joiner)
    joiner.close()
    message = rf"{tmp_path / 'join'} has joined actions/0 up to offset 1, and the log ends at 0: it was replaced"
    with EmbeddedLog(tmp_path / "new-log") as other, pytest.raises(ConfigError, match=message):
        Joiner(SCHEMA, other, tmp_path / "join")
    with EmbeddedLog(tmp_path / "longer-log") as other:
        other.append("actions", [action("elsewhere", 1)] * 5)
        with pytest.raises(ConfigError, match=r"has read log .* it was replaced; put that one back, or delete"):
            Joiner(SCHEMA, other, tmp_path / "join")
    again = Joiner(SCHEMA, log, tmp_path / "join")  # the refusal has let go of the folder
    assert again.step() == 0
    again.close()
    (tmp_path / "join" / "log-identity").write_bytes(b"")  # as a power cut may leave it
    Joiner(SCHEMA, log, tmp_path / "join").close()
    assert (tmp_path / "join" / "log-identity").read_text() == log.identity()


def test_run_joins_until_it_is_stopped_and_tells_its_figures(tmp_path: Path) -> None:
    log = EmbeddedLog(tmp_path / "log")
    joiner = Joiner(SCHEMA, log, tmp_path / "join", JoinConfig(window="100ms"))
    stop = threading.Event()
    thread = threading.Thread(target=joiner.run, args=(stop,))
    thread.start()
    try:
        log.append("impressions", [slate("r", 0)])
        log.append("actions", [action("r", 0)])
        offset = rows = 0
        while rows < 3:
            records = log.read("examples", 0, offset, wait_seconds=10)
            assert records
            offset, rows = offset + len(records), sum(rows_of(log).values())
        assert log.read("status", 0, 0, wait_seconds=10)[0].value.startswith(b'{"stage": "join"')
    finally:
        stop.set()
        thread.join()
        joiner.close()
        log.close()


@pytest.mark.parametrize(
    "setting", [{"window": "ten"}, {"negative_rate": 0.0}, {"negative_rate": 1.5}, {"batch_max": 0}, {"read_max": 0}]
)
def test_setting_that_cannot_be_used_is_refused(setting: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"must be|duration"):
        JoinConfig(**setting)


def test_stopped_joiner_joins_what_is_there_and_tells_it(
    tmp_path: Path, log: EmbeddedLog, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who goes on from here reads how far it got from what it told last; and nothing is left half-way."""
    log.append("impressions", [slate("r", clock.now_us())])
    log.append("actions", [action("r", 1), action("r", 2)])
    monkeypatch.setattr("dolmen.events.joiner._DRAIN_SECONDS", 60.0)  # a busy machine is no reason to fail
    told_to_stop = threading.Event()
    told_to_stop.set()
    joiner = Joiner(SCHEMA, log, tmp_path / "join", JoinConfig(read_max=1), clock)
    assert (joiner.figures()["slates_unread"], joiner.figures()["actions_unread"]) == (1, 2)
    joiner.run(told_to_stop)
    figures = joiner.figures()
    joiner.close()
    (record,) = log.read("status", 0, 0)
    told = json.loads(record.value)
    assert told["stage"] == "join"
    assert {name: told["figures"][name] for name in figures if name != "memory_bytes"} == {
        name: value for name, value in figures.items() if name != "memory_bytes"
    }
    assert (figures["actions_read"], figures["actions_unread"], figures["positives"]) == (2, 0, 2)
    assert (log.committed(Group.JOINER, "impressions"), log.committed(Group.JOINER, "actions")) == (1, 2)

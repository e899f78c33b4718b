"""The log against a plain list, and what it says where it cannot do what was asked."""

import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import lmdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from dolmen.clock import ManualClock
from dolmen.errors import LogError, OffsetGoneError
from dolmen.events import DEFAULT_RETENTION, EmbeddedLog, Retention, Topic


def values_of(log: EmbeddedLog, topic: str, partition: int = 0) -> list[bytes]:
    offset, end = log.bounds(topic, partition)
    values: list[bytes] = []
    while offset < end:
        records = log.read(topic, partition, offset, max_records=3)
        assert [record.offset for record in records] == list(range(offset, offset + len(records)))
        values += [record.value for record in records]
        offset += len(records)
    return values


VALUES = st.lists(st.binary(max_size=40), min_size=1, max_size=5)
PLACES = st.integers(min_value=0, max_value=40)


class LogAgainstList(RuleBasedStateMachine):
    """Whatever is appended, repeated, truncated, reopened or committed, the log and a list hold the same records."""

    @initialize()
    def start(self) -> None:
        self.folder = Path(tempfile.mkdtemp(dir=self.root))
        self.log = EmbeddedLog(self.folder, map_size=1 << 16)
        self.expected: list[bytes] = []
        self.first = 0
        self.appends: dict[int, tuple[int, int]] = {}
        self.committed: int | None = None

    @rule(values=VALUES)
    def append(self, values: list[bytes]) -> None:
        appended = self.log.append("t", values)
        assert (appended.first_offset, appended.repeated) == (len(self.expected), False)
        self.expected += values
        assert appended.next_offset == len(self.expected)

    @rule(values=VALUES, again=st.booleans())
    def append_as_producer(self, values: list[bytes], again: bool) -> None:
        sequence = len(self.appends) - 1 if again and self.appends else len(self.appends)
        appended = self.log.append("t", values, producer="p", sequence=sequence)
        assert appended.repeated == (sequence in self.appends)
        if not appended.repeated:
            self.appends[sequence] = (len(self.expected), len(self.expected) + len(values))
            self.expected += values
        assert (appended.first_offset, appended.next_offset) == self.appends[sequence]

    @rule(before=PLACES)
    def truncate(self, before: int) -> None:
        self.log.truncate("t", 0, before)
        self.first = max(self.first, min(before, len(self.expected)))

    @rule(offset=PLACES, max_records=st.integers(1, 6), max_bytes=st.integers(1, 90))
    def read(self, offset: int, max_records: int, max_bytes: int) -> None:
        if offset < self.first:
            with pytest.raises(OffsetGoneError):
                self.log.read("t", 0, offset)
        elif offset > len(self.expected):
            with pytest.raises(LogError):
                self.log.read("t", 0, offset)
        else:
            wanted: list[bytes] = []
            for value in self.expected[offset : offset + max_records]:
                if wanted and sum(map(len, wanted)) + len(value) > max_bytes:
                    break
                wanted.append(value)
            records = self.log.read("t", 0, offset, max_records=max_records, max_bytes=max_bytes)
            assert [record.value for record in records] == wanted

    @rule(offset=PLACES)
    def commit(self, offset: int) -> None:
        self.log.commit("g", {("t", 0): offset})
        self.committed = offset

    @rule()
    def reopen(self) -> None:
        self.log.close()
        self.log = EmbeddedLog(self.folder)

    @invariant()
    def holds_the_same(self) -> None:
        assert self.log.bounds("t") == (self.first, len(self.expected))
        assert values_of(self.log, "t") == self.expected[self.first :]
        assert self.log.committed("g", "t") == self.committed

    def teardown(self) -> None:
        if hasattr(self, "log"):
            self.log.close()

    root: Path


@pytest.mark.property
def test_log_agrees_with_a_list(tmp_path: Path) -> None:
    machine = type("Machine", (LogAgainstList,), {"root": tmp_path})
    run_state_machine_as_test(machine, settings=settings(max_examples=25, stateful_step_count=20, deadline=None))


def test_large_append_is_read_from_any_place(log: EmbeddedLog) -> None:
    values = [bytes([number % 251]) * (number * 7) for number in range(400)]  # half a megabyte: several chunks
    log.append("t", [b"before"])
    log.append("t", values)
    log.append("t", [b"x" * (1 << 20), b"after"])
    expected = [b"before", *values, b"x" * (1 << 20), b"after"]
    for offset in (0, 1, 2, 150, 300, 400, 401, 402):
        assert [record.value for record in log.read("t", 0, offset)] == expected[offset:]
    assert [record.value for record in log.read("t", 0, 401, max_bytes=10)] == expected[401:402]


def test_key_decides_the_partition_and_a_topic_keeps_its_partitions(tmp_path: Path) -> None:
    with EmbeddedLog(tmp_path, partitions={"t": 3}) as log:
        went = {
            key: log.append("t", [key], key=key).partition
            for key in (b"a", b"b", b"c", b"d", b"e", b"f", b"g", b"h", b"i")
        }
        assert len(set(went.values())) == 3
    with EmbeddedLog(tmp_path, partitions={"t": 8}) as log:
        assert (log.partitions("t"), log.topics()) == (3, ["t"])
        assert {key: log.append("t", [key], key=key).partition for key in went} == went
        with pytest.raises(LogError, match="has 3 partitions, there is no 3"):
            log.read("t", 3, 0)


def test_topic_that_nobody_has_written_is_empty_and_not_made(log: EmbeddedLog) -> None:
    assert log.read("t", 0, 0, wait_seconds=0.01) == []
    assert (log.bounds("t"), log.partitions("t"), log.topics(), log.committed("g", "t")) == ((0, 0), 1, [], None)


def test_retention_by_bytes_keeps_the_newest(tmp_path: Path) -> None:
    with EmbeddedLog(tmp_path, retention={"t": Retention(max_bytes=1000)}) as log:
        for number in range(100):
            log.append("t", [number.to_bytes(100, "big")])
        first, end = log.bounds("t")
        assert 90 <= first < end == 100
        assert values_of(log, "t") == [number.to_bytes(100, "big") for number in range(first, 100)]
        with pytest.raises(OffsetGoneError, match=f"the first is {first}"):
            log.read("t", 0, first - 1)


def test_retention_by_age_follows_the_clock(tmp_path: Path, clock: ManualClock) -> None:
    with EmbeddedLog(tmp_path, clock=clock, retention={"t": Retention(max_age="10s")}) as log:
        for _ in range(20):
            log.append("t", [b"x"])
            clock.advance("1s")
        assert log.bounds("t") == (9, 20)  # at the last append the oldest kept was 10 s old


@pytest.mark.parametrize("limit", [Retention(max_age="10s"), Retention(max_bytes=100)], ids=["age", "bytes"])
def test_retention_waits_for_every_reader(tmp_path: Path, clock: ManualClock, limit: Retention) -> None:
    """However old or many they are: a reader that was down for a week must find what it has not read."""
    retention = {"t": replace(limit, readers=("slow", "quick"))}
    with EmbeddedLog(tmp_path, clock=clock, retention=retention) as log:

        def firsts() -> int:
            clock.advance("1m")
            log.append("t", [b"x" * 60])
            return log.bounds("t")[0]

        assert [firsts() for _ in range(8)] == [0] * 8, "nobody has said yet what it needs"
        log.commit("quick", {("t", 0): 8})
        assert firsts() == 0
        log.commit("slow", {("t", 0): 3})
        assert firsts() == 3
        log.commit("other", {("t", 0): 0})
        log.commit("slow", {("t", 0): 10})
        assert firsts() == 8, "up to what the slowest has read"


@pytest.mark.property
@settings(max_examples=40, deadline=None)
@given(
    operations=st.lists(
        st.one_of(
            st.tuples(st.just("append"), st.integers(1, 4), st.integers(0, 30)),
            st.tuples(st.sampled_from(["a", "b"]), st.integers(0, 5), st.just(0)),
        ),
        max_size=40,
    )
)
def test_retention_deletes_neither_more_nor_less_than_a_list_would(operations: list[tuple[str, int, int]]) -> None:
    clock = ManualClock(now_us=1_000_000_000)
    with (
        tempfile.TemporaryDirectory() as folder,
        EmbeddedLog(
            folder, clock=clock, retention={"t": Retention(max_age="20s", readers=("a", "b"))}, map_size=1 << 16
        ) as log,
    ):
        appends: list[tuple[int, int]] = []  # (end, time) of each
        first = end = 0
        committed = {"a": 0, "b": 0}
        for what, count, seconds in operations:
            if what == "append":
                clock.advance(f"{seconds}s")
                floor = min(committed.values())
                for until, time_us in appends:  # oldest first; the first that must stay keeps all after it
                    if until <= first:
                        continue
                    if time_us >= clock.now_us() - 20_000_000 or until > floor:
                        break
                    first = until
                log.append("t", [b"x"] * count)
                end += count
                appends.append((end, clock.now_us()))
            else:
                committed[what] = min(committed[what] + count, end)
                log.commit(what, {("t", 0): committed[what]})
        assert log.bounds("t") == (first, end)


@pytest.mark.property
@settings(max_examples=40, deadline=None)
@given(
    appends=st.lists(st.lists(st.tuples(st.sampled_from("abcd-"), st.integers(0, 300)), min_size=1), max_size=8),
    compacted=st.sets(st.integers(0, 8)),
)
def test_compaction_keeps_what_a_dict_would(appends: list[list[tuple[str, int]]], compacted: set[int]) -> None:
    kept: dict[str, bytes] = {}
    with tempfile.TemporaryDirectory() as folder, EmbeddedLog(folder, map_size=1 << 16) as log:
        for number, append in enumerate(appends):
            values = [f"{name}{size}".encode() + b"%" * size * 100 for name, size in append]
            end = log.append("t", values).next_offset
            for (name, _), value in zip(append, values, strict=True):
                kept.pop(name, None)
                kept[name] = value
            if number in compacted:
                kept.pop("-", None)  # dropped
                count = log.compact("t", 0, lambda value: None if value[:1] == b"-" else value[:1])
                assert (count, log.bounds("t")) == (len(kept), (end, end + len(kept)))
                assert values_of(log, "t") == list(kept.values())
                with pytest.raises(OffsetGoneError):
                    log.read("t", 0, end - 1)
        assert log.compact("t", 0, lambda value: value[:1]) == len(kept)
        assert values_of(log, "t") == list(kept.values())


def test_every_topic_that_grows_has_a_bound_unless_it_says_why_not() -> None:
    unbounded = {Topic.CATALOGUE, Topic.PARAMETERS}  # see DEFAULT_RETENTION
    for topic in Topic:
        kept = DEFAULT_RETENTION.get(topic, Retention())
        assert (kept.max_bytes is None and kept.max_age is None) == (topic in unbounded), topic


def test_log_opened_to_be_read_only_changes_no_byte(tmp_path: Path) -> None:
    with EmbeddedLog(tmp_path) as log:
        log.append("t", [b"one", b"two"])
        log.commit("g", {("t", 0): 1})
    before = {path: path.read_bytes() for path in tmp_path.rglob("data.mdb")}
    with EmbeddedLog(tmp_path, read_only=True) as log:
        assert values_of(log, "t") == [b"one", b"two"]
        assert (log.bounds("t"), log.committed("g", "t"), log.bounds("missing")) == ((0, 2), 1, (0, 0))
        for change in (
            lambda: log.append("t", [b"three"]),
            lambda: log.append("new", [b"x"]),
            lambda: log.commit("g", {("t", 0): 2}),
            lambda: log.truncate("t", 0, 1),
            lambda: log.compact("t", 0, len),
        ):
            with pytest.raises(LogError, match="to be read only"):
                change()
        with EmbeddedLog(tmp_path) as writer, pytest.raises(LogError, match="close that first"):
            writer.append("t", [b"three"])
    assert {path: path.read_bytes() for path in tmp_path.rglob("data.mdb")} == before
    with EmbeddedLog(tmp_path) as log:
        assert log.append("t", [b"three"]).first_offset == 2


def test_space_of_deleted_records_is_used_again(tmp_path: Path) -> None:
    with EmbeddedLog(tmp_path, retention={"t": Retention(max_bytes=1 << 20)}) as log:
        for _ in range(100):
            log.append("t", [b"x" * (100 << 10)])
    assert (tmp_path / "t" / "0" / "data.mdb").stat().st_size < 4 << 20


def test_producer_remembers_its_last_1024_appends(log: EmbeddedLog) -> None:
    for sequence in range(1030):
        log.append("t", [b"x"], producer="p", sequence=sequence)
    assert log.append("t", [b"x"], producer="p", sequence=6).first_offset == 6
    with pytest.raises(ValueError, match="sequence 5 is older than 6"):
        log.append("t", [b"x"], producer="p", sequence=5)
    assert log.append("t", [b"x"], producer="q", sequence=5).repeated is False


def test_reader_waits_until_something_comes(log: EmbeddedLog) -> None:
    writer = threading.Timer(0.05, lambda: log.append("t", [b"news"]))
    writer.start()
    start = time.monotonic()
    assert [record.value for record in log.read("t", 0, 0, wait_seconds=10)] == [b"news"]
    assert time.monotonic() - start < 5
    writer.join()
    assert not log.wait({("t", 0): 1, ("other", 0): 0}, wait_seconds=0.01)
    assert log.wait({("t", 0): 0, ("other", 0): 0}, wait_seconds=0)


def test_waiting_uses_next_to_no_processor_time(log: EmbeddedLog) -> None:
    log.append("t", [b"x"])
    start = time.thread_time()
    assert not log.wait({("t", 0): 1}, wait_seconds=0.5)
    assert time.thread_time() - start < 0.05


def test_readers_and_writers_share_a_process_while_the_map_grows(tmp_path: Path) -> None:
    """The map may only change while no transaction is open: threads must wait for it, and go on."""
    with EmbeddedLog(tmp_path, map_size=1 << 16) as log, EmbeddedLog(tmp_path, map_size=1 << 16) as other:
        writers = [
            threading.Thread(target=lambda: [log.append("t", [b"x" * 5000]) for _ in range(100)]) for _ in range(2)
        ]
        for writer in writers:
            writer.start()
        offset = 0
        while offset < 200:
            offset += len(other.read("t", 0, offset, wait_seconds=1))
        for writer in writers:
            writer.join()


def test_damaged_record_is_told_by_its_offset(tmp_path: Path) -> None:
    with EmbeddedLog(tmp_path) as log:
        log.append("t", [b"good"])
        log.append("t", [b"needle" * 1000])
    path = tmp_path / "t" / "0" / "data.mdb"
    content = path.read_bytes()
    assert content.count(b"needle" * 500) > 0
    path.write_bytes(content.replace(b"needleneedle", b"needlemeedle"))
    with EmbeddedLog(tmp_path) as log:
        assert [record.value for record in log.read("t", 0, 0, max_records=1)] == [b"good"]
        with pytest.raises(LogError, match="from offset 1 are damaged"):
            log.read("t", 0, 1)


def test_foreign_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "t" / "0").mkdir(parents=True)
    with lmdb.open(str(tmp_path / "t" / "0")) as foreign, foreign.begin(write=True) as txn:
        txn.put(b"\x00", b"something else")
    with EmbeddedLog(tmp_path) as log, pytest.raises(LogError, match="no log of this version"):
        log.append("t", [b"x"])


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"topic": "t", "values": []}, "must not be empty"),
        ({"topic": "../t", "values": [b"x"]}, "a topic is named by"),
        ({"topic": "t", "values": [b"x"], "producer": "p"}, "come together"),
    ],
)
def test_mistakes_of_the_caller_add_nothing(log: EmbeddedLog, arguments: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        log.append(**arguments)
    assert log.topics() == []


def test_log_says_that_it_was_closed(tmp_path: Path) -> None:
    log = EmbeddedLog(tmp_path)
    log.append("t", [b"x"])
    log.close()
    log.close()
    with pytest.raises(LogError, match="after close"):
        log.read("t", 0, 0)

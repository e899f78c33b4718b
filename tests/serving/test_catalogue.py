"""The catalogue's flat columns against extracting every item anew, and its memory over restarts."""

from __future__ import annotations

import contextlib
import itertools
import pkgutil
import shutil
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as rules
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from dolmen.errors import ConfigError
from dolmen.events import CatalogueChange, EmbeddedLog, Topic, encode
from dolmen.events.store import Store
from dolmen.features import Batch, Dense, Jagged, Label, Schema, Slot, extract_rows
from dolmen.serving.catalogue import ITEMS_TABLE, USERS_TABLE, Catalogue, _whom
from dolmen.serving.columns import Columns
from dolmen.serving.settings import ServeSettings
from dolmen.serving.state import State

_SCHEMA = Schema(
    Slot("user", dim=4),
    Slot("age", dim=4, of="user"),
    Slot("item", dim=4),
    Slot("brand", dim=4, of="item"),
    Slot("genres", dim=4, many=True, max_len=2, of="item"),
    Dense("price", of="item", default=9.0),
    Label("click"),
)
_SLOTS = ["item", "brand", "genres"]

IDS = st.sampled_from([1, 2, 3, "1", "x", "y" * 256])
ATTRIBUTES = st.fixed_dictionaries(
    {},
    optional={
        "genres": st.lists(st.sampled_from(["a", "b", "c"]), max_size=4),
        "brand": st.sampled_from(["m", "n", 5]),
        "price": st.integers(0, 9).map(float),
        "title": st.text(max_size=5),
        "age": st.integers(0, 99),
    },
)


class CatalogueAgainstDict(RuleBasedStateMachine):
    """Whatever is sent, saved or lost, an item is what was sent last, and its features are those of its attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.settings = ServeSettings(
            schema=_SCHEMA,
            log_folder=self.folder / "log",
            snapshot_folder=self.folder / "snapshots",
            state_folder=self.folder / "state",
            people_in_memory=2,
            removed_items_max=1,
        )
        self.log = EmbeddedLog(self.settings.log_folder)
        self.items: dict[Any, dict[str, Any]] = {}
        self.users: dict[Any, dict[str, Any]] = {}

    @initialize()
    def begin(self) -> None:
        self.state = State(self.settings.state_folder, [ITEMS_TABLE, USERS_TABLE])
        self.catalogue = Catalogue(self.settings, self.log, self.state)
        self.catalogue.tail.catch_up()

    @rule(
        changes=st.lists(st.tuples(st.sampled_from(["item", "user"]), IDS, ATTRIBUTES, st.booleans()), min_size=1),
        is_ours=st.booleans(),
    )
    def send(self, changes: list[tuple[Any, Any, dict[str, Any], bool]], is_ours: bool) -> None:
        sent = [CatalogueChange(of, raw, attributes, removed) for of, raw, attributes, removed in changes]
        appended = self.log.append(Topic.CATALOGUE, [encode(change) for change in sent])
        if is_ours:
            self.catalogue.tail.wrote(appended, sent)
        else:
            self.catalogue.tail.catch_up()
        for of, raw, attributes, removed in changes:
            held = self.items if of == "item" else self.users
            held.pop(raw, None)
            if not removed:
                held[raw] = attributes

    @rule()
    def save(self) -> None:
        self.state.save(self.catalogue)

    @rule()
    def crash_and_restart(self) -> None:
        self.state.close()
        self.begin()

    @rule()
    def lose_the_state_and_restart(self) -> None:
        self.state.close()
        shutil.rmtree(self.settings.state_folder)
        self.begin()

    @rule()
    def forget(self) -> None:
        told: list[Any] = []
        with mock.patch("dolmen.serving.catalogue._UNDER_WAY_SECONDS", 0.0):
            self.catalogue.forget_removed(lambda _, ids: told.extend(ids))
        assert not {repr(raw) for raw in told} & {repr(raw) for raw in self.items}
        assert self.catalogue.row_count - len(self.catalogue._free) <= len(self.items) + 1

    @rule(is_ours=st.booleans())
    def compact(self, is_ours: bool) -> None:
        if is_ours:
            with mock.patch("dolmen.serving.catalogue._REPLACED_MAX", -(1 << 40)):
                self.catalogue.compact()
            assert self.catalogue.tail.catch_up() == 0
        else:
            self.log.compact(Topic.CATALOGUE, 0, _whom)
            self.catalogue.take_changed_rows()
            self.catalogue.tail.catch_up()
            assert len(self.catalogue.take_changed_rows()) == 0, "all of it was known"

    @rule(item=IDS, attributes=ATTRIBUTES, is_ours=st.booleans())
    def compact_between_writing_and_applying(self, item: Any, attributes: dict[str, Any], is_ours: bool) -> None:
        change = CatalogueChange("item", item, attributes)
        appended = self.log.append(Topic.CATALOGUE, [encode(change)])
        with mock.patch("dolmen.serving.catalogue._REPLACED_MAX", -(1 << 40)):
            self.catalogue.compact()
        if is_ours:
            self.catalogue.tail.wrote(appended, [change])
            assert self.catalogue.tail.catch_up() == 0
        else:
            self.catalogue.tail.catch_up()
        self.items.pop(item, None)
        self.items[item] = attributes

    @invariant()
    def holds_what_was_sent_last(self) -> None:
        catalogue = self.catalogue
        assert len(catalogue) == len(self.items)
        assert int(catalogue.alive().sum()) == len(self.items)
        rows = [catalogue.row_or_absent(raw) for raw in self.items]
        assert min(rows, default=0) >= 0
        assert [catalogue.ids[row] for row in rows] == list(self.items)
        assert [catalogue.attributes[row] for row in rows] == list(self.items.values())
        expected = extract_rows(
            _SCHEMA,
            [{**attributes, "item": raw} for raw, attributes in self.items.items()],
            slots=_SLOTS,
            dense=["price"],
        )
        found = catalogue.items(np.array(rows, dtype=np.int64))
        for name in _SLOTS:
            assert found.slot(name).to_lists() == expected.slot(name).to_lists()
        assert found.dense["price"].tolist() == expected.dense["price"].tolist()
        for raw in (1, "1", "x"):
            assert catalogue.is_known_user(raw) == (raw in self.users)
            assert catalogue.profile_of(raw).attributes == self.users.get(raw, {})
            age = [self.users[raw]["age"]] if "age" in self.users.get(raw, {}) else []
            assert [fid & ((1 << 53) - 1) for fid in catalogue.profile_of(raw).slots["age"]] == age

    def teardown(self) -> None:
        self.state.close()
        self.log.close()
        shutil.rmtree(self.folder)


TestCatalogueAgainstDict = pytest.mark.property(CatalogueAgainstDict.TestCase)
TestCatalogueAgainstDict.settings = rules(max_examples=25, stateful_step_count=15, deadline=None)


def test_an_entry_of_an_older_schema_keeps_its_id_alone(settings: Any, log: EmbeddedLog) -> None:
    log.append(Topic.CATALOGUE, [encode(CatalogueChange("item", 1, {"genres": "no list", "title": "T"}))])
    log.append(Topic.CATALOGUE, [encode(CatalogueChange("item", 2, {"genres": ["drama"]}))])
    state = State(settings.state_folder, [ITEMS_TABLE, USERS_TABLE])
    catalogue = Catalogue(settings, log, state)
    catalogue.tail.catch_up()
    batch = catalogue.items(catalogue.rows_of([1, 2]))
    assert batch.slot("item").lengths.tolist() == [1, 1]
    assert batch.slot("genres").lengths.tolist() == [0, 1]
    assert catalogue.attributes[0]["title"] == "T"
    state.close()


def test_the_topic_of_the_catalogue_stays_small_however_often_items_change(
    settings: Any, log: EmbeddedLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dolmen.serving.catalogue._REPLACED_MAX", 50)
    state = State(settings.state_folder, [ITEMS_TABLE, USERS_TABLE])
    catalogue = Catalogue(settings, log, state)
    for number in range(400):
        change = CatalogueChange("item", number % 20, {"title": f"T{number}"}, removed=number % 20 == 3)
        catalogue.tail.wrote(log.append(Topic.CATALOGUE, [encode(change)]), [change])
        catalogue.compact()
        first, end = log.bounds(Topic.CATALOGUE)
        assert end - first <= 2 * 20 + 50
    state.close()
    fresh = Catalogue(settings, log, State(settings.state_folder.with_name("another"), [ITEMS_TABLE, USERS_TABLE]))
    fresh.tail.catch_up()
    assert (len(fresh), fresh.tail.lost_count, fresh.row_of(3)) == (19, 0, None)
    assert {row["title"] for row in fresh.attributes} == {f"T{number}" for number in range(380, 400) if number != 383}


@pytest.mark.parametrize("of", ["item", "user"])
def test_the_topic_is_not_compacted_after_a_start_where_nothing_was_replaced(
    settings: Any, log: EmbeddedLog, monkeypatch: pytest.MonkeyPatch, of: Any
) -> None:
    """Else a large catalogue would be written anew after every start."""
    monkeypatch.setattr("dolmen.serving.catalogue._REPLACED_MAX", 50)
    log.append(Topic.CATALOGUE, [encode(CatalogueChange(of, number)) for number in range(200)])
    for _ in range(2):
        with contextlib.closing(State(settings.state_folder, [ITEMS_TABLE, USERS_TABLE])) as state:
            catalogue = Catalogue(settings, log, state)
            catalogue.tail.catch_up()
            catalogue.compact()
            state.save(catalogue)
            assert log.bounds(Topic.CATALOGUE) == (0, 200)
    log.append(Topic.CATALOGUE, [encode(CatalogueChange(of, 1))] * 251)
    with contextlib.closing(State(settings.state_folder, [ITEMS_TABLE, USERS_TABLE])) as state:
        catalogue = Catalogue(settings, log, state)
        catalogue.tail.catch_up()
        catalogue.compact()
        assert log.bounds(Topic.CATALOGUE) == (451, 651)
        assert catalogue.tail.catch_up() == 0
        state.save(catalogue)
        again = Catalogue(settings, log, state)
        assert again.tail.catch_up() == 0, "the position behind what was left is on disk"


@pytest.mark.parametrize(
    "slow",
    [
        "dolmen.events.embedded.EmbeddedLog.read",
        "dolmen.events.embedded.EmbeddedLog.compact",
        "dolmen.serving.catalogue.decode",
        "dolmen.serving.catalogue.extract_usable",
    ],
)
def test_nobody_waits_while_changes_are_read_and_made_features_of(
    settings: Any, log: EmbeddedLog, monkeypatch: pytest.MonkeyPatch, slow: str
) -> None:
    """Requests are answered in one thread: who holds it up there holds up everybody."""
    log.append(Topic.CATALOGUE, [encode(CatalogueChange("item", item)) for item in range(3)])
    state = State(settings.state_folder, [ITEMS_TABLE, USERS_TABLE])
    catalogue = Catalogue(settings, log, state)
    catalogue.tail.catch_up()
    log.append(Topic.CATALOGUE, [encode(CatalogueChange("item", item)) for item in range(2, 9)])
    call = pkgutil.resolve_name(slow)
    under_way, go_on = threading.Event(), threading.Event()

    def called(*args: Any, **named: Any) -> Any:
        if threading.current_thread() is not threading.main_thread() and not go_on.is_set():
            under_way.set()
            assert go_on.wait(20)
        return call(*args, **named)

    monkeypatch.setattr(slow, called)
    monkeypatch.setattr("dolmen.serving.catalogue._REPLACED_MAX", -(1 << 40))
    with ThreadPoolExecutor() as pool:
        working = pool.submit(catalogue.compact if "compact" in slow else catalogue.tail.catch_up)
        try:
            assert under_way.wait(20)
            assert catalogue.lock.acquire(timeout=0)
            catalogue.lock.release()
        finally:
            go_on.set()
        working.result(20)
    catalogue.tail.catch_up()
    assert len(catalogue) == 9
    state.close()


def test_a_large_import_holds_requests_up_for_a_small_piece_at_a_time(
    settings: Any, log: EmbeddedLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    pieces: list[int] = []
    put = Columns.put

    def counted(self: Columns, rows: Any, batch: Any) -> None:
        pieces.append(len(rows))
        put(self, rows, batch)

    monkeypatch.setattr(Columns, "put", counted)
    changes = [CatalogueChange("item", item) for item in range(450)]
    state = State(settings.state_folder, [ITEMS_TABLE, USERS_TABLE])
    catalogue = Catalogue(settings, log, state)
    catalogue.tail.wrote(log.append(Topic.CATALOGUE, [encode(one) for one in changes]), changes)
    log.append(Topic.CATALOGUE, [encode(CatalogueChange("item", item, {"title": "T"})) for item in range(450)])
    catalogue.tail.catch_up()
    assert sum(pieces) == 2 * 450
    assert max(pieces) <= 100
    state.close()


@pytest.mark.property
@given(puts=st.lists(st.dictionaries(st.integers(0, 3), st.integers(0, 40), min_size=1), max_size=12))
@rules(max_examples=40, deadline=None)
def test_columns_hold_what_was_put_last_however_they_grow_and_are_swept(puts: list[dict[int, int]]) -> None:
    schema = Schema(Slot("item", dim=4), Slot("tags", dim=4, many=True, of="item"), Label("click"))
    columns, held, fid = Columns(schema), dict[int, list[int]](), itertools.count()
    for lengths in puts:
        new = {row: [next(fid) for _ in range(length)] for row, length in lengths.items()}
        held |= new
        slots = {"item": Jagged.from_lists([[row] for row in new]), "tags": Jagged.from_lists(list(new.values()))}
        columns.put(np.array(list(new)), Batch(size=len(new), slots=slots))
        taken = columns.take(np.array(list(held)))
        assert taken.slot("item").to_lists() == [[row] for row in held]
        assert taken.slot("tags").to_lists() == list(held.values())
        assert len(columns.slots["tags"]._values) <= max(64, 4 * 4 * 40)


def test_items_that_change_again_and_again_take_no_more_room(settings: Any, log: EmbeddedLog) -> None:
    state = State(settings.state_folder, [ITEMS_TABLE, USERS_TABLE])
    catalogue = Catalogue(settings, log, state)
    for number in range(300):
        change = CatalogueChange("item", number % 3, {"genres": [f"g{number}", "b", "c"]})
        catalogue.tail.wrote(log.append(Topic.CATALOGUE, [encode(change)]), [change])
    column = catalogue._features.slots["genres"]
    assert len(column._values) <= 64
    assert catalogue.items(np.arange(3)).slot("genres").lengths.tolist() == [3, 3, 3]
    state.close()


def test_state_of_another_format_is_refused_with_what_deleting_it_would_lose(tmp_path: Path) -> None:
    store = Store(tmp_path, databases=[ITEMS_TABLE, "positions"])
    store.write(lambda txn: txn.put(b"format", b"1", db=store.database("positions")))
    store.close()
    message = rf"{tmp_path} is of format 1, this release reads format 2; .* without what people did .* oldest records"
    for _ in range(2):  # nothing was touched, and nothing is left open
        with pytest.raises(ConfigError, match=message):
            State(tmp_path, [ITEMS_TABLE])

"""What every data set looks like once loaded: people, items, and what happened between them, in order.

Three Arrow tables, so that anybody's tools can read on:

``items``         ``id`` and one column an attribute (``genres`` is a list).
``users``         ``id`` and one column an attribute.
``interactions``  one impression a row: ``user``, ``item``, ``slate`` (counts from 0), ``position`` in it (from 0),
                  ``event_time`` (when it was shown), ``action_time`` (when the person acted on it; null if never),
                  one 0/1 column a label of the schema, and what the source has besides (``rating``).
                  A slate's rows stand together, and slates stand in the order of ``event_time``.

Many public sets hold only actions: what was bought, not what was shown. There each action is a slate of one
(``actions_table`` makes the columns), and ``with_negatives`` adds what a person might have been shown instead. What the
source does not tell is null throughout: times, or who it was. ``order`` says what the order of rows means.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import cached_property
from typing import Any, Final, final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from dolmen import features
from dolmen.datasets.examples import Batches, Columns, Spans, people_of
from dolmen.errors import DataError
from dolmen.evaluation import Needs, Split, SplitRule, TemporalSplit, draw_negatives
from dolmen.features import RawId, Schema

__all__ = ["Dataset", "DatasetInfo", "Negatives", "Order", "Slate", "Split", "actions_table", "impressions_table"]

_INSTANT: Final = pa.timestamp("us", tz="UTC")
_DEFAULT_RULE: Final = TemporalSplit()
_REQUIRED: Final = {
    "slate": pa.int64(),
    "position": pa.int16(),
    "event_time": _INSTANT,
    "action_time": _INSTANT,
}
_SLATES_AT_ONCE: Final = 4096  # turned into Python objects together: faster than one by one, and little memory


class Order(StrEnum):
    """What the order of rows means, and so what a person's history holds."""

    TIME = "time"  # that of event times: a history holds what was acted on strictly before the slate
    LOG = "log"  # that in which things happened: a history holds what was acted on in all slates before
    PERSON = "person"  # the same, but only the rows of one person can be compared
    NONE = "none"  # nothing: there are no histories


class Negatives(StrEnum):
    """How ``with_negatives`` draws items."""

    UNIFORM = "uniform"  # each item of the catalogue alike
    POPULARITY = "popularity"  # in proportion to how often people acted on it


@final
@dataclass(frozen=True, kw_only=True)
class DatasetInfo:
    """What is known of a data set before it is loaded.

    ``statistics`` are counts that each load is checked against (``users``, ``items``, ``interactions``, ...);
    ``content_sha256`` is the checksum of its values, whatever files they came in. ``terms`` says in our words what
    its owners allow; theirs are at ``terms_url``. A ``simulated`` data set never tells about real people.
    ``notes``: what was done to the source, and what it does not tell. ``used_by``: the papers whose claims it serves.
    """

    name: str
    title: str
    summary: str
    source_url: str
    citation: str
    terms: str
    terms_url: str
    simulated: bool = False
    statistics: Mapping[str, int] = field(default_factory=dict)
    content_sha256: str | None = None
    notes: str = ""
    used_by: tuple[str, ...] = ()


@final
@dataclass(frozen=True)
class Slate:
    """One response as a person saw it.

    ``items`` in order of position. ``clicked`` and ``delays_us`` go with them: whether the person acted (label 1), and
    how long after ``time_us``; a delay is 0 where nothing was clicked. ``context``: what else the request carried.
    """

    user: RawId
    time_us: int
    items: list[RawId]
    clicked: list[bool]
    delays_us: list[int]
    context: dict[str, Any] = field(default_factory=dict)


@final
@dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """A loaded data set; the module's docstring has the columns.

    ``label`` names the 0/1 column of ``interactions`` that ``slates`` reports as clicked. ``order``: what the order of
    rows means. ``rule``: the protocol by which ``train``, ``validation`` and ``test`` are told apart; a copy with
    another one is ``with_rule``.

    Raises:
        DataError: a table lacks a column, rows are out of order, or the rule needs an order that is not known; the
            message says which.
    """

    info: DatasetInfo
    schema: Schema
    items: pa.Table
    users: pa.Table
    interactions: pa.Table
    label: str = "click"
    order: Order = Order.TIME
    rule: SplitRule = _DEFAULT_RULE

    def __post_init__(self) -> None:
        for table_name in ("items", "users"):
            if "id" not in getattr(self, table_name).column_names:
                raise DataError(f"{self.info.name}: table {table_name!r} needs a column 'id'")
        for name in ("user", "item", *_REQUIRED, self.label, *self.schema.labels):
            if name not in self.interactions.column_names:
                raise DataError(f"{self.info.name}: table 'interactions' needs a column {name!r}")
        for name, kind in _REQUIRED.items():
            if self.interactions.schema.field(name).type != kind:
                raise DataError(f"{self.info.name}: interactions.{name} must be {kind}")
        slates = self.interactions["slate"].to_numpy()
        if slates.size and (slates[0] != 0 or not np.isin(np.diff(slates), (0, 1)).all()):
            raise DataError(f"{self.info.name}: interactions.slate must count up from 0, each slate's rows together")
        unknown = self.interactions["event_time"].null_count
        if unknown not in {0, len(self)}:
            raise DataError(
                f"{self.info.name}: interactions.event_time is null in {unknown} rows; it must be in all or none"
            )
        if self.has_times and (np.diff(self._event_times_us) < 0).any():
            raise DataError(f"{self.info.name}: interactions must be in order of event_time")
        acted = self.interactions["action_time"].is_valid().to_numpy()
        if self.has_times and (~acted & (self.interactions[self.label].to_numpy() > 0)).any():
            raise DataError(f"{self.info.name}: interactions with {self.label} = 1 need an action_time")
        if self.order is Order.TIME and not self.has_times:
            raise DataError(f"{self.info.name}: order 'time' needs event times; use 'log', 'person' or 'none'")
        self._check_rule()

    def _check_rule(self) -> None:
        rule: object = self.rule
        if not isinstance(rule, SplitRule):
            raise TypeError(f"rule must be one of dolmen.evaluation, such as TemporalSplit(), got {rule!r:.80}")
        lacks = {
            Needs.TIME: self.order not in {Order.TIME, Order.LOG},
            Needs.ORDER: self.order is Order.NONE,
            Needs.NOTHING: False,
        }
        if lacks[self.rule.needs]:
            raise DataError(
                f"{self.info.name}: {self.rule} needs the {self.rule.needs} of slates, which the source does not tell; "
                "take a rule that needs less"
            )

    def __repr__(self) -> str:
        sizes = f"{self.users.num_rows:,} users, {self.items.num_rows:,} items"
        mark = ", SIMULATED" if self.info.simulated else ""
        return f"Dataset({self.info.name!r}{mark}: {sizes}, {len(self):,} interactions in {self.slate_count:,} slates)"

    def __len__(self) -> int:
        """How many interactions."""
        return int(self.interactions.num_rows)

    def columns(self) -> dict[str, str]:
        """The columns of each table with their types, in words."""
        tables = {"items": self.items, "users": self.users, "interactions": self.interactions}
        return {
            name: ", ".join(f"{column.name} ({column.type})" for column in table.schema)
            for name, table in tables.items()
        }

    @property
    def slate_count(self) -> int:
        """How many slates."""
        return len(self._slate_starts) - 1

    @property
    def has_times(self) -> bool:
        """Whether it is known when things happened; then rows stand in that order."""
        return not self.interactions["event_time"].null_count

    def with_rule(self, rule: SplitRule) -> Dataset:
        """The same data under another protocol.

        Raises:
            DataError: the rule needs an order that is not known.
            TypeError: it is no rule.
        """
        return replace(self, rule=rule)

    @cached_property
    def _event_times_us(self) -> NDArray[np.int64]:
        """When each row's slate was shown, shape (rows,); 0 throughout where that is not known."""
        times: NDArray[np.int64] = pc.fill_null(self.interactions["event_time"].cast(pa.int64()), 0).to_numpy()
        return times

    @cached_property
    def _slate_starts(self) -> NDArray[np.int64]:
        """Row at which each slate starts, and the row count at the end, shape (slates + 1,)."""
        slates = self.interactions["slate"].to_numpy()
        changes = np.flatnonzero(np.diff(slates)) + 1
        return np.concatenate([[0], changes, [len(slates)]]) if len(slates) else np.zeros(1, dtype=np.int64)

    @cached_property
    def _people(self) -> NDArray[np.int64]:
        """The person of each slate, as a number from 0, shape (slates,)."""
        return people_of(self.interactions)[self._slate_starts[:-1]]

    @cached_property
    def _parts(self) -> NDArray[np.int8]:
        """The part of each slate, shape (slates,)."""
        return self.rule.parts(self._people, np.diff(self._slate_starts))

    @cached_property
    def _columns(self) -> Columns:
        if self.order is Order.TIME:
            shown = self._event_times_us[self._slate_starts[:-1]]
            acted = pc.fill_null(self.interactions["action_time"].cast(pa.int64()), 0).to_numpy()
        else:  # the same arithmetic, with the place of the slate for its time: it acts just after it was shown
            shown = 2 * np.arange(self.slate_count)
            acted = np.repeat(shown, np.diff(self._slate_starts)) + 1
        return Columns(
            items=self.items,
            users=self.users,
            interactions=self.interactions,
            slate_starts=self._slate_starts,
            shown=shown,
            acted=acted,
            label=self.label,
            has_histories=self.order is not Order.NONE,
        )

    def slates(self, split: Split | str = Split.ALL) -> Iterator[Slate]:
        """The slates of ``split`` in time order, each as its person saw it.

        Raises:
            DataError: it is not known when things happened, so they cannot happen again.
        """
        if not self.has_times:
            raise DataError(f"{self.info.name}: the source tells no times, so there is nothing to replay")
        chosen = self._slates_of(split)
        for start in range(0, len(chosen), _SLATES_AT_ONCE):
            yield from self._slates_at(chosen[start : start + _SLATES_AT_ONCE])

    def _slates_at(self, slates: NDArray[np.int64]) -> Iterator[Slate]:
        rows = self.interactions.take(pa.array(self._rows_at(slates)))
        users, items = rows["user"].to_pylist(), rows["item"].to_pylist()
        clicked = rows[self.label].to_numpy() > 0
        delays = pc.subtract(rows["action_time"].cast(pa.int64()), rows["event_time"].cast(pa.int64()))
        delays_us = np.where(clicked, pc.fill_null(delays, 0).to_numpy(), 0).tolist()
        times_us = self._event_times_us[self._slate_starts[slates]].tolist()
        places = np.concatenate([[0], np.cumsum(np.diff(self._slate_starts)[slates])]).tolist()
        for time_us, start, stop in zip(times_us, places, places[1:], strict=False):
            yield Slate(users[start], time_us, items[start:stop], clicked[start:stop].tolist(), delays_us[start:stop])

    def _slates_of(self, split: Split | str) -> NDArray[np.int64]:
        """The slates of ``split``, in order.

        Raises:
            ValueError: there is no such split.
        """
        if (split := Split(split)) is Split.ALL:
            return np.arange(self.slate_count)
        return np.flatnonzero(self._parts == split.number)

    def _rows_at(self, slates: NDArray[np.int64]) -> NDArray[np.int64]:
        """The rows of ``slates``, one slate after the other."""
        starts, counts = self._slate_starts[slates], np.diff(self._slate_starts)[slates]
        begins = np.cumsum(counts) - counts
        rows: NDArray[np.int64] = np.arange(counts.sum()) + np.repeat(starts - begins, counts)
        return rows

    def rows(self, split: Split | str = Split.ALL) -> NDArray[np.int64]:
        """The rows of ``interactions`` that belong to ``split``, in order.

        Raises:
            ValueError: there is no such split.
        """
        return self._rows_at(self._slates_of(split))

    def with_negatives(self, count: int, *, by: Negatives | str = Negatives.UNIFORM, seed: int = 0) -> Dataset:
        """The same data with sampled items in each slate: ``count`` that the person never touched, for each acted on.

        They were not shown to anybody: what is learned of them is what a random item is like, and figures on them say
        less than figures on real impressions. They share the slate's time and history, so neither gives them away, and
        its part of the split. Drawn once, so that all models meet the same (DIN and TIN: one a positive, evenly).

        Args:
            count: how many for each item acted on; all different.
            by: how they are drawn.
            seed: of the draws.

        Raises:
            ValueError: somebody has not enough items left.
        """
        clicked = np.flatnonzero(self.interactions[self.label].to_numpy() > 0)
        people, places = self._people[self.interactions["slate"].to_numpy()], self._item_places
        touched = features.Jagged.from_arrays(
            places[np.argsort(people, kind="stable")], np.concatenate([[0], np.cumsum(np.bincount(people))])
        )
        item_count = self.items.num_rows
        weights = np.bincount(places[clicked], minlength=item_count) if Negatives(by) is Negatives.POPULARITY else None
        drawn = draw_negatives(touched, item_count, count, popularity=weights, of=people[clicked], seed=seed)
        beside = np.repeat(clicked, count)
        return replace(
            self, interactions=self._interactions_and(beside, self.items["id"].take(pa.array(drawn.ravel())))
        )

    def _interactions_and(self, beside: NDArray[np.int64], items: pa.ChunkedArray) -> pa.Table:
        """The interactions, and at the end of the slate of each row of ``beside`` one of ``items``, not acted on."""
        old = self.interactions
        more = old.select(["user", "slate", "event_time"]).take(pa.array(beside))
        more = more.append_column("item", items.cast(old.schema.field("item").type))
        for name in {self.label, *self.schema.labels}:
            more = more.append_column(name, pa.array(np.zeros(len(beside)), old.schema.field(name).type))
        both = pa.concat_tables([old, more], promote_options="default").select(old.column_names)
        # Stable, so that within a slate what was there stays in front and in order.
        order = np.argsort(both["slate"].to_numpy(), kind="stable")
        both = both.take(pa.array(order))
        slates = both["slate"].to_numpy()
        positions = np.arange(len(slates)) - np.searchsorted(slates, slates)
        return both.set_column(old.column_names.index("position"), "position", pa.array(positions, pa.int16()))

    @cached_property
    def _item_places(self) -> NDArray[np.int64]:
        """The row in ``items`` of each interaction's item.

        Raises:
            DataError: an item is not in the catalogue.
        """
        items = self.interactions["item"].combine_chunks()
        places = pc.index_in(items, value_set=self.items["id"].combine_chunks().cast(items.type))
        if places.null_count:
            strange = items.filter(places.is_null())[0].as_py()
            raise DataError(f"{self.info.name}: item {strange!r} of the interactions is not in the table of items")
        return np.asarray(places.to_numpy(), dtype=np.int64)

    def sequences(self, *splits: Split | str) -> pa.Table:
        """What each person acted on in ``splits`` (in all, if none is named), oldest first.

        Returns:
            One row a person, in order of first appearance: ``user``; ``item``, a list; ``event_time``, a list, where
            times are known. Who did nothing in these parts has no row.

        Raises:
            DataError: the order is not known.
        """
        spans = self._columns.sequences(self._is_row_of(*splits))
        offsets = pa.array(np.concatenate([spans.starts, [len(spans.actions)]]))
        actions = self.interactions.take(pa.array(spans.actions))
        columns = {"user": actions["user"].take(pa.array(spans.starts))}
        for name in ("item", "event_time") if self.has_times else ("item",):
            columns[name] = pa.LargeListArray.from_arrays(offsets, actions[name].combine_chunks())
        return pa.table(columns)

    def sequence_batches(
        self,
        batch_size: int,
        *splits: Split | str,
        max_len: int,
        stride: int | None = None,
        length_min: int = 1,
        schema: Schema | None = None,
        shuffle_seed: int | None = None,
    ) -> Batches:
        """Whole sequences of ``splits`` as examples, for models that learn from every place of one (SASRec, BERT4Rec).

        An example is a run of one person's actions. As in ``batches``, it is about the last of them, and history slots
        hold those before it. Longer sequences are cut into windows of ``max_len``, from the end back by ``stride``, and
        one from the start (BERT4Rec's way).

        Args:
            batch_size: examples in a batch; the last one may be smaller.
            splits: which parts; the person's actions in them follow each other. All if none is named.
            max_len: the longest run, its last action included; a history slot with a shorter ``max_len`` of its own
                keeps its end.
            stride: from one window's end to the one before; ``max_len`` if ``None``.
            length_min: leave out runs with fewer actions.
            schema: as in ``batches``.
            shuffle_seed: as in ``batches``.

        Raises:
            ValueError: a number is below 1, or there is no such split.
            SchemaError: a field of ``schema`` is nowhere in the tables.
            DataError: the order is not known.
        """
        stride = max_len if stride is None else stride
        for name, number in (
            ("batch_size", batch_size),
            ("max_len", max_len),
            ("stride", stride),
            ("length_min", length_min),
        ):
            if number < 1:
                raise ValueError(f"{name} must be at least 1, got {number}")
        spans = self._columns.sequences(self._is_row_of(*splits)).windows(max_len, stride)
        spans = spans.take(np.flatnonzero(spans.stops - spans.starts >= length_min))
        schema = schema if schema is not None else self.schema
        before = Spans(spans.actions, spans.starts, spans.stops - 1)
        return Batches(self._columns, schema, spans.actions[before.stops], batch_size, shuffle_seed, before)

    def _is_row_of(self, *splits: Split | str) -> NDArray[np.bool_]:
        """Whether each row of the interactions belongs to one of ``splits``; to any if none is named."""
        mask = np.zeros(len(self), dtype=bool)
        for split in splits or (Split.ALL,):
            mask[self.rows(split)] = True
        return mask

    def batches(
        self,
        batch_size: int,
        split: Split | str = Split.ALL,
        *,
        schema: Schema | None = None,
        shuffle_seed: int | None = None,
    ) -> Batches:
        """The examples of ``split``, ``batch_size`` at a time, as often as they are iterated.

        Each example holds what was known when its slate was shown: the person's history ends before it.

        Args:
            batch_size: examples in a batch; the last one may be smaller.
            split: which part, by the data set's ``rule``.
            schema: read these fields instead of the data set's own schema. Its fields are columns of ``items``,
                ``users`` or ``interactions``, or an ordered slot that shares the table of ``item``: the history.
            shuffle_seed: visit the examples in another order, a new one each time; ``None``: in time order.

        Raises:
            ValueError: ``batch_size`` is below 1, or there is no such split.
            SchemaError: a field of ``schema`` is nowhere in the tables.
            DataError: the schema has a history, and the order is not known.
        """
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        schema = schema if schema is not None else self.schema
        return Batches(self._columns, schema, self.rows(split), batch_size, shuffle_seed)


def actions_table(
    user: pa.ChunkedArray | pa.Array | NDArray[np.int64],
    item: pa.ChunkedArray | pa.Array | NDArray[np.int64],
    event_time: pa.ChunkedArray | pa.Array | None = None,
    **more: pa.ChunkedArray | pa.Array | NDArray[np.int64],
) -> pa.Table:
    """Interactions of a source that recorded actions only: each row is a slate of one, and was acted on at once.

    Args:
        user: whose action, shape (rows,).
        item: on what, shape (rows,).
        event_time: when, in order (timestamps in UTC); ``None`` where the source does not tell.
        more: further columns.
    """
    return impressions_table(pa.array(np.ones(len(user)), pa.int8()), event_time, user=user, item=item, **more)


def impressions_table(
    click: pa.ChunkedArray | pa.Array,
    event_time: pa.ChunkedArray | pa.Array | None = None,
    **more: pa.ChunkedArray | pa.Array | NDArray[np.int64],
) -> pa.Table:
    """Interactions of a source that recorded impressions one by one: each row is a slate of one.

    Args:
        click: 1 where the person acted, at once, since the source does not tell how much later; else 0.
        event_time: when, in order (timestamps in UTC); ``None`` where the source does not tell.
        more: further columns; without ``user`` or ``item`` these are null.
    """
    count = len(click)
    nobody = pa.nulls(count, pa.int64())
    times = pa.nulls(count, _INSTANT) if event_time is None else event_time.cast(_INSTANT)
    return pa.table(
        {
            "user": more.pop("user", nobody),
            "item": more.pop("item", nobody),
            **more,
            "event_time": times,
            "action_time": pc.if_else(pc.equal(click, 1), times, pa.scalar(None, _INSTANT)),
            "click": click.cast(pa.int8()),
            "slate": np.arange(count),
            "position": pa.array(np.zeros(count), pa.int16()),
        }
    )

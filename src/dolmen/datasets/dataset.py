"""What every data set looks like once loaded: people, items, and what happened between them, in time order.

Three Arrow tables, so that anybody's tools can read on:

``items``         ``id`` and one column an attribute (``genres`` is a list).
``users``         ``id`` and one column an attribute.
``interactions``  one impression a row: ``user``, ``item``, ``slate`` (counts from 0), ``position`` in it (from 0),
                  ``event_time`` (when it was shown), ``action_time`` (when the person acted on it; null if never),
                  one 0/1 column a label of the schema, and what the source has besides (``rating``).
                  A slate's rows stand together, and slates stand in the order of ``event_time``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from typing import Any, Final, final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from dolmen.datasets.examples import Batches, Columns
from dolmen.errors import DataError
from dolmen.features import RawId, Schema

__all__ = ["Dataset", "DatasetInfo", "Slate", "Split"]

_REQUIRED: Final = {
    "slate": pa.int64(),
    "position": pa.int16(),
    "event_time": pa.timestamp("us", tz="UTC"),
    "action_time": pa.timestamp("us", tz="UTC"),
}
_SLATES_AT_ONCE: Final = 4096  # turned into Python objects together: faster than one by one, and little memory
_TRAIN_SHARE: Final = 0.8
_VALIDATION_SHARE: Final = 0.1


class Split(StrEnum):
    """A part of a data set in time: what comes first trains, what comes next validates, the end tests."""

    ALL = "all"
    TRAIN = "train"
    VALIDATION = "validation"
    TEST = "test"


@final
@dataclass(frozen=True, kw_only=True)
class DatasetInfo:
    """What is known of a data set before it is loaded.

    ``statistics`` are counts that each load is checked against (``users``, ``items``, ``interactions``, ...);
    ``content_sha256`` is the checksum of its values, whatever files they came in. ``terms`` says in our words what
    its owners allow; theirs are at ``terms_url``. A ``simulated`` data set never tells about real people.
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

    ``label`` names the 0/1 column of ``interactions`` that ``slates`` reports as clicked.

    Raises:
        DataError: a table lacks a column, or rows are out of order; the message says which.
    """

    info: DatasetInfo
    schema: Schema
    items: pa.Table
    users: pa.Table
    interactions: pa.Table
    label: str = "click"

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
        if (np.diff(self._event_times_us) < 0).any():
            raise DataError(f"{self.info.name}: interactions must be in order of event_time")
        acted = self.interactions["action_time"].is_valid().to_numpy()
        if (~acted & (self.interactions[self.label].to_numpy() > 0)).any():
            raise DataError(f"{self.info.name}: interactions with {self.label} = 1 need an action_time")

    def __repr__(self) -> str:
        sizes = f"{self.users.num_rows:,} users, {self.items.num_rows:,} items"
        mark = ", SIMULATED" if self.info.simulated else ""
        return f"Dataset({self.info.name!r}{mark}: {sizes}, {len(self):,} interactions in {self.slate_count:,} slates)"

    def __len__(self) -> int:
        """How many interactions."""
        return int(self.interactions.num_rows)

    @property
    def slate_count(self) -> int:
        """How many slates."""
        return len(self._slate_starts) - 1

    @cached_property
    def _event_times_us(self) -> NDArray[np.int64]:
        times: NDArray[np.int64] = self.interactions["event_time"].cast(pa.int64()).to_numpy()
        return times

    @cached_property
    def _slate_starts(self) -> NDArray[np.int64]:
        """Row at which each slate starts, and the row count at the end, shape (slates + 1,)."""
        slates = self.interactions["slate"].to_numpy()
        changes = np.flatnonzero(np.diff(slates)) + 1
        return np.concatenate([[0], changes, [len(slates)]]) if len(slates) else np.zeros(1, dtype=np.int64)

    @cached_property
    def _columns(self) -> Columns:
        return Columns(
            items=self.items,
            users=self.users,
            interactions=self.interactions,
            slate_starts=self._slate_starts,
            event_times_us=self._event_times_us,
            label=self.label,
        )

    def slates(self, split: Split | str = Split.ALL) -> Iterator[Slate]:
        """The slates of ``split`` in time order, each as its person saw it."""
        first, last = self.bounds(split)
        for start in range(first, last, _SLATES_AT_ONCE):
            stop = min(start + _SLATES_AT_ONCE, last)
            yield from self._slates_between(start, stop)

    def _slates_between(self, first: int, last: int) -> Iterator[Slate]:
        starts = self._slate_starts[first : last + 1]
        rows = self.interactions.slice(starts[0], starts[-1] - starts[0])
        users, items = rows["user"].to_pylist(), rows["item"].to_pylist()
        clicked = rows[self.label].to_numpy() > 0
        delays = pc.subtract(rows["action_time"].cast(pa.int64()), rows["event_time"].cast(pa.int64()))
        delays_us = np.where(clicked, pc.fill_null(delays, 0).to_numpy(), 0).tolist()
        times_us = self._event_times_us[starts[:-1]].tolist()
        places = (starts - starts[0]).tolist()
        for time_us, start, stop in zip(times_us, places, places[1:], strict=False):
            yield Slate(users[start], time_us, items[start:stop], clicked[start:stop].tolist(), delays_us[start:stop])

    def bounds(self, split: Split | str) -> tuple[int, int]:
        """First slate of ``split``, and the one after its last: 80 % of the interactions train, 10 % validate.

        No slate is cut, and no slate of an earlier part is newer than one of a later part.

        Raises:
            ValueError: there is no such split.
        """
        ends = np.searchsorted(
            self._slate_starts,
            [len(self) * _TRAIN_SHARE, len(self) * (_TRAIN_SHARE + _VALIDATION_SHARE)],
        ).tolist()
        match Split(split):
            case Split.ALL:
                return 0, self.slate_count
            case Split.TRAIN:
                return 0, ends[0]
            case Split.VALIDATION:
                return ends[0], ends[1]
            case Split.TEST:
                return ends[1], self.slate_count

    def batches(
        self,
        batch_size: int,
        split: Split | str = Split.ALL,
        *,
        schema: Schema | None = None,
        shuffle_seed: int | None = None,
    ) -> Batches:
        """The examples of ``split``, ``batch_size`` at a time, as often as they are iterated.

        Each example holds what was known when its slate was shown: the person's history ends before that instant.

        Args:
            batch_size: examples in a batch; the last one may be smaller.
            split: which part, in time.
            schema: read these fields instead of the data set's own schema. Its fields are columns of ``items``,
                ``users`` or ``interactions``, or an ordered slot that shares the table of ``item``: the history.
            shuffle_seed: visit the examples in another order, a new one each time; ``None``: in time order.

        Raises:
            ValueError: ``batch_size`` is below 1, or there is no such split.
            SchemaError: a field of ``schema`` is nowhere in the tables.
        """
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        first, last = self.bounds(split)
        rows = range(int(self._slate_starts[first]), int(self._slate_starts[last]))
        return Batches(self._columns, schema if schema is not None else self.schema, rows, batch_size, shuffle_seed)

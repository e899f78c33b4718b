"""Examples from a data set's tables: attributes joined, and each person's history as it was just before.

An example must hold only what serving could have known, or offline figures promise what online never gives. So the
history of a slate at time t holds the items whose action came strictly before t (and what they are like); neither the
slate's own answers nor any later ones. Where the source tells no times but the order of each person's actions, the
places of slates stand for their times.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Final, final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from dolmen import features
from dolmen.errors import DataError, SchemaError
from dolmen.features import Schema, Side, Slot
from dolmen.seeds import generator

__all__ = ["Batches", "Columns", "Spans", "people_of"]

_HISTORY_MAX: Final = 1000  # where the slot sets no limit: so that one busy person cannot make a batch of any size


_Ints = NDArray[np.int64]


@final
@dataclass(frozen=True, eq=False)
class Spans:
    """Runs of actions: ``actions[starts[i]:stops[i]]``, rows of the interactions by person, oldest first."""

    actions: _Ints
    starts: _Ints
    stops: _Ints

    def take(self, places: _Ints) -> Spans:
        """The runs at ``places``."""
        return Spans(self.actions, self.starts[places], self.stops[places])

    def windows(self, max_len: int, stride: int) -> Spans:
        """Runs of at most ``max_len``: from each end back by ``stride``, and one from each start; in order."""
        lengths = self.stops - self.starts
        # Ends at stop, stop - stride, ... while a whole window lies before them, then the window from the start.
        counts = np.maximum(0, -(-(lengths - max_len) // stride)) + 1
        run = np.repeat(np.arange(len(lengths)), counts)
        from_end = np.repeat(np.cumsum(counts), counts) - 1 - np.arange(counts.sum())
        stops = np.maximum(self.stops[run] - from_end * stride, np.minimum(self.starts[run] + max_len, self.stops[run]))
        return Spans(self.actions, np.maximum(stops - max_len, self.starts[run]), stops)


@final
class Columns:
    """The tables of a data set, indexed so that any rows become one Arrow table of raw values.

    ``shown``: when each slate was, shape (slates,). ``acted``: when each row was acted on, shape (rows,); both in the
    same unit, whatever it is. Without ``has_histories`` they mean nothing.
    """

    def __init__(
        self,
        *,
        items: pa.Table,
        users: pa.Table,
        interactions: pa.Table,
        slate_starts: _Ints,
        shown: _Ints,
        acted: _Ints,
        label: str,
        has_histories: bool,
    ) -> None:
        self._interactions = interactions.combine_chunks()
        self._attributes = {Side.ITEM: items.combine_chunks(), Side.USER: users.combine_chunks()}
        self._slate_starts, self._shown, self._acted = slate_starts, shown, acted
        self._label, self._has_histories = label, has_histories

    def table(self, schema: Schema, rows: _Ints, spans: Spans | None = None) -> pa.Table:
        """The raw values of ``schema``'s fields at ``rows`` of the interactions, in that order.

        Args:
            schema: which fields.
            rows: of the interactions.
            spans: what the history of each row holds; what its person had acted on before the slate if ``None``.

        Raises:
            SchemaError: a field is nowhere in the tables.
            DataError: a history is asked for, and the order of actions is not known.
        """
        columns: dict[str, pa.Array] = {}
        if not self._interactions["event_time"].null_count:
            columns["event_time"] = self._interactions["event_time"].take(pa.array(rows))
        if spans is None and schema.history_slots:
            spans = self._before(rows)
        for name in (*schema.slots, *schema.dense, *schema.labels):
            columns[name] = self._column(schema, name, rows, spans)
        return pa.table(columns)

    def sequences(self, is_row: NDArray[np.bool_]) -> Spans:
        """One run a person, in order of first appearance: what they acted on among the rows where ``is_row``.

        Raises:
            DataError: the order of actions is not known.
        """
        *_, actions = self._actions
        actions = actions[is_row[actions]]
        people = self._people[actions]
        changes = np.flatnonzero(np.diff(people)) + 1
        starts = np.concatenate([[0], changes]) if len(actions) else changes
        return Spans(actions, starts, np.concatenate([changes, [len(actions)]]) if len(actions) else changes)

    def _column(self, schema: Schema, name: str, rows: _Ints, spans: Spans | None) -> pa.Array:
        if name in self._interactions.column_names:
            return self._interactions[name].take(pa.array(rows))
        for side, table in self._attributes.items():
            if name in table.column_names and name != "id":
                return table[name].take(self._rows_of[side].take(pa.array(rows)))
        source = schema.history_slots.get(name)
        if source is not None and spans is not None:
            return self._history(schema.slot(name), source, spans)
        known = [*self._interactions.column_names, *(c for t in self._attributes.values() for c in t.column_names)]
        raise SchemaError(f"the data set has no column {name!r}; it has {', '.join(sorted(set(known) - {'id'}))}")

    @cached_property
    def _rows_of(self) -> dict[Side, pa.Array]:
        """For each interaction the row of its item in ``items`` and of its person in ``users``; null if absent."""
        found = {}
        for side, table in self._attributes.items():
            ids = self._interactions[str(side)].combine_chunks()
            found[side] = pc.index_in(ids, value_set=table["id"].combine_chunks().cast(ids.type))
        return found

    def _before(self, rows: _Ints) -> Spans:
        """What each row's person had acted on before its slate."""
        first_of_user, ends, actions = self._actions
        slates = np.searchsorted(self._slate_starts, rows, side="right") - 1
        return Spans(actions, first_of_user[slates], ends[slates])

    def _history(self, slot: Slot, source: str, spans: Spans) -> pa.Array:
        """The end of each run: what the column ``source`` says of the actions (such as ``item``), or of their items."""
        limit = slot.max_len if slot.max_len is not None else _HISTORY_MAX
        stops, starts = spans.stops, np.maximum(spans.starts, spans.stops - limit)
        offsets = np.zeros(len(stops) + 1, dtype=np.int64)
        np.cumsum(stops - starts, out=offsets[1:])
        places = np.arange(offsets[-1]) + np.repeat(starts - offsets[:-1], stops - starts)
        past_rows = pa.array(spans.actions[places])
        if source in self._interactions.column_names:
            told = self._interactions[source].combine_chunks().take(past_rows)
        else:
            column = self._attributes[Side.ITEM][source].combine_chunks()
            told = column.take(self._rows_of[Side.ITEM].take(past_rows))
        is_list = pa.types.is_list(told.type) or pa.types.is_large_list(told.type)
        lengths = pc.fill_null(pc.list_value_length(told), 0) if is_list else told.is_valid().cast(pa.int64())
        ends = np.concatenate([[0], np.cumsum(lengths.to_numpy(), dtype=np.int64)])
        return pa.LargeListArray.from_arrays(pa.array(ends[offsets]), told.flatten() if is_list else told.drop_null())

    @cached_property
    def _people(self) -> _Ints:
        """The person of each row, as a number in order of first appearance."""
        return people_of(self._interactions)

    @cached_property
    def _actions(self) -> tuple[_Ints, _Ints, _Ints]:
        """What each slate may know of its person's actions.

        Returns, for each slate, the place of its person's first action and the place after the last one before the
        slate; and the interaction row at each place, where places are sorted by person, then by time of action.

        Raises:
            DataError: the order of actions is not known.
        """
        if not self._has_histories:
            raise DataError(
                "the source tells no order of actions, so there are no histories; use a schema without them"
            )
        people = self._people
        acted = np.flatnonzero(self._interactions[self._label].to_numpy() > 0)
        action_times = self._acted[acted]
        heads = self._slate_starts[:-1]
        # One sort of slates and actions by (person, time); at the same instant the slate comes first, so that it
        # does not see the action. Then the count of actions before a slate is its place among the actions.
        kinds = np.repeat([0, 1], [len(heads), len(acted)])
        who = np.concatenate([people[heads], people[acted]])
        when = np.concatenate([self._shown, action_times])
        order = np.lexsort((kinds, when, who))
        actions_so_far = np.cumsum(kinds[order])
        ends = np.empty(len(order), dtype=np.int64)
        ends[order] = actions_so_far
        in_order = order[kinds[order] == 1] - len(heads)
        first_of_user = np.searchsorted(people[acted][in_order], people[heads])
        return first_of_user, ends[: len(heads)], acted[in_order]


def people_of(interactions: pa.Table) -> _Ints:
    """Who each row belongs to, as a number in order of first appearance; 0 throughout where that is not known."""
    codes = interactions["user"].combine_chunks().dictionary_encode().indices
    return np.asarray(pc.fill_null(codes, 0).to_numpy(), dtype=np.int64)


@final
class Batches:
    """Examples in batches; iterate as often as needed. ``len`` counts the batches.

    With a ``shuffle_seed`` each iteration has its own order, which depends on the seed and on how many came before.
    """

    def __init__(
        self,
        columns: Columns,
        schema: Schema,
        rows: _Ints,
        batch_size: int,
        shuffle_seed: int | None,
        spans: Spans | None = None,
    ) -> None:
        self._columns, self._schema, self._batch_size = columns, schema, batch_size
        self._rows, self._spans = rows, spans
        self._shuffle_seed, self._iteration_count = shuffle_seed, 0

    def __len__(self) -> int:
        return math.ceil(len(self._rows) / self._batch_size)

    @property
    def example_count(self) -> int:
        """How many examples one iteration gives."""
        return len(self._rows)

    def __iter__(self) -> Iterator[features.Batch]:
        places = np.arange(len(self._rows))
        if self._shuffle_seed is not None:
            places = generator(self._shuffle_seed, "batches", self._iteration_count).permutation(places)
            self._iteration_count += 1
        for start in range(0, len(places), self._batch_size):
            chosen = places[start : start + self._batch_size]
            spans = None if self._spans is None else self._spans.take(chosen)
            yield features.extract_table(self._schema, self._columns.table(self._schema, self._rows[chosen], spans))

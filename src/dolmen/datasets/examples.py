"""Examples from a data set's tables: attributes joined, and each person's history as it was just before.

An example must hold only what serving could have known, or offline figures promise what online never gives. So the
history of a slate at time t holds the items whose action came strictly before t (and what they are like); neither the
slate's own answers nor any later ones.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Final, final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from dolmen.errors import SchemaError
from dolmen.features import Batch, Schema, Side, Slot, extract_table
from dolmen.seeds import generator

__all__ = ["Batches", "Columns"]

_HISTORY_MAX: Final = 1000  # where the slot sets no limit: so that one busy person cannot make a batch of any size


@final
class Columns:
    """The tables of a data set, indexed so that any rows become one Arrow table of raw values."""

    def __init__(
        self,
        *,
        items: pa.Table,
        users: pa.Table,
        interactions: pa.Table,
        slate_starts: NDArray[np.int64],
        event_times_us: NDArray[np.int64],
        label: str,
    ) -> None:
        self._interactions = interactions.combine_chunks()
        self._attributes = {Side.ITEM: items.combine_chunks(), Side.USER: users.combine_chunks()}
        self._slate_starts, self._event_times_us, self._label = slate_starts, event_times_us, label

    def table(self, schema: Schema, rows: NDArray[np.int64]) -> pa.Table:
        """The raw values of ``schema``'s fields at ``rows`` of the interactions, in that order.

        Raises:
            SchemaError: a field is nowhere in the tables.
        """
        columns: dict[str, pa.Array] = {"event_time": self._interactions["event_time"].take(pa.array(rows))}
        for name in (*schema.slots, *schema.dense, *schema.labels):
            columns[name] = self._column(schema, name, rows)
        return pa.table(columns)

    def _column(self, schema: Schema, name: str, rows: NDArray[np.int64]) -> pa.Array:
        if name in self._interactions.column_names:
            return self._interactions[name].take(pa.array(rows))
        for side, table in self._attributes.items():
            if name in table.column_names and name != "id":
                return table[name].take(self._rows_of[side].take(pa.array(rows)))
        source = schema.history_slots.get(name)
        if source is not None:
            return self._history(schema.slot(name), source, rows)
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

    def _history(self, slot: Slot, source: str, rows: NDArray[np.int64]) -> pa.Array:
        """What each row's person had acted on before: the items, or what their column ``source`` says of them."""
        first_of_user, ends, acted_rows = self._actions
        slates = np.searchsorted(self._slate_starts, rows, side="right") - 1
        stops = ends[slates]
        limit = slot.max_len if slot.max_len is not None else _HISTORY_MAX
        starts = np.maximum(first_of_user[slates], stops - limit)
        offsets = np.zeros(len(rows) + 1, dtype=np.int64)
        np.cumsum(stops - starts, out=offsets[1:])
        places = np.arange(offsets[-1]) + np.repeat(starts - offsets[:-1], stops - starts)
        past_rows = pa.array(acted_rows[places])
        if source == "item":
            values = self._interactions["item"].combine_chunks().take(past_rows)
            return pa.LargeListArray.from_arrays(pa.array(offsets), values)
        column = self._attributes[Side.ITEM][source].combine_chunks()
        told = column.take(self._rows_of[Side.ITEM].take(past_rows))
        is_list = pa.types.is_list(told.type) or pa.types.is_large_list(told.type)
        lengths = pc.fill_null(pc.list_value_length(told), 0) if is_list else told.is_valid().cast(pa.int64())
        ends = np.concatenate([[0], np.cumsum(lengths.to_numpy(), dtype=np.int64)])
        return pa.LargeListArray.from_arrays(pa.array(ends[offsets]), told.flatten() if is_list else told.drop_null())

    @cached_property
    def _actions(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """What each slate may know of its person's actions.

        Returns, for each slate, the place of its person's first action and the place after the last one before the
        slate; and the interaction row at each place, where places are sorted by person, then by time of action.
        """
        people = self._interactions["user"].combine_chunks().dictionary_encode().indices.to_numpy().astype(np.int64)
        acted = np.flatnonzero(self._interactions[self._label].to_numpy() > 0)
        action_times = pc.fill_null(self._interactions["action_time"].cast(pa.int64()), 0).to_numpy()[acted]
        heads = self._slate_starts[:-1]
        # One sort of slates and actions by (person, time); at the same instant the slate comes first, so that it
        # does not see the action. Then the count of actions before a slate is its place among the actions.
        kinds = np.repeat([0, 1], [len(heads), len(acted)])
        who = np.concatenate([people[heads], people[acted]])
        when = np.concatenate([self._event_times_us[heads], action_times])
        order = np.lexsort((kinds, when, who))
        actions_so_far = np.cumsum(kinds[order])
        ends = np.empty(len(order), dtype=np.int64)
        ends[order] = actions_so_far
        in_order = order[kinds[order] == 1] - len(heads)
        first_of_user = np.searchsorted(people[acted][in_order], people[heads])
        return first_of_user, ends[: len(heads)], acted[in_order]


@final
class Batches:
    """Examples in batches; iterate as often as needed. ``len`` counts the batches.

    With a ``shuffle_seed`` each iteration has its own order, which depends on the seed and on how many came before.
    """

    def __init__(
        self, columns: Columns, schema: Schema, rows: Sequence[int], batch_size: int, shuffle_seed: int | None
    ) -> None:
        self._columns, self._schema, self._batch_size = columns, schema, batch_size
        self._rows = np.asarray(rows, dtype=np.int64)
        self._shuffle_seed, self._iteration_count = shuffle_seed, 0

    def __len__(self) -> int:
        return math.ceil(len(self._rows) / self._batch_size)

    @property
    def example_count(self) -> int:
        """How many examples one iteration gives."""
        return len(self._rows)

    def __iter__(self) -> Iterator[Batch]:
        rows = self._rows
        if self._shuffle_seed is not None:
            rows = generator(self._shuffle_seed, "batches", self._iteration_count).permutation(rows)
            self._iteration_count += 1
        for start in range(0, len(rows), self._batch_size):
            yield extract_table(self._schema, self._columns.table(self._schema, rows[start : start + self._batch_size]))

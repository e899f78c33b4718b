"""What the models read: the features of whoever asks and of the items, side by side.

Everything about items is gathered by row of the catalogue in a few calls; no Python object of any item is touched.

A person's history slots go together by construction: each behaviour has one value in every slot that takes the same
kinds of action at the same length, whatever the catalogue knows of the item. A slot for which an item has no value
(it has none, or the item is unknown or forgotten) holds the value ``""`` there, whose row is learned like any other.
Only of item slots with many values, such as genres, a behaviour has as many as there are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, final

import numpy as np
import torch

from dolmen.errors import SchemaError
from dolmen.events import Features
from dolmen.features import Batch, Jagged, RawId, Side, Spread, encode_values, extract_rows
from dolmen.serving.behaviours import Behaviours
from dolmen.serving.catalogue import Catalogue, Rows
from dolmen.serving.settings import ServeSettings
from dolmen.settings import suggestion

__all__ = ["Inputs"]

_NO_VALUE: Final = ""  # of an item in a history slot: what it is like, nobody knows


@final
class Inputs:
    """Gathers features from catalogue and behaviours; reads, and changes nothing. Any thread may call anything."""

    def __init__(self, settings: ServeSettings, catalogue: Catalogue, behaviours: Behaviours) -> None:
        self._schema, self._catalogue, self._behaviours = settings.schema, catalogue, behaviours
        assert settings.history_slots is not None, "filled when made"
        self._history_max = settings.history_max
        self._item_number = self._schema.slot_number("item")
        self._unknown = {
            source: encode_values(self._schema.slot_number(source), [_NO_VALUE]).tolist()[0]
            for source in self._schema.history_slots.values()
        }
        together: dict[tuple[frozenset[str], int], list[str]] = {}
        for name, kinds in settings.history_slots.items():
            if not self._has_many(self._schema.history_slots[name]):
                together.setdefault((frozenset(kinds), self.length_of(name)), []).append(name)
        self._together = [names for names in together.values() if len(names) > 1]
        self._liked = {
            name: (source, settings.history_slots[name], self.length_of(name))
            for name, source in self._schema.history_slots.items()
            if source != "item" and name in settings.history_slots
        }
        self._request_slots, self._request_dense = self._names_of(Side.REQUEST)
        slots, dense = self._names_of(Side.USER)
        self._person_slots, self._person_dense = slots + self._request_slots, dense + self._request_dense
        self._item_slots, self._item_dense = self._names_of(Side.ITEM)

    def length_of(self, name: str) -> int:
        """How many behaviours the history slot ``name`` holds at most."""
        return self._schema.slot(name).max_len or self._history_max

    def past(self, user: RawId, slots: Sequence[str]) -> dict[str, list[int]]:
        """What a person did, as ``person`` tells it: for each of these history slots the FIDs, oldest first.

        Raises:
            SchemaError: the slots cannot go together: they take other kinds of action, or hold other counts.
        """
        told = self._history(user)
        past = {name: told[name] for name in slots}
        if len({len(fids) for fids in past.values()}) > 1:
            counts = ", ".join(f"{name} {len(fids)}" for name, fids in past.items())
            raise SchemaError(
                f"history slots of {user!r} have different counts of values ({counts}); each behaviour needs one of "
                "each: give the slots one max_len and the same kinds in serving.history_slots, and the items one value"
            )
        return past

    def behaviour(self, item: RawId, slots: Sequence[str]) -> tuple[int, ...] | None:
        """The FID by which ``item`` enters each of these history slots; ``None`` where it has not one for each."""
        fids: list[int] = []
        for name in slots:
            source = self._schema.history_slots[name]
            if source == "item":
                fids += encode_values(self._item_number, [item]).tolist()
            else:
                fids += self._like(source, [item])
        return tuple(fids) if len(fids) == len(slots) else None

    def person(self, user: RawId, context: Mapping[str, Any]) -> Features:
        """Who asks: what the catalogue says, what they did and what that is like; and the moment.

        Raises:
            SchemaError: ``context`` has a name that is no request feature, or a value that does not fit it.
        """
        profile = self._catalogue.profile_of(user)
        slots = {**profile.slots, **self._history(user)}
        dense = dict(profile.dense)
        if context or self._request_slots or self._request_dense:
            moment = self._moment(context)
            slots |= {name: jagged.values.tolist() for name, jagged in moment.slots.items()}
            dense |= {name: column.item() for name, column in moment.dense.items()}
        return Features(slots, dense)

    def people(self, people: Sequence[Features]) -> Batch:
        """One example for each of ``people``, without any item."""
        return Batch(
            size=len(people),
            slots={name: Jagged.from_lists([one.slots[name] for one in people]) for name in self._person_slots},
            dense={name: torch.tensor([one.dense[name] for one in people]) for name in self._person_dense},
        )

    def items(self, asked: Sequence[tuple[Rows, Sequence[RawId] | None]]) -> Batch:
        """The item side of all rows, one request after the other.

        Args:
            asked: for each request the rows of the catalogue, and the ids of the same items where some of the rows are
                -1, which is an item that the catalogue does not know.
        """
        rows = np.concatenate([some for some, _ in asked])
        if len(rows) == 0 or int(rows.min()) >= 0:
            return self._catalogue.items(rows)
        strangers = [
            {"item": raw}
            for some, ids in asked
            if ids is not None
            for raw, row in zip(ids, some.tolist(), strict=True)
            if row < 0
        ]
        unknown = extract_rows(self._schema, strangers, slots=self._item_slots, dense=self._item_dense)
        known = self._catalogue.items(rows[rows >= 0])
        order = np.empty(len(rows), dtype=np.int64)
        order[rows >= 0] = np.arange(known.size)
        order[rows < 0] = known.size + np.arange(unknown.size)
        return Batch.concat([known, unknown]).take(torch.from_numpy(order))

    def beside(self, people: Batch, counts: Sequence[int], items: Batch, now_us: int) -> Batch:
        """``items`` with the features of whoever asks about each: the first ``counts[0]`` of them for the first."""
        owners = np.arange(people.size).repeat(counts)
        spread = torch.from_numpy(owners)
        return Batch(
            size=items.size,
            slots={**{name: Spread(rows, spread) for name, rows in people.slots.items()}, **items.slots},
            dense={
                **{name: torch.from_numpy(column.numpy()[owners]) for name, column in people.dense.items()},
                **items.dense,
            },
            event_times_us=torch.from_numpy(np.full(items.size, now_us, dtype=np.int64)),
        )

    def _names_of(self, side: Side) -> tuple[list[str], list[str]]:
        return [slot.name for slot in self._schema.slots_of(side)], [one.name for one in self._schema.dense_of(side)]

    def _history(self, user: RawId) -> dict[str, list[int]]:
        """The items that a person acted on and what those are like: for each history slot the FIDs, oldest first."""
        if not self._liked:
            return self._behaviours.history_of(user)
        with self._behaviours.lock:  # or an action between the two would be in one of them alone
            history, acts = self._behaviours.history_of(user), self._behaviours.acts_of(user)
        for name, (source, kinds, length) in self._liked.items():
            items = [act.item for act in acts if act.kind in kinds][-length:]
            history[name] = self._like(source, items)[-length:]
        for names in self._together:
            # All hold the newest of the same behaviours. Items may be remembered from longer ago than the actions are,
            # where actions of other kinds came since.
            count = min(len(history[name]) for name in names)
            for name in names:
                history[name] = history[name][len(history[name]) - count :]
        return history

    def _like(self, source: str, items: Sequence[RawId]) -> list[int]:
        """What these items are like: the FIDs of one of their slots; one for each item unless it takes many values."""
        if self._has_many(source):
            return self._catalogue.fids(source, self._catalogue.rows_of(items))
        return self._catalogue.fid_of_each(source, items, self._unknown[source])

    def _has_many(self, source: str) -> bool:
        return self._schema.slot(source).many

    def _moment(self, context: Mapping[str, Any]) -> Batch:
        for name in context:
            if name not in self._request_slots and name not in self._request_dense:
                known = [*self._request_slots, *self._request_dense]
                raise SchemaError(f"context: the schema has no request feature {name!r}{suggestion(name, known)}")
        try:
            return extract_rows(self._schema, [context], slots=self._request_slots, dense=self._request_dense)
        except SchemaError as problem:
            raise SchemaError(f"context: {str(problem).removeprefix('row 0: ')}") from None

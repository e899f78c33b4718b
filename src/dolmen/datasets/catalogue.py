"""The catalogue that a data set describes: items as they come and go, and what is known of its people.

A data set that knows when its items were on offer says so in the columns ``available_from_us`` and
``available_until_us`` of ``items``; in one that does not, every item is there from the start, for good.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, final

from dolmen.datasets.dataset import Dataset
from dolmen.features import RawId

__all__ = ["Entry", "item_changes", "latest", "people"]

_FROM: Final = "available_from_us"
_UNTIL: Final = "available_until_us"


@final
@dataclass(frozen=True)
class Entry:
    """One item or person, whole: what is null is left out. ``removed``: it is no more."""

    id: RawId
    attributes: Mapping[str, Any]
    removed: bool = False


def item_changes(dataset: Dataset) -> list[tuple[int, Entry]]:
    """When each item came (0: it was there from the start), and when it left, in order of time."""
    changes: list[tuple[int, Entry]] = []
    for row in dataset.items.to_pylist():
        since_us, until_us = row.pop(_FROM, None), row.pop(_UNTIL, None)
        item = _entry(row)
        changes.append((since_us if since_us is not None else 0, item))
        if until_us is not None:
            changes.append((until_us, Entry(item.id, {}, removed=True)))
    changes.sort(key=lambda change: change[0])
    return changes


def latest(changes: Iterable[tuple[int, Entry]]) -> list[Entry]:
    """What holds after ``changes``: the last of each item. One that came and went is there as gone only."""
    return list({entry.id: entry for _, entry in changes}.values())


def people(dataset: Dataset) -> list[Entry]:
    """What is known of each person."""
    return [_entry(row) for row in dataset.users.to_pylist()]


def _entry(row: dict[str, Any]) -> Entry:
    return Entry(row.pop("id"), {name: value for name, value in row.items() if value is not None})

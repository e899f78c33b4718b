"""Keeps the server's catalogue as the shop's was at each moment of the replay: items appear, and items retire.

A data set that knows when its items were on offer says so in the columns ``available_from_us`` and
``available_until_us`` of ``items``; in one that does not, every item is there from the start.
"""

from __future__ import annotations

from typing import Any, Final, final

from dolmen.client import Client
from dolmen.datasets import Dataset

__all__ = ["Catalogue"]

_FROM: Final = "available_from_us"
_UNTIL: Final = "available_until_us"


@final
class Catalogue:
    """The catalogue of ``dataset`` on the server behind ``client``, as of the time it was moved to last."""

    def __init__(self, client: Client, dataset: Dataset) -> None:
        self._client, self._dataset = client, dataset
        changes: list[tuple[int, dict[str, Any]]] = []
        for row in dataset.items.to_pylist():
            since, until = row.pop(_FROM, None), row.pop(_UNTIL, None)
            item = _entry(row)
            changes.append((since if since is not None else 0, item))
            if until is not None:
                changes.append((until, {"id": item["id"], "removed": True}))
        changes.sort(key=lambda change: change[0])
        self._changes = changes
        self._next = 0

    def add_users(self) -> None:
        """Tell what is known of the people."""
        self._client.add_users([_entry(row) for row in self._dataset.users.to_pylist()])

    def move_to(self, time_us: int) -> None:
        """Send the changes up to ``time_us``, in order. Time does not go back."""
        end = self._next
        while end < len(self._changes) and self._changes[end][0] <= time_us:
            end += 1
        if end > self._next:
            # An item that came and went in between is sent as gone only: one request never names an item twice.
            latest = {change["id"]: change for _, change in self._changes[self._next : end]}
            self._client.add_items(list(latest.values()))
            self._next = end  # only now: what could not be sent is sent with the next


def _entry(row: dict[str, Any]) -> dict[str, Any]:
    return {"id": row.pop("id"), "attributes": {name: value for name, value in row.items() if value is not None}}

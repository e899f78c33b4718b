"""Keeps the server's catalogue as the shop's was at each moment of the replay: items appear, and items retire."""

from __future__ import annotations

from dataclasses import asdict
from typing import final

from dolmen.client import Client
from dolmen.datasets import Dataset, item_changes, latest, people

__all__ = ["Catalogue"]


@final
class Catalogue:
    """The catalogue of ``dataset`` on the server behind ``client``, as of the time it was moved to last."""

    def __init__(self, client: Client, dataset: Dataset) -> None:
        self._client, self._dataset = client, dataset
        self._changes = item_changes(dataset)
        self._next = 0

    def add_users(self) -> None:
        """Tell what is known of the people."""
        self._client.add_users([asdict(one) for one in people(self._dataset)])

    def move_to(self, time_us: int) -> None:
        """Send the changes up to ``time_us``, in order. Time does not go back."""
        end = self._next
        while end < len(self._changes) and self._changes[end][0] <= time_us:
            end += 1
        if end > self._next:
            # One request never names an item twice.
            self._client.add_items([asdict(one) for one in latest(self._changes[self._next : end])])
            self._next = end  # only now: what could not be sent is sent with the next

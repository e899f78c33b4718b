"""How often each item was shown and acted on: which items are new, which are popular, which get clicked.

Counts follow the topics of impressions and actions, so they survive restarts and know what other servers showed.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Final, final

import msgspec
import numpy as np
from numpy.typing import NDArray

from dolmen.errors import BadEventError
from dolmen.events.event import Action
from dolmen.events.log import Log, Topic
from dolmen.features import RawId
from dolmen.serving.catalogue import Catalogue, Rows
from dolmen.serving.ids import key_of
from dolmen.serving.settings import ServeSettings
from dolmen.serving.state import Change, Changes, State
from dolmen.serving.tail import Tail
from dolmen.training.specimens import Specimens

__all__ = ["COUNTS_TABLE", "TOTALS_TABLE", "Exposure", "Shown", "decode_shown"]

COUNTS_TABLE: Final = "counts"
TOTALS_TABLE: Final = "totals"
_SHOWN_KEY: Final = b"shown"
_PRIOR_SHOWN: Final = 20.0  # an item shown less often than this is mostly judged by the average of all
_PRIOR_RATE: Final = 0.05  # that average, before anything was shown


class _Stored(msgspec.Struct, array_like=True):
    id: RawId
    shown: int
    acted: int
    weight: float
    weight_time_us: int


class Shown(msgspec.Struct, tag="impression", array_like=True, frozen=True, gc=False):
    """What counting needs of an impression; the other fields are passed over."""

    request_id: str
    event_time_us: int
    user: RawId
    version: int
    surface: str
    shared: msgspec.Raw
    items: list[RawId]
    item_slots: msgspec.Raw = msgspec.Raw()
    item_dense: msgspec.Raw = msgspec.Raw()
    probabilities: msgspec.Raw = msgspec.Raw()
    propensities: msgspec.Raw = msgspec.Raw()
    learn: bool = True


_stored_decoder: Final = msgspec.msgpack.Decoder(_Stored)
_shown_decoder: Final = msgspec.msgpack.Decoder(Shown)


def decode_shown(value: bytes) -> Sequence[RawId]:
    """The items of an impression as the log stores it; none if nobody could act on it."""
    try:
        shown = _shown_decoder.decode(value)
    except msgspec.DecodeError as problem:
        raise BadEventError(f"Impression: {problem}") from None
    return shown.items if shown.learn else ()


@final
class Exposure:
    """Counts by row of the catalogue. Any thread may call anything.

    ``shown_count``: items shown, on all slates ever.
    """

    def __init__(self, settings: ServeSettings, log: Log, state: State, catalogue: Catalogue) -> None:
        self._settings, self._catalogue = settings, catalogue
        self._kinds = {label.action_kind for label in settings.schema.labels.values()}
        self._half_life_us = settings.us("popularity_half_life")
        self.lock = threading.RLock()
        self._shown, self._acted = np.zeros(16, dtype=np.int64), np.zeros(16, dtype=np.int64)
        self._weights, self._times_us = np.zeros(16), np.zeros(16, dtype=np.int64)
        self._dirty: set[int] = set()
        self._saving: set[int] = set()
        self._gone: set[bytes] = set()
        self._going: set[bytes] = set()
        total = state.get(TOTALS_TABLE, _SHOWN_KEY)
        self.shown_count: int = msgspec.msgpack.decode(total) if total is not None else 0
        self._saved_shown_count = self.shown_count
        for _, value in state.scan(COUNTS_TABLE):
            self._restore(_stored_decoder.decode(value))
        self.shown_tail: Tail[Sequence[RawId]] = Tail(
            log,
            Topic.IMPRESSIONS,
            positions=state.positions(Topic.IMPRESSIONS),
            decode=decode_shown,
            prepare=lambda slates: lambda: self._show(slates),
            lock=self.lock,
            aside=Specimens(settings.aside_folder),
        )

    def new_rows(self) -> Rows:
        """The items that can be shown and were not shown often yet."""
        alive = self._catalogue.alive()
        with self.lock:
            self._reserve(len(alive))
            return np.flatnonzero(alive & (self._shown[: len(alive)] < self._settings.explore_below))

    def popularity(self, now_us: int) -> NDArray[np.float64]:
        """By row: actions, each counting half after every half-life."""
        count = self._catalogue.row_count
        with self.lock:
            self._reserve(count)
            ages = np.maximum(now_us - self._times_us[:count], 0) / self._half_life_us
            decayed: NDArray[np.float64] = self._weights[:count] * np.exp2(-ages)
            return decayed

    def rates(self, rows: Rows) -> NDArray[np.float64]:
        """How likely each of ``rows`` is acted on when shown; near that of all where little is known (row -1)."""
        with self.lock:
            self._reserve(int(rows.max(initial=-1)) + 1)
            total_shown, total_acted = int(self._shown.sum()), int(self._acted.sum())
            average = (min(total_acted, total_shown) + _PRIOR_SHOWN * _PRIOR_RATE) / (total_shown + _PRIOR_SHOWN)
            shown = np.where(rows >= 0, self._shown[rows], 0)
            acted = np.where(rows >= 0, np.minimum(self._acted[rows], shown), 0)
            rates: NDArray[np.float64] = (acted + _PRIOR_SHOWN * average) / (shown + _PRIOR_SHOWN)
            return rates

    def prepare(self, actions: Sequence[Action]) -> Callable[[], None]:
        """What counts ``actions``, none of which was counted before, when it is called: all of them at once."""
        counted = [action for action in actions if action.kind in self._kinds]

        def count() -> None:
            with self.lock:
                found = [(self._catalogue.rows_of([action.item]).tolist(), action.event_time_us) for action in counted]
                self._reserve(max((row for rows, _ in found for row in rows), default=-1) + 1)
                for rows, time_us in found:
                    for row in rows:
                        self._act(row, time_us)

        return count

    def forget(self, rows: Sequence[int], ids: Sequence[RawId]) -> None:
        """The items ``ids`` on these rows are no more: their rows are to become those of others."""
        with self.lock:
            self._reserve(max(rows, default=-1) + 1)
            chosen = list(rows)
            for column in (self._shown, self._acted, self._weights, self._times_us):
                column[chosen] = 0
            self._dirty.difference_update(rows)
            self._gone.update(map(key_of, ids))

    def take_changes(self) -> Changes:
        """What changed since the last call, with the log positions that it includes."""
        with self.lock:
            self._saving, self._dirty = self._dirty, set()
            rows = np.fromiter(self._saving, dtype=np.int64)
            columns = [column[rows].tolist() for column in (self._shown, self._acted, self._weights, self._times_us)]
            self._going, self._gone = self._gone, set()
            shown_count = self.shown_count
            positions: dict[str, dict[int, int]] = {Topic.IMPRESSIONS: self.shown_tail.positions}
        ids = [self._catalogue.ids[row] for row in rows.tolist()]
        stored = [_Stored(*values) for values in zip(ids, *columns, strict=True)]
        changes: list[Change] = [(COUNTS_TABLE, key, None) for key in self._going]
        changes += [(COUNTS_TABLE, key_of(one.id), msgspec.msgpack.encode(one)) for one in stored]
        if shown_count != self._saved_shown_count:
            changes.append((TOTALS_TABLE, _SHOWN_KEY, msgspec.msgpack.encode(shown_count)))
            self._saved_shown_count = shown_count
        return Changes(changes, positions)

    def saved(self, *, on_disk: bool) -> None:
        """What was taken is on disk, or is not and must be taken again."""
        with self.lock:
            if not on_disk:
                self._dirty |= self._saving
                self._gone |= self._going
                self._saved_shown_count = -1
            self._saving, self._going = set(), set()

    def _show(self, slates: Sequence[Sequence[RawId]]) -> None:
        rows = self._catalogue.rows_of([item for slate in slates for item in slate])
        self._reserve(int(rows.max(initial=-1)) + 1)
        np.add.at(self._shown, rows, 1)
        self._dirty.update(rows.tolist())
        self.shown_count += sum(map(len, slates))

    def _act(self, row: int, time_us: int) -> None:
        self._acted[row] += 1
        age_us = time_us - int(self._times_us[row])
        if age_us >= 0:
            self._weights[row] = self._weights[row] * 0.5 ** min(age_us / self._half_life_us, 1000.0) + 1.0
            self._times_us[row] = time_us
        else:  # an older action that came late: it has decayed already
            self._weights[row] += 0.5 ** min(-age_us / self._half_life_us, 1000.0)
        self._dirty.add(row)

    def _restore(self, stored: _Stored) -> None:
        if not self._catalogue.is_known_item(stored.id):  # it left the catalogue
            self._gone.add(key_of(stored.id))
        for row in self._catalogue.rows_of([stored.id]).tolist():
            self._reserve(row + 1)
            self._shown[row], self._acted[row] = stored.shown, stored.acted
            self._weights[row], self._times_us[row] = stored.weight, stored.weight_time_us

    def _reserve(self, count: int) -> None:
        size = len(self._shown)
        if count <= size:
            return
        more = max(count, 2 * size) - size
        self._shown = np.concatenate([self._shown, np.zeros(more, dtype=np.int64)])
        self._acted = np.concatenate([self._acted, np.zeros(more, dtype=np.int64)])
        self._weights = np.concatenate([self._weights, np.zeros(more)])
        self._times_us = np.concatenate([self._times_us, np.zeros(more, dtype=np.int64)])

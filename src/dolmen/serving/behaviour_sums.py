"""Sums over all that a person did, kept as actions come: ranking reads them, at one price for any length of a past.

For models that condense a past (``dolmen.models.Condenses``), SDIM among them, whose authors call this part the
behaviour sequence encoding server (Y. Cao et al., CIKM 2022): it keeps the buckets, the ranker looks into them.

- A behaviour is added once, when it happens, with the rows of that moment: as many sums as there are hashes.
- Learning moves rows afterwards, and a sum can't be told which of its parts moved. So sums are made anew from the
  history once they are ``behaviour_sums_age_max`` old: for people who keep asking by this part's own thread, for others
  when they come back.
- A history of limited length forgets its oldest behaviour with each new one. What left stays in the sums until a
  sixteenth of the history has left; then they are made anew. So a behaviour costs the same on the average, and no
  rounding is left behind where a bucket became empty.

Nothing here is written to disk: people's histories are, and sums follow from them.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import Final, final

import torch
from torch import Tensor

from dolmen.clock import Clock
from dolmen.features import Batch, Jagged, RawId
from dolmen.models import Condenses, condenser
from dolmen.serving.behaviours import Behaviours
from dolmen.serving.inputs import Inputs
from dolmen.serving.settings import ServeSettings
from dolmen.serving.worker import Worker
from dolmen.telemetry import logger
from dolmen.training.snapshot import Parameters

__all__ = ["BehaviourSums"]

_log = logger(__name__)
_TURN_SECONDS: Final = 0.25  # as often as deltas come
_LEFT_PARTS: Final = 16


@final
class _Kept:
    """One person's. ``lock``: of whoever adds; the pending behaviours are under the lock of ``Behaviours``.

    ``values``: (1, *condensed_shape), over all but the pending behaviours, never changed in place; ``None`` at first.
    ``pending``: FIDs by past slot, oldest first. ``count``: of behaviours in both. ``read_us``: when the row was read
    that was read first. ``lineage``: of the parameters that the rows were of. ``asked_us``: when ranking wanted them.
    """

    __slots__ = ("asked_us", "count", "lineage", "lock", "pending", "read_us", "values")

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.values: Tensor | None = None
        self.pending: dict[str, list[int]] = {}
        self.count = self.read_us = self.asked_us = 0
        self.lineage = ""


@final
class BehaviourSums:
    """Everybody's sums, of those who were about lately. Any thread may call anything.

    Args:
        settings: how old sums may become, and of how many people they are kept.
        clock: for their age.
        behaviours: the histories; tells of each new behaviour.
        inputs: what a behaviour is made of.
    """

    def __init__(self, settings: ServeSettings, clock: Clock, behaviours: Behaviours, inputs: Inputs) -> None:
        self._settings, self._clock, self._behaviours, self._inputs = settings, clock, behaviours, inputs
        self._age_max_us = settings.us("behaviour_sums_age_max")
        self._people: OrderedDict[RawId, _Kept] = OrderedDict()  # the longest unused first
        self._slots: tuple[str, ...] = ()
        self._due: set[RawId] = set()
        self._parameters: Parameters | None = None
        self.worker = Worker("sums", self._run)
        self.added_count = 0
        self.renewed_count = 0
        behaviours.tell(self._acted)

    def __len__(self) -> int:
        """Of how many people sums are kept."""
        return len(self._people)

    def of(self, parameters: Parameters, users: Sequence[RawId]) -> Tensor:
        """The sums of these people by the model's rows, shape (users, *condensed_shape). The model must condense.

        No row that went into them was read longer ago than ``behaviour_sums_age_max``.

        Raises:
            SchemaError: the model's history slots cannot go together, see ``Inputs.past``.
        """
        able = condenser(parameters.model)
        assert able is not None, "ask `condenser` before"
        self._parameters = parameters
        now_us = self._clock.now_us()
        sums = []
        for user in users:
            kept = self._find(user, able.past_slots)
            kept.asked_us = now_us
            sums.append(self._current(user, kept, able, parameters, now_us - self._age_max_us))
        return torch.cat(sums)

    def _find(self, user: RawId, slots: tuple[str, ...]) -> _Kept:
        with self._behaviours.lock:
            if slots != self._slots:  # another model
                self._people.clear()
                self._slots = slots
            kept = self._people.get(user)
            if kept is None:
                kept = self._people[user] = _Kept()
                if len(self._people) > self._settings.behaviour_sums_people_max:
                    self._people.popitem(last=False)
            else:
                self._people.move_to_end(user)
            return kept

    def _acted(self, user: RawId, item: RawId, slots: Sequence[str]) -> None:
        """A behaviour has just entered ``slots`` of this person's history. Called under the lock of ``Behaviours``."""
        kept = self._people.get(user)
        if kept is None or not any(name in slots for name in self._slots):
            return
        fids, length = self._inputs.behaviour(item, self._slots), self._inputs.length_of(self._slots[0])
        kept.count += 1
        if fids is None or kept.count > length + length // _LEFT_PARTS:
            del self._people[user]  # made anew when it is asked for
            return
        for name, fid in zip(self._slots, fids, strict=True):
            kept.pending.setdefault(name, []).append(fid)
        with self.worker.wake:
            self._due.add(user)
            self.worker.wake.notify()

    def _current(self, user: RawId, kept: _Kept, able: Condenses, parameters: Parameters, read_since_us: int) -> Tensor:
        """The sums with all that is pending, made anew where a row was read before ``read_since_us``."""
        with kept.lock:
            if kept.values is None or kept.lineage != parameters.lineage or kept.read_us < read_since_us:
                with self._behaviours.lock:
                    kept.pending = self._inputs.past(user, able.past_slots)
                    kept.count = len(kept.pending[able.past_slots[0]])
                kept.read_us, kept.lineage = self._clock.now_us(), parameters.lineage
                kept.values = torch.zeros(1, *(able.condensed_shape or ()), device=str(parameters.compute.device))
                self.renewed_count += 1
            with self._behaviours.lock:
                pending, kept.pending = kept.pending, {}
            if pending:
                batch = Batch(size=1, slots={name: Jagged.from_lists([fids]) for name, fids in pending.items()})
                with parameters.computing():
                    kept.values = able.condense(parameters.placed(batch), kept.values)
                self.added_count += len(batch.slot(able.past_slots[0]).values)
            return kept.values

    def _run(self) -> None:
        while True:
            with self.worker.wake:
                self.worker.wake.wait_for(lambda: self.worker.is_stopping or self._due, _TURN_SECONDS)
                if self.worker.is_stopping:
                    return
                due, self._due = self._due, set()
            try:
                self._turn(due)
            except Exception:  # a fault of ours: who asks has the sums made, and is told what is wrong
                _log.exception("sums not brought up to date", people=len(due))
            self.worker.rest(_TURN_SECONDS)

    def _turn(self, due: set[RawId]) -> None:
        """Add what came; and for people who keep asking, make sums anew before a request would have to."""
        parameters = self._parameters
        able = condenser(parameters.model) if parameters is not None else None
        if parameters is None or able is None:
            return
        now_us = self._clock.now_us()
        with self._behaviours.lock:
            acted = [(user, kept) for user in due if (kept := self._people.get(user)) is not None]
            asking = self._asking(now_us - self._age_max_us)
        for some, read_since_us in ((acted, 0), (asking, now_us - self._age_max_us // 2)):
            for user, kept in some:
                if self.worker.is_stopping:
                    return
                self._current(user, kept, able, parameters, read_since_us)

    def _asking(self, since_us: int) -> list[tuple[RawId, _Kept]]:
        """Those who asked since then."""
        asking = []
        for user, kept in reversed(self._people.items()):
            if kept.asked_us < since_us:
                break
            asking.append((user, kept))
        return asking

"""Settings of a server: every limit has its default here, and the reason for it."""

from __future__ import annotations

import functools
import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, final

from dolmen.clock import Duration, parse_duration_us
from dolmen.devices import Arithmetic, Device
from dolmen.embedding import Precision
from dolmen.errors import ConfigError
from dolmen.features import Schema, Side
from dolmen.settings import chosen, suggestion

__all__ = ["ALWAYS", "IndexKind", "ServeSettings", "is_loopback"]

ALWAYS: Final = "always"

_BOUNDS: Final[dict[str, tuple[float, float]]] = {
    "port": (0, 65535),
    "candidate_count": (1, 10_000),
    "popular_count": (0, 10_000),
    "affinity_weight": (0.0, 100.0),
    "slate_max": (1, 1000),
    "explore_share": (0.0, 1.0),
    "explore_below": (0, 1_000_000),
    "model_from_version": (0, 1 << 62),
    "uncorrected_negative_rate": (1e-9, 1.0),
    "history_max": (1, 1_000_000),
    "hidden_max": (1, 1_000_000),
    "people_in_memory": (1, 100_000_000),
    "removed_items_max": (0, 100_000_000),
    "behaviour_sums_people_max": (1, 100_000_000),
    "refresh_items_per_second": (1, 10_000_000),
    "queue_max": (1, 100_000),
    "score_together_max": (1, 1000),
    "answers_bytes_max": (0, 1 << 34),
    "event_ids_max": (0, 10_000_000),
    "log_queue_bytes_max": (1 << 16, 1 << 34),
    "body_bytes_max": (1 << 10, 1 << 30),
    "bodies_bytes_max": (1 << 10, 1 << 36),
}
_DURATIONS: Final = (
    "popularity_half_life",
    "queue_wait_max",
    "event_ahead_max",
    "stale_after",
    "behaviour_sums_age_max",
)


class IndexKind(StrEnum):
    """How candidates are found: ``exact`` looks at every item, ``graph`` scales to millions, and ``auto`` is exact
    until the catalogue is so large that a graph answers sooner.
    """

    AUTO = "auto"
    GRAPH = "graph"
    EXACT = "exact"


@final
@dataclass(frozen=True, kw_only=True)
class ServeSettings:
    """Settings of a server.

    Args:
        schema: the fields of an example; parameters of another schema are refused.
        log_folder: the embedded log.
        snapshot_folder: where the trainer keeps its snapshots.
        state_folder: this server's own: people, catalogue and counts, with the log positions that they include.
        host: address to listen on. Anything but loopback needs a ``token``.
        port: 0 takes any free one.
        token: when set, every request to ``/v1``, ``/metrics`` and the API's documents must carry it as bearer token.
        dataset: what is served, for the console.
        simulated: whether people and items are made up; the console says so.
        index: how candidates are found: ``auto``, ``exact`` or ``graph``. ``auto`` is exact up to 20,000 items.
        precision: what the rows' vectors are stored as: ``float32``, ``float16``, ``bfloat16`` or ``int8``. Narrower
            ones save memory and are a little off; the table's page has figures. The dense layers stay as they are.
        device: where the model's layers are computed: ``cpu``, ``cuda``, or ``auto`` for what is there.
        arithmetic: of products of matrices: ``float32`` or ``bfloat16``, as for the trainer.
        candidate_count: items that retrieval proposes for ranking. With 100 and the popular ones beside them, a slate
            takes about 4 ms of one core.
        popular_count: popular items that are ranked beside them, so that a young retriever does no harm.
        affinity_weight: recommended items are sorted by ln(probability) + this times the inner product of person and
            item that retrieval found them by; 0 leaves the order to the ranker alone.
        slate_max: items in one recommended slate.
        explore_share: the odds with which each position of a slate goes to a new item.
        explore_below: an item counts as new until it was shown so many times.
        attributes_answered: which attributes of items answers hold. ``None``: all but those of a slot that shares the
            rows of a person's, such as an ``audience``: they say which people. Name such a slot to answer it, too.
        hide: for how long an item is not recommended again after an action of this kind: a duration or ``"always"``.
            ``None``: always, for every kind that a label of the schema is made of. Any kind may be named, also one that
            no label is made of.
        history_slots: for each slot that holds what a person did, oldest first: which kinds of action enter it.
            ``None``: every slot of the person's side with many values that shares the rows of an item's slot, by the
            labels' kinds.
        history_max: actions remembered for each person.
        hidden_max: items remembered as hidden for each person; beyond that the oldest may come again.
        people_in_memory: the others are read from disk when they come.
        people_expire_after: who did nothing for so long, by event time, is forgotten, also on disk: what they did and
            what is hidden from them, not what you told of them with ``/v1/users``. ``None``: never.
        removed_items_max: the newest items that left the catalogue keep their features and counts, for the histories
            that they stand in and in case they come back; of the others everything is forgotten.
        behaviour_sums_people_max: for a model that condenses a past, such as SDIM: of so many people sums are kept in
            memory. SDIM's take 8 kB each for vectors of 16.
        behaviour_sums_age_max: sums are made anew from the history after so long, with the rows as learned by then. A
            history of 1,000 takes about 2 ms, and none for people who do not come.
        popularity_half_life: after so long, an action counts half for popularity.
        model_from_version: popularity answers until the parameters have learned from so many records.
        uncorrected_negative_rate: the joiner's rate of kept negatives, for a model whose loss does not undo the
            sampling; ln of it is added to each logit. dolmen's own models undo it, so leave 1 for them.
        refresh_items_per_second: besides items whose own rows changed, so many item vectors are computed anew.
        queue_max: requests that may wait for scoring; more are refused at once.
        queue_wait_max: a request that waited longer is refused: its visitor has left.
        score_together_max: waiting requests that are scored in one pass.
        answers_bytes_max: of the newest slates whose request id the asker chose; who asks again gets the same one. A
            slate of ten items takes 3 kB, so this remembers a minute of 90 slates a second.
        event_ids_max: how many of the newest actions are known by their ``event_id``, so that a retry counts once. This
            many take about 20 MB, and are more than a minute of 1,500 actions a second.
        log_queue_bytes_max: events that may wait for the disk.
        body_bytes_max: size of a request's body. A thousand events of 300 bytes need a tenth of it.
        bodies_bytes_max: of the bodies of all requests that are not answered yet; more is refused with 503. Sixteen of
            the largest, or tens of thousands of usual ones.
        event_ahead_max: how far an event time may lie ahead of this server's clock. Windows of the joiner close by the
            newest event time, so a wrong clock must not pass.
        stale_after: answers say ``stale`` when training was not heard of for so long.
        seed: of exploration.
    """

    schema: Schema
    log_folder: Path
    snapshot_folder: Path
    state_folder: Path
    host: str = "127.0.0.1"
    port: int = 8080
    token: str | None = field(default=None, repr=False)
    dataset: str = ""
    simulated: bool = False
    index: IndexKind = IndexKind.AUTO
    precision: Precision = Precision.FLOAT32
    device: Device = Device.CPU
    arithmetic: Arithmetic = Arithmetic.FLOAT32
    candidate_count: int = 100
    popular_count: int = 50
    affinity_weight: float = 4.0
    slate_max: int = 100
    explore_share: float = 0.1
    explore_below: int = 20
    attributes_answered: tuple[str, ...] | None = None
    hide: Mapping[str, str] | None = None
    history_slots: Mapping[str, tuple[str, ...]] | None = None
    history_max: int = 200
    hidden_max: int = 10_000
    people_expire_after: Duration | None = "400d"
    removed_items_max: int = 10_000
    people_in_memory: int = 100_000
    behaviour_sums_people_max: int = 20_000
    behaviour_sums_age_max: Duration = "10s"
    popularity_half_life: Duration = "7d"
    model_from_version: int = 1
    uncorrected_negative_rate: float = 1.0
    refresh_items_per_second: int = 1_000
    queue_max: int = 64
    queue_wait_max: Duration = "500ms"
    score_together_max: int = 8
    answers_bytes_max: int = 16 << 20
    event_ids_max: int = 100_000
    log_queue_bytes_max: int = 64 << 20
    body_bytes_max: int = 4 << 20
    bodies_bytes_max: int = 64 << 20
    event_ahead_max: Duration = "1m"
    stale_after: Duration = "10s"
    seed: int = 0

    def __post_init__(self) -> None:
        for name, (low, high) in _BOUNDS.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
                raise ConfigError(f"serving.{name} must be between {low:g} and {high:g}, got {value!r}")
        if self.bodies_bytes_max < self.body_bytes_max:
            raise ConfigError(
                f"serving.bodies_bytes_max must be at least body_bytes_max ({self.body_bytes_max}), got"
                f" {self.bodies_bytes_max}"
            )
        for name in _DURATIONS:
            _check_duration(name, getattr(self, name))
        if self.people_expire_after is not None:
            _check_duration("people_expire_after", self.people_expire_after)
        kinds: dict[str, type[StrEnum]] = {
            "index": IndexKind,
            "precision": Precision,
            "device": Device,
            "arithmetic": Arithmetic,
        }
        for name, kind in kinds.items():
            object.__setattr__(self, name, chosen(kind, getattr(self, name), f"serving.{name}"))
        for name in ("log_folder", "snapshot_folder", "state_folder"):
            object.__setattr__(self, name, Path(getattr(self, name)))
        if self.token is not None and len(self.token) < 16:
            raise ConfigError("serving.token must have at least 16 characters, so that it cannot be guessed")
        if not is_loopback(self.host) and self.token is None:
            raise ConfigError(
                f"serving.host {self.host!r} can be reached from other machines; set serving.token, or use 127.0.0.1"
            )
        if "item" not in self.schema.slots or self.schema.slot("item").many:
            raise ConfigError("serving needs a schema with a slot 'item' of one value: it says which item is shown")
        self._fill_kinds()

    def _fill_kinds(self) -> None:
        kinds = tuple(dict.fromkeys(label.action_kind for label in self.schema.labels.values()))
        hide = dict(self.hide) if self.hide is not None else dict.fromkeys(kinds, ALWAYS)
        for kind, duration in hide.items():
            if duration != ALWAYS:
                _check_duration(f"hide.{kind}", duration)
        object.__setattr__(self, "hide", hide)
        if self.history_slots is None:
            object.__setattr__(self, "history_slots", dict.fromkeys(self.schema.history_slots, kinds))
            return
        for name in self.history_slots:
            if name not in self.schema.history_slots:
                raise ConfigError(
                    f"serving.history_slots: {name!r} must be a slot with many=True, of='user' and the table of a slot"
                    f" of the item's{suggestion(name, list(self.schema.history_slots))}"
                )
        history_slots = {name: tuple(some) for name, some in self.history_slots.items()}
        object.__setattr__(self, "history_slots", history_slots)
        if isinstance(self.attributes_answered, str):  # whose letters would be taken for names
            raise ConfigError(
                f"serving.attributes_answered must be a list of names, got {self.attributes_answered!r}; write"
                f" [{self.attributes_answered!r}]"
            )

    def us(self, name: str) -> int:
        """The duration setting called ``name``, in microseconds."""
        return parse_duration_us(getattr(self, name))

    def answered(self, attributes: Mapping[str, Any]) -> Mapping[str, Any]:
        """Those of an item's attributes that answers hold."""
        if self.attributes_answered is not None:
            return {name: value for name, value in attributes.items() if name in self.attributes_answered}
        if self._of_people.isdisjoint(attributes):
            return attributes
        return {name: value for name, value in attributes.items() if name not in self._of_people}

    @functools.cached_property
    def _of_people(self) -> frozenset[str]:
        """The item's slots whose values are ids of people."""
        schema = self.schema
        return frozenset(one.name for one in schema.slots_of(Side.ITEM) if schema.owner(one.name).side is Side.USER)

    @property
    def aside_folder(self) -> Path:
        """Where records of the log are kept that could not be applied."""
        return self.state_folder / "set-aside"

    @property
    def hide_us(self) -> dict[str, int]:
        """``hide`` in microseconds; "always" is longer than any clock runs."""
        assert self.hide is not None, "filled when made"
        return {kind: 1 << 61 if one == ALWAYS else parse_duration_us(one) for kind, one in self.hide.items()}


@functools.lru_cache(maxsize=64)
def is_loopback(host: str) -> bool:
    """Whether ``host`` can be reached from this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _check_duration(name: str, value: str) -> None:
    try:
        if parse_duration_us(value) > 0:
            return
        problem = f"must be above 0, got {value!r}"
    except (TypeError, ValueError) as caught:
        problem = str(caught)
    raise ConfigError(f"serving.{name}: {problem}")

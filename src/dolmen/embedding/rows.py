"""What goes in and out of a table beside plain arrays: rules, changes, whole rows, and what a snapshot says of them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from dolmen.embedding.optimizers import Optimizer
from dolmen.embedding.precision import Precision
from dolmen.features import Absent, Admission, Eviction
from dolmen.features.lifetimes import SKETCHED_SIGHTS_MAX
from dolmen.lineage import Lineage
from dolmen.settings import INT64_MAX, SCALE_MAX, chosen, require_float32, require_whole

__all__ = [
    "EPOCH_MAX",
    "Capacity",
    "Clocks",
    "Delta",
    "MemoryUse",
    "PendingCounts",
    "RowChunk",
    "RowRules",
    "TableHeader",
    "Upkeep",
]

EPOCH_MAX: Final = (1 << 32) - 2  # Rows keep theirs in 32 bits, of which one value says "untouched".


@dataclass(frozen=True, kw_only=True)
class RowRules:
    """When the ids of one slot get a row and lose it, and how fast they learn. `Embeddings` makes them from a `Schema`.

    Args:
        admit_after: a FID gets its row at its n-th sight; 0 and 1: at once.
        admission: how sights before that are counted.
        admission_capacity: of how many FIDs; beyond it the oldest are forgotten.
        absent: what a FID without a row reads as.
        expire_after_us: `Table.expire` removes a row that was not seen for so long, by the time of the data; 0: never.
        capacity: `Table.evict` leaves at most so many rows; 0: all.
        eviction: which ones it removes.
        half_life_us: of the eviction ``score``: by when a sight counts half.
        learning_rate_scale: factor on the optimiser's rate; 0: rows stay as they begin.
        name: the slot's, and how its ids share rows where they do. Files carry it, so that nobody reads one slot's rows
            as another's.
    """

    admit_after: int = 0
    admission: Admission = Admission.EXACT
    admission_capacity: int = 1 << 20
    absent: Absent = Absent.ZEROS
    expire_after_us: int = 0
    capacity: int = 0
    eviction: Eviction = Eviction.LRU
    half_life_us: int = 0
    learning_rate_scale: float = 1.0
    name: str = ""

    def __post_init__(self) -> None:
        for name, kind in (("admission", Admission), ("absent", Absent), ("eviction", Eviction)):
            object.__setattr__(self, name, chosen(kind, getattr(self, name), f"RowRules.{name}"))
        for name in ("admit_after", "expire_after_us", "capacity", "half_life_us"):
            _keep_whole(self, name)
        _keep_whole(self, "admission_capacity", least=1, most=1 << 31)
        if self.admission in (Admission.SKETCH, Admission.BLOOM) and self.admit_after > SKETCHED_SIGHTS_MAX:
            raise ValueError(
                f"RowRules.admit_after must be at most {SKETCHED_SIGHTS_MAX} with {self.admission}, "
                f"got {self.admit_after}"
            )
        if self.eviction is Eviction.SCORE and self.half_life_us == 0:
            raise ValueError("RowRules.half_life_us must be above 0 with the eviction score, got 0")
        scale = require_float32("RowRules.learning_rate_scale", self.learning_rate_scale, most=SCALE_MAX)
        object.__setattr__(self, "learning_rate_scale", scale)
        if not isinstance(self.name, str):
            raise TypeError(f"RowRules.name must be a text, got {self.name!r:.80}; it is the slot's name")


@dataclass(frozen=True)
class Capacity:
    """A bound on the rows of all slots of a table together.

    Args:
        row_count: at most so many stay, at least 1.
        eviction: which ones `Table.evict` and `Table.maintain` remove.
        half_life_us: of the eviction ``score``: by when a sight counts half; 0 with the others.
    """

    row_count: int
    eviction: Eviction = Eviction.LRU
    half_life_us: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "eviction", chosen(Eviction, self.eviction, "Capacity.eviction"))
        _keep_whole(self, "row_count", least=1)
        _keep_whole(self, "half_life_us")
        if (self.eviction is Eviction.SCORE) != (self.half_life_us > 0):
            raise ValueError(
                f"Capacity.half_life_us must be above 0 with the eviction score and 0 with others, got "
                f"{self.half_life_us} with {self.eviction}"
            )


@dataclass(frozen=True, kw_only=True)
class Clocks:
    """How far a table's upkeep and draws have come; with rows and rules it makes a restored table go on alike.

    Args:
        step_count: calls of `Table.apply_gradients`.
        batch_count: calls of `Table.lookup_or_insert`.
        eviction_count: rows that were evicted.
        inserted_count: rows that were made since the last turn of `Table.maintain`.
        sweep_us: time of the sweep for expired rows; -1: none is on.
        sweep_row: where it goes on.
    """

    step_count: int = 0
    batch_count: int = 0
    eviction_count: int = 0
    inserted_count: int = 0
    sweep_us: int = -1
    sweep_row: int = 0


@dataclass(frozen=True)
class Upkeep:
    """How many rows left in a turn of `Table.maintain`.

    Args:
        expired: they were past their time.
        evicted: they were beyond the capacity of their slot or of the table.
    """

    expired: int = 0
    evicted: int = 0


@dataclass(frozen=True, eq=False)
class Delta:
    """What changed in a table.

    Args:
        fids: int64, shape (count,): whose rows were made, updated or assigned; each once.
        vectors: float32, shape (count, dim): those rows as they are now.
        removed: int64: the FIDs whose rows left.
        since: the epoch with which it begins, of the embeddings that it came from; ``None`` where who ships it sees to
            the order, as with what a single table gives.
        until: the epoch with which the next one has to begin.
        lineage: of which course of learning the epochs are; ``None`` with ``since``.
    """

    fids: NDArray[np.int64]
    vectors: NDArray[np.float32]
    removed: NDArray[np.int64]
    since: int | None = None
    until: int | None = None
    lineage: Lineage | None = None


@dataclass(frozen=True, eq=False)
class RowChunk:
    """Whole rows, as columns: all that a table knows of them.

    ``epochs`` (when each was last touched) and ``row_numbers`` are what makes a restored table go on as this one
    would have. Leave them out to put rows into a table that has a life of its own: they count as touched now.

    Args:
        fids: int64, shape (count,).
        vectors: float32, shape (count, dim).
        states: float32, shape (count, state): the optimiser's, in the order in which its docstring names them.
        last_seen_us: int64, shape (count,): microseconds since 1970.
        counts: int64, shape (count,): sights.
        epochs: uint32, shape (count,).
        row_numbers: uint32, shape (count,).
    """

    fids: NDArray[np.int64]
    vectors: NDArray[np.float32]
    states: NDArray[np.float32]
    last_seen_us: NDArray[np.int64]
    counts: NDArray[np.int64]
    epochs: NDArray[np.uint32] | None = None
    row_numbers: NDArray[np.uint32] | None = None


@dataclass(frozen=True, eq=False)
class PendingCounts:
    """FIDs that were seen but have no row yet, with how often and when last: by slot, then by the order of sights.

    Only exact counts are known by FID; the sketches' cells are in `TableHeader.filters`.

    Args:
        fids: int64, shape (count,).
        counts: int64, shape (count,): how often each was seen.
        last_seen_us: int64, shape (count,): microseconds since 1970.
    """

    fids: NDArray[np.int64]
    counts: NDArray[np.int64]
    last_seen_us: NDArray[np.int64]


@dataclass(frozen=True)
class MemoryUse:
    """What a table holds, in bytes.

    Args:
        index_bytes: FID to row.
        row_bytes: vectors, states, ages and counts, with the free rows among them.
        pending_bytes: what is counted of ids not yet admitted.
        change_bytes: lists of what changed, until their epochs are forgotten.
    """

    index_bytes: int
    row_bytes: int
    pending_bytes: int
    change_bytes: int

    @property
    def total_bytes(self) -> int:
        """All of them."""
        return self.index_bytes + self.row_bytes + self.pending_bytes + self.change_bytes


@dataclass(frozen=True, eq=False, kw_only=True)
class TableHeader:
    """All of a table except its rows and pending counts. ``removed`` were removed in ``removed_epochs``.

    ``filters``: the state of the slots' admission sketches and Bloom filters, as the native table writes it.
    """

    dim: int
    state_dim: int
    optimizer: Optimizer
    seed: int
    initial_range: float
    rules: Mapping[int, RowRules]
    row_count: int
    time_seen_max_us: int
    clocks: Clocks
    oldest_epoch: int
    epoch: int
    removed: NDArray[np.int64]
    removed_epochs: NDArray[np.uint32]
    filters: Mapping[int, NDArray[np.uint8]]
    precision: Precision = Precision.FLOAT32
    capacity: Capacity | None = None


def _keep_whole(settings: RowRules | Capacity, name: str, *, least: int = 0, most: int = INT64_MAX) -> None:
    # Python's own integer, also where NumPy's was given: JSON holds no other.
    whole = require_whole(f"{type(settings).__name__}.{name}", getattr(settings, name), least=least, most=most)
    object.__setattr__(settings, name, whole)

"""What goes in and out of a table beside plain arrays: rules, changes, whole rows, and what a snapshot says of them."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dolmen.embedding.optimizers import Optimizer

__all__ = ["Delta", "MemoryUse", "PendingCounts", "RowChunk", "RowRules", "TableHeader"]


@dataclass(frozen=True)
class RowRules:
    """When the ids of one slot get a row and lose it, and how fast they learn.

    ``admit_after``: a FID gets its row at its n-th sight (0 and 1: at once). ``expire_after_us``: `Table.expire`
    removes a row that was not seen for so long, by the time of the data (0: never). ``learning_rate_scale``: factor on
    the optimiser's rate (0: rows stay as they begin).
    """

    admit_after: int = 0
    expire_after_us: int = 0
    learning_rate_scale: float = 1.0

    def __post_init__(self) -> None:
        for name, value in (("admit_after", self.admit_after), ("expire_after_us", self.expire_after_us)):
            if not 0 <= value < 1 << 63:
                raise ValueError(f"RowRules.{name} must be 0 or more, got {value}")
        if not 0.0 <= self.learning_rate_scale < float("inf"):
            raise ValueError(
                f"RowRules.learning_rate_scale must be 0 or more and finite, got {self.learning_rate_scale}"
            )


@dataclass(frozen=True, eq=False)
class Delta:
    """What changed: ``fids`` with their ``vectors`` (count, dim) as they are now, and the FIDs ``removed`` since."""

    fids: NDArray[np.int64]
    vectors: NDArray[np.float32]
    removed: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class RowChunk:
    """Whole rows, as columns: all that a table knows of them.

    ``epochs`` (when each was last touched) and ``row_numbers`` are what makes a restored table go on as this one
    would have. Leave them out to put rows into a table that has a life of its own: they count as touched now.
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
    """FIDs that were seen but have no row yet, in order, with how often and when last."""

    fids: NDArray[np.int64]
    counts: NDArray[np.int64]
    last_seen_us: NDArray[np.int64]


@dataclass(frozen=True)
class MemoryUse:
    """Bytes held: by the index, by rows (also free ones among them), by ids not yet admitted, by lists of changes."""

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
    """All of a table except its rows and pending counts. ``removed`` were removed in ``removed_epochs``."""

    dim: int
    state_dim: int
    optimizer: Optimizer
    seed: int
    initial_range: float
    rules: Mapping[int, RowRules]
    row_count: int
    time_seen_max_us: int
    step_count: int
    oldest_epoch: int
    epoch: int
    removed: NDArray[np.int64]
    removed_epochs: NDArray[np.uint32]

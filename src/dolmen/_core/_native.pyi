"""The extension module, as `module.cpp` binds it. Arrays must be contiguous and of just these types."""

import numpy as np
from numpy.typing import NDArray

def hash_bytes(data: NDArray[np.uint8], offsets: NDArray[np.int64], seed: int = 0) -> NDArray[np.int64]:
    """XXH64 of each text ``data[offsets[i]:offsets[i + 1]]``, its low 53 bits: the value part of a FID.

    ``offsets`` has one entry more than there are texts, as in an Arrow column. Releases the GIL.

    Raises:
        ValueError: ``offsets`` is empty, falls, or leaves ``data``.
    """

def first_foreign(fids: NDArray[np.int64], is_known: NDArray[np.bool_]) -> int:
    """The position of the first FID whose slot number ``is_known`` (1024,) denies, or the count of FIDs."""

def checksum(data: NDArray[np.uint8], seed: int) -> int:
    """XXH64 of all of ``data``."""

def pool_rows(
    rows: NDArray[np.float32], lengths: NDArray[np.int64], *, is_mean: bool, out: NDArray[np.float32]
) -> None:
    """``out[i]``, shape (bags, dim), is the sum of the next ``lengths[i]`` of ``rows`` (total, dim), or their mean.

    Keeps the GIL: for the few rows of one request it takes less time than handing it over would.

    Raises:
        ValueError: the lengths do not sum to the count of rows, or ``out`` has another shape.
    """

def hash_into_buckets(
    vectors: NDArray[np.float32], projections: NDArray[np.float64], bits: int, out: NDArray[np.int64]
) -> None:
    """The bucket of each of ``vectors`` (count, width) in each round of a SimHash, into ``out`` (count, rounds).

    ``projections``, shape (width, rounds * bits). A product of 0 or more is a 1 at the place of its projection, the
    first being the lowest. A vector's bits do not depend on the others or on the machine. Releases the GIL.

    Raises:
        ValueError: shapes that do not fit, or more than 52 bits.
    """

def read_buckets(
    sums: NDArray[np.float32],
    owners: NDArray[np.int64],
    buckets: NDArray[np.int64],
    length_min: float,
    out: NDArray[np.float32],
) -> None:
    """The mean over rounds of the sums that queries meet, each made a unit vector, into ``out`` (count, width).

    ``sums``, shape (people, rounds, buckets, width); ``owners`` (count,) says whose are read, ``buckets`` (count,
    rounds) which. A sum shorter than ``length_min`` is divided by that. Releases the GIL.

    Raises:
        ValueError: shapes that do not fit, or an owner or bucket that is not there.
    """

class AllRows:
    """The rows of a table as they were at one instant, while writers go on. ``close`` lets go of it."""

    @property
    def row_end(self) -> int:
        """No row number is as high as this."""

    def read(
        self,
        begin: int,
        end: int,
        fids: NDArray[np.int64],
        vectors: NDArray[np.float32],
        states: NDArray[np.float32],
        last_seen_us: NDArray[np.int64],
        counts: NDArray[np.int64],
        epochs: NDArray[np.uint32],
        row_numbers: NDArray[np.uint32],
    ) -> tuple[int, int]:
        """Fill the columns with the rows numbered from ``begin`` on and below ``end``, each given out once.

        Returns how many, and where to go on. Threads may read at once where their stretches begin at multiples of 64.

        Raises:
            MemoryError: there was no room for a row that a writer had to save before it changed it.
        """

    def close(self) -> None: ...

class Changes:
    """What changed since an epoch, as it was at one instant."""

    def read(self) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.int64]]:
        """Once: FIDs of the rows touched, their vectors, and the FIDs removed."""

class Table:
    """See `dolmen.embedding.table`; here the caller owns ``out`` and nothing has a default."""

    def __init__(
        self,
        dim: int,
        optimizer: str,
        settings: dict[str, float],
        seed: int,
        hash_seed: int,
        initial_range: float,
        precision: str,
    ) -> None: ...
    @property
    def dim(self) -> int: ...
    @property
    def state_dim(self) -> int: ...
    def __len__(self) -> int: ...
    thread_count: int
    def set_rule(
        self,
        slot: int,
        *,
        admission: str,
        admit_after: int,
        admission_capacity: int,
        expire_after_us: int,
        eviction: str,
        capacity: int,
        half_life_us: int,
        learning_rate_scale: float,
        absent_reads_start: bool,
    ) -> None: ...
    def set_capacity(self, row_count_max: int, eviction: str, half_life_us: int) -> None: ...
    def lookup(self, fids: NDArray[np.int64], out: NDArray[np.float32]) -> None: ...
    def lookup_or_insert(self, fids: NDArray[np.int64], now_us: int, out: NDArray[np.float32]) -> None: ...
    def apply_gradients(
        self, fids: NDArray[np.int64], grads: NDArray[np.float32], learning_rate_scale: float, is_checked: bool = False
    ) -> int: ...
    def find_moving(self, fids: NDArray[np.int64], grads: NDArray[np.float32], out: NDArray[np.bool_]) -> None: ...
    def assign(self, fids: NDArray[np.int64], vectors: NDArray[np.float32]) -> None: ...
    def contains(self, fids: NDArray[np.int64], out: NDArray[np.bool_]) -> None: ...
    def counts(self, fids: NDArray[np.int64], out: NDArray[np.int64]) -> None: ...
    def last_seen(self, fids: NDArray[np.int64], out: NDArray[np.int64]) -> None: ...
    def erase(self, fids: NDArray[np.int64]) -> int: ...
    def expire(self, now_us: int, begin: int, count_max: int) -> tuple[int, int]: ...
    def expire_pending(self, now_us: int, count_max: int) -> int: ...
    def begin_sweep(self, now_us: int) -> None: ...
    def sweep(self, look_max: int, leave_max: int) -> int: ...
    def begin_eviction(self) -> int: ...
    def evict(self, count_max: int) -> int: ...
    time_seen_max_us: int
    def clocks(self) -> tuple[int, int, int, int, int, int]: ...
    def restore_clocks(
        self,
        step_count: int,
        batch_count: int,
        eviction_count: int,
        inserted_count: int,
        sweep_us: int,
        sweep_row: int,
    ) -> None: ...
    @property
    def epoch(self) -> int: ...
    @property
    def oldest_epoch(self) -> int: ...
    def advance_epoch(self) -> int: ...
    def forget_epochs(self, before: int) -> None: ...
    def follow_epoch(self, epoch: int) -> None: ...
    def changes_since(self, epoch: int) -> Changes: ...
    def check_delta(
        self,
        fids: NDArray[np.int64],
        vectors: NDArray[np.float32],
        removed: NDArray[np.int64],
        is_finite: bool = False,
    ) -> None: ...
    def apply_delta(
        self,
        fids: NDArray[np.int64],
        vectors: NDArray[np.float32],
        removed: NDArray[np.int64],
        is_finite: bool = False,
    ) -> None: ...
    @property
    def row_end(self) -> int: ...
    def all_rows(self) -> AllRows: ...
    def reserve(self, row_count: int) -> None: ...
    def restore_rows(
        self,
        fids: NDArray[np.int64],
        vectors: NDArray[np.float32],
        states: NDArray[np.float32],
        last_seen_us: NDArray[np.int64],
        counts: NDArray[np.int64],
        epochs: NDArray[np.uint32] | None,
        row_numbers: NDArray[np.uint32] | None,
    ) -> None: ...
    def pending(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]: ...
    def restore_pending(
        self, fids: NDArray[np.int64], counts: NDArray[np.int64], last_seen_us: NDArray[np.int64]
    ) -> None: ...
    def filters(self) -> dict[int, NDArray[np.uint8]]: ...
    def restore_filter(self, slot: int, state: NDArray[np.uint8]) -> None: ...
    def failure_count(self, slot: int) -> int: ...
    def removals(self) -> tuple[NDArray[np.int64], NDArray[np.uint32]]: ...
    def restore_epochs(
        self, oldest: int, current: int, fids: NDArray[np.int64], epochs: NDArray[np.uint32]
    ) -> None: ...
    def slot_totals(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]: ...
    def fids_of(self, slot: int) -> NDArray[np.int64]: ...
    def memory(self) -> tuple[int, int, int, int]: ...

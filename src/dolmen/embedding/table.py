"""The collisionless table: each FID that earned a row owns it alone.

Rows are made, counted, trained, expired, shipped and saved here; the work is in C++ (`dolmen._core`). Every call
takes a batch and releases the GIL. Readers (`lookup`, `contains`, `counts`, `last_seen`) may run in any thread beside
one another and beside the writers, take no lock, and never see half a row. Calls that change the table are put in
line. The same calls in the same order give the same bytes, also after `save` and `load`.
"""

import secrets
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final, NoReturn, Self, get_args

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from dolmen._core import NativeTable
from dolmen.clock import TIME_US_MAX
from dolmen.embedding import table_file
from dolmen.embedding.forks import Lock, lock_of
from dolmen.embedding.instant import TableInstant
from dolmen.embedding.optimizers import SGD, AdaGrad, Optimizer, decay_of
from dolmen.embedding.precision import Precision
from dolmen.embedding.rows import (
    EPOCH_MAX,
    Capacity,
    Clocks,
    Delta,
    MemoryUse,
    PendingCounts,
    RowChunk,
    RowRules,
    TableHeader,
    Upkeep,
)
from dolmen.features import Absent
from dolmen.features.fids import require_slot_number
from dolmen.seeds import SEED_MAX
from dolmen.settings import SCALE_MAX, chosen, require_float32, require_whole

__all__ = ["Capacity", "Delta", "MemoryUse", "PendingCounts", "RowChunk", "RowRules", "Table", "Upkeep"]

_DIM_MAX: Final = 1 << 16
_THREADS_MAX: Final = 64  # kThreadsMax of the core
_EXPIRE_STEP_ROWS: Final = 8192
# What may leave in a turn of upkeep, so that it takes no more than some milliseconds: by age; and because a capacity is
# full, beyond as many as came.
_TURN_EXPIRED_MAX: Final = 2048
_TURN_EVICTED_BEYOND: Final = 1024
_EVICT_STEP_ROWS: Final = 2048
_NOT_BEGUN: Final = (
    "it has not begun here; ask for the current one, or begin with a serving_copy() if a copy is ahead of its learner"
)
_FORGOTTEN: Final = "older changes were forgotten, begin with a serving_copy() or a snapshot"


class Table:
    """A map from FID to row: a float32 vector, its optimiser state, a count of sights and the time of the last one.

    FIDs are int64 and not negative; times are microseconds since 1970, up to the year 2100: a later one, once believed,
    would age every row. Arrays may be NumPy's or CPU
    tensors, and are not copied when they are contiguous and of the right type. ``len(table)`` is its count of rows.

    Args:
        dim: floats in a row's vector, 1 to 65,536.
        optimizer: what `apply_gradients` does to a row; ``AdaGrad()`` if ``None``.
        seed: of the start values, below 2^64.
        initial_range: a new row starts uniform in ± this, from a hash of (``seed``, FID, column).
        rules: by slot number; a slot without any admits at once and never expires.
        precision: below float32 it makes a table for serving: its rows come by `assign`, `apply_delta` and
            `restore_chunk` alone, have no optimiser state, and read as float32.
        capacity: a bound on all rows; see the property.
        threads: see the property.

    Raises:
        ValueError: an argument is out of range, in float32 too, or the optimiser needs state that such a precision does
            not keep.
        TypeError: an argument is of another type.

    >>> from dolmen.embedding.optimizers import SGD
    >>> table = Table(2, optimizer=SGD(learning_rate=1.0))
    >>> table.assign(np.array([7]), np.ones((1, 2), dtype=np.float32))
    >>> table.apply_gradients(np.array([7, 7]), np.full((2, 2), 0.25, dtype=np.float32))
    1
    >>> table.lookup(np.array([7, 8])).tolist()
    [[0.5, 0.5], [0.0, 0.0]]
    """

    def __init__(
        self,
        dim: int,
        *,
        optimizer: Optimizer | None = None,
        seed: int = 0,
        initial_range: float = 0.01,
        rules: Mapping[int, RowRules] | None = None,
        precision: Precision = Precision.FLOAT32,
        capacity: Capacity | None = None,
        threads: int = 1,
    ) -> None:
        dim = require_whole("dim", dim, least=1, most=_DIM_MAX)
        seed = require_whole("seed", seed, most=SEED_MAX)
        threads = require_whole("threads", threads, least=1, most=_THREADS_MAX)
        initial_range = require_float32("initial_range", initial_range)
        _require_optimizer(optimizer)
        _require_capacity(capacity)
        _require_rules(rules)
        self._precision = chosen(Precision, precision, "precision")
        default = AdaGrad() if self._precision is Precision.FLOAT32 else SGD()
        self._optimizer, self._seed, self._initial_range = optimizer or default, seed, initial_range
        self._rules = dict(rules or {})
        settings = {name: float(value) for name, value in asdict(self._optimizer).items() if value is not None}
        # Nobody who sends ids may know which of them share a bucket, so places in the index are drawn anew each time.
        hash_seed = secrets.randbits(64)
        self._native = NativeTable(
            dim, self._optimizer.name, settings, seed, hash_seed, initial_range, str(self._precision)
        )
        for slot, rule in self._rules.items():
            self._native.set_rule(
                slot,
                admission=str(rule.admission),
                admit_after=rule.admit_after,
                admission_capacity=rule.admission_capacity,
                expire_after_us=rule.expire_after_us,
                eviction=str(rule.eviction),
                capacity=rule.capacity,
                half_life_us=rule.half_life_us,
                learning_rate_scale=rule.learning_rate_scale,
                absent_reads_start=rule.absent is Absent.START,
            )
        # Held by whatever must see no change for longer than one call.
        self._writing: Lock = lock_of(self, "_writing")
        # What a step takes off a weight at the scale 1, at most: every step asks, and neither factor changes.
        self._slot_scale_max = max((1.0, *(rule.learning_rate_scale for rule in self._rules.values())))
        self._decay_share = decay_of(self._optimizer) * self._slot_scale_max
        self._require_decay(1.0)
        self.threads = threads
        self._capacity: Capacity | None = None
        if capacity is not None:
            self.capacity = capacity

    @property
    def dim(self) -> int:
        """Width of a vector."""
        return self._native.dim

    @property
    def optimizer(self) -> Optimizer:
        """What `apply_gradients` does to a row."""
        return self._optimizer

    @property
    def seed(self) -> int:
        """Of the start values."""
        return self._seed

    @property
    def initial_range(self) -> float:
        """Half the width of the start values' range."""
        return self._initial_range

    @property
    def precision(self) -> Precision:
        """What vectors are stored as."""
        return self._precision

    @property
    def threads(self) -> int:
        """How many threads a look-up or a step of learning may use, up to 64; what comes out is the same bits.

        A batch is shared out from 4,096 FIDs on, so that each thread has 2,048 or more. Files do not keep it.
        """
        return self._native.thread_count

    @threads.setter
    def threads(self, count: int) -> None:
        self._native.thread_count = require_whole("threads", count, least=1, most=_THREADS_MAX)

    @property
    def capacity(self) -> Capacity | None:
        """How many rows of all slots together stay, beside what each slot's rule says of its own; ``None``: all."""
        return self._capacity

    @capacity.setter
    def capacity(self, capacity: Capacity | None) -> None:
        _require_capacity(capacity)
        with self._writing:
            if capacity is None:
                self._native.set_capacity(0, "lru", 0)
            else:
                self._native.set_capacity(capacity.row_count, str(capacity.eviction), capacity.half_life_us)
            self._capacity = capacity

    @property
    def rules(self) -> Mapping[int, RowRules]:
        """Admission and expiry, by slot number."""
        return dict(self._rules)

    @property
    def time_seen_max_us(self) -> int:
        """The latest time that any sight or expiry brought, 0 before the first."""
        return self._native.time_seen_max_us

    @property
    def clocks(self) -> Clocks:
        """How far upkeep and draws have come."""
        step_count, batch_count, eviction_count, inserted_count, sweep_us, sweep_row = self._native.clocks()
        return Clocks(
            step_count=step_count,
            batch_count=batch_count,
            eviction_count=eviction_count,
            inserted_count=inserted_count,
            sweep_us=sweep_us,
            sweep_row=sweep_row,
        )

    def __len__(self) -> int:
        return len(self._native)

    # Reading: any thread, at any time; but `slots`, `total_count`, `fids` and `memory` take turns with writers.

    def lookup(self, fids: ArrayLike, out: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
        """The vector of each FID, shape (count, dim). Changes and counts nothing.

        A FID without a row reads as zeros, or where its slot's rule says so as the vector that it would begin with.
        """
        fids = as_fids(fids)
        out = self._out(len(fids), out)
        self._native.lookup(fids, out)
        return out

    def contains(self, fids: ArrayLike) -> NDArray[np.bool_]:
        """Whether each FID has a row."""
        fids = as_fids(fids)
        out = np.empty(len(fids), dtype=np.bool_)
        self._native.contains(fids, out)
        return out

    def counts(self, fids: ArrayLike) -> NDArray[np.int64]:
        """How often each FID was seen, at most 2^32 - 1; 0 for one without a row.

        Where chance admits (``probabilistic``, ``proportional``), the count begins with the sight that made the row.
        """
        fids = as_fids(fids)
        out = np.empty(len(fids), dtype=np.int64)
        self._native.counts(fids, out)
        return out

    def last_seen(self, fids: ArrayLike) -> NDArray[np.int64]:
        """When each FID was last seen, in microseconds; -1 for one without a row.

        A row that was only assigned counts as seen at the latest time the table knew then.
        """
        fids = as_fids(fids)
        out = np.empty(len(fids), dtype=np.int64)
        self._native.last_seen(fids, out)
        return out

    def total_count(self, slot: int) -> int:
        """The sum of `counts` over all rows of a slot."""
        require_slot_number(slot, "slot")
        with self._writing:
            return int(self._native.slot_totals()[1][slot])

    def slots(self) -> dict[int, int]:
        """How many rows each slot has, for the slots that have any."""
        with self._writing:
            rows, _ = self._native.slot_totals()
        return {int(slot): int(rows[slot]) for slot in np.flatnonzero(rows)}

    def fids(self, slot: int) -> NDArray[np.int64]:
        """Every FID of a slot that has a row, ascending, shape (rows,). Writers wait while the table is walked."""
        require_slot_number(slot, "slot")
        with self._writing:
            fids = self._native.fids_of(slot)
        return np.sort(fids)

    def admission_failures(self, slot: int) -> int:
        """How many FIDs the slot's sketch admitted at once because it had no cell for them; 0 for other kinds."""
        require_slot_number(slot, "slot")
        with self._writing:
            return self._native.failure_count(slot)

    def memory(self) -> MemoryUse:
        """What the table holds, in bytes, by purpose."""
        with self._writing:
            return MemoryUse(*self._native.memory())

    # Writing: one call at a time; others wait.

    def lookup_or_insert(
        self, fids: ArrayLike, now_us: int, out: NDArray[np.float32] | None = None
    ) -> NDArray[np.float32]:
        """As `lookup`, but each FID counts as seen at ``now_us``, and gets a row when its slot's rule says so.

        An older time than the last changes no row's age. A FID that is not admitted yet reads as `lookup` says.

        Raises:
            ValueError: ``now_us`` is negative or past the year 2100, or the arrays do not fit; nothing is counted then.
        """
        fids = as_fids(fids)
        _require_time(now_us)
        out = self._out(len(fids), out)
        with self._writing:
            self._native.lookup_or_insert(fids, now_us, out)
        return out

    def apply_gradients(
        self, fids: ArrayLike, grads: ArrayLike, learning_rate_scale: float = 1.0, *, is_checked: bool = False
    ) -> int:
        """One optimiser step for each distinct FID that has a row; the others are passed over. Returns how many.

        ``grads`` is (count, dim). Gradients of equal FIDs are summed first, in the order given. A schedule or a
        warm-up goes into ``learning_rate_scale``, which multiplies the optimiser's own rate. ``is_checked`` says that
        the caller has looked for what is refused here, as ``Tape.apply`` has: looking reads all gradients once more.

        Raises:
            ValueError: a gradient is NaN, infinite, or so large that a sum of the batch's could be beyond what the
                optimiser can take (the message names the first, its FID and position); the scale is out of range;
                shapes do not fit. Nothing is learned then.
        """
        learning_rate_scale = self.require_scale(learning_rate_scale)
        fids, grads = as_fids(fids), _as_array(grads, np.float32, "grads")
        with self._writing:
            return self._native.apply_gradients(fids, grads, learning_rate_scale, is_checked)

    def require_scale(self, scale: float, name: str = "learning_rate_scale") -> float:
        """See that steps may be taken at this factor on their rate; returns it as Python's float.

        Raises:
            ValueError: it is out of range, or a step would take more than all of a weight off for its decay.
            TypeError: it is no number.
        """
        scale = require_float32(name, scale, most=SCALE_MAX)
        self._require_decay(scale)
        return scale

    def _require_decay(self, scale: float) -> None:
        share = self._decay_share * scale
        if share > 1.0:
            raise ValueError(
                "the optimizer's learning_rate times weight_decay, times the scales (of a slot "
                f"{self._slot_scale_max:g}, of the call {scale:g}), must be at most 1, or each step throws a weight "
                f"past zero, got {share:g}"
            )

    def find_moving(self, fids: ArrayLike, grads: ArrayLike) -> NDArray[np.bool_]:
        """Which of the gradients (count, dim) are other than zeros, as (count,); refuses what ``apply_gradients`` does.

        Raises:
            ValueError: as for ``apply_gradients``.
        """
        fids, grads = as_fids(fids), _as_array(grads, np.float32, "grads")
        is_moving = np.empty(len(fids), np.bool_)
        self._native.find_moving(fids, grads, is_moving)
        return is_moving

    def assign(self, fids: ArrayLike, vectors: ArrayLike) -> None:
        """Set vectors (count, dim), in new rows where needed, past admission. Optimiser state and counts stay.

        Of equal FIDs the last one holds.

        Raises:
            ValueError: a value is NaN or infinite, or shapes do not fit; nothing is assigned then.
        """
        fids, vectors = as_fids(fids), _as_array(vectors, np.float32, "vectors")
        with self._writing:
            self._native.assign(fids, vectors)

    def erase(self, fids: ArrayLike) -> int:
        """Remove rows, and the exact counts of FIDs that had none yet. Returns how many rows went."""
        fids = as_fids(fids)
        with self._writing:
            return self._native.erase(fids)

    def expire(self, now_us: int) -> int:
        """Remove the rows whose slot's ``expire_after_us`` has passed since they were last seen. Returns how many.

        Exact counts of FIDs not yet admitted leave by the same rule, from the oldest sight to the first that is not
        old. It goes in short steps, and other writers get their turn between two of them; a row that they make or see
        meanwhile is not old, and stays.
        """
        _require_time(now_us)
        expired_count = next_row = 0
        while True:
            with self._writing:
                step_count, next_row = self._native.expire(now_us, next_row, _EXPIRE_STEP_ROWS)
                expired_count += step_count
                if next_row >= self._native.row_end:
                    break
        while True:
            with self._writing:
                if self._native.expire_pending(now_us, _EXPIRE_STEP_ROWS) < _EXPIRE_STEP_ROWS:
                    return expired_count

    def begin_expiry(self, now_us: int) -> None:
        """As `expire`, but in turns: each call of `maintain` looks at some rows, until all were looked at.

        Where it has been begun already it goes on, by the newer time.
        """
        _require_time(now_us)
        with self._writing:
            self._native.begin_sweep(now_us)

    def evict(self) -> int:
        """Remove rows of slots that have more than their ``capacity``, then of the table. Returns how many.

        Which ones the ``eviction`` says: exactly where there are 16 rows or fewer, else the worst of those that are
        drawn, at least six for each that leaves. Sights insert past the capacity: call it between two steps of
        learning, as `maintain` does. It goes in short steps, as `expire`.
        """
        return self._evict(len(self))

    def _evict(self, count_max: int) -> int:
        evicted_count = 0
        while evicted_count < count_max:
            step_max = min(_EVICT_STEP_ROWS, count_max - evicted_count)
            with self._writing:
                step_count = self._native.evict(step_max)
            evicted_count += step_count
            if step_count < step_max:
                break
        return evicted_count

    def maintain(self, rows_max: int = _EXPIRE_STEP_ROWS) -> Upkeep:
        """A turn of upkeep, for between two steps of learning: a bit of the expiry that was begun, then of `evict`.

        Its work is bounded: the expiry looks at ``rows_max`` rows and lets at most 2,048 leave, and as many counts of
        FIDs not yet admitted; the eviction lets as many leave as were made since the turn before, and at most 1,024
        more. So a table that stands at its capacity stays there, and one whose capacity was lowered comes down to it
        turn by turn.
        """
        rows_max = require_whole("rows_max", rows_max, least=1)
        with self._writing:
            expired_count = self._native.sweep(rows_max, _TURN_EXPIRED_MAX)
            made_count = self._native.begin_eviction()
        return Upkeep(expired=expired_count, evicted=self._evict(made_count + _TURN_EVICTED_BEYOND))

    # Changes: what sync ships.

    @property
    def epoch(self) -> int:
        """The number of the current epoch, from 0. A change belongs to the epoch in which it is made."""
        return self._native.epoch

    def advance_epoch(self) -> int:
        """Close the current epoch and open the next. Returns the number of the new one."""
        with self._writing:
            return self._native.advance_epoch()

    def delta_since(self, epoch: int) -> Delta:
        """What changed in ``epoch`` and later: each touched row once, with its current vector, and what was removed.

        A row is touched when it is made, updated or assigned; being seen alone does not change it.

        Raises:
            ValueError: ``epoch`` is ahead of the current one, or was forgotten.
        """
        with self._writing:
            epoch = self.require_epoch(epoch)
            changes = self._native.changes_since(epoch)
        return Delta(*changes.read())  # As they were at that instant; writers go on.

    def require_epoch(self, epoch: int) -> int:
        """See that ``delta_since(epoch)`` is there to be had. Returns it as Python's own integer.

        Raises:
            ValueError: ``epoch`` is ahead of the current one, or was forgotten.
            TypeError: it is no whole number.
        """
        epoch = require_whole("epoch", epoch)
        oldest, current = self._native.oldest_epoch, self.epoch
        if oldest <= epoch <= current:
            return epoch
        why = _NOT_BEGUN if epoch > current else _FORGOTTEN
        raise ValueError(f"epoch must be between {oldest} and {current}, got {epoch}; {why}")

    def forget_epochs(self, before: int) -> None:
        """Drop the lists of changes older than the epoch ``before``; they grow until this is called."""
        before = require_whole("before", before)
        with self._writing:
            if not 0 <= before <= self.epoch:
                raise ValueError(f"before must be between 0 and the current epoch {self.epoch}, got {before}")
            self._native.forget_epochs(before)

    def apply_delta(self, delta: Delta, *, is_finite: bool = False) -> None:
        """Take over another table's changes, row by row; a reader sees each row old or new. Twice changes no more.

        What came by a delta is not recorded as a change of this table, and its rows keep their optimiser state. The
        order of deltas is the caller's: an older one brings older vectors back. `Embeddings.apply_delta` looks at it.

        ``is_finite`` says that the vectors need no look for NaN and infinity: ``check_delta`` had it, or they are what
        another table held.

        Raises:
            ValueError: what ``check_delta`` refuses; nothing is taken over then.
        """
        columns = self._columns_of(delta)
        with self._writing:
            self._native.apply_delta(*columns, is_finite)

    def check_delta(self, delta: Delta) -> None:
        """See that ``apply_delta`` would take it.

        Raises:
            ValueError: the delta is of another dim or type, a FID is negative, or a vector has NaN or infinity (the
                message names the first, its FID and position).
            TypeError: it is none.
        """
        self._native.check_delta(*self._columns_of(delta))

    def follow_epoch(self, epoch: int) -> None:
        """Say that this copy holds all that another table had changed before its ``epoch``, which becomes its own.

        Lists of what this table has changed itself are dropped.
        """
        epoch = require_whole("epoch", epoch, most=EPOCH_MAX)
        with self._writing:
            self._native.follow_epoch(epoch)

    def _columns_of(self, delta: Delta) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.int64]]:
        if not isinstance(delta, Delta):
            raise TypeError(f"delta must be a Delta, as delta_since gives it, got {type(delta).__name__}")
        fids, vectors = as_fids(delta.fids, "delta.fids"), _as_array(delta.vectors, np.float32, "delta.vectors")
        if vectors.ndim != 2 or vectors.shape[1] != self.dim:
            raise ValueError(
                f"delta.vectors must have the shape (count, {self.dim}), got {vectors.shape}; the delta is of another "
                "table"
            )
        return fids, vectors, as_fids(delta.removed, "delta.removed")

    # Whole contents: snapshots, copies, moving rows between shards.

    def instant(self) -> TableInstant:
        """Everything as it is now, to be read while the table goes on. Close it, for until then changes cost a copy."""
        with self._writing:
            rows, header, pending = self._native.all_rows(), self._header(), self._native.pending()
        return TableInstant(header, PendingCounts(*pending), rows)

    def export_chunks(self, chunk_rows: int = 65_536) -> Iterator[RowChunk]:
        """All rows as they are at the first step, in the order of their numbers, up to ``chunk_rows`` at a time."""
        chunk_rows = require_whole("chunk_rows", chunk_rows, least=1)
        with self.instant() as instant:
            yield from instant.chunks(chunk_rows=chunk_rows)

    def restore_chunk(self, chunk: RowChunk) -> None:
        """Add rows that this table does not have, with their state, counts and ages.

        Raises:
            ValueError: shapes do not fit, a time or count is negative, or a row exists already; nothing is added then.
        """
        with self._writing:
            self._native.restore_rows(
                as_fids(chunk.fids, "chunk.fids"),
                _as_array(chunk.vectors, np.float32, "chunk.vectors"),
                _as_array(chunk.states, np.float32, "chunk.states"),
                _as_array(chunk.last_seen_us, np.int64, "chunk.last_seen_us"),
                _as_array(chunk.counts, np.int64, "chunk.counts"),
                None if chunk.epochs is None else _as_array(chunk.epochs, np.uint32, "chunk.epochs"),
                None if chunk.row_numbers is None else _as_array(chunk.row_numbers, np.uint32, "chunk.row_numbers"),
            )

    def pending(self) -> PendingCounts:
        """The FIDs that wait for admission, of slots that count exactly."""
        with self._writing:
            return PendingCounts(*self._native.pending())

    def restore_pending(self, pending: PendingCounts) -> None:
        """Take over what was counted of FIDs without a row, in place of what this table knew of them.

        Raises:
            ValueError: a FID's slot does not count exactly; nothing is taken over then.
        """
        with self._writing:
            self._native.restore_pending(
                as_fids(pending.fids, "pending.fids"),
                _as_array(pending.counts, np.int64, "pending.counts"),
                _as_array(pending.last_seen_us, np.int64, "pending.last_seen_us"),
            )

    def clone(self) -> Self:
        """A table of its own that from here on behaves as this one does now."""
        with self.instant() as instant:
            copy = self.restored(instant.header, instant.pending, instant.chunks())
        copy.threads = self.threads
        return copy

    def __deepcopy__(self, _memo: object) -> Self:
        return self.clone()

    def __reduce__(self) -> NoReturn:
        raise TypeError("a table cannot be pickled; save(folder) writes it, delta_since(epoch) gives what changed")

    def save(self, folder: str | Path) -> None:
        """Write everything as it is now into a new ``folder``, which appears whole or not at all. Readers never wait;
        writers do while the counts of FIDs without a row are copied, some tens of nanoseconds for each that is counted.

        Its ``rows-*.arrow`` have the columns fid, vector, state, last_seen_us, count, epoch, row; pyarrow and Polars
        read them, and DuckDB what pyarrow read.

        Folders above it are made. A save whose process is killed leaves a hidden folder beside it, which the next save
        to the same place deletes.

        Raises:
            OSError: the folder exists, or could not be written; nothing is left behind.
            TypeError: ``folder`` is no path.
        """
        folder = as_path(folder)
        with self.instant() as instant:
            table_file.write(folder, instant)

    @classmethod
    def load(cls, folder: str | Path, *, is_checked: bool = False) -> Self:
        """The table that `save` wrote. What it does from here on, the saved one would have done, bit for bit.

        ``is_checked`` says that the files were compared with their checksums just before.

        Raises:
            SnapshotError: a file is missing, torn or damaged; the message names it.
            OSError: there is no such folder, or it cannot be read.
            TypeError: ``folder`` is no path.
        """
        return cls.restored(*table_file.read(as_path(folder), is_checked=is_checked))

    @classmethod
    def restored(cls, header: TableHeader, pending: PendingCounts, chunks: Iterator[RowChunk]) -> Self:
        """A table of these parts, which goes on as the one would have that they were taken of."""
        table = cls(
            header.dim,
            optimizer=header.optimizer,
            seed=header.seed,
            initial_range=header.initial_range,
            rules=header.rules,
            precision=header.precision,
            capacity=header.capacity,
        )
        native = table._native
        native.restore_epochs(header.oldest_epoch, header.epoch, header.removed, header.removed_epochs)
        native.time_seen_max_us = header.time_seen_max_us
        native.restore_clocks(**asdict(header.clocks))
        for slot, state in header.filters.items():
            native.restore_filter(slot, state)
        table.restore_pending(pending)
        native.reserve(header.row_count)
        for chunk in chunks:
            table.restore_chunk(chunk)
        return table

    def _header(self) -> TableHeader:
        native = self._native
        removed, removed_epochs = native.removals()
        return TableHeader(
            dim=native.dim,
            state_dim=native.state_dim,
            optimizer=self._optimizer,
            seed=self._seed,
            initial_range=self._initial_range,
            rules=self.rules,
            row_count=len(self),
            time_seen_max_us=native.time_seen_max_us,
            clocks=self.clocks,
            oldest_epoch=native.oldest_epoch,
            epoch=native.epoch,
            removed=removed,
            removed_epochs=removed_epochs,
            filters=native.filters(),
            precision=self._precision,
            capacity=self._capacity,
        )

    def _out(self, count: int, out: NDArray[np.float32] | None) -> NDArray[np.float32]:
        if out is None:
            return np.empty((count, self.dim), dtype=np.float32)
        array = np.asarray(out)
        if array.dtype != np.float32 or not array.flags.c_contiguous or not array.flags.writeable:
            raise ValueError(f"out must be contiguous writable float32, got {array.dtype}; make it with numpy.empty")
        return array


def _as_array(values: ArrayLike, dtype: DTypeLike, name: str) -> NDArray[Any]:
    array = np.asarray(values)
    if array.size == 0 and isinstance(values, (list, tuple)):  # NumPy takes nothing for floats.
        array = array.astype(dtype)
    if array.dtype != dtype:
        raise ValueError(f"{name} must be {np.dtype(dtype)}, got {array.dtype}; convert with .astype")
    return np.ascontiguousarray(array)


def as_path(folder: str | Path) -> Path:
    """What is saved into, or loaded from."""
    if not isinstance(folder, str | Path):
        raise TypeError(f"folder must be a path, got {folder!r:.80}; write Path(...) or its text")
    return Path(folder)


def as_fids(fids: ArrayLike, name: str = "fids") -> NDArray[np.int64]:
    """FIDs of one dimension as the core takes them; ``name`` is what a refusal calls them."""
    array = np.asarray(fids)
    if array.dtype.kind in "USO":
        raise ValueError(
            f"{name} must be int64, got {array.dtype}; dolmen.features.encode_values(slot, values) makes FIDs of values"
        )
    array = _as_array(fids, np.int64, name)
    if array.ndim != 1:
        raise ValueError(f"{name} must have one dimension, got shape {array.shape}; flatten them first")
    return array


def _require_capacity(capacity: Capacity | None) -> None:
    if capacity is not None and not isinstance(capacity, Capacity):
        raise TypeError(f"capacity must be None or Capacity(rows), got {capacity!r}; write Capacity({capacity!r})")


def _require_optimizer(optimizer: Optimizer | None) -> None:
    if optimizer is not None and not isinstance(optimizer, get_args(Optimizer)):
        raise TypeError(
            f"optimizer must be one of dolmen.embedding's optimizers, such as AdaGrad(), got {optimizer!r:.80}; "
            "optimizer_from_dict makes one of settings by name"
        )


def _require_rules(rules: Mapping[int, RowRules] | None) -> None:
    if rules is not None and not isinstance(rules, Mapping):
        raise TypeError(f"rules must be RowRules by slot number, got {rules!r:.80}; write {{number: RowRules(...)}}")
    for slot, rule in (rules or {}).items():
        require_slot_number(slot, "slot")
        if not isinstance(rule, RowRules):
            raise TypeError(f"rules[{slot}] must be RowRules, got {rule!r:.80}; write {{{slot}: RowRules(...)}}")


def _require_time(now_us: int) -> None:
    if not isinstance(now_us, int | np.integer) or isinstance(now_us, bool):
        raise TypeError(f"now_us must be a whole number of microseconds since 1970, got {now_us!r}")
    if not 0 <= now_us <= TIME_US_MAX:
        raise ValueError(
            f"now_us must be microseconds since 1970, not negative and at most {TIME_US_MAX} (the year 2100), got "
            f"{now_us}; give the data's time, in microseconds"
        )

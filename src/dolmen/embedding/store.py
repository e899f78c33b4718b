"""All rows of a schema: one table for each width, so that a batch is read in as few crossings as there are widths.

A FID carries its slot, so slots of one ``dim`` live in one table, each by its own rules of admission and expiry.
Epochs, deltas and files cover the tables together: they move as one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final, Literal, NoReturn, final

import numpy as np
import torch
from torch import Tensor

from dolmen._core import first_foreign
from dolmen.clock import TIME_US_MIN, time_mend
from dolmen.embedding import store_file, table_file
from dolmen.embedding.forks import Lock, lock_of
from dolmen.embedding.instant import TableInstant
from dolmen.embedding.optimizers import SGD, AdaGrad, Optimizer
from dolmen.embedding.precision import Precision
from dolmen.embedding.rows import EPOCH_MAX, PendingCounts, TableHeader
from dolmen.embedding.table import Capacity, Delta, MemoryUse, RowChunk, RowRules, Table, Upkeep, as_fids, as_path
from dolmen.errors import SchemaError, SnapshotError
from dolmen.features import Admission, Jagged, Policy, Schema, Slot, slot_numbers
from dolmen.features.fids import SLOT_NUMBER_MAX
from dolmen.lineage import Lineage
from dolmen.seeds import SEED_MAX, derive_seed
from dolmen.settings import require_whole

__all__ = ["Embeddings", "table_folder_name"]

_NO_FIDS: Final = np.empty(0, dtype=np.int64)
_KEEP: Final = (
    "keep every saved slot, in its order and with its dim, and add new ones at the end, of dims that were saved"
)


@final
class Embeddings:
    """The rows of every slot of ``schema``, in ``tables``: one ``Table`` by width.

    Reads may come from any thread at any time; calls that change rows are put in line by each table.

    Args:
        schema: which slots there are, how wide, and when their ids get a row and lose it.
        optimizer: what a gradient does to a row; ``AdaGrad()`` if ``None``.
        seed: of the rows' start values.
        capacity: how many rows each table keeps at most; all if ``None``.
        threads: see ``Table.threads``.

    Attributes:
        schema: the one that was given.
        tables: by width; what ``Table`` has and this has not is asked of ``table_of(slot)``.
    """

    # Nothing else may be set: a misspelt setting would be a silent one.
    __slots__ = ("__weakref__", "_is_for_serving", "_is_own", "_lineage", "_moving", "_timed", "schema", "tables")

    _lineage: Lineage | None  # Of embeddings for serving: what they follow, once they know it.

    def __init__(
        self,
        schema: Schema,
        *,
        optimizer: Optimizer | None = None,
        seed: int = 0,
        capacity: Capacity | None = None,
        threads: int = 1,
    ) -> None:
        seed = require_whole("seed", seed, most=SEED_MAX)
        kept = optimizer if optimizer is not None else AdaGrad()
        rules = _rules(schema)
        self._fill(
            schema,
            {dim: Table(dim, optimizer=kept, seed=_table_seed(seed, dim), rules=rules[dim]) for dim in sorted(rules)},
            is_for_serving=False,
            lineage=Lineage(),
        )
        self.capacity, self.threads = capacity, threads

    @classmethod
    def for_serving(cls, schema: Schema, *, seed: int = 0, precision: Precision = Precision.FLOAT32) -> Embeddings:
        """Empty embeddings without optimiser state, which rows enter by ``apply_delta`` only.

        Args:
            schema: as of the embeddings that are learned.
            seed: theirs, for slots whose absent ids read as their start values.
            precision: what vectors are stored as.
        """
        seed = require_whole("seed", seed, most=SEED_MAX)
        seeds = {dim: _table_seed(seed, dim) for dim in _rules(schema)}
        return cls._of(schema, _serving_tables(schema, seeds, precision), is_for_serving=True, lineage=None)

    @property
    def optimizer(self) -> Optimizer:
        """What a gradient does to a row. It stays what it was made with; ``Tape.apply(scale)`` changes its rate."""
        return next(iter(self.tables.values())).optimizer

    @property
    def is_for_serving(self) -> bool:
        """True where nothing is ever learned or inserted by a look-up."""
        return self._is_for_serving

    @property
    def capacity(self) -> Capacity | None:
        """How many rows of all slots together each table keeps at most, as ``Table.capacity``.

        Raises:
            ValueError: on setting it, these serve; what leaves those that they follow leaves them too.
        """
        return next(iter(self.tables.values())).capacity

    @capacity.setter
    def capacity(self, capacity: Capacity | None) -> None:
        self._require_learning("capacity")
        for table in self.tables.values():
            table.capacity = capacity

    @property
    def threads(self) -> int:
        """How many threads each table may use for one batch, as ``Table.threads``."""
        return next(iter(self.tables.values())).threads

    @threads.setter
    def threads(self, count: int) -> None:
        for table in self.tables.values():
            table.threads = count

    def __len__(self) -> int:
        """How many rows there are."""
        return sum(map(len, self.tables.values()))

    def table_of(self, slot: str) -> Table:
        """The table that holds the rows of ``slot``.

        Raises:
            SchemaError: there is no such slot.
        """
        return self.tables[self.schema.slot(slot).dim]

    def lookup(self, slot: str, fids: Tensor) -> Tensor:
        """The vectors of FIDs of one slot, float32 (count, dim); without a row, what the slot's ``absent`` says."""
        return torch.from_numpy(self.table_of(slot).lookup(fids))

    def lookup_or_insert(self, slot: str, fids: Tensor, now_us: int) -> Tensor:
        """As ``lookup``, and each FID counts as seen: it gets its row as soon as its slot's rule allows.

        Raises:
            ValueError: as for ``require_time``.
            SchemaError: a FID is of another slot or of none, such as a plain id; none is seen then.
        """
        self.require_time(now_us)
        self.require_own(slot, Jagged.single(fids))
        return torch.from_numpy(self.table_of(slot).lookup_or_insert(fids, now_us))

    def rows_by_slot(self) -> dict[str, int]:
        """How many rows each slot has; slots that share rows are told under the slot that owns them."""
        counts = {dim: table.slots() for dim, table in self.tables.items()}
        return {
            name: counts[slot.dim].get(self.schema.slot_number(name), 0)
            for name, slot in self.schema.slots.items()
            if self.schema.owner(name) is slot
        }

    def memory(self) -> MemoryUse:
        """What the tables hold together, in bytes, by purpose."""
        uses = [table.memory() for table in self.tables.values()]
        return MemoryUse(
            index_bytes=sum(use.index_bytes for use in uses),
            row_bytes=sum(use.row_bytes for use in uses),
            pending_bytes=sum(use.pending_bytes for use in uses),
            change_bytes=sum(use.change_bytes for use in uses),
        )

    def expire(self, now_us: int) -> int:
        """Remove rows not seen for their slot's time, as of ``now_us`` (the data's time). Returns how many."""
        self._require_learning("expire")
        self.require_time(now_us)
        return sum(table.expire(now_us) for table in self.tables.values())

    def begin_expiry(self, now_us: int) -> None:
        """As ``expire``, in the turns of ``maintain``."""
        self._require_learning("begin_expiry")
        self.require_time(now_us)
        for table in self.tables.values():
            table.begin_expiry(now_us)

    def maintain(self) -> Upkeep:
        """A turn of upkeep, for between two steps of learning: a bit of the expiry that was begun, then eviction."""
        self._require_learning("maintain")
        turns = [table.maintain() for table in self.tables.values()]
        return Upkeep(expired=sum(turn.expired for turn in turns), evicted=sum(turn.evicted for turn in turns))

    @property
    def epoch(self) -> int:
        """The current epoch: changes made now belong to it.

        Of embeddings for serving it is that of those that they follow: every change before it is in them, and
        ``delta_since(serving.epoch)`` of the others is what they need next.
        """
        return min(table.epoch for table in self.tables.values())

    def advance_epoch(self) -> int:
        """Close the current epoch in every table. Returns the number of the new one.

        Raises:
            ValueError: these serve; their epoch is that of those that they follow.
        """
        self._require_learning("advance_epoch")
        with self._moving:
            for table in self.tables.values():
                table.advance_epoch()
            return self.epoch

    def delta_since(self, epoch: int) -> dict[int, Delta]:
        """What changed in ``epoch`` and later, by width: touched rows as they are now, and FIDs that left.

        The current epoch is closed by it, so that of two deltas it can be told which is the older.

        Raises:
            ValueError: ``epoch`` has not begun, or was forgotten, or these serve; nothing is closed then.
        """
        self._require_learning("delta_since")
        with self._moving:
            for table in self.tables.values():
                epoch = table.require_epoch(epoch)
            until, lineage = self.advance_epoch(), self._lineage
            return {
                dim: replace(table.delta_since(epoch), since=epoch, until=until, lineage=lineage)
                for dim, table in self.tables.items()
            }

    def apply_delta(self, deltas: Mapping[int, Delta]) -> None:
        """Take over other embeddings' changes. Applying them twice changes nothing more.

        Embeddings for serving follow those of one learner by what ``delta_since`` gave: what they have already they
        pass over, also where it comes late, and with a gap before it they refuse it. A learner that was loaded from
        what it saved is followed as far as the follower was not yet ahead of that; then it needs a new copy. Others
        take what comes, in the order in which it comes, and so does everyone with deltas whose ``since`` is ``None``.

        Raises:
            SnapshotError: a delta of a width that this schema has no table for or that does not fit its table, one
                with a gap before it, or of another learner; nothing is applied then.
            TypeError: no deltas by width.
        """
        if not isinstance(deltas, Mapping):
            raise TypeError(f"deltas must be what delta_since gave, by width, got {type(deltas).__name__}")
        with self._moving:
            new = {dim: delta for dim, delta in deltas.items() if self._is_new(dim, delta)}
            for dim, delta in new.items():
                self.tables[dim].apply_delta(delta, is_finite=True)  # As `check_delta` saw.
                if self.is_for_serving and delta.until is not None:
                    self.tables[dim].follow_epoch(delta.until)
                    self._lineage = delta.lineage if delta.lineage is not None else self._lineage

    def _is_new(self, dim: int, delta: Delta) -> bool:
        """Whether these changes, which fit, are to be taken over."""
        table = self.tables.get(dim)
        if table is None:
            raise SnapshotError(
                f"the delta has rows of dim {dim}; this schema's are {', '.join(map(str, self.tables))}"
            )
        try:
            table.check_delta(delta)
            if not self.is_for_serving or delta.since is None or delta.until is None:
                return True
            since = require_whole("delta.since", delta.since, most=EPOCH_MAX)
            until = require_whole("delta.until", delta.until, least=since, most=EPOCH_MAX)
        except (TypeError, ValueError) as problem:
            raise SnapshotError(f"the delta of dim {dim} does not fit its table: {problem}") from None
        ours, theirs = self._lineage, delta.lineage
        if ours is not None and theirs is not None and ours.name != theirs.name:
            if ours.leads_through(theirs.name, until):
                return False  # It is from before a branch that was followed.
            newest = max(one.epoch for one in self.tables.values())  # The lineage is that of all of them.
            if theirs.leads_through(ours.name, newest):
                return self._is_next(dim, since, until)
            raise SnapshotError(
                f"the delta of dim {dim} is of lineage {theirs.name}, which has not been at epoch {newest} of "
                f"lineage {ours.name} as these embeddings have: another learner, or one that was loaded from an older "
                "save; begin with its serving_copy()"
            )
        return self._is_next(dim, since, until)

    def _is_next(self, dim: int, since: int, until: int) -> bool:
        """Whether changes of these epochs are new to the table."""
        table = self.tables[dim]
        if since > table.epoch:
            raise SnapshotError(
                f"the delta of dim {dim} begins with epoch {since}, and these embeddings have what came before "
                f"epoch {table.epoch}: one between is missing; ask for delta_since({table.epoch})"
            )
        return until > table.epoch

    def forget_epochs(self, before: int) -> None:
        """Drop what is remembered of changes older than the epoch ``before``; it grows until this is called."""
        with self._moving:
            for table in self.tables.values():
                table.forget_epochs(before)

    def clone(self) -> Embeddings:
        """Embeddings of their own that from here on behave as these do: rows, states, counts, ages and epochs."""
        with self._moving:
            tables = {dim: table.clone() for dim, table in self.tables.items()}
            lineage = self._lineage
            if lineage is not None and not self.is_for_serving:
                lineage = lineage.branch(self.epoch)
                self.advance_epoch()  # Who has what is changed from here on is ahead of the clone.
        return self._of(self.schema, tables, is_for_serving=self.is_for_serving, lineage=lineage)

    def __deepcopy__(self, _memo: object) -> Embeddings:
        return self.clone()

    def __reduce__(self) -> NoReturn:
        raise TypeError("embeddings cannot be pickled; save them into a folder, or send what delta_since gives")

    def serving_copy(self, precision: Precision = Precision.FLOAT32) -> Embeddings:
        """Embeddings for serving: the vectors alone, without optimiser state, counts and ages, in this precision.

        They follow by ``apply_delta``, beginning with ``delta_since(copy.epoch)`` of these, and never learn.
        """
        seeds = {dim: table.seed for dim, table in self.tables.items()}
        tables = _serving_tables(self.schema, seeds, precision)
        with self._instants() as (instants, lineage):
            for dim, instant in instants.items():
                _take_over(tables[dim], instant.header, instant.chunks())
        return Embeddings._of(self.schema, tables, is_for_serving=True, lineage=lineage)

    def instants(self) -> dict[int, TableInstant]:
        """Every table as it is now, by width, to be read while they go on; see ``Table.instant``."""
        with self._moving:
            return {dim: table.instant() for dim, table in self.tables.items()}

    def save(self, folder: Path | str) -> list[Path]:
        """Write a folder ``table-<dim>`` for each table into ``folder``, which is made. Returns the folders.

        Each appears whole or not at all, and is of one instant, taken as the call begins. Tables of several widths are
        of the same step if no step falls into that beginning. The current epoch is closed there, so that copies that
        come later are known to be ahead of what is saved.

        Raises:
            FileExistsError: one of them exists already; none is written then.
            OSError: one cannot be written.
            ValueError: these serve, and have nothing that could go on learning.
            TypeError: ``folder`` is no path.
        """
        self._require_learning("save")
        folder = as_path(folder)
        folders = [folder / table_folder_name(dim) for dim in self.tables]
        for each in folders:
            if each.exists():
                raise FileExistsError(f"{each} exists already; save each version into a folder of its own")
        with self._instants(is_closing=True) as (instants, lineage):
            for dim, instant in instants.items():
                table_file.write(folder / table_folder_name(dim), instant)
                instant.close()  # Until then writers keep copies for it.
            assert lineage is not None, "these learn"
            store_file.write(folder, [each.name for each in folders], lineage)
        return folders

    @classmethod
    def load(cls, folder: Path | str, schema: Schema, *, is_checked: bool = False) -> Embeddings:
        """What ``save`` wrote, optimiser state and all: it goes on as the saved ones would have, bit for bit.

        The files know which slot each row is of. Slots may have been added at the schema's end, and rules of admission
        and expiry changed: those of ``schema`` hold from here on. Where a slot counts the sights of ids without a row
        in another way than before, it begins to count anew. ``capacity`` and ``optimizer`` are those of the files.

        Args:
            folder: the one that was saved into.
            schema: what the rows are of.
            is_checked: the files were compared with their checksums just before, and are of one save.

        Raises:
            SnapshotError: a file is missing or torn, the save was not finished, tables are of different saves, or a
                slot has another name, number or width than in this schema.
            TypeError: ``folder`` is no path, or ``schema`` none.
        """
        folder, rules, tables = as_path(folder), _rules(schema), {}
        lineage = _open(folder, rules, is_checked=is_checked)
        for dim in sorted(rules):
            with _naming(folder, dim) as path:
                header, pending, chunks = table_file.read(path, is_checked=is_checked)
                _require_slots(path, header, dim, rules[dim])
                tables[dim] = Table.restored(*_under(rules[dim], header, pending), chunks)
        newest = max(table.epoch for table in tables.values())
        for table in tables.values():
            while table.epoch < newest:
                table.advance_epoch()
        return cls._of(
            schema, tables, is_for_serving=False, lineage=Lineage() if lineage is None else lineage.branch(newest)
        )

    @classmethod
    def load_for_serving(
        cls,
        folder: Path | str,
        schema: Schema,
        *,
        precision: Precision = Precision.FLOAT32,
        is_checked: bool = False,
    ) -> Embeddings:
        """What ``load(...).serving_copy(precision)`` gives, without ever holding the rest in memory."""
        folder, rules, headers, chunks = as_path(folder), _rules(schema), {}, {}
        lineage = _open(folder, rules, is_checked=is_checked)
        for dim in sorted(rules):
            with _naming(folder, dim) as path:
                headers[dim], _, chunks[dim] = table_file.read(path, is_checked=is_checked)
                _require_slots(path, headers[dim], dim, rules[dim])
        tables = _serving_tables(schema, {dim: header.seed for dim, header in headers.items()}, precision)
        for dim, table in tables.items():
            with _naming(folder, dim):
                _take_over(table, headers[dim], chunks[dim])
        return cls._of(schema, tables, is_for_serving=True, lineage=lineage)

    @contextmanager
    def _instants(self, *, is_closing: bool = False) -> Iterator[tuple[dict[int, TableInstant], Lineage | None]]:
        """Every table at one epoch, which is closed if asked for, and of which lineage it is."""
        with ExitStack() as held:
            with self._moving:
                instants = {dim: held.enter_context(table.instant()) for dim, table in self.tables.items()}
                lineage = self._lineage
                if is_closing:
                    self.advance_epoch()
            yield instants, lineage

    def _require_learning(self, call: str) -> None:
        if self.is_for_serving:
            raise ValueError(
                f"these embeddings serve: {call} is for those that learn, and that they follow; call theirs"
            )

    @classmethod
    def _of(
        cls, schema: Schema, tables: Mapping[int, Table], *, is_for_serving: bool, lineage: Lineage | None
    ) -> Embeddings:
        made = cls.__new__(cls)
        made._fill(schema, tables, is_for_serving=is_for_serving, lineage=lineage)
        return made

    def require_own(self, slot: str, column: Jagged) -> None:
        """See that what is about to be seen is of this slot: other FIDs would get rows, or move those of other ids.

        Raises:
            SchemaError: a FID is of another slot or of none, or the column's offsets fall.
        """
        _ = column.lengths  # which looks at the offsets
        number, array = self.schema.slot_number(slot), as_fids(column.values.cpu())
        place = first_foreign(array, self._is_own[number])
        if place == len(array):
            return
        theirs = int(slot_numbers(array[place : place + 1])[0])
        names = [repr(name) for name in self.schema.slots if self.schema.slot_number(name) == theirs]
        raise SchemaError(
            f"fids of {slot!r} must have its slot number {number}, got {array[place]} at position {place}, of slot "
            f"number {theirs} ({names[0] if names else 'no slot'}); "
            f"encode_values(schema.slot_number({slot!r}), ids) makes FIDs of ids"
        )

    def require_time(self, now_us: int) -> None:
        """See that a time can be in the unit that the slots' durations count in.

        Raises:
            ValueError: where a slot has ``expire_after`` or ``half_life``, ``now_us`` is before 1990, as times in
                seconds are, and not 0, which says that no time is known.
        """
        # Durations say which unit times must have; without any, a count of steps is as good.
        if self._timed is not None and isinstance(now_us, int | np.integer) and 0 < now_us < TIME_US_MIN:
            raise ValueError(
                f"now_us must be microseconds since 1970, of 1990 or later since slot {self._timed!r} counts in them, "
                f"got {now_us}; {time_mend(now_us)}, and let a time of your own making begin after 1990"
            )

    def _fill(
        self, schema: Schema, tables: Mapping[int, Table], *, is_for_serving: bool, lineage: Lineage | None
    ) -> None:
        self.schema: Schema = schema
        self._lineage = lineage
        # Held by what moves all tables from epoch to epoch, or must see them at the same one.
        self._moving: Lock = lock_of(self, "_moving")
        self.tables: Mapping[int, Table] = dict(tables)
        self._is_for_serving = is_for_serving
        numbers = np.arange(SLOT_NUMBER_MAX + 1)
        self._is_own = {number: numbers == number for number in map(schema.slot_number, schema.slots)}
        self._timed = next((name for name, one in schema.slots.items() if one.expire_after or one.half_life), None)


def table_folder_name(dim: int | Literal["*"]) -> str:
    """The folder that holds the rows of this width."""
    return f"table-{dim}"


def _require_schema(schema: Schema) -> None:
    if not isinstance(schema, Schema):
        raise TypeError(f"schema must be a Schema, got {schema!r:.80}; write Schema(Slot('user'), ...)")


def _table_seed(seed: int, dim: int) -> int:
    return derive_seed(seed, "table", dim)


def _serving_tables(schema: Schema, seeds: Mapping[int, int], precision: Precision) -> dict[int, Table]:
    """Tables that never learn: of the rules, only what absent ids read as is left."""
    return {
        dim: Table(
            dim,
            optimizer=SGD(),
            seed=seeds[dim],
            rules={number: RowRules(absent=rule.absent, name=rule.name) for number, rule in rules.items()},
            precision=precision,
        )
        for dim, rules in sorted(_rules(schema).items())
    }


def _take_over(table: Table, header: TableHeader, chunks: Iterable[RowChunk]) -> None:
    for chunk in chunks:
        table.apply_delta(Delta(chunk.fids, chunk.vectors, _NO_FIDS), is_finite=True)
    table.follow_epoch(header.epoch)


def _under(
    rules: Mapping[int, RowRules], header: TableHeader, pending: PendingCounts
) -> tuple[TableHeader, PendingCounts]:
    """A table as it was, but by these rules: counts of ids without a row stay where they are counted as before."""
    kept = {number for number, rule in header.rules.items() if _admission(rule) == _admission(rules[number])}
    filters = {number: state for number, state in header.filters.items() if number in kept}
    waits = np.isin(slot_numbers(pending.fids), list(kept))
    left = PendingCounts(pending.fids[waits], pending.counts[waits], pending.last_seen_us[waits])
    return replace(header, rules=rules, filters=filters), left


def _admission(rule: RowRules) -> tuple[Admission, int, int]:
    return rule.admission, rule.admit_after, rule.admission_capacity


@contextmanager
def _naming(folder: Path, dim: int) -> Iterator[Path]:
    """The table's folder; what cannot be read within is told by its name."""
    name = table_folder_name(dim)
    try:
        yield folder / name
    except OSError as problem:
        raise SnapshotError(f"{name} of {folder} cannot be read: {problem}") from problem


def _open(folder: Path, rules: Mapping[int, Mapping[int, RowRules]], *, is_checked: bool) -> Lineage | None:
    """See that the folder has the tables of these widths, no other, and all of one save, whose lineage is returned."""
    if not folder.is_dir():
        raise SnapshotError(f"{folder} is no folder; name the one that Embeddings.save wrote into")
    if (folder / table_file.MANIFEST).exists():
        raise SnapshotError(f"{folder} is one table; name the folder above, which Embeddings.save wrote into")
    expected = {table_folder_name(dim) for dim in rules}
    there = sorted(path.name for path in folder.glob(table_folder_name("*")))
    lineage = None if is_checked else store_file.read(folder, [name for name in there if name in expected])
    for dim, of_dim in rules.items():
        if not (folder / table_folder_name(dim)).exists():
            names = ", ".join(repr(rule.name) for rule in of_dim.values())
            raise SnapshotError(f"{folder} lacks {table_folder_name(dim)}, for the rows of {names}; {_KEEP}")
    for name in there:
        if name not in expected:
            raise SnapshotError(f"{name} of {folder} has rows, and no slot of this schema has its dim; {_KEEP}")
    return lineage


def _require_slots(path: Path, header: TableHeader, dim: int, rules: Mapping[int, RowRules]) -> None:
    """See that each slot of a table is what it was when its rows were learned."""
    name = f"{path.name} of {path.parent}"
    if header.dim != dim:
        raise SnapshotError(f"{name} holds rows of dim {header.dim}; the folder was renamed, name it as it was")
    for number, rule in header.rules.items():
        now = rules[number].name if number in rules else None
        if now is None:
            raise SnapshotError(f"{name} has slot {number}, {rule.name!r}, and this schema has none there; {_KEEP}")
        if rule.name not in ("", now):
            raise SnapshotError(f"{name} has {rule.name!r} as slot {number}, which in this schema is {now!r}; {_KEEP}")


def _rows_of(slot: Slot) -> str:
    """What the rows of a slot are of: its name, and how its ids share rows where they do."""
    if slot.policy is Policy.COLLISIONLESS:
        return slot.name
    return f"{slot.name} ({slot.policy} over {slot.policy_rows} rows, seed {slot.policy_seed})"


def _rules(schema: Schema) -> dict[int, dict[int, RowRules]]:
    """By width, then by slot number: the rules of the slots that own rows."""
    _require_schema(schema)
    rules: dict[int, dict[int, RowRules]] = {}
    for name, slot in schema.slots.items():
        if schema.owner(name) is slot:
            rules.setdefault(slot.dim, {})[schema.slot_number(name)] = RowRules(
                admit_after=slot.admit_after,
                admission=slot.admission,
                admission_capacity=slot.admission_capacity,
                absent=slot.absent,
                expire_after_us=slot.expire_after_us,
                capacity=slot.capacity or 0,
                eviction=slot.eviction,
                half_life_us=slot.half_life_us,
                learning_rate_scale=slot.learning_rate_scale,
                name=_rows_of(slot),
            )
    return rules

"""A batch: columns of examples. Slots are jagged arrays of FIDs, everything else one number per example.

Tensors and Arrow arrays share memory wherever the layout allows it, so that a batch read from the log is not copied.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain, pairwise
from typing import ClassVar, Final, TypeVar, final

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from dolmen.errors import SchemaError
from dolmen.features.layout import examples_schema
from dolmen.features.schema import Schema, Slot
from dolmen.settings import require_whole, suggestion

__all__ = ["Batch", "Jagged", "Spread"]

T = TypeVar("T")

_INT64: Final = np.dtype(np.int64)
_NONE: Final = torch.empty(0)
_NO_TIMES: Final = torch.empty(0, dtype=torch.int64)
_DEFAULTS: Final = {
    "weights": np.float32(1.0),
    "sampling_rates": np.float32(1.0),
    "served_probabilities": np.float32("nan"),
    "event_times_us": np.int64(0),
}


@dataclass(frozen=True)
class Jagged:
    """Rows of different lengths: row ``i`` is ``values[offsets[i]:offsets[i + 1]]``.

    ``values``: int64 FIDs, shape (total,). ``offsets``: int64, shape (batch + 1,), from 0 to total, never falling.

    Raises:
        SchemaError: they are of another kind, or do not fit each other.
    """

    values: Tensor
    offsets: Tensor

    def __post_init__(self) -> None:
        # Cheap calls only, for a request makes a dozen of these.
        values, offsets = self.values, self.offsets
        if not _is_row_of_int64(values) or not _is_row_of_int64(offsets):
            name, came = ("offsets", offsets) if _is_row_of_int64(values) else ("values", values)
            raise _no_row_of_int64(name, came)
        # On a device: they were looked at before they went there, and to look again would wait for it.
        if offsets.is_cpu and not _spans(offsets.numpy(), values.shape[0]):
            raise SchemaError(
                f"Jagged.offsets must begin with 0 and end with {values.shape[0]}, the count of values, got "
                f"{offsets.tolist()!r:.80}; Jagged.from_lists makes them"
            )

    @classmethod
    def _fitting(cls, values: Tensor, offsets: Tensor) -> Jagged:
        """Of what was made here to fit: nothing is looked at."""
        made = object.__new__(Jagged)
        object.__setattr__(made, "values", values)
        object.__setattr__(made, "offsets", offsets)
        return made

    @classmethod
    def empty(cls, size: int) -> Jagged:
        """``size`` rows without values."""
        return cls._fitting(torch.empty(0, dtype=torch.int64), torch.zeros(size + 1, dtype=torch.int64))

    @classmethod
    def from_arrays(cls, values: NDArray[np.int64], offsets: NDArray[np.int64]) -> Jagged:
        """The same from NumPy arrays, whose memory is shared."""
        tensors = torch.from_numpy(values), torch.from_numpy(offsets)
        is_fitting = values.dtype == offsets.dtype == _INT64 and values.ndim == offsets.ndim == 1
        return cls._fitting(*tensors) if is_fitting and _spans(offsets, len(values)) else Jagged(*tensors)

    @classmethod
    def from_lists(cls, rows: Sequence[Sequence[int]]) -> Jagged:
        """Rows given as lists of FIDs.

        Raises:
            SchemaError: a row is no list, or a FID no integer.
        """
        ends = np.zeros(len(rows) + 1, dtype=np.int64)
        try:
            np.cumsum([len(row) for row in rows], out=ends[1:])
            values = np.fromiter(chain.from_iterable(rows), dtype=np.int64, count=int(ends[-1]))
        except (TypeError, ValueError, OverflowError):
            raise SchemaError(
                f"Jagged.from_lists takes a list of FIDs for each row, got {rows!r:.80}; encode_values makes FIDs of "
                "ids, and Jagged.single takes one for each row"
            ) from None
        return cls.from_arrays(values, ends)

    @classmethod
    def single(cls, values: NDArray[np.int64] | Tensor) -> Jagged:
        """Exactly one value in each row."""
        tensor = torch.from_numpy(values) if isinstance(values, np.ndarray) else values
        if not isinstance(tensor, Tensor):
            raise _no_row_of_int64("values", tensor)
        return cls(tensor, torch.arange(len(tensor) + 1, dtype=torch.int64, device=tensor.device))

    @property
    def size(self) -> int:
        """How many rows."""
        return int(self.offsets.shape[0]) - 1

    @cached_property
    def lengths(self) -> Tensor:
        """How many values each row has, shape (batch,). Computed once: do not change it in place.

        Raises:
            SchemaError: offsets fall.
        """
        if not self.offsets.is_cpu:
            return self.offsets.diff()
        ends = self.offsets.numpy()
        lengths = ends[1:] - ends[:-1]
        if len(lengths) > 0 and lengths.min() < 0:
            row = int(lengths.argmin())
            raise SchemaError(
                f"Jagged.offsets must not fall, got {ends[row]} and then {ends[row + 1]} for row {row}; "
                "Jagged.from_lists makes them"
            )
        return torch.from_numpy(lengths)

    @cached_property
    def longest(self) -> int:
        """How many values the longest row has, 0 where there is no row."""
        lengths = self.lengths
        if len(lengths) == 0:
            return 0
        return int(lengths.numpy().max()) if lengths.is_cpu else int(lengths.max())

    def require_within(self, slot: Slot) -> None:
        """See that no row has more values than ``slot`` takes: one, or ``max_len``.

        Raises:
            SchemaError: one has; the message names it.
        """
        most = slot.max_len if slot.many else 1
        if most is None or self.longest <= most:
            return
        row = int(self.lengths.argmax())
        one = "one" if most == 1 else f"{most} at most"
        mend = f"Jagged.last({most}) cuts them" if slot.many else f"declare Slot({slot.name!r}, many=True), or send one"
        raise SchemaError(f"slot {slot.name!r}: row {row} has {self.longest} values, and the schema says {one}; {mend}")

    @cached_property
    def is_single(self) -> bool:
        """Whether every row has exactly one value."""
        return len(self.values) == self.size and bool((self.lengths == 1).all())

    def to(self, device: str) -> Jagged:
        """The same on another device; this one where it lies there already."""
        if self.values.device.type == device:
            return self
        return Jagged._fitting(self.values.to(device), self.offsets.to(device))

    def take(self, rows: Tensor) -> Jagged:
        """The rows at ``rows`` (int64, any order, repeats allowed), as a new jagged array."""
        starts, lengths = self.offsets[rows], self.lengths[rows]
        ends = starts.new_zeros(len(rows) + 1)
        torch.cumsum(lengths, dim=0, out=ends[1:])
        if bool((lengths == 1).all()):
            return Jagged._fitting(self.values[starts], ends)
        # Place p of the result lies (p - start of its row in the result) behind the start of its row here.
        places = torch.arange(int(ends[-1]), device=ends.device)
        places += torch.repeat_interleave(starts - ends[:-1], lengths)
        return Jagged._fitting(self.values[places], ends)

    def last(self, count: int) -> Jagged:
        """Each row cut to its last ``count`` values, 0 or more."""
        count = require_whole("count", count)
        if self.longest <= count:
            return self
        lengths = self.lengths.clamp(max=count)
        ends = lengths.new_zeros(self.size + 1)
        torch.cumsum(lengths, dim=0, out=ends[1:])
        shift = self.offsets[1:] - lengths - ends[:-1]
        places = torch.arange(int(ends[-1]), device=ends.device) + torch.repeat_interleave(shift, lengths)
        return Jagged._fitting(self.values[places], ends)

    def to_lists(self, rows: Sequence[int] | None = None) -> list[list[int]]:
        """Rows as lists: those at ``rows``, in their order, or all."""
        if rows is None:
            values, ends = self.values.tolist(), self.offsets.tolist()
            return [values[start:end] for start, end in pairwise(ends)]
        array, places = self.values.numpy(), self.offsets.numpy()
        return [array[places[row] : places[row + 1]].tolist() for row in rows]

    @classmethod
    def concat(cls, parts: Sequence[Jagged]) -> Jagged:
        """The rows of all parts (at least one), one part after the other."""
        _require_parts(parts)
        ends, base = [parts[0].offsets[:1]], 0
        for part in parts:
            ends.append(part.offsets[1:] + base)
            base += len(part.values)
        return cls._fitting(torch.cat([part.values for part in parts]), torch.cat(ends))


@final
class Spread(Jagged):
    """Rows that examples share, held once: example ``i`` has row ``owners[i]`` of ``rows``. Else as any ``Jagged``.

    What a person's slate has in common: a look-up that pools reads and pools each of ``rows`` once, whatever the number
    of candidates. Whoever asks for ``values`` or ``offsets`` gets the rows laid out, one example after the other.

    Args:
        rows: each once.
        owners: int64, shape (batch,).
    """

    rows: Jagged
    owners: Tensor

    def __init__(self, rows: Jagged, owners: Tensor) -> None:
        object.__setattr__(self, "rows", rows)
        object.__setattr__(self, "owners", owners)

    @cached_property
    def _laid_out(self) -> Jagged:
        return self.rows.take(self.owners)

    @property
    def values(self) -> Tensor:
        """As the examples have them, shape (total,)."""
        return self._laid_out.values

    @property
    def offsets(self) -> Tensor:
        """Of the examples, shape (batch + 1,)."""
        return self._laid_out.offsets

    @property
    def size(self) -> int:
        """How many examples."""
        return int(self.owners.shape[0])

    @cached_property
    def lengths(self) -> Tensor:
        """How many values each example has, shape (batch,)."""
        return self.rows.lengths[self.owners]

    def to(self, device: str) -> Spread:
        """The same on another device; this one where it lies there already."""
        if self.owners.device.type == device:
            return self
        return Spread(self.rows.to(device), self.owners.to(device))


class _Named(dict[str, T]):
    """Columns of one kind by name: who asks for one that is not there is told the nearest."""

    kind: ClassVar[str]

    def __missing__(self, name: str) -> T:
        raise SchemaError(f"the batch has no {self.kind} {name!r}{suggestion(name, self)}")


class _Slots(_Named[Jagged]):
    kind = "slot"


class _Dense(_Named[Tensor]):
    kind = "dense feature"


class _Labels(_Named[Tensor]):
    kind = "label"


_KINDS: Final = {"slots": _Slots, "dense": _Dense, "labels": _Labels}


@final
@dataclass(frozen=True)
class Batch:
    """Columns of ``size`` examples.

    ``slots``: FIDs by slot name. Asking for a name that is not there is a ``SchemaError`` that offers the nearest.
    So they are dicts of a kind of their own, which torch's ``tree_map`` does not open: give it ``dict(batch.labels)``.
    ``dense`` and ``labels``: float32 tensors, shape (batch,). ``weights``: what each
    example counts in the loss. ``sampling_rates``: the odds with which each was kept (1 where nothing was dropped).
    ``served_probabilities``: what serving predicted when it showed the item (NaN where nothing was served), so that
    progressive evaluation judges the answers that people got. ``event_times_us``: when each impression happened.
    """

    size: int
    slots: Mapping[str, Jagged]
    dense: Mapping[str, Tensor] = field(default_factory=dict)
    labels: Mapping[str, Tensor] = field(default_factory=dict)
    weights: Tensor = _NONE
    sampling_rates: Tensor = _NONE
    served_probabilities: Tensor = _NONE
    event_times_us: Tensor = _NO_TIMES

    def __post_init__(self) -> None:
        for name, default in _DEFAULTS.items():
            # ``shape[0]``, for ``len`` of a tensor goes a long way through Python, and this runs for each request.
            count = getattr(self, name).shape[0]
            if count == 0 < self.size:
                # Made by NumPy, which keeps the interpreter: torch would hand it to another thread each time.
                object.__setattr__(self, name, torch.from_numpy(np.full(self.size, default)))
                count = self.size
            if count != self.size:
                raise SchemaError(f"batch of {self.size} examples: {name} has {count} values")
        for name, kind in _KINDS.items():
            object.__setattr__(self, name, kind(getattr(self, name)))
        for name, jagged in self.slots.items():
            if not isinstance(jagged, Jagged):
                mend = "Jagged.single(fids) makes one of a FID for each example"
                raise SchemaError(f"slot {name!r} must be a Jagged, got {type(jagged).__name__}; {mend}")
            if jagged.size != self.size:
                raise SchemaError(f"batch of {self.size} examples: slot {name!r} has {jagged.size} rows")
        for kind_name in ("dense", "labels"):
            for name, column in getattr(self, kind_name).items():
                if not isinstance(column, Tensor):
                    mend = "torch.tensor(values, dtype=torch.float32) makes one"
                    raise SchemaError(f"{kind_name} {name!r} must be a tensor, got {type(column).__name__}; {mend}")
                if column.shape[0] != self.size:
                    count = column.shape[0]
                    raise SchemaError(f"batch of {self.size} examples: {kind_name} {name!r} has {count} values")

    def __len__(self) -> int:
        return self.size

    def slot(self, name: str) -> Jagged:
        """The FIDs of slot ``name``.

        Raises:
            SchemaError: the batch has no such slot; the message offers the nearest name.
        """
        try:
            return self.slots[name]
        except TypeError:  # A list of names, which cannot be looked for.
            raise SchemaError(f"the batch has no slot {name!r}{suggestion(str(name), self.slots)}") from None

    def to(self, device: str) -> Batch:
        """The same on another device; this one where it lies there already."""
        if self.weights.device.type == device:
            return self
        return Batch(
            size=self.size,
            slots={name: jagged.to(device) for name, jagged in self.slots.items()},
            dense={name: column.to(device) for name, column in self.dense.items()},
            labels={name: column.to(device) for name, column in self.labels.items()},
            weights=self.weights.to(device),
            sampling_rates=self.sampling_rates.to(device),
            served_probabilities=self.served_probabilities.to(device),
            event_times_us=self.event_times_us.to(device),
        )

    def take(self, rows: Tensor) -> Batch:
        """The examples at ``rows`` (int64, any order, repeats allowed)."""
        return Batch(
            size=len(rows),
            slots={name: jagged.take(rows) for name, jagged in self.slots.items()},
            dense={name: column[rows] for name, column in self.dense.items()},
            labels={name: column[rows] for name, column in self.labels.items()},
            weights=self.weights[rows],
            sampling_rates=self.sampling_rates[rows],
            served_probabilities=self.served_probabilities[rows],
            event_times_us=self.event_times_us[rows],
        )

    @classmethod
    def concat(cls, parts: Sequence[Batch]) -> Batch:
        """The examples of all parts (at least one), one part after the other; all must have the same columns."""
        _require_parts(parts)
        first = parts[0]
        return cls(
            size=sum(part.size for part in parts),
            slots={name: Jagged.concat([part.slot(name) for part in parts]) for name in first.slots},
            dense={name: torch.cat([part.dense[name] for part in parts]) for name in first.dense},
            labels={name: torch.cat([part.labels[name] for part in parts]) for name in first.labels},
            weights=torch.cat([part.weights for part in parts]),
            sampling_rates=torch.cat([part.sampling_rates for part in parts]),
            served_probabilities=torch.cat([part.served_probabilities for part in parts]),
            event_times_us=torch.cat([part.event_times_us for part in parts]),
        )

    def to_examples(self, schema: Schema) -> pa.RecordBatch:
        """Arrow columns in the layout of ``examples_schema``; the tensors' memory is shared.

        Raises:
            SchemaError: the batch lacks a field of ``schema``.
        """
        layout = examples_schema(schema)
        for name in (*schema.dense, *schema.labels):
            if name not in self.dense and name not in self.labels:
                raise SchemaError(f"an example needs {name!r}, and the batch does not have it")
        columns: list[pa.Array] = []
        for name in schema.slots:
            jagged = self.slot(name)
            columns.append(pa.LargeListArray.from_arrays(_arrow(jagged.offsets), _arrow(jagged.values)))
        columns += [_arrow(self.dense[name]) for name in schema.dense]
        columns += [_arrow(self.labels[name]) for name in schema.labels]
        columns += [_arrow(self.weights), _arrow(self.sampling_rates)]
        columns += [_arrow(self.served_probabilities), _arrow(self.event_times_us)]
        return pa.RecordBatch.from_arrays(columns, schema=layout)

    @classmethod
    def from_examples(cls, schema: Schema, examples: pa.RecordBatch) -> Batch:
        """The inverse of ``to_examples``.

        Raises:
            SchemaError: the columns are not those of ``schema``.
        """
        layout = examples_schema(schema)
        if not examples.schema.equals(layout):
            raise SchemaError(f"examples have the columns {examples.schema.names}; the schema asks for {layout.names}")
        return cls(
            size=examples.num_rows,
            slots={name: _jagged(examples.column(name)) for name in schema.slots},
            dense={name: _tensor(examples.column(name)) for name in schema.dense},
            labels={name: _tensor(examples.column(name)) for name in schema.labels},
            weights=_tensor(examples.column("weight")),
            sampling_rates=_tensor(examples.column("sampling_rate")),
            served_probabilities=_tensor(examples.column("served_probability")),
            event_times_us=_tensor(examples.column("event_time")),
        )


def _require_parts(parts: Sequence[object]) -> None:
    if len(parts) == 0:
        raise SchemaError("concat takes at least one part, got none: what columns there are is known by the first")


def _no_row_of_int64(name: str, came: object) -> SchemaError:
    told = f"{came.dtype} of shape {tuple(came.shape)}" if isinstance(came, Tensor) else repr(came)
    mend = "torch.as_tensor(..., dtype=torch.int64) makes one"
    return SchemaError(f"Jagged.{name} must be an int64 tensor of one dimension, got {told:.80}; {mend}")


def _is_row_of_int64(tensor: object) -> bool:
    return isinstance(tensor, Tensor) and tensor.dtype == torch.int64 and tensor.dim() == 1


def _spans(offsets: NDArray[np.int64], count: int) -> bool:
    return len(offsets) > 0 and offsets[0] == 0 and offsets[-1] == count


def _arrow(tensor: Tensor) -> pa.Array:
    return pa.array(tensor.numpy())


def _tensor(column: pa.Array) -> Tensor:
    # A column from the log is read-only memory; torch warns of that, and nobody here writes into a batch.
    values = column.to_numpy(zero_copy_only=False)
    return torch.from_numpy(values if values.flags.writeable else values.copy())


def _jagged(column: pa.LargeListArray) -> Jagged:
    offsets = column.offsets.to_numpy()
    values = column.values.to_numpy()[offsets[0] : offsets[-1]]
    return Jagged.from_arrays(values.copy(), offsets - offsets[0])

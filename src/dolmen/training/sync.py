"""How fresh parameters reach their replicas: numbered deltas over the log's topic ``parameters``.

A delta carries the rows touched between two versions and, less often, the dense layers, as values and not as
differences: applied twice it changes nothing more. Deltas overlap or touch, never leave a hole; a replica that sees a
hole (a *gap*) starts again from a snapshot. On the log a delta is cut into parts of at most ``PART_BYTES_MAX``:

    8 bytes XXH64 of the rest | msgpack [format, lineage, schema, from, to, has_dense, part, parts, payload]

A *lineage* names one course of learning (schema, model, settings, first record). Within one, a version's parameters
are always the same bits, which is why a trainer that was killed may send a replica what it has already.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, final

import msgspec
import numpy as np
import safetensors
import safetensors.torch
from torch import Tensor

from dolmen.checksums import checksum_of
from dolmen.embedding import Delta
from dolmen.errors import SnapshotError

if TYPE_CHECKING:
    from dolmen.training.snapshot import Parameters

__all__ = ["PART_BYTES_MAX", "DeltaFollower", "Fed", "ParameterDelta", "decode_parts", "encode_delta"]

PART_BYTES_MAX: Final = 4 << 20
"""Of one log record. Small enough that a part fits a broker's usual limits, large enough that most deltas are one."""

_FORMAT: Final = 1
_HEADER_BYTES_MAX: Final = 512  # of a part: what is not payload


@final
@dataclass(frozen=True, kw_only=True)
class ParameterDelta:
    """What changed from version ``from_version`` (excluded) to ``to_version`` (included).

    ``tables``: touched and removed rows by dim. ``dense``: every tensor of the model's state by name, or ``None`` where
    this delta leaves the dense layers alone. ``newest_event_time_us`` and ``positions`` (of ``actions/0`` and so on,
    next offset): what of the world these parameters include. ``published_time_us``: the trainer's clock.
    """

    lineage: str
    schema: str
    from_version: int
    to_version: int
    newest_event_time_us: int
    positions: Mapping[str, int]
    published_time_us: int
    tables: Mapping[int, Delta]
    dense: Mapping[str, Tensor] | None = None

    @property
    def has_dense(self) -> bool:
        """Whether the dense layers travel."""
        return self.dense is not None

    @property
    def row_count(self) -> int:
        """How many rows travel."""
        return sum(len(delta.fids) for delta in self.tables.values())


class _Part(msgspec.Struct, array_like=True):
    format: int
    lineage: str
    schema: str
    from_version: int
    to_version: int
    has_dense: bool
    part: int
    parts: int
    payload: bytes


class _TablePayload(msgspec.Struct, array_like=True):
    dim: int
    fids: bytes
    vectors: bytes
    removed: bytes


class _Payload(msgspec.Struct, array_like=True):
    newest_event_time_us: int
    positions: dict[str, int]
    published_time_us: int
    tables: list[_TablePayload]
    dense: bytes | None


_part_decoder: Final = msgspec.msgpack.Decoder(_Part)
_payload_decoder: Final = msgspec.msgpack.Decoder(_Payload)


def encode_delta(delta: ParameterDelta, *, part_bytes_max: int = PART_BYTES_MAX) -> list[bytes]:
    """The log records of a delta, in order; each has at most ``part_bytes_max`` bytes (at least 1 KiB)."""
    if part_bytes_max < 2 * _HEADER_BYTES_MAX:
        raise ValueError(f"part_bytes_max must be at least {2 * _HEADER_BYTES_MAX}, got {part_bytes_max}")
    payload = msgspec.msgpack.encode(
        _Payload(
            newest_event_time_us=delta.newest_event_time_us,
            positions=dict(delta.positions),
            published_time_us=delta.published_time_us,
            tables=[
                _TablePayload(
                    dim,
                    _little(table.fids, "<i8"),
                    _little(table.vectors, "<f4"),
                    _little(table.removed, "<i8"),
                )
                for dim, table in sorted(delta.tables.items())
            ],
            dense=safetensors.torch.save(dict(delta.dense)) if delta.dense is not None else None,
        )
    )
    room = part_bytes_max - _HEADER_BYTES_MAX
    parts = max(1, -(-len(payload) // room))
    records: list[bytes] = []
    for part in range(parts):
        body = msgspec.msgpack.encode(
            _Part(
                _FORMAT,
                delta.lineage,
                delta.schema,
                delta.from_version,
                delta.to_version,
                delta.has_dense,
                part,
                parts,
                payload[part * room : (part + 1) * room],
            )
        )
        records.append(checksum_of(body).to_bytes(8, "little") + body)
    return records


def decode_parts(records: list[bytes]) -> ParameterDelta:
    """The inverse of ``encode_delta``.

    Raises:
        SnapshotError: a record is torn or damaged, or the records are not all the parts of one delta, in order.
    """
    parts = [_read_part(record) for record in records]
    if not parts or [one.part for one in parts] != list(range(parts[0].parts)) or len({*map(_identity, parts)}) != 1:
        raise SnapshotError(f"{len(parts)} records are not the parts of one delta, in order")
    return _join(parts)


class Fed(StrEnum):
    """What became of a record that was fed to a ``DeltaFollower``."""

    APPLIED = "applied"  # it completed a delta, which is now part of the parameters
    SKIPPED = "skipped"  # the parameters include it already
    WAITING = "waiting"  # more parts are to come


@final
class DeltaFollower:
    """Keeps one serving copy of the parameters current. One thread feeds; any thread may read ``parameters``.

    Rows change in place, each row whole. The dense layers are a new model object each time they change, so a reader
    that took ``parameters`` once never mixes layers of two versions. Nothing of a delta is applied until all its parts
    came.
    """

    def __init__(self, parameters: Parameters) -> None:
        self._parameters = parameters
        self._parts: list[_Part] = []

    @property
    def parameters(self) -> Parameters:
        """The current parameters; take them once for each request."""
        return self._parameters

    def feed(self, record: bytes) -> Fed:
        """Take the next record of the topic ``parameters``.

        Raises:
            SnapshotError: the record is damaged, of another lineage or schema, or leaves a gap. The parameters are as
                before; start again from the newest snapshot.
        """
        part = _read_part(record)
        current = self._parameters
        if _is_known(part, current):
            self._parts.clear()
            return Fed.SKIPPED
        _check_kin(part, current)
        if part.part == 0:
            self._parts = [part]
        elif len(self._parts) == part.part and _identity(self._parts[0]) == _identity(part):
            self._parts.append(part)
        else:
            # The first parts were deleted by retention, or their writer was killed: what this delta brings is missing,
            # which the next one shows as a gap.
            self._parts.clear()
            return Fed.SKIPPED
        if len(self._parts) < part.parts:
            return Fed.WAITING
        delta = _join(self._parts)
        self._parts = []
        self._parameters = apply_delta(current, delta)
        return Fed.APPLIED


def apply_delta(parameters: Parameters, delta: ParameterDelta) -> Parameters:
    """Parameters at ``delta.to_version``. The tables are changed in place, the model is replaced where it changed.

    Raises:
        SnapshotError: the delta is of another lineage or schema, does not fit, or leaves a gap; nothing was applied.
    """
    if _is_known(delta, parameters):
        return parameters
    _check_kin(delta, parameters)
    model = parameters.model
    if delta.dense is not None:
        # The look-up holds the tables, which are shared and not copied.
        model = copy.deepcopy(model, {id(parameters.embed): parameters.embed})
        try:
            model.load_state_dict(dict(delta.dense))
        except RuntimeError as problem:
            raise SnapshotError(f"delta {_range_of(delta)}: its dense layers do not fit the model: {problem}") from None
    parameters.embeddings.apply_delta(delta.tables)
    return replace(
        parameters,
        model=model,
        version=delta.to_version,
        newest_event_time_us=delta.newest_event_time_us,
        positions=dict(delta.positions),
        dense_version=delta.to_version if delta.dense is not None else parameters.dense_version,
    )


def _is_known(delta: _Part | ParameterDelta, parameters: Parameters) -> bool:
    """Whether the parameters include all of it. Dense layers may come after the rows of their version."""
    if delta.lineage != parameters.lineage or delta.to_version > parameters.version:
        return False
    return not (delta.has_dense and delta.to_version == parameters.version > parameters.dense_version)


def _check_kin(delta: _Part | ParameterDelta, parameters: Parameters) -> None:
    name = f"delta {_range_of(delta)}"
    mend = "start again from the newest snapshot"
    if delta.schema != parameters.schema.fingerprint:
        raise SnapshotError(f"{name} is of schema {delta.schema}, these parameters of {parameters.schema.fingerprint}")
    if delta.lineage != parameters.lineage:
        raise SnapshotError(f"{name} is of lineage {delta.lineage}, these parameters of {parameters.lineage}; {mend}")
    if delta.from_version > parameters.version:
        raise SnapshotError(f"{name} leaves a gap: these parameters are at version {parameters.version}; {mend}")


def _read_part(record: bytes) -> _Part:
    body = memoryview(record)[8:]
    if len(record) < 9 or int.from_bytes(record[:8], "little") != checksum_of(body):
        raise SnapshotError(f"a delta record of {len(record)} bytes fails its checksum: torn or damaged")
    try:
        part = _part_decoder.decode(body)
    except msgspec.DecodeError as problem:
        raise SnapshotError(f"a delta record cannot be read: {problem}; was it written by another release?") from None
    if part.format != _FORMAT:
        raise SnapshotError(f"a delta record has format {part.format}, this release reads {_FORMAT}")
    return part


def _identity(part: _Part) -> tuple[str, str, int, int, int]:
    return part.lineage, part.schema, part.from_version, part.to_version, part.parts


def _join(parts: list[_Part]) -> ParameterDelta:
    first = parts[0]
    whole = first.payload if len(parts) == 1 else b"".join(part.payload for part in parts)
    try:
        payload = _payload_decoder.decode(whole)
        dense = safetensors.torch.load(payload.dense) if payload.dense is not None else None
        tables = {table.dim: _delta(table) for table in payload.tables}
    except (msgspec.DecodeError, safetensors.SafetensorError, ValueError) as problem:
        raise SnapshotError(f"delta {_range_of(first)} cannot be read: {problem}") from None
    return ParameterDelta(
        lineage=first.lineage,
        schema=first.schema,
        from_version=first.from_version,
        to_version=first.to_version,
        newest_event_time_us=payload.newest_event_time_us,
        positions=payload.positions,
        published_time_us=payload.published_time_us,
        tables=tables,
        dense=dense,
    )


def _delta(table: _TablePayload) -> Delta:
    fids = np.frombuffer(table.fids, dtype="<i8")
    return Delta(
        fids=fids,
        vectors=np.frombuffer(table.vectors, dtype="<f4").reshape(len(fids), table.dim),
        removed=np.frombuffer(table.removed, dtype="<i8"),
    )


def _little(array: Any, kind: str) -> bytes:
    return np.ascontiguousarray(np.asarray(array), dtype=kind).tobytes()


def _range_of(delta: _Part | ParameterDelta) -> str:
    return f"{delta.from_version}..{delta.to_version}"

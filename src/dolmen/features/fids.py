"""Feature ids (FIDs): one 64-bit integer names one value of one slot.

Layout, from the top: sign 0, 10 bits of slot number, 53 bits of value. A FID is thus the same number in Python, NumPy
(int64) and C++; in JSON it travels as a string, since JavaScript keeps 53 bits.

Integers in [0, 2^53) keep their value: no hashing, no collision, and the FID can be read back. Everything else
(strings, negative and larger integers) is hashed to 53 bits with XXH64. Among n hashed values of one slot, about
n^2 / 2^54 pairs are expected to collide: 55 pairs in a billion values, and 1 chance in 18,000 of even one pair in a
million values.
The integer 7 and the string "7" are different values: send ids of one kind.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import ArrayLike, NDArray

from dolmen._core import hash_bytes
from dolmen.errors import SchemaError
from dolmen.settings import require_whole

__all__ = [
    "SLOT_NUMBER_MAX",
    "VALUE_MAX",
    "RawId",
    "encode_array",
    "encode_values",
    "pack_fids",
    "require_slot_number",
    "slot_numbers",
    "values_of",
]

_VALUE_BITS: Final = 53
SLOT_NUMBER_MAX: Final = (1 << 10) - 1
VALUE_MAX: Final = (1 << _VALUE_BITS) - 1

_STRING_SEED: Final = 0
_INTEGER_SEED: Final = 1  # a number outside [0, 2^53) must not meet the string of its digits

RawId = int | str
"""What a person or item is called outside: any integer or string."""


def pack_fids(slot_number: int, values: NDArray[np.int64]) -> NDArray[np.int64]:
    """Join one slot number with many values, exactly, in the order of ``values`` (shape (count,)).

    Raises:
        TypeError: ``slot_number`` is no whole number.
        ValueError: ``slot_number`` or a value is out of range; nothing is packed then.

    >>> pack_fids(3, np.array([7])).tolist()
    [27021597764222983]
    """
    slot_number = require_slot_number(slot_number)
    if values.size > 0 and not 0 <= int(values.min()) <= int(values.max()) <= VALUE_MAX:
        bad = values[(values < 0) | (values > VALUE_MAX)][0]
        raise ValueError(f"values must be between 0 and {VALUE_MAX}, got {bad}; encode_values takes any value")
    return values | np.int64(slot_number << _VALUE_BITS)


def slot_numbers(fids: NDArray[np.int64]) -> NDArray[np.int64]:
    """The slot number of each FID, shape (count,)."""
    return fids >> np.int64(_VALUE_BITS)


def values_of(fids: NDArray[np.int64]) -> NDArray[np.int64]:
    """The 53-bit value of each FID, shape (count,): the integer itself, or the hash of what was no small integer."""
    return fids & np.int64(VALUE_MAX)


def encode_values(slot_number: int, values: Sequence[RawId] | ArrayLike) -> NDArray[np.int64]:
    """FIDs of raw values, shape (count,): integers or strings, mixed as they come.

    Args:
        slot_number: as ``schema.slot_number(name)`` tells it.
        values: a list, an array or a tensor in main memory, of one dimension. Integers in an array or a tensor are
            packed without a loop over them.

    Raises:
        SchemaError: a value is neither an integer nor a string (the message names its place and value), or the values
            are no list, or have not one dimension.
        TypeError: ``slot_number`` is no whole number.

    >>> values_of(encode_values(0, [7, "7"])).tolist()[0]
    7
    """
    slot_number = require_slot_number(slot_number)
    if isinstance(values, str | bytes | bytearray):
        raise SchemaError(f"values must be a list of ids, got {values!r:.80}; write [{values!r:.80}]")
    if not isinstance(values, Sequence):
        return _encode_numpy(slot_number, values)
    fids = np.empty(len(values), dtype=np.int64)
    texts: list[bytes] = []
    text_places: list[int] = []
    large: list[bytes] = []
    large_places: list[int] = []
    for place, value in enumerate(values):
        if isinstance(value, bool) or not isinstance(value, (int, str, np.integer)):
            raise SchemaError(f"value {place} must be an integer or a string, got {value!r} ({type(value).__name__})")
        if isinstance(value, str):
            try:
                texts.append(value.encode())
            except UnicodeEncodeError:  # half of a surrogate pair, which JSON can carry and UTF-8 cannot
                raise SchemaError(f"value {place} is no valid text: {value!r}") from None
            text_places.append(place)
        elif 0 <= value <= VALUE_MAX:
            fids[place] = value
        else:
            large.append(str(int(value)).encode())
            large_places.append(place)
    if texts:
        fids[text_places] = _hash(texts, _STRING_SEED)
    if large:
        fids[large_places] = _hash(large, _INTEGER_SEED)
    return pack_fids(slot_number, fids)


def _encode_numpy(slot_number: int, values: ArrayLike) -> NDArray[np.int64]:
    array = np.asarray(values)
    if array.ndim == 0:
        mend = "write [] for none" if values is None else "write [...] around one"
        if isinstance(values, Iterable) and array.dtype == object:
            mend = "write list(...) of them"
        raise SchemaError(f"values must be a list, an array or a tensor of ids, got {values!r:.80}; {mend}")
    if array.ndim != 1:
        raise SchemaError(f"values must have one dimension, got the shape {array.shape}; flatten them first")
    is_exact = array.dtype.kind in "iu" and (array.size == 0 or 0 <= array.min() <= array.max() <= VALUE_MAX)
    return pack_fids(slot_number, array.astype(np.int64)) if is_exact else encode_values(slot_number, array.tolist())


def require_slot_number(number: int, name: str = "slot_number") -> int:
    """``number`` as Python's own integer, or a refusal that calls it ``name``.

    Raises:
        TypeError: it is no whole number, but the slot's name, for instance.
        ValueError: no FID has room for it.
    """
    if isinstance(number, str):
        raise TypeError(f"{name} must be a slot's number, got {number!r}; schema.slot_number({number!r}) tells it")
    return require_whole(name, number, most=SLOT_NUMBER_MAX)


def encode_array(slot_number: int, array: pa.Array) -> NDArray[np.int64]:
    """FIDs of an Arrow array of integers or strings without nulls, shape (count,); strings are hashed in place.

    Raises:
        SchemaError: the array is of another type, or has nulls.
    """
    if isinstance(array, pa.ChunkedArray):
        array = array.combine_chunks()
    if array.null_count:
        raise SchemaError("ids must not be null here; leave a missing value out of its list instead")
    kind = array.type
    if pa.types.is_dictionary(kind):
        indices: NDArray[np.int64] = array.indices.to_numpy(zero_copy_only=False)
        return encode_array(slot_number, array.dictionary)[indices]
    if pa.types.is_integer(kind):
        if pa.types.is_uint64(kind) and len(array) and pc.max(array).as_py() > VALUE_MAX:
            return encode_values(slot_number, array.to_pylist())
        integers = array.to_numpy(zero_copy_only=False).astype(np.int64, copy=False)
        if integers.size and not 0 <= int(integers.min()) <= int(integers.max()) <= VALUE_MAX:
            return encode_values(slot_number, integers.tolist())
        return pack_fids(slot_number, integers)
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        array = array.cast(pa.large_string())
        _, offsets, data = array.buffers()
        ends = np.frombuffer(offsets, dtype=np.int64)[array.offset : array.offset + len(array) + 1]
        octets = np.frombuffer(data, dtype=np.uint8) if data is not None else np.empty(0, dtype=np.uint8)
        return pack_fids(slot_number, hash_bytes(octets, np.ascontiguousarray(ends), _STRING_SEED))
    raise SchemaError(f"ids must be integers or strings, got an Arrow column of type {kind}")


def _hash(texts: Sequence[bytes], seed: int) -> NDArray[np.int64]:
    ends = np.zeros(len(texts) + 1, dtype=np.int64)
    np.cumsum([len(text) for text in texts], out=ends[1:])
    return hash_bytes(np.frombuffer(b"".join(texts), dtype=np.uint8), ends, seed)

"""Events: what happened, as the log stores it (msgpack, checked when written and when read).

An ``Impression`` is one slate: the items shown in one response, with the features that serving used, already FIDs, so
that training sees exactly what serving saw. An ``Action`` is what a person did. A ``CatalogueChange`` is what an item
or a person is.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Annotated, Any, Final, Literal, TypeVar, final

import msgspec

from dolmen.errors import BadEventError
from dolmen.features import RawId

__all__ = ["EVENT_BYTES_MAX", "Action", "CatalogueChange", "Event", "Features", "Impression", "decode", "encode"]

EVENT_BYTES_MAX: Final = 4 << 20  # a slate of 1000 items with 100 FIDs each fits; more is a mistake
_ITEMS_MAX: Final = 10_000
_NAME_BYTES_MAX: Final = 200  # of a request id, event id, surface or kind

Fid = Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]


@final
class Features(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What is the same for the whole slate: FIDs by slot and numbers by name, of the person and the request."""

    slots: dict[str, list[Fid]] = {}
    dense: dict[str, float] = {}


@final
class Impression(msgspec.Struct, frozen=True, array_like=True, gc=False, tag="impression"):
    """One slate as it was shown.

    ``items``: in the order shown, each once. ``item_slots``: for each slot, the FIDs of each item. ``item_dense``,
    ``probabilities`` (what serving predicted), ``propensities`` (the odds with which the item was chosen): one number
    for each item; the last two may be empty. ``version``: of the parameters that served. ``learn``: false where nobody
    will act on it (a probe, a test): it is recorded all the same, and no example is made of it.
    """

    request_id: str
    event_time_us: int
    user: RawId
    version: int
    surface: str
    shared: Features
    items: list[RawId]
    item_slots: dict[str, list[list[Fid]]] = {}
    item_dense: dict[str, list[float]] = {}
    probabilities: list[float] = []
    propensities: list[float] = []
    learn: bool = True


@final
class Action(msgspec.Struct, frozen=True, array_like=True, gc=False, tag="action"):
    """What a person did with an item. ``request_id``: of the slate that showed it; ``None`` if it was found elsewhere.

    ``event_id``: the sender's name for this event; a retry carries the same one.
    """

    event_id: str | None
    request_id: str | None
    user: RawId
    item: RawId
    kind: str
    value: float = 1.0
    event_time_us: int = 0


@final
class CatalogueChange(msgspec.Struct, frozen=True, array_like=True, gc=False, tag="catalogue"):
    """The attributes of an item or person from now on, whole; or, with ``removed``, that it is no more."""

    of: Literal["item", "user"]
    id: RawId
    attributes: dict[str, Any] = {}
    removed: bool = False
    event_time_us: int = 0


Event = Impression | Action | CatalogueChange
E = TypeVar("E", Impression, Action, CatalogueChange)

_encoder: Final = msgspec.msgpack.Encoder()
_decoders: Final[dict[type, msgspec.msgpack.Decoder[Any]]] = {
    kind: msgspec.msgpack.Decoder(kind) for kind in (Impression, Action, CatalogueChange)
}


def encode(event: Event) -> bytes:
    """The bytes that the log stores.

    Raises:
        BadEventError: a list has another length than ``items``, a number is not finite, a name is too long, ...; the
            message names the field, its value and the mend.
    """
    _check(event)
    try:
        value = _encoder.encode(event)
    except (TypeError, ValueError, OverflowError) as problem:
        raise BadEventError(f"{type(event).__name__}: {problem}; ids are integers of 64 bits or strings") from None
    _check_size(value)
    return value


def decode(kind: type[E], value: bytes) -> E:
    """The inverse of ``encode``; ``kind`` is what the topic holds.

    Raises:
        BadEventError: ``value`` is no such event, or one that ``encode`` would refuse.
    """
    _check_size(value)
    try:
        event: E = _decoders[kind].decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError) as problem:  # ValidationError is a DecodeError
        raise BadEventError(f"{kind.__name__}: {problem}") from None
    _check(event)
    return event


def _check(event: Event) -> None:
    match event:
        case Impression():
            _check_impression(event)
        case Action():
            _check_name("kind", event.kind)
            for name, text in (("event_id", event.event_id), ("request_id", event.request_id)):
                if text is not None:
                    _check_name(name, text)
            _check_finite("value", (event.value,))
        case CatalogueChange():
            pass  # its shape is its type; attributes are checked against the schema when they become features


def _check_impression(event: Impression) -> None:
    _check_name("request_id", event.request_id)
    count = len(event.items)
    if not 1 <= count <= _ITEMS_MAX:
        raise BadEventError(f"impression {event.request_id}: items must be between 1 and {_ITEMS_MAX}, got {count}")
    if len(set(event.items)) != count:
        twice = next(item for item in event.items if event.items.count(item) > 1)
        raise BadEventError(f"impression {event.request_id}: item {twice!r} is shown twice; list each item once")
    for name, rows in event.item_slots.items():
        _check_count(event, f"item_slots[{name!r}]", len(rows), count)
    for name, column in event.item_dense.items():
        _check_count(event, f"item_dense[{name!r}]", len(column), count)
        _check_finite(name, column)
    for name, column in (("probabilities", event.probabilities), ("propensities", event.propensities)):
        if column:
            _check_count(event, name, len(column), count)
            _check_finite(name, column)
    if not all(0 <= probability <= 1 for probability in event.probabilities):
        raise BadEventError(
            f"impression {event.request_id}: probabilities must be in [0, 1], got {event.probabilities!r:.200}; "
            "of logits, take the sigmoid first"
        )
    _check_finite("shared.dense", event.shared.dense.values())


def _check_count(event: Impression, name: str, got: int, expected: int) -> None:
    if got != expected:
        raise BadEventError(f"impression {event.request_id}: {name} has {got} entries for {expected} items")


def _check_finite(name: str, numbers: Iterable[float]) -> None:
    if not all(map(math.isfinite, numbers)):
        raise BadEventError(f"{name} must be finite numbers, got {list(numbers)!r:.200}")


def _check_name(name: str, text: str) -> None:
    if not text or "\x00" in text or len(text.encode()) > _NAME_BYTES_MAX:
        raise BadEventError(f"{name} must have 1 to {_NAME_BYTES_MAX} bytes and no NUL, got {text!r:.80}")


def _check_size(value: bytes) -> None:
    if len(value) > EVENT_BYTES_MAX:
        raise BadEventError(f"an event has at most {EVENT_BYTES_MAX} bytes, got {len(value)}; send smaller slates")

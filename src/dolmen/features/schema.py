"""The schema: which features an example has, declared once, checked on entry, hashed into every snapshot.

No vocabulary is ever built. A slot takes raw ids, today's and tomorrow's; the schema only says how they are read.
"""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import Any, Final, TypeVar, final

from dolmen.clock import Duration, parse_duration_us
from dolmen.errors import ConfigError, SchemaError
from dolmen.features.fids import SLOT_NUMBER_MAX
from dolmen.features.lifetimes import SKETCHED_SIGHTS_MAX, Absent, Admission, Eviction
from dolmen.settings import (
    INT64_MAX,
    SCALE_MAX,
    read_settings,
    require_bool,
    require_float32,
    require_whole,
    suggestion,
)

__all__ = ["RESERVED_NAMES", "Dense", "Label", "Policy", "Schema", "Side", "Slot"]

RESERVED_NAMES: Final = frozenset({"weight", "sampling_rate", "served_probability", "event_time", "request_id"})
"""What examples and events have beside the schema's fields."""

_DIM_MAX: Final = 4096  # a row of 16 KiB; more is a mistake in every system we know
_CAPACITY_MAX: Final = 1 << 31
_WHOLE: Final = {
    "dim": (1, _DIM_MAX),
    "max_len": (1, INT64_MAX),
    "admit_after": (1, INT64_MAX),
    "admission_capacity": (1, _CAPACITY_MAX),
    "capacity": (1, _CAPACITY_MAX),
    "policy_rows": (1, INT64_MAX),
    "policy_seed": (0, INT64_MAX),
}
"""Least and most of a slot's whole numbers."""


class Side(StrEnum):
    """Who a feature belongs to: that decides where serving finds its value."""

    USER = "user"  # the person: profile attributes, and what they did before
    ITEM = "item"  # the item: catalogue attributes
    REQUEST = "request"  # the moment: sent with the request


class Policy(StrEnum):
    """Which rows make up the vector of a feature."""

    COLLISIONLESS = "collisionless"  # its own row
    HASHED = "hashed"  # one of a fixed number of rows, by a hash: ids share rows
    QUOTIENT_REMAINDER = "quotient_remainder"  # the sum of two such rows: ids rarely share both


@final
@dataclass(frozen=True)
class Slot:
    """One categorical feature.

    Args:
        name: the column's or attribute's name.
        dim: floats in one row's vector.
        table: name of the slot whose rows this one shares (``history`` shares ``item``); its own if ``None``.
        many: an example may have any count of values, rather than at most one.
        ordered: the order of values means something (a history, oldest first); implies that models may read it so.
        max_len: keep at most this many values: the last ones, which are the newest where ``ordered``.
        admit_after: a FID gets a row when it is seen for this many-th time; until then it reads as zeros.
        admission: how sights before that are counted: ``exact``, ``sketch``, ``bloom``, ``probabilistic`` or
            ``proportional``.
        admission_capacity: how many ids without a row are remembered; beyond it the oldest are forgotten.
        absent: what an id without a row reads as: ``zeros``, or ``start``, the values that it would begin with.
        expire_after: a row not seen for this long, in the data's time, leaves (``"30d"``); ``None`` keeps it.
        capacity: at most this many rows stay; ``None`` sets no bound.
        eviction: which row leaves beyond that: ``lru`` (not seen for the longest), ``lfu`` (seen least often) or
            ``score`` (least often, where a sight weighs half after each ``half_life``).
        half_life: of ``score``, in the data's time (``"7d"``).
        learning_rate_scale: factor on the optimiser's learning rate for these rows; 0 leaves them as they begin.
        of: whose feature it is. ``None``: the slots ``user`` and ``item`` belong to themselves, others to the request.
        policy: which rows make up an id's vector. Anything but ``collisionless`` trades exactness for memory.
        policy_rows: how many rows all ids share; needs such a policy. ``quotient_remainder`` halves them: at least 2.
        policy_seed: decides which ids share a row.
    """

    name: str
    dim: int = 16
    table: str | None = None
    many: bool = False
    ordered: bool = False
    max_len: int | None = None
    admit_after: int = 1
    admission: Admission = Admission.EXACT
    admission_capacity: int = 1 << 20
    absent: Absent = Absent.ZEROS
    expire_after: Duration | None = None
    capacity: int | None = None
    eviction: Eviction = Eviction.LRU
    half_life: Duration | None = None
    learning_rate_scale: float = 1.0
    of: Side | None = None
    policy: Policy = Policy.COLLISIONLESS
    policy_rows: int | None = None
    policy_seed: int = 0

    def __post_init__(self) -> None:
        _check_name("Slot", self.name)
        self._check_kinds()
        if self.ordered and not self.many:
            raise SchemaError(f"Slot {self.name!r}: ordered=True needs many=True, since one value has no order")
        if self.max_len is not None and not self.many:
            raise SchemaError(f"Slot {self.name!r}: max_len needs many=True, since one value is not cut")
        self._check_rows()
        self._check_policy()
        if self.of is not None and not isinstance(self.of, Side):
            object.__setattr__(self, "of", _choice(self.name, "of", Side, self.of))

    def _check_kinds(self) -> None:
        try:
            for option in ("many", "ordered"):
                require_bool(option, getattr(self, option))
            for option, (least, most) in _WHOLE.items():
                value = getattr(self, option)
                if value is not None or _SLOT_DEFAULTS[option] is not None:
                    object.__setattr__(self, option, require_whole(option, value, least=least, most=most))
            scale = require_float32("learning_rate_scale", self.learning_rate_scale, most=SCALE_MAX)
            object.__setattr__(self, "learning_rate_scale", scale)
        except (TypeError, ValueError) as problem:
            raise SchemaError(f"Slot {self.name!r}: {problem}") from None

    def _check_rows(self) -> None:
        for option, kind in (("admission", Admission), ("absent", Absent), ("eviction", Eviction)):
            object.__setattr__(self, option, _choice(self.name, option, kind, getattr(self, option)))
        if self.admission is not Admission.EXACT and self.admit_after == 1:
            raise SchemaError(f"Slot {self.name!r}: admission {str(self.admission)!r} needs admit_after of 2 or more")
        if self.admission in (Admission.SKETCH, Admission.BLOOM) and self.admit_after > SKETCHED_SIGHTS_MAX:
            raise SchemaError(
                f"Slot {self.name!r}: admission {str(self.admission)!r} counts to {SKETCHED_SIGHTS_MAX} at most, "
                f"got admit_after {self.admit_after}; use 'exact'"
            )
        if self.capacity is None and self.eviction is not Eviction.LRU:
            raise SchemaError(f"Slot {self.name!r}: eviction {str(self.eviction)!r} needs a capacity")
        if (self.half_life is not None) != (self.eviction is Eviction.SCORE):
            raise SchemaError(
                f"Slot {self.name!r}: eviction 'score' and half_life go together, got {str(self.eviction)!r} and "
                f"{self.half_life!r}"
            )
        for option in ("expire_after", "half_life"):
            value = getattr(self, option)
            try:
                duration_us = parse_duration_us(value) if value is not None else 1
            except ValueError as problem:
                raise SchemaError(f"Slot {self.name!r}: {option}: {problem}") from None
            if duration_us < 1:
                raise SchemaError(f"Slot {self.name!r}: {option} must be above 0, got {value!r}")

    def _check_policy(self) -> None:
        object.__setattr__(self, "policy", _choice(self.name, "policy", Policy, self.policy))
        if self.policy is Policy.COLLISIONLESS:
            if self.policy_rows is not None or self.policy_seed != 0:
                raise SchemaError(
                    f"Slot {self.name!r}: policy_rows and policy_seed need a policy that shares rows, such as"
                    f" policy={str(Policy.HASHED)!r}"
                )
            return
        least = 2 if self.policy is Policy.QUOTIENT_REMAINDER else 1
        if self.policy_rows is None or self.policy_rows < least:
            raise SchemaError(
                f"Slot {self.name!r}: policy {str(self.policy)!r} needs policy_rows of at least {least},"
                f" got {self.policy_rows}"
            )

    @property
    def side(self) -> Side:
        """Whose feature this is."""
        if self.of is not None:
            return self.of
        return {"user": Side.USER, "item": Side.ITEM}.get(self.name, Side.REQUEST)

    @property
    def expire_after_us(self) -> int:
        """``expire_after`` in microseconds; 0 where rows stay."""
        return parse_duration_us(self.expire_after) if self.expire_after is not None else 0

    @property
    def half_life_us(self) -> int:
        """``half_life`` in microseconds; 0 where there is none."""
        return parse_duration_us(self.half_life) if self.half_life is not None else 0


# What a slot says of its rows, rather than of its column: only a slot that owns its rows can.
_OF_ROWS: Final = (
    "admit_after",
    "admission",
    "admission_capacity",
    "absent",
    "expire_after",
    "capacity",
    "eviction",
    "half_life",
    "learning_rate_scale",
    "policy",
    "policy_rows",
    "policy_seed",
)
# What a slot says of its column: which values it reads, from where, and as which kind of id.
_OF_COLUMN: Final[dict[str, Callable[[Slot], Any]]] = {
    "table": lambda slot: slot.table if slot.table != slot.name else None,
    "many": lambda slot: slot.many,
    "ordered": lambda slot: slot.ordered,
    "max_len": lambda slot: slot.max_len,
    "of": lambda slot: str(slot.side),
}
_SLOT_DEFAULTS: Final = {option.name: option.default for option in fields(Slot)}


@final
@dataclass(frozen=True)
class Dense:
    """One number per example.

    Args:
        name: the column's or attribute's name.
        default: stands in where the number is missing; finite, in float32 too.
        of: whose feature it is.
    """

    name: str
    default: float = 0.0
    of: Side = Side.REQUEST

    def __post_init__(self) -> None:
        _check_name("Dense", self.name)
        try:
            default = require_float32("default", self.default, may_be_negative=True)
        except (TypeError, ValueError) as problem:
            raise SchemaError(f"Dense {self.name!r}: {problem}") from None
        object.__setattr__(self, "default", default)
        if not isinstance(self.of, Side):
            object.__setattr__(self, "of", _choice(self.name, "of", Side, self.of))


@final
@dataclass(frozen=True)
class Label:
    """What is learned: 1 where the right action met the impression, else 0.

    Args:
        name: the column's name.
        action: the kind of action that makes it 1; the label's name if ``None``.
    """

    name: str
    action: str | None = None

    def __post_init__(self) -> None:
        _check_name("Label", self.name)

    @property
    def action_kind(self) -> str:
        """The kind of action that makes this label 1."""
        return self.action if self.action is not None else self.name


@final
class Schema:
    """The fields of an example, in a fixed order. Slot numbers follow that order, so append new slots at the end.

    Raises:
        SchemaError: two fields share a name, a slot shares the table of an unknown slot or of one with another dim.

    >>> schema = Schema(Slot("user"), Slot("item"), Slot("history", table="item", many=True), Label("click"))
    >>> schema.slot_number("history") == schema.slot_number("item")
    True
    """

    def __init__(self, *declared: Slot | Dense | Label) -> None:
        self.slots: dict[str, Slot] = {}
        self.dense: dict[str, Dense] = {}
        self.labels: dict[str, Label] = {}
        for one in declared:
            if not isinstance(one, Slot | Dense | Label):
                raise SchemaError(f"Schema takes Slot, Dense and Label, got {one!r}")
            if one.name in self.slots or one.name in self.dense or one.name in self.labels:
                raise SchemaError(f"Schema: the name {one.name!r} is declared twice; names are shared by all fields")
            match one:
                case Slot():
                    self.slots[one.name] = one
                case Dense():
                    self.dense[one.name] = one
                case Label():
                    self.labels[one.name] = one
        if len(self.slots) > SLOT_NUMBER_MAX:
            raise SchemaError(f"Schema: at most {SLOT_NUMBER_MAX} slots fit a FID, got {len(self.slots)}")
        for slot in self.slots.values():
            self._check_table(slot)
        self._numbers = {name: number for number, name in enumerate(self.slots, start=1)}

    def _check_table(self, slot: Slot) -> None:
        if slot.table is None or slot.table == slot.name:
            return
        owner = self.slots.get(slot.table)
        if owner is None:
            raise SchemaError(
                f"Slot {slot.name!r}: table {slot.table!r} is no slot{suggestion(slot.table, self.slots)}"
            )
        if owner.table is not None and owner.table != owner.name:
            raise SchemaError(f"Slot {slot.name!r}: table {slot.table!r} itself shares {owner.table!r}; name that one")
        told = [name for name in _OF_ROWS if getattr(slot, name) != _SLOT_DEFAULTS[name]]
        if told:
            raise SchemaError(
                f"Slot {slot.name!r} shares the rows of {owner.name!r}, which alone says when they come and go and how "
                f"they learn; move {' and '.join(told)} to {owner.name!r}"
            )
        if owner.dim != slot.dim:
            raise SchemaError(
                f"Slot {slot.name!r}: dim {slot.dim} differs from dim {owner.dim} of {owner.name!r}, "
                "whose rows it shares"
            )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Schema) and self.to_dict() == other.to_dict()

    def __hash__(self) -> int:
        return hash(self.fingerprint)

    def __repr__(self) -> str:
        declared = [*self.slots.values(), *self.dense.values(), *self.labels.values()]
        return f"Schema({', '.join(map(repr, declared))})"

    def slot(self, name: str) -> Slot:
        """The slot called ``name``.

        Raises:
            SchemaError: there is none; the message offers the nearest name.
        """
        try:
            return self.slots[name]
        except (KeyError, TypeError):  # The latter of a list of names, which cannot be looked for.
            raise SchemaError(f"the schema has no slot {name!r}{suggestion(str(name), self.slots)}") from None

    def dense_feature(self, name: str) -> Dense:
        """The dense feature called ``name``.

        Raises:
            SchemaError: there is none; the message offers the nearest name.
        """
        try:
            return self.dense[name]
        except (KeyError, TypeError):
            raise SchemaError(f"the schema has no dense feature {name!r}{suggestion(str(name), self.dense)}") from None

    def owner(self, name: str) -> Slot:
        """The slot whose rows the slot ``name`` reads: itself, unless it shares another's."""
        slot = self.slot(name)
        return self.slots[slot.table] if slot.table is not None else slot

    def slot_number(self, name: str) -> int:
        """The number in the FIDs of ``name``, from 1; slots that share rows share it."""
        return self._numbers[self.owner(name).name]

    def slots_of(self, side: Side) -> list[Slot]:
        """The slots that belong to ``side``, in order."""
        return [slot for slot in self.slots.values() if slot.side is side]

    @property
    def history_slots(self) -> dict[str, str]:
        """What people did, as features: for each such slot, the item's slot whose values it holds, oldest item first.

        A slot of the person's side with many values that shares the rows of an item's slot is one: with
        ``table="item"`` it holds the items that the person acted on, with ``table="genres"`` the genres of those items.
        """
        return {
            slot.name: self.owner(slot.name).name
            for slot in self.slots_of(Side.USER)
            if slot.many and self.owner(slot.name) is not slot and self.owner(slot.name).side is Side.ITEM
        }

    def dense_of(self, side: Side) -> list[Dense]:
        """The dense features that belong to ``side``, in order."""
        return [dense for dense in self.dense.values() if dense.of is side]

    @property
    def first_label(self) -> str:
        """The name of the label declared first: what a model learns unless it is told.

        Raises:
            SchemaError: there is no label.
        """
        if not self.labels:
            raise SchemaError('the schema has no label, so there is nothing to learn; add one, such as Label("click")')
        return next(iter(self.labels))

    @cached_property
    def fingerprint(self) -> str:
        """16 hex digits that change whenever rows or examples would be read differently."""
        text = json.dumps(self.to_dict(), sort_keys=True)
        return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()

    def difference(self, other: Schema) -> tuple[str, Any, Any] | None:
        """The first slot or dense feature that this schema and ``other`` read otherwise: the field, and what it is in
        either. ``None`` where both read the same columns the same way: what becomes of the ids that were read (dims,
        lifetimes, policies), what stands in for a missing number, labels and order do not count.

        >>> Schema(Slot("tags", many=True)).difference(Schema(Slot("tags", dim=8)))
        ("slot 'tags': many", True, False)
        """
        for kind, mine, theirs in (("slot", self.slots, other.slots), ("dense feature", self.dense, other.dense)):
            for name in dict.fromkeys([*mine, *theirs]):
                if name not in mine or name not in theirs:
                    told = ("declared", "missing")
                    return f"{kind} {name!r}", *(told if name in mine else told[::-1])
        for name, slot in self.slots.items():
            for option, of_slot in _OF_COLUMN.items():
                if of_slot(slot) != of_slot(other.slots[name]):
                    return f"slot {name!r}: {option}", of_slot(slot), of_slot(other.slots[name])
        for name, dense in self.dense.items():
            if dense.of != other.dense[name].of:
                return f"dense feature {name!r}: of", str(dense.of), str(other.dense[name].of)
        return None

    def to_dict(self) -> dict[str, list[dict[str, Any]]]:
        """Plain lists of tables, ready for TOML or JSON; only what differs from the defaults is written."""
        return {
            "slot": [_written(slot) for slot in self.slots.values()],
            "dense": [_written(dense) for dense in self.dense.values()],
            "label": [_written(label) for label in self.labels.values()],
        }

    @classmethod
    def from_dict(cls, tables: Mapping[str, Any]) -> Schema:
        """The inverse of ``to_dict``.

        Raises:
            SchemaError: an unknown key, or a value that does not fit; the message offers the nearest key.
        """
        kinds: dict[str, type[Slot | Dense | Label]] = {"slot": Slot, "dense": Dense, "label": Label}
        for key in tables:
            if key not in kinds:
                raise SchemaError(f"schema: unknown key {key!r}{suggestion(key, kinds)}; use [[schema.slot]] and so on")
        declared: list[Slot | Dense | Label] = []
        for key, kind in kinds.items():
            rows = tables.get(key, [])
            if not isinstance(rows, list) or not all(isinstance(row, Mapping) for row in rows):
                raise SchemaError(f"schema.{key} must be a list of tables, got {rows!r:.80}; write [[schema.{key}]]")
            for place, row in enumerate(rows):
                where = f"schema.{key}[{place}]" + (f" ({row['name']})" if "name" in row else "")
                try:
                    declared.append(read_settings(kind, row, where))
                except ConfigError as problem:
                    raise SchemaError(str(problem)) from None
        return cls(*declared)

    @classmethod
    def from_toml(cls, path: Path | str) -> Schema:
        """Read the ``[[schema.slot]]``, ``[[schema.dense]]`` and ``[[schema.label]]`` tables of a TOML file."""
        with Path(path).open("rb") as file:
            return cls.from_dict(tomllib.load(file).get("schema", {}))


_Kind = TypeVar("_Kind", bound=StrEnum)


def _choice(name: str, option: str, kind: type[_Kind], value: str) -> _Kind:
    try:
        return kind(value)
    except ValueError:
        raise SchemaError(f"{name!r}: {option} must be one of {', '.join(kind)}, got {value!r}") from None


def _check_name(kind: str, name: str) -> None:
    if not isinstance(name, str) or not name.isidentifier():
        raise SchemaError(f"{kind}: name must be letters, digits and underscores, got {name!r}")
    if name in RESERVED_NAMES:
        raise SchemaError(f"{kind}: the name {name!r} is taken by every example; choose another")


def _written(one: Slot | Dense | Label) -> dict[str, Any]:
    values = asdict(one)
    defaults = {option.name: option.default for option in fields(one)}
    return {key: _plain(value) for key, value in values.items() if key == "name" or value != defaults[key]}


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, StrEnum) else value

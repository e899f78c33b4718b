"""What comes in and goes out over HTTP, and every limit on it.

Bodies are checked here once and completely; an unknown field is an error that offers the nearest known one, because a
field that is silently passed over is a mistake that nobody finds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PlainValidator,
    StrictBool,
    StrictInt,
    StrictStr,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import PydanticCustomError

from dolmen.settings import shown, suggestion

__all__ = [
    "ATTRIBUTES_MAX",
    "EVENTS_MAX",
    "ITEMS_MAX",
    "Accepted",
    "CatalogueEntry",
    "ErrorAnswer",
    "Events",
    "Items",
    "OneEvent",
    "People",
    "PeopleAnswer",
    "PersonAnswer",
    "RankAsk",
    "RecommendAsk",
    "SimilarAnswer",
    "SlateAnswer",
    "StatusAnswer",
]

EVENTS_MAX: Final = 1000
ITEMS_MAX: Final = 1000
ATTRIBUTES_MAX: Final = 200
_TEXT_MAX: Final = 4096
_LIST_MAX: Final = 1000
_ID_MAX: Final = 256
_NAME_MAX: Final = 64

_INTEGER_MIN: Final = -(1 << 63)
_INTEGER_MAX: Final = (1 << 64) - 1
_ID_SCHEMA: Final = {
    "anyOf": [{"type": "integer", "format": "int64"}, {"type": "string", "minLength": 1, "maxLength": _ID_MAX}],
    "description": f'An integer of 64 bits, or a string of 1 to {_ID_MAX} characters. 7 and "7" are different ids.',
}
_VALUE_SCHEMA: Final = {"type": ["null", "boolean", "integer", "number", "string"]}
_ATTRIBUTES_SCHEMA: Final = {
    "type": "object",
    "maxProperties": ATTRIBUTES_MAX,
    "additionalProperties": {
        "anyOf": [_VALUE_SCHEMA, {"type": "array", "items": _VALUE_SCHEMA, "maxItems": _LIST_MAX}]
    },
    "description": f"Up to {ATTRIBUTES_MAX} values by name: texts, numbers, true, false, null, or lists of those.",
}


def _bad(message: str) -> PydanticCustomError:
    return PydanticCustomError("unusable", "{message}", {"message": message})


def _id(value: Any) -> int | str:
    if isinstance(value, str):
        if 1 <= len(value) <= _ID_MAX and _is_text(value):
            return value
    elif isinstance(value, int) and not isinstance(value, bool) and _INTEGER_MIN <= value <= _INTEGER_MAX:
        return value
    raise _bad(f"an id is an integer of 64 bits or a string of 1 to {_ID_MAX} characters, got {shown(value, 40)}")


def _is_text(value: str) -> bool:
    """False where a lone half of a UTF-16 pair came in by an escape: that is no text in any encoding."""
    return value.isascii() or not any("\ud800" <= one <= "\udfff" for one in value)


def _attributes(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _bad(f"attributes are an object of values by name, got {shown(value, 40)}")
    if len(value) > ATTRIBUTES_MAX:
        raise _bad(f"at most {ATTRIBUTES_MAX} attributes, got {len(value)}")
    for name, one in value.items():
        if not 1 <= len(name) <= _NAME_MAX or not _is_text(name):
            raise _bad(f"an attribute's name has 1 to {_NAME_MAX} characters, got {name!r:.40}")
        if not isinstance(one, list):
            _check_value(name, one)
            continue
        if len(one) > _LIST_MAX:
            raise _bad(f"{name}: a list has at most {_LIST_MAX} values, got {len(one)}")
        for part in one:
            _check_value(name, part)
    return value


def _check_value(name: str, value: Any) -> None:
    match value:
        case None | bool():
            return
        case str() if len(value) <= _TEXT_MAX and _is_text(value):
            return
        case int() if _INTEGER_MIN <= value <= _INTEGER_MAX:
            return
        case float() if math.isfinite(value):
            return
    raise _bad(
        f"{name}: a value is a text of at most {_TEXT_MAX} characters, a finite number of 64 bits, true, false or null,"
        f" or a list of those, got {shown(value, 40)}"
    )


WireId = Annotated[int | str, PlainValidator(_id), WithJsonSchema(_ID_SCHEMA)]
Attributes = Annotated[dict[str, Any], PlainValidator(_attributes), WithJsonSchema(_ATTRIBUTES_SCHEMA)]
Name = Annotated[StrictStr, Field(min_length=1, max_length=_NAME_MAX, pattern=r"^[^\x00]+$")]
Mark = Annotated[StrictStr, Field(min_length=1, max_length=128, pattern=r"^[^\x00]+$")]
TimeUs = Annotated[StrictInt, Field(ge=0, le=(1 << 63) - 1)]


class Body(BaseModel):
    """A body that refuses fields it does not know."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _knows_all_fields(cls, value: Any) -> Any:
        if isinstance(value, Mapping):
            for name in value:
                if name not in cls.model_fields:
                    near = suggestion(str(name)[:64], list(cls.model_fields))
                    raise PydanticCustomError(
                        "unknown_field", "unknown field {name}{near}", {"name": repr(str(name)[:64]), "near": near}
                    )
        return value


class OneEvent(Body):
    """What a person did with an item."""

    type: Literal["action"] = "action"
    user: WireId
    item: WireId
    kind: Name = Field(description="What was done: `click`, `buy`, `rate`... A label of the schema names its kind.")
    request_id: Mark | None = Field(
        None, description="Of the slate on which the item was shown. Without it nothing is learned."
    )
    event_id: Mark | None = Field(None, description="Your name for this event. A retry with the same one counts once.")
    value: Annotated[float, Field(strict=True, allow_inf_nan=False)] = 1.0
    event_time_us: TimeUs | None = Field(
        None, description="When it happened, microseconds since 1970 UTC; now if absent."
    )


class Events(Body):
    """Actions, in the order in which they happened."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "events": [
                        {"user": 7, "item": 50, "kind": "click", "request_id": "0198c3a0f2d1…", "event_id": "a-1"},
                    ]
                }
            ]
        }
    )
    events: Annotated[list[OneEvent], Field(min_length=1, max_length=EVENTS_MAX)]


class CatalogueEntry(Body):
    """One item or person, whole: what is not sent is not known any more."""

    id: WireId
    attributes: Attributes = {}
    removed: StrictBool = Field(default=False, description="Take it out of the catalogue.")


class Items(Body):
    """Items to add, replace or remove."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"items": [{"id": 50, "attributes": {"title": "Star Wars", "genres": ["Action", "Sci-Fi"]}}]}]
        }
    )
    items: Annotated[list[CatalogueEntry], Field(min_length=1, max_length=ITEMS_MAX)]


class People(Body):
    """People to add, replace or remove."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"users": [{"id": 7, "attributes": {"age": 31, "occupation": "writer"}}]}]}
    )
    users: Annotated[list[CatalogueEntry], Field(min_length=1, max_length=ITEMS_MAX)]


RequestId = Annotated[
    Mark | None,
    Field(
        description="Your name for this request, chosen at random. A retry with the same one gets the same slate, and "
        "counts as shown once. One is made where you give none.",
    ),
]


class RecommendAsk(Body):
    """Who asks, and for how many."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"user": 7, "count": 10, "context": {}}]})
    user: WireId
    count: Annotated[StrictInt, Field(ge=1, le=ITEMS_MAX)] = 10
    context: Attributes = Field({}, description="Values of the schema's request features.")
    learn: StrictBool = Field(True, description="False where nobody will act on the answer, such as a probe or a test.")
    request_id: RequestId = None


class RankAsk(Body):
    """Whose order, of which items."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"user": 7, "items": [50, 181, 258], "context": {}}]})
    user: WireId
    items: Annotated[list[WireId], Field(min_length=1, max_length=ITEMS_MAX)]
    context: Attributes = Field({}, description="Values of the schema's request features.")
    learn: StrictBool = Field(True, description="False where nobody will act on the answer, such as a probe or a test.")
    request_id: RequestId = None


class ErrorBody(BaseModel):
    """Why a request was refused."""

    code: str = Field(description="One word for programs, such as `invalid` or `overloaded`.")
    message: str = Field(description="For people: what was expected, what came, and the mend.")
    field: str | None = Field(None, description="Which part of the request, such as `events[3].item`.")
    retry: bool = Field(description="Whether the same request may succeed later.")


class ErrorAnswer(BaseModel):
    """The one shape of every error."""

    error: ErrorBody


class Accepted(BaseModel):
    """The events are in the log and survive any crash."""

    accepted: int
    positions: dict[str, int] = Field(
        description="The position behind these events, by `topic/partition`. An answer whose `parameters.positions` "
        "reach as far has learned from them.",
        examples=[{"actions/0": 4711}],
    )


class ParametersAnswer(BaseModel):
    """What the answer knew."""

    version: int = Field(description="How many records the parameters have learned from; 0: none were used.")
    newest_event_time_us: int = Field(description="Event time of the newest example they include.")
    staleness_seconds: float | None = Field(description="That time against now; null where nothing was learned yet.")
    stale: bool = Field(description="Training was not heard of for a while: this answer is from before.")
    positions: dict[str, int] = Field(
        description="What of the log the parameters include: next position by topic/partition."
    )


class ShownItem(BaseModel):
    """One item of a slate."""

    item: int | str
    position: int
    probability: float = Field(description="How likely the person acts on it, calibrated.")
    propensity: float = Field(description="The odds with which it came to stand here, given the items above it.")
    explored: bool = Field(description="Whether it was drawn by chance, to learn about it.")
    attributes: dict[str, Any]


class SlateAnswer(BaseModel):
    """A slate. It counts as shown: its impression is in the log."""

    request_id: str = Field(description="Send it with each action on this slate.")
    items: list[ShownItem]
    ranked_by: Literal["model", "popularity"]
    parameters: ParametersAnswer


class SimilarItem(BaseModel):
    """A near item."""

    item: int | str
    similarity: float = Field(description="Inner product of the two items' vectors.")
    attributes: dict[str, Any]


class SimilarAnswer(BaseModel):
    """The items whose vectors are nearest. Nothing counts as shown."""

    item: int | str
    items: list[SimilarItem]
    parameters: ParametersAnswer


class PastAct(BaseModel):
    """Something that the person did."""

    item: int | str
    kind: str
    value: float
    event_time_us: int
    attributes: dict[str, Any]


class PersonAnswer(BaseModel):
    """What the server knows of a person."""

    id: int | str
    attributes: dict[str, Any]
    history: list[PastAct] = Field(description="Newest last.")


class ListedPerson(BaseModel):
    """A person of the catalogue."""

    id: int | str
    attributes: dict[str, Any]


class PeopleAnswer(BaseModel):
    """Some people of the catalogue."""

    users: list[ListedPerson]


class StageAnswer(BaseModel):
    """One stage of the loop as it last told of itself."""

    alive: bool
    age_seconds: float
    pid: int | None
    figures: dict[str, Any]


class StatusAnswer(BaseModel):
    """The whole loop. A figure that is not known is null."""

    time_us: int
    simulated: bool
    dataset: str
    stages: dict[str, StageAnswer]
    now: dict[str, float | None]
    history: list[dict[str, float | None]] = Field(description="The same figures, one entry a second, oldest first.")

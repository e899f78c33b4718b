"""What the catalogue tells of items, as examples that count nothing: so models learn of items that nobody was shown.

The trainer learns from one topic, in its order, and from nothing else; or it could not walk the same road again. So
what the catalogue tells is first written to that topic, as a record like any other that says how far it has read. It is
written only by a trainer that has learned every record before: then it knows how far the last one had come, also after
it was killed between writing and learning.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import torch

from dolmen.errors import BadEventError, OffsetGoneError
from dolmen.events import CatalogueChange, Log, Record, Topic, decode, encode_examples
from dolmen.features import Batch, Jagged, Schema, Side, extract_usable

__all__ = ["silent_examples", "tell_items"]

_TOLD_MAX: Final = 512  # changes in a record: a step as long as that of a large record of the joiner


def tell_items(log: Log, schema: Schema, positions: Mapping[str, int]) -> bool:
    """Append to the topic ``examples`` what comes next in the catalogue. False: nothing does.

    Args:
        log: where the catalogue is read and the record is written.
        schema: what an example is.
        positions: by ``"topic/partition"``, how far every record of ``examples`` so far has come.
    """
    for partition in range(log.partitions(Topic.CATALOGUE)):
        key = f"{Topic.CATALOGUE}/{partition}"
        records = _next(log, partition, positions.get(key, 0))
        if records:
            examples = silent_examples(schema, _items_of(schema, records)).to_examples(schema)
            told = encode_examples(schema, examples, {key: records[-1].offset + 1})
            log.append(Topic.EXAMPLES, [told])
            return True
    return False


def silent_examples(schema: Schema, items: Batch) -> Batch:
    """``items`` as examples that count nothing; what they lack is an empty slot, or the dense feature's default."""
    size = items.size
    return Batch(
        size=size,
        slots={name: items.slots.get(name, Jagged.empty(size)) for name in schema.slots},
        dense={name: items.dense.get(name, torch.full((size,), one.default)) for name, one in schema.dense.items()},
        labels={name: torch.zeros(size) for name in schema.labels},
        weights=torch.zeros(size),
        event_times_us=items.event_times_us,
    )


def _next(log: Log, partition: int, position: int) -> list[Record]:
    try:
        return log.read(Topic.CATALOGUE, partition, position, max_records=_TOLD_MAX)
    except OffsetGoneError:  # it was compacted: of each item its newest change comes again
        return log.read(Topic.CATALOGUE, partition, log.bounds(Topic.CATALOGUE, partition)[0], max_records=_TOLD_MAX)


def _items_of(schema: Schema, records: list[Record]) -> Batch:
    """Of the items that these records tell of, and that are still there, what the last one told."""
    newest = {}
    for record in records:
        try:
            change = decode(CatalogueChange, record.value)
        except BadEventError:
            continue  # the servers, which read it too, count it and keep a specimen
        if change.of == "item":
            newest[change.id] = change
    kept = [change for change in newest.values() if not change.removed]
    items = extract_usable(schema, Side.ITEM, [(change.id, change.attributes) for change in kept])
    times = torch.tensor([change.event_time_us for change in kept], dtype=torch.int64)
    return Batch(size=items.size, slots=items.slots, dense=items.dense, event_times_us=times)

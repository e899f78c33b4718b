"""The log: named topics of partitions, each a sequence of records with consecutive offsets, read by anyone at any pace.

What a stage tells another goes through here, so that each can be killed and restarted alone. Backends: ``EmbeddedLog``.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Protocol, final

import msgspec

from dolmen.clock import Duration, parse_duration_us

__all__ = ["DEFAULT_RETENTION", "Appended", "Group", "Log", "Record", "Retention", "Topic", "partition_of"]


class Topic(StrEnum):
    """The topics of the loop, and who writes each."""

    IMPRESSIONS = "impressions"  # server: slates, with the features as served
    ACTIONS = "actions"  # server: what people did
    CATALOGUE = "catalogue"  # server: attributes of items and people
    EXAMPLES = "examples"  # joiner: one record is one batch, one training step
    PARAMETERS = "parameters"  # trainer: deltas of the parameters
    STATUS = "status"  # every stage, once a second: its figures, JSON


class Group(StrEnum):
    """Who reads the topics of the loop and commits how far: what is below is in their own state, on disk."""

    JOINER = "joiner"
    TRAINER = "trainer"
    SERVER = "server"


@final
class Record(msgspec.Struct, frozen=True, gc=False):
    """One record. ``time_us``: when it was appended, by the clock of whoever appended it."""

    offset: int
    time_us: int
    value: bytes


@final
class Appended(msgspec.Struct, frozen=True, gc=False):
    """Where an append went: offsets ``first_offset`` up to, not including, ``next_offset``.

    ``repeated``: these records were already there, from an earlier append with the same producer and sequence.
    """

    partition: int
    first_offset: int
    next_offset: int
    repeated: bool = False


@final
@dataclass(frozen=True)
class Retention:
    """How much of a topic is kept, per partition. Without a limit it is kept whole; the newest append always stays.

    Args:
        max_bytes: oldest records leave when more bytes than this are stored.
        max_age: records older than this leave (``"15m"``), when the next append comes.
        readers: consumer groups that must have committed beyond a record before it leaves, however old it is. Any
            name may stand here, for a reader of your own; while one never commits, its topic is kept whole.
    """

    max_bytes: int | None = None
    max_age: Duration | None = None
    readers: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.max_bytes is not None and self.max_bytes < 1:
            raise ValueError(f"Retention.max_bytes must be at least 1, got {self.max_bytes}")
        if self.max_age is not None:
            parse_duration_us(self.max_age)

    @property
    def max_age_us(self) -> int | None:
        """``max_age`` in microseconds."""
        return parse_duration_us(self.max_age) if self.max_age is not None else None


DEFAULT_RETENTION: Final[Mapping[str, Retention]] = {
    # From these a server that lost its own state makes people and counts anew; the joiner keeps its slates itself.
    Topic.IMPRESSIONS: Retention(max_bytes=4 << 30, max_age="7d", readers=(Group.JOINER, Group.SERVER)),
    Topic.ACTIONS: Retention(max_bytes=4 << 30, max_age="30d", readers=(Group.JOINER, Group.SERVER)),
    # For learning the last days once more, with other settings.
    Topic.EXAMPLES: Retention(max_bytes=4 << 30, max_age="7d", readers=(Group.TRAINER,)),
    Topic.STATUS: Retention(max_bytes=16 << 20, max_age="15m"),  # the console shows ten minutes
}
"""What ``EmbeddedLog`` keeps unless told otherwise. Of ``catalogue`` the server keeps the newest record of each item
and person: a new server must learn of them all. Of ``parameters`` the trainer deletes what no kept snapshot needs.
"""


class Log(Protocol):
    """What every backend can do. Any thread may call any method."""

    def append(
        self,
        topic: str,
        values: Sequence[bytes],
        *,
        key: bytes = b"",
        producer: str | None = None,
        sequence: int | None = None,
    ) -> Appended:
        """Add records, all or none; once this returns they survive any crash. One ``key`` means one partition.

        ``producer`` and ``sequence`` make a retry safe: a second append with both equal adds nothing and returns where
        the first went. A producer's sequences grow; the last 1024 are remembered.

        Raises:
            LogError: nothing was added; ``retry`` says whether trying again can help.
            ValueError: ``values`` is empty, or the sequence is older than those remembered.
        """
        ...

    def read(
        self,
        topic: str,
        partition: int,
        offset: int,
        *,
        max_records: int = 1000,
        max_bytes: int = 16 << 20,
        wait_seconds: float = 0.0,
    ) -> list[Record]:
        """Records from ``offset`` on, in order; none if there are none within ``wait_seconds``.

        At least one record is returned where there is one, even above ``max_bytes``.

        Raises:
            OffsetGoneError: retention has deleted the record at ``offset``.
            LogError: ``offset`` lies beyond the end, or a record is damaged.
        """
        ...

    def wait(self, positions: Mapping[tuple[str, int], int], wait_seconds: float) -> bool:
        """Wait until there is a record at any of ``positions`` ((topic, partition) → offset); false if time ran out."""
        ...

    def bounds(self, topic: str, partition: int = 0) -> tuple[int, int]:
        """The first offset that can be read, and the next that will be written."""
        ...

    def commit(self, group: str, positions: Mapping[tuple[str, int], int]) -> None:
        """Remember how far ``group`` has read: for each (topic, partition) the next offset it needs; all or none."""
        ...

    def committed(self, group: str, topic: str, partition: int = 0) -> int | None:
        """What ``group`` committed last; ``None`` if nothing."""
        ...

    def truncate(self, topic: str, partition: int, before: int) -> None:
        """Delete the records below offset ``before``."""
        ...

    def compact(self, topic: str, partition: int, key: Callable[[bytes], Hashable | None]) -> int:
        """Keep the newest record of each key alone, whatever its age; returns how many are kept.

        They become the newest of the partition, in their order and under new offsets, in one step that no append falls
        into. So a reader that had read everything reads them once more, one that had not gets ``OffsetGoneError`` and
        goes on with the first record, and both then know of every key. For topics of which a record says all that is
        to be said of its key.

        Args:
            topic: of which.
            partition: of the topic.
            key: of a record's value; ``None`` drops the record.

        Raises:
            LogError: nothing was changed.
        """
        ...

    def identity(self) -> str:
        """A random name that this log alone has, given once and kept with it: readers keep it with their positions.

        Raises:
            LogError: it cannot be read, or given.
        """
        ...

    def partitions(self, topic: str) -> int:
        """How many partitions the topic has; they are numbered from 0."""
        ...

    def topics(self) -> list[str]:
        """The topics that exist, sorted."""
        ...

    def close(self) -> None:
        """Release what this handle holds. Again is harmless."""
        ...


def partition_of(key: bytes, partition_count: int) -> int:
    """The partition of a key: the same in every process and on every machine."""
    return zlib.crc32(key) % partition_count

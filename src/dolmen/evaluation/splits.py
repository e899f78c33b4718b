"""Evaluation protocols as data: which slates train, which validate, which test. Each is a small frozen value.

A rule sees slates (one response, or one action where no response was recorded) in the order of the data set, and never
cuts one. What a rule needs of that order it says in ``needs``; a data set that cannot give it refuses the rule.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import ClassVar, Final, Protocol, final, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from dolmen.seeds import generator

__all__ = [
    "GivenSplit",
    "LeaveOneOut",
    "Needs",
    "Parts",
    "PeopleSplit",
    "PersonRatio",
    "Prequential",
    "Split",
    "SplitRule",
    "TemporalSplit",
]

Parts = NDArray[np.int8]
"""For each slate the place of its part in ``Split``'s order; -1 where the slate is left out."""

_Ints = NDArray[np.int64]
_ROUNDING: Final = 1e-9  # 0.8 + 0.1 may fall short of 0.9, and 10 slates times that must still be 9


class Split(StrEnum):
    """A part of a data set: what is learned, what decides between models, and what is touched once, at the end."""

    ALL = "all"
    TRAIN = "train"
    VALIDATION = "validation"
    TEST = "test"

    @property
    def number(self) -> int:
        """How ``Parts`` writes this part.

        Raises:
            ValueError: ``all`` is every part, so it has no number.
        """
        if self is Split.ALL:
            raise ValueError("Split.ALL has no number; it means every part")
        return (Split.TRAIN, Split.VALIDATION, Split.TEST).index(self)


_TRAIN: Final = np.int8(Split.TRAIN.number)
_VALIDATION: Final = np.int8(Split.VALIDATION.number)
_TEST: Final = np.int8(Split.TEST.number)


class Needs(StrEnum):
    """What a rule asks of the order of slates."""

    TIME = "time"  # all slates stand in the order of their event times
    ORDER = "order"  # each person's slates stand in order
    NOTHING = "nothing"


@runtime_checkable
class SplitRule(Protocol):
    """What every protocol can do."""

    @property
    def needs(self) -> Needs:
        """What the order of slates must mean."""
        ...

    def parts(self, people: _Ints, sizes: _Ints) -> Parts:
        """The part of each slate.

        Args:
            people: who saw each slate, as numbers from 0, shape (slates,).
            sizes: how many interactions each slate has, shape (slates,).
        """
        ...


@final
@dataclass(frozen=True)
class TemporalSplit:
    """One cut through time for everybody: what comes first trains, what comes next validates, the end tests.

    Shares are of the interactions. It is what a system in use sees, so it is the default where times are known.
    """

    train_share: float = 0.8
    validation_share: float = 0.1
    needs: ClassVar[Needs] = Needs.TIME

    def __post_init__(self) -> None:
        _check_shares("TemporalSplit", self.train_share, self.validation_share)

    def parts(self, people: _Ints, sizes: _Ints) -> Parts:
        """See ``SplitRule``."""
        parts = np.full(len(people), _TEST)
        starts, total = np.cumsum(sizes) - sizes, int(sizes.sum())
        trained, validated = _ends(total, self.train_share, self.validation_share)
        parts[starts < validated] = _VALIDATION
        parts[starts < trained] = _TRAIN
        return parts


@final
@dataclass(frozen=True)
class LeaveOneOut:
    """Each person's last slate tests, the one before validates, and the rest trains (SASRec, BERT4Rec and most others).

    Args:
        slate_count_min: who has fewer slates only trains.
        validating: how many people, drawn by ``seed``, validate; of all others the slate before the last trains, too,
            as the authors of BERT4Rec put it back for the final model. ``None``: everybody validates.
        seed: draws those who validate.
    """

    slate_count_min: int = 3
    validating: int | None = None
    seed: int = 0
    needs: ClassVar[Needs] = Needs.ORDER

    def __post_init__(self) -> None:
        if self.slate_count_min < 3:
            raise ValueError(f"LeaveOneOut.slate_count_min must be at least 3, got {self.slate_count_min}")
        if self.validating is not None and self.validating < 0:
            raise ValueError(f"LeaveOneOut.validating must be at least 0, or None, got {self.validating}")

    def parts(self, people: _Ints, sizes: _Ints) -> Parts:
        """See ``SplitRule``."""
        del sizes  # a slate is one step, however long
        places, counts = _places_of_people(people)
        parts = np.full(len(people), _TRAIN)
        enough = counts >= self.slate_count_min
        before_last = np.flatnonzero(enough & (places == counts - 2))
        if self.validating is not None:
            drawn = generator(self.seed, "leave-one-out").permutation(len(before_last))
            before_last = before_last[drawn[: self.validating]]
        parts[before_last] = _VALIDATION
        parts[enough & (places == counts - 1)] = _TEST
        return parts


@final
@dataclass(frozen=True)
class PersonRatio:
    """Each person's slates by shares: the first train, the next validate, the last test; drawn where ``seed`` is given.

    The number that trains is rounded down, and the number that tests up, but for at least one that trains.
    """

    train_share: float = 0.8
    validation_share: float = 0.1
    seed: int | None = None

    def __post_init__(self) -> None:
        _check_shares("PersonRatio", self.train_share, self.validation_share)

    @property
    def needs(self) -> Needs:
        """An order, unless slates are drawn."""
        return Needs.ORDER if self.seed is None else Needs.NOTHING

    def parts(self, people: _Ints, sizes: _Ints) -> Parts:
        """See ``SplitRule``."""
        del sizes  # a slate is one step, however long
        if self.seed is None:
            places, counts = _places_of_people(people)
        else:
            order = generator(self.seed, "person-ratio").permutation(len(people))
            places, counts = np.empty_like(people), np.empty_like(people)
            places[order], counts[order] = _places_of_people(people[order])
        trained = np.maximum(np.floor(counts * self.train_share + _ROUNDING), 1)
        validated = np.maximum(np.floor(counts * (self.train_share + self.validation_share) + _ROUNDING), trained)
        parts = np.full(len(people), _TEST)
        parts[places < validated] = _VALIDATION
        parts[places < trained] = _TRAIN
        return parts


@final
@dataclass(frozen=True)
class PeopleSplit:
    """Whole people by shares, drawn by ``seed``: those who test were never seen (DIN's split of MovieLens-20M)."""

    train_share: float = 0.8
    validation_share: float = 0.1
    seed: int = 0
    needs: ClassVar[Needs] = Needs.NOTHING

    def __post_init__(self) -> None:
        _check_shares("PeopleSplit", self.train_share, self.validation_share)

    def parts(self, people: _Ints, sizes: _Ints) -> Parts:
        """See ``SplitRule``."""
        del sizes  # people are drawn, however much they did
        count = int(people.max()) + 1 if len(people) else 0
        trained, validated = _ends(count, self.train_share, self.validation_share)
        of_people = np.full(count, _TEST)
        drawn = generator(self.seed, "people-split").permutation(count)
        of_people[drawn[: int(np.ceil(validated))]] = _VALIDATION
        of_people[drawn[: int(np.ceil(trained))]] = _TRAIN
        return of_people[people]


@final
@dataclass(frozen=True)
class Prequential:
    """Predict first, learn after, in time order. ``parts``: the warm-up trains, and all that follows is judged.

    ``blocks`` cuts what is judged into runs of about ``block_size`` interactions: judge one, learn it, judge the next.
    """

    warm_up_share: float = 0.1
    block_size: int = 1000
    needs: ClassVar[Needs] = Needs.TIME

    def __post_init__(self) -> None:
        if not 0 <= self.warm_up_share < 1:
            raise ValueError(f"Prequential.warm_up_share must be at least 0 and below 1, got {self.warm_up_share}")
        if self.block_size < 1:
            raise ValueError(f"Prequential.block_size must be at least 1, got {self.block_size}")

    def parts(self, people: _Ints, sizes: _Ints) -> Parts:
        """See ``SplitRule``."""
        starts = np.cumsum(sizes) - sizes
        trained, _ = _ends(int(sizes.sum()), self.warm_up_share, 0.0)
        return np.where(starts < trained, _TRAIN, np.full(len(people), _TEST))

    def blocks(self, people: _Ints, sizes: _Ints) -> Iterator[range]:
        """Slates that are judged together, in time order, before any of them is learned; the last may be smaller."""
        first = int((self.parts(people, sizes) == _TRAIN).sum())
        done = np.concatenate([[0], np.cumsum(sizes[first:])])
        start, end = 0, len(done) - 1
        while start < end:
            stop = min(max(int(np.searchsorted(done, done[start] + self.block_size)), start + 1), end)
            yield range(first + start, first + stop)
            start = stop


@final
@dataclass(frozen=True, eq=False)
class GivenSplit:
    """The parts that the source itself published, one a slate."""

    given: Parts = field(repr=False)
    needs: ClassVar[Needs] = Needs.NOTHING

    def parts(self, people: _Ints, sizes: _Ints) -> Parts:
        """See ``SplitRule``.

        Raises:
            ValueError: it was made for another number of slates.
        """
        del sizes  # the source has decided
        if len(self.given) != len(people):
            raise ValueError(f"GivenSplit has parts for {len(self.given)} slates, the data set has {len(people)}")
        return self.given


def _ends(total: int, train_share: float, validation_share: float) -> tuple[float, float]:
    """How many train, and how many train or validate."""
    return total * train_share - _ROUNDING, total * (train_share + validation_share) - _ROUNDING


def _places_of_people(people: _Ints) -> tuple[_Ints, _Ints]:
    """For each slate its place among those of its person, from 0, and how many they have; both shape (slates,)."""
    if not len(people):
        return people, people
    order = np.argsort(people, kind="stable")
    counts = np.bincount(people)
    starts = np.cumsum(counts) - counts
    places = np.empty_like(people)
    places[order] = np.arange(len(people)) - starts[people[order]]
    return places, counts[people]


def _check_shares(rule: str, train: float, validation: float) -> None:
    if not (0 < train <= 1 and 0 <= validation <= 1 and train + validation <= 1 + _ROUNDING):
        raise ValueError(
            f"{rule}: train_share must be above 0 and validation_share at least 0, together at most 1; "
            f"got {train} and {validation}"
        )

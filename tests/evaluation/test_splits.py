import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dolmen.evaluation import (
    GivenSplit,
    LeaveOneOut,
    Needs,
    PeopleSplit,
    PersonRatio,
    Prequential,
    Split,
    SplitRule,
    TemporalSplit,
)

TRAIN, VALIDATION, TEST = (Split(name).number for name in ("train", "validation", "test"))
LOGS = st.lists(st.tuples(st.integers(0, 4), st.integers(1, 3)), max_size=40)
RULES: list[SplitRule] = [
    TemporalSplit(),
    TemporalSplit(0.5, 0.0),
    LeaveOneOut(),
    LeaveOneOut(validating=1),
    PersonRatio(0.6, 0.2),
    PersonRatio(seed=3),
    PeopleSplit(0.5, 0.25, seed=1),
    Prequential(0.2),
]


def split(rule: SplitRule, log: list[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    people = np.unique(np.array([person for person, _ in log], dtype=np.int64), return_inverse=True)[1]
    sizes = np.array([size for _, size in log], dtype=np.int64)
    return people, sizes, rule.parts(people, sizes)


@pytest.mark.property
@settings(max_examples=60, deadline=None)
@given(LOGS, st.sampled_from(RULES))
def test_every_slate_has_one_part_and_the_same_each_time(log: list[tuple[int, int]], rule: SplitRule) -> None:
    people, sizes, parts = split(rule, log)

    assert len(parts) == len(log)
    assert set(parts.tolist()) <= {TRAIN, VALIDATION, TEST}
    assert parts.tolist() == rule.parts(people, sizes).tolist()


@pytest.mark.property
@settings(max_examples=60, deadline=None)
@given(LOGS)
def test_a_cut_through_time_puts_no_part_before_an_earlier_one(log: list[tuple[int, int]]) -> None:
    _, sizes, parts = split(TemporalSplit(), log)

    assert parts.tolist() == sorted(parts.tolist())
    total = sizes.sum()
    if total:  # a part ends where the slate that crosses its share ends
        for share, last in ((0.8, TRAIN), (0.9, VALIDATION)):
            before = sizes[parts <= last].sum()
            assert share * total - 1e-6 <= before < share * total + sizes.max()


@pytest.mark.property
@settings(max_examples=60, deadline=None)
@given(LOGS)
def test_leave_one_out_is_each_persons_last_two(log: list[tuple[int, int]]) -> None:
    people, _, parts = split(LeaveOneOut(), log)

    for person in set(people.tolist()):
        own = parts[people == person].tolist()
        few = len(own) < 3
        assert own == ([TRAIN] * len(own) if few else [TRAIN] * (len(own) - 2) + [VALIDATION, TEST])


@pytest.mark.property
@settings(max_examples=60, deadline=None)
@given(LOGS, st.integers(0, 6), st.integers(0, 3))
def test_of_those_who_do_not_validate_the_slate_before_the_last_trains(
    log: list[tuple[int, int]], validating: int, seed: int
) -> None:
    people, _, all_validate = split(LeaveOneOut(), log)
    _, _, parts = split(LeaveOneOut(validating=validating, seed=seed), log)

    changed = parts != all_validate
    assert set(all_validate[changed].tolist()) <= {VALIDATION}
    assert set(parts[changed].tolist()) <= {TRAIN}
    everybody = len(set(people[all_validate == VALIDATION].tolist()))
    assert (parts == VALIDATION).sum() == min(validating, everybody)


@pytest.mark.property
@settings(max_examples=60, deadline=None)
@given(LOGS, st.sampled_from([None, 5]))
def test_shares_of_each_person(log: list[tuple[int, int]], seed: int | None) -> None:
    people, _, parts = split(PersonRatio(0.6, 0.2, seed=seed), log)

    for person in set(people.tolist()):
        own = parts[people == person].tolist()
        trained = max(1, math.floor(len(own) * 0.6 + 1e-9))
        assert own.count(TRAIN) == trained
        assert own.count(VALIDATION) == max(trained, math.floor(len(own) * 0.8 + 1e-9)) - trained
        assert seed is not None or own == sorted(own)


def test_drawn_shares_depend_on_the_seed() -> None:
    log = [(0, 1)] * 50
    drawn = [split(PersonRatio(0.5, 0.2, seed=seed), log)[2].tolist() for seed in (1, 1, 2)]

    assert drawn[0] == drawn[1] != drawn[2]
    assert drawn[0] != sorted(drawn[0])


@pytest.mark.property
@settings(max_examples=60, deadline=None)
@given(LOGS)
def test_whole_people_go_into_one_part(log: list[tuple[int, int]]) -> None:
    people, _, parts = split(PeopleSplit(0.5, 0.25, seed=2), log)

    of_people = [set(parts[people == person].tolist()) for person in set(people.tolist())]
    assert all(len(one) == 1 for one in of_people)
    if len(of_people) == 4:
        assert sorted(part for one in of_people for part in one) == [TRAIN, TRAIN, VALIDATION, TEST]


@pytest.mark.property
@settings(max_examples=60, deadline=None)
@given(LOGS, st.integers(1, 9))
def test_blocks_cover_what_is_judged_once_and_in_order(log: list[tuple[int, int]], block_size: int) -> None:
    rule = Prequential(0.25, block_size)
    people, sizes, parts = split(rule, log)

    blocks = list(rule.blocks(people, sizes))

    assert [slate for block in blocks for slate in block] == np.flatnonzero(parts == TEST).tolist()
    for block in blocks:
        counted = int(sizes[list(block)].sum())
        assert counted < block_size + 3
        assert counted >= block_size or block is blocks[-1]


def test_what_the_source_split_stays_split() -> None:
    given_parts = np.array([0, 2, -1], dtype=np.int8)

    assert GivenSplit(given_parts).parts(np.zeros(3, dtype=np.int64), np.ones(3, dtype=np.int64)) is given_parts
    with pytest.raises(ValueError, match="parts for 3 slates, the data set has 1"):
        GivenSplit(given_parts).parts(np.zeros(1, dtype=np.int64), np.ones(1, dtype=np.int64))


def test_rules_say_what_they_need() -> None:
    assert [rule.needs for rule in (TemporalSplit(), LeaveOneOut(), PersonRatio(), PersonRatio(seed=1))] == [
        Needs.TIME,
        Needs.ORDER,
        Needs.ORDER,
        Needs.NOTHING,
    ]


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: TemporalSplit(0.0), "train_share must be above 0"),
        (lambda: PersonRatio(0.9, 0.2), "together at most 1; got 0.9 and 0.2"),
        (lambda: LeaveOneOut(2), "slate_count_min must be at least 3, got 2"),
        (lambda: LeaveOneOut(validating=-1), "validating must be at least 0, or None, got -1"),
        (lambda: Prequential(1.0), "warm_up_share must be at least 0 and below 1, got 1.0"),
        (lambda: Prequential(0.1, 0), "block_size must be at least 1, got 0"),
        (lambda: Split.ALL.number, "has no number"),
    ],
)
def test_rules_out_of_range_are_refused(make: Callable[[], object], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        make()

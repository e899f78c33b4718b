import copy
import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from dolmen.clock import ManualClock
from dolmen.embedding import Delta
from dolmen.errors import SnapshotError
from dolmen.events import EmbeddedLog, Topic
from dolmen.training import DeltaFollower, Fed, ParameterDelta, Trainer, decode_parts, encode_delta, load_snapshot
from dolmen.training.publish import Publisher


@pytest.fixture
def learned(world, log, tmp_path):
    """A trainer that published after some of its steps, its first snapshot, and the records it published."""
    trainer = world.trainer()
    snapshot = load_snapshot(trainer.save(tmp_path / "snapshots"), for_serving=True)
    publisher = Publisher(trainer, log, ManualClock(5))
    for number in range(60):
        trainer.step(world.batch(number))
        if number % 7 == 6 or number == 59:
            publisher.publish(with_dense=number % 3 == 0 or number == 59)
    return trainer, snapshot, [record.value for record in log.read(Topic.PARAMETERS, 0, 0)]


def test_replica_that_follows_deltas_equals_the_trainer(learned, vectors, dense) -> None:
    trainer, snapshot, records = learned
    follower = DeltaFollower(snapshot.parameters)
    assert [follower.feed(record) for record in records] == [Fed.APPLIED] * len(records)
    parameters = follower.parameters
    assert trainer.counters["expired"] > 0, "rows that leave must be part of what is compared"
    assert trainer.counters["evicted"] > 0, "whichever way they leave"
    assert vectors(parameters.embeddings) == vectors(trainer.embeddings)
    assert dense(parameters.model) == dense(trainer.model)
    assert parameters.version == parameters.dense_version == trainer.version
    assert parameters.newest_event_time_us == trainer.newest_event_time_us


def test_delta_applied_twice_changes_nothing(learned, vectors, dense) -> None:
    _, snapshot, records = learned
    once, twice = DeltaFollower(snapshot.parameters), DeltaFollower(copy.copy(load_snapshot(snapshot.path).parameters))
    for record in records:
        once.feed(record)
        assert twice.feed(record) is Fed.APPLIED
        assert twice.feed(record) is Fed.SKIPPED
        # Past the version check too: the values themselves are absolute.
        twice.parameters.embeddings.apply_delta(decode_parts([record]).tables)
    assert vectors(twice.parameters.embeddings) == vectors(once.parameters.embeddings)
    assert dense(twice.parameters.model) == dense(once.parameters.model)


def test_replica_may_begin_anywhere_within_a_delta(learned, vectors, tmp_path, world) -> None:
    # A trainer that was killed starts again at an older version than its replicas have, and its first delta spans more
    # than they lack.
    trainer, _, records = learned
    other = world.trainer()
    for number in range(10):
        other.step(world.batch(number))
    other.lineage = trainer.lineage
    follower = DeltaFollower(load_snapshot(other.save(tmp_path / "ahead"), for_serving=True).parameters)
    assert [follower.feed(record) for record in records][:2] == [Fed.SKIPPED, Fed.APPLIED]
    assert vectors(follower.parameters.embeddings) == vectors(trainer.embeddings)


def test_gap_is_refused_and_leaves_the_parameters_alone(learned, vectors) -> None:
    _, snapshot, records = learned
    follower = DeltaFollower(snapshot.parameters)
    follower.feed(records[0])
    before = vectors(follower.parameters.embeddings)
    with pytest.raises(SnapshotError, match=r"delta 14\.\.21 leaves a gap: these parameters are at version 7"):
        follower.feed(records[2])
    assert (follower.parameters.version, vectors(follower.parameters.embeddings)) == (7, before)


@pytest.mark.parametrize(("field", "word"), [("lineage", "lineage"), ("schema", "schema")])
def test_delta_of_another_kind_is_refused_by_name(learned, field, word) -> None:
    _, snapshot, records = learned
    foreign = encode_delta(replace(decode_parts([records[0]]), **{field: "0123456789abcdef"}))
    with pytest.raises(SnapshotError, match=f"delta 0..7 is of {word} 0123456789abcdef"):
        DeltaFollower(snapshot.parameters).feed(foreign[0])


def test_dense_layers_that_do_not_fit_leave_the_rows_alone_too(learned) -> None:
    _, snapshot, records = learned
    follower = DeltaFollower(snapshot.parameters)
    wrong = encode_delta(replace(decode_parts([records[0]]), dense={"no.such.layer": torch.zeros(3)}))
    with pytest.raises(SnapshotError, match="do not fit the model"):
        follower.feed(wrong[0])
    assert len(follower.parameters.embeddings) == 0


def test_reader_that_took_the_parameters_keeps_one_version_of_the_dense_layers(learned, dense) -> None:
    _, snapshot, records = learned
    follower = DeltaFollower(snapshot.parameters)
    taken = follower.parameters
    before = dense(taken.model)
    for record in records:
        follower.feed(record)
    assert dense(taken.model) == before
    assert follower.parameters.model is not taken.model
    assert follower.parameters.embeddings is taken.embeddings


def test_delta_arrives_in_parts_of_bounded_size(learned, vectors) -> None:
    _, snapshot, records = learned
    whole = decode_parts([records[0]])
    parts = encode_delta(whole, part_bytes_max=2048)
    assert len(parts) > 3
    assert max(map(len, parts)) <= 2048
    follower, other = DeltaFollower(snapshot.parameters), DeltaFollower(load_snapshot(snapshot.path).parameters)
    told = [follower.feed(part) for part in parts]
    assert told == [Fed.WAITING] * (len(parts) - 1) + [Fed.APPLIED]
    other.feed(records[0])
    assert vectors(follower.parameters.embeddings) == vectors(other.parameters.embeddings)


def test_parts_whose_writer_was_killed_are_dropped_for_the_delta_that_replaces_them(learned) -> None:
    _, snapshot, records = learned
    parts = encode_delta(decode_parts([records[0]]), part_bytes_max=2048)
    follower = DeltaFollower(snapshot.parameters)
    assert [follower.feed(part) for part in parts[:2]] == [Fed.WAITING] * 2
    assert [follower.feed(part) for part in parts][-1] is Fed.APPLIED


def test_part_without_those_before_it_is_not_enough(learned) -> None:
    _, snapshot, records = learned
    parts = encode_delta(decode_parts([records[0]]), part_bytes_max=2048)
    follower = DeltaFollower(snapshot.parameters)
    assert {follower.feed(part) for part in parts[1:]} == {Fed.SKIPPED}
    with pytest.raises(SnapshotError, match="gap"):
        follower.feed(records[1])


@pytest.mark.fault
def test_no_flipped_bit_and_no_cut_passes(learned) -> None:
    _, snapshot, records = learned
    dice = random.Random(1)
    follower = DeltaFollower(snapshot.parameters)
    for _ in range(300):
        damaged = bytearray(records[0])
        if dice.random() < 0.2:
            del damaged[dice.randrange(len(damaged)) :]
        else:
            damaged[dice.randrange(len(damaged))] ^= 1 << dice.randrange(8)
        with pytest.raises(SnapshotError, match="checksum"):
            follower.feed(bytes(damaged))
    assert (follower.parameters.version, len(follower.parameters.embeddings)) == (0, 0)


FIDS = st.lists(st.integers(0, 2**63 - 1), max_size=20, unique=True)


@st.composite
def deltas(draw: st.DrawFn) -> ParameterDelta:
    dims = draw(st.lists(st.integers(1, 8), max_size=3, unique=True))
    tables = {}
    for dim in dims:
        fids = draw(FIDS)
        floats = st.floats(width=32, allow_nan=False)
        tables[dim] = Delta(
            fids=np.array(fids, dtype=np.int64),
            vectors=draw(hnp.arrays(np.float32, (len(fids), dim), elements=floats)),
            removed=np.array(draw(FIDS), dtype=np.int64),
        )
    versions = sorted(draw(st.tuples(st.integers(0, 2**40), st.integers(0, 2**40))))
    return ParameterDelta(
        lineage=draw(st.text(max_size=20)),
        schema="s",
        from_version=versions[0],
        to_version=versions[1],
        newest_event_time_us=draw(st.integers(-(2**62), 2**62)),
        positions=draw(st.dictionaries(st.text(max_size=9), st.integers(0, 2**50), max_size=3)),
        published_time_us=1,
        tables=tables,
        dense=draw(st.none() | st.just({"w": torch.arange(300.0), "n": torch.tensor(3)})),
    )


@pytest.mark.property
@settings(max_examples=100, deadline=None)
@given(delta=deltas(), part_bytes=st.integers(1024, 4096))
def test_delta_survives_the_log(delta: ParameterDelta, part_bytes: int) -> None:
    records = encode_delta(delta, part_bytes_max=part_bytes)
    assert max(map(len, records)) <= part_bytes
    found = decode_parts(records)
    for name in ("lineage", "from_version", "to_version", "newest_event_time_us", "positions", "published_time_us"):
        assert getattr(found, name) == getattr(delta, name)
    assert found.tables.keys() == delta.tables.keys()
    for dim, table in delta.tables.items():
        for name in ("fids", "vectors", "removed"):
            np.testing.assert_array_equal(getattr(found.tables[dim], name), getattr(table, name))
    assert (found.dense is None) == (delta.dense is None)
    for name, tensor in (delta.dense or {}).items():
        assert found.dense is not None
        assert torch.equal(found.dense[name], tensor)


def test_positions_and_event_time_travel_so_that_staleness_can_be_told(world, log: EmbeddedLog) -> None:
    log.append(Topic.EXAMPLES, [world.record(number) for number in range(3)])
    trainer: Trainer = world.trainer()
    publisher = Publisher(trainer, log, ManualClock(77))
    for record in log.read(Topic.EXAMPLES, 0, 0):
        trainer.learn(record)
    assert publisher.publish(with_dense=False) is not None
    delta = decode_parts([log.read(Topic.PARAMETERS, 0, 0)[0].value])
    assert delta.positions == {"actions/0": 30, "impressions/0": 3, "examples/0": 3}
    assert delta.newest_event_time_us == int(world.batch(2).event_times_us.max())
    assert delta.published_time_us == 77


def test_nothing_learned_is_nothing_published(world, log) -> None:
    trainer = world.trainer()
    publisher = Publisher(trainer, log, ManualClock())
    assert publisher.publish(with_dense=True) is None
    trainer.step(world.batch(0))
    assert publisher.publish(with_dense=True) is not None
    assert publisher.publish(with_dense=True) is None


def test_dense_layers_follow_alone_where_nothing_is_learned_any_more(world, log, tmp_path, dense) -> None:
    trainer = world.trainer()
    snapshot = load_snapshot(trainer.save(tmp_path), for_serving=True)
    publisher = Publisher(trainer, log, ManualClock())
    trainer.step(world.batch(0))
    publisher.publish(with_dense=False)
    alone = publisher.publish(with_dense=True)
    assert alone is not None
    assert (alone.row_count, alone.has_dense) == (0, True)
    assert publisher.publish(with_dense=True) is None
    follower = DeltaFollower(snapshot.parameters)
    records = [record.value for record in log.read(Topic.PARAMETERS, 0, 0)]
    assert follower.feed(records[0]) is Fed.APPLIED
    assert (follower.parameters.version, follower.parameters.dense_version) == (1, 0)
    assert [follower.feed(records[1]), follower.feed(records[1])] == [Fed.APPLIED, Fed.SKIPPED]
    assert (follower.parameters.version, follower.parameters.dense_version) == (1, 1)
    assert dense(follower.parameters.model) == dense(trainer.model)


def test_delta_carries_only_what_changed_since_the_last(world, log) -> None:
    trainer = world.trainer()
    publisher = Publisher(trainer, log, ManualClock())
    for number in range(20):
        trainer.step(world.batch(number))
    first = publisher.publish(with_dense=False)
    trainer.step(world.batch(20, 1))
    second = publisher.publish(with_dense=False)
    assert first is not None
    assert second is not None
    assert second.row_count < 30 < first.row_count
    assert second.bytes < 2000

import threading
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
import torch

from dolmen.embedding import SGD, Capacity
from dolmen.errors import ConfigError, SchemaError, SnapshotError
from dolmen.events import CatalogueChange, Record, Topic, decode_examples, encode, encode_examples
from dolmen.features import Batch, Jagged, encode_values
from dolmen.training import TrainConfig, Trainer, load_snapshot, new_trainer
from dolmen.training.meeting import tell_items
from dolmen.training.specimens import Specimens


def _follow_to_the_end(trainer: Trainer, log) -> None:
    stop, (_, end) = threading.Event(), log.bounds(Topic.EXAMPLES, 0)

    def stop_at_the_end() -> None:
        if trainer.offset >= end:
            stop.set()

    trainer.follow(log, stop, between=stop_at_the_end, wait_seconds=0.0)


def test_following_a_stream_learns_what_people_like(world, log) -> None:
    log.append(Topic.EXAMPLES, [world.record(number, 64) for number in range(200)])
    trainer = world.trainer(TrainConfig(learning_rate=0.01))
    _follow_to_the_end(trainer, log)
    assert trainer.version == trainer.offset == 200
    assert trainer.counters["examples"] == 200 * 64
    assert trainer.positions == {"actions/0": 2000, "impressions/0": 200, "examples/0": 200}
    trainer.judge.restart()
    for number in range(200, 230):
        trainer.step(world.batch(number, 64))
    # Good items get 7/8 of the clicks and 1/4 of what is not clicked: whoever knows them has an AUC of 0.81.
    assert trainer.judge.auc > 0.7


@pytest.mark.parametrize("cut", [0, 1, 29, 59, 60])
def test_resumed_run_is_bit_for_bit_the_run_that_never_stopped(world, filled_log, tmp_path, rows, dense, cut) -> None:
    unbroken = world.trainer()
    _follow_to_the_end(unbroken, filled_log)
    records = filled_log.read(Topic.EXAMPLES, 0, 0)
    first = world.trainer()
    for record in records[:cut]:
        first.learn(record)
        first.embeddings.advance_epoch()  # as publishing does, at moments that a clock decides
    second = Trainer.resume(load_snapshot(first.save(tmp_path)))
    torch.rand(17)  # what anybody draws between must not matter
    _follow_to_the_end(second, filled_log)
    assert rows(second) == rows(unbroken)
    assert dense(second.model) == dense(unbroken.model)
    assert second.lineage == first.lineage
    for name in ("version", "offset", "newest_event_time_us", "positions", "counters"):
        assert getattr(second, name) == getattr(unbroken, name), name
    assert second.judge.state_dict() == unbroken.judge.state_dict()
    assert unbroken.counters["expired"] > 0, "expiry must be part of what is compared"
    assert unbroken.counters["evicted"] > 0, "and so must eviction"


def test_dropout_draws_the_same_after_a_restart(world) -> None:
    draws = []
    for noise in (1, 5):
        trainer = world.trainer(TrainConfig(seed=3))
        seen: list[float] = []
        loss = trainer.model.loss
        trainer.model.loss = lambda batch, loss=loss, seen=seen: (seen.append(torch.rand(()).item()), loss(batch))[1]
        for number in range(3):
            torch.rand(noise)
            trainer.step(world.batch(number))
        draws.append(seen)
    assert draws[0] == draws[1]
    assert len(set(draws[0])) == 3


def test_row_moves_as_far_alone_as_among_strangers(world) -> None:
    # Only examples of one person reach that person's row; with a plain SGD table the step is the gradient itself.
    def moved(strangers: int) -> np.ndarray:
        options = {"slots": ["user"], "hidden": []}
        config = TrainConfig(gradient_norm_max=None)
        trainer = new_trainer(world.schema, "deepfm", options, config, optimizer=SGD(learning_rate=0.1))
        batch = world.batch(0, 1)
        # Strangers are people of a batch whose users differ from the one in question.
        others = world.batch(1, 50)
        distinct = (others.slot("user").values != batch.slot("user").values).nonzero().squeeze(1)[:strangers]
        whole = Batch.concat([batch, others.take(distinct)]) if strangers else batch
        fid = batch.slot("user").values.numpy()
        table = trainer.embeddings.tables[8]
        before = table.lookup_or_insert(fid, 0)
        trainer.step(whole)
        return table.lookup(fid) - before

    assert np.abs(moved(0)).max() > 0
    np.testing.assert_allclose(moved(30), moved(0), rtol=1e-5)


def test_dense_layers_move_in_proportion_to_a_small_batch(world) -> None:
    # Adam's first step is the learning rate itself, whatever the gradient.
    config = TrainConfig(learning_rate=0.01, full_batch=64)
    for size, expected in ((64, 0.01), (16, 0.0025), (1, 0.01 / 64)):
        trainer = world.trainer(config)
        before = {name: one.detach().clone() for name, one in trainer.model.named_parameters()}
        trainer.step(world.batch(0, size))
        furthest = max((one - before[name]).abs().max().item() for name, one in trainer.model.named_parameters())
        assert furthest == pytest.approx(expected, rel=0.02)


def test_rates_warm_up_by_the_number_of_the_step(world) -> None:
    config = TrainConfig(learning_rate=0.01, full_batch=64, warmup_steps=4)
    trainer = world.trainer(config)
    before = {name: one.detach().clone() for name, one in trainer.model.named_parameters()}
    trainer.step(world.batch(0, 64))
    furthest = max((one - before[name]).abs().max().item() for name, one in trainer.model.named_parameters())
    assert furthest == pytest.approx(0.01 / 4, rel=0.02)  # Adam's first step is its rate.
    assert [config.rate_factor(step) for step in (1, 2, 4, 5)] == [0.25, 0.5, 1.0, 1.0]


def test_new_rows_age_by_event_time_and_leave_by_it(world) -> None:
    trainer = world.trainer()
    trainer.step(world.batch(0))
    table, fids = trainer.embeddings.tables[8], world.batch(0).slot("item").values.unique()
    trainer.step(world.batch(0))  # admitted at the second sight
    assert table.contains(fids).all()
    trainer.step(world.batch(60))  # fifteen days later; rows of items live for ten
    assert trainer.counters["expired"] > 0
    gone = fids[~torch.isin(fids, torch.cat([world.batch(60).slot(name).values for name in ("item", "history")]))]
    ring = trainer.model.retriever.recent.slot_item.flatten()  # what the model still uses as negatives stays in use
    gone = gone[~torch.isin(gone, ring)]
    assert len(gone) > 0
    assert not table.contains(gone).any()


def test_wrong_clock_far_in_the_future_expires_nothing(world) -> None:
    trainer = world.trainer()
    now_us = int(world.batch(0).event_times_us.max())
    trainer.step(world.batch(0), logged_us=now_us)
    wrong = world.batch(1)
    trainer.step(replace(wrong, event_times_us=wrong.event_times_us + 365 * 86_400_000_000), logged_us=now_us)
    assert trainer.counters["expired"] == 0
    assert trainer.newest_event_time_us == now_us + 86_400_000_000


def test_bad_record_is_counted_kept_and_passed_over(world, log, tmp_path) -> None:
    negative = world.batch(1)
    values = dict(negative.slots)
    values["user"] = replace(values["user"], values=values["user"].values - 2**62)
    bad = [
        b"",
        b"no arrow at all",
        world.record(0)[:-100],
        encode_examples(world.schema, replace(negative, slots=values).to_examples(world.schema), {}),
    ]
    log.append(Topic.EXAMPLES, [world.record(0), *bad, world.record(1)])
    trainer = world.trainer()
    trainer.specimens = Specimens(tmp_path / "bad")
    _follow_to_the_end(trainer, log)
    assert trainer.counters["records_bad"] == len(bad)
    assert trainer.counters["records"] == trainer.version == trainer.offset == 2 + len(bad)
    kept = sorted((tmp_path / "bad").glob("*.bin"))
    assert [path.read_bytes() for path in kept] == bad
    assert "is no FID" in kept[-1].with_suffix(".txt").read_text()
    # Versions count, but what was learned is what the good records teach.
    assert trainer.counters["examples"] == 32
    assert len(trainer.embeddings) > 0


def test_specimens_are_bounded_and_a_full_disk_stops_nobody(tmp_path) -> None:
    specimens = Specimens(tmp_path / "bad", count_max=2)
    for offset in range(5):
        specimens.keep("examples", offset, b"x", "why")
    assert len(list((tmp_path / "bad").glob("*.bin"))) == 2
    assert len(list((tmp_path / "bad").glob("*.txt"))) == 2
    again = Specimens(tmp_path / "bad", count_max=2)
    again.keep("examples", 9, b"x", "why")
    assert len(list((tmp_path / "bad").glob("*.bin"))) == 2
    (tmp_path / "file").write_text("in the way")
    Specimens(tmp_path / "file" / "bad").keep("examples", 0, b"x", "why")


@pytest.mark.fault
def test_no_torn_record_stops_the_trainer(world) -> None:
    good = world.record(0)
    trainer = world.trainer()
    for offset, end in enumerate(range(0, len(good) - 16, 16)):  # the last bytes only say that the stream ends
        trainer.learn(Record(offset, 2**60, good[:end]))
    assert trainer.version == trainer.counters["records"] == trainer.counters["records_bad"] > 100


@pytest.mark.parametrize(
    ("slot", "values", "offsets", "message"),
    [
        ("genres", [5, 6], [0, 2, 1, 2], "non-monotonic offset"),
        ("user", [5, 6, 7], [0, 2, 2, 3], "has 2 values, and the schema says one"),
        ("user", [5, -6, 7], [0, 1, 2, 3], "-6 is no FID"),
    ],
)
def test_record_that_no_table_can_take_is_refused_by_slot(world, tmp_path, slot, values, offsets, message) -> None:
    batch = world.batch(0, 3)
    wrong = replace(batch, slots={**batch.slots, slot: Jagged(torch.tensor(values), torch.tensor(offsets))})
    trainer = world.trainer()
    trainer.specimens = Specimens(tmp_path)
    assert trainer.learn(Record(0, 2**60, encode_examples(world.schema, wrong.to_examples(world.schema), {}))) is None
    (why,) = tmp_path.glob("*.txt")
    assert message in why.read_text()
    assert repr(slot) in why.read_text()


def test_rows_whose_gradients_are_no_numbers_hold_back_the_dense_layers_too(world, dense, monkeypatch) -> None:
    trainer = world.trainer()
    batch = world.batch(0)
    trainer.step(batch)
    before, vectors = dense(trainer.model), trainer.embeddings.tables[8].lookup(batch.slot("user").values)
    honest = trainer.model.loss
    # The root's slope at 0 is infinite, and times 0 it is NaN: in the rows alone, and not in the loss.
    monkeypatch.setattr(
        trainer.model, "loss", lambda one: honest(one) + (trainer.embed(one, ["user"]) * 0).sum().sqrt()
    )
    assert not trainer.step(batch).is_learned
    assert trainer.counters["steps_refused"] == 1
    moved = {name for name, value in dense(trainer.model).items() if value != before[name]}
    assert not [name for name in moved if name in dict(trainer.model.named_parameters())]
    np.testing.assert_array_equal(trainer.embeddings.tables[8].lookup(batch.slot("user").values), vectors)


@pytest.mark.parametrize("poison", ["labels", "dense", "weights"])
def test_loss_that_is_no_number_changes_no_parameter(world, dense, poison) -> None:
    trainer = world.trainer()
    for number in range(5):
        trainer.step(world.batch(number))
    before, vectors = dense(trainer.model), trainer.embeddings.tables[8].lookup(world.batch(4).slot("user").values)
    batch = world.batch(4)
    bad = torch.full((batch.size,), torch.nan)
    changed = {"labels": {"labels": {"click": bad}}, "dense": {"dense": {"hour": bad}}, "weights": {"weights": bad}}
    report = trainer.step(replace(batch, **changed[poison]))
    assert not report.is_learned
    assert trainer.counters["steps_refused"] == 1
    assert trainer.counters["examples_refused"] == batch.size
    assert trainer.judge is not None
    assert np.isfinite(trainer.judge.auc)  # one such batch would otherwise make it NaN for good
    moved = {name for name, value in dense(trainer.model).items() if value != before[name]}
    assert not [name for name in moved if name in dict(trainer.model.named_parameters())]
    np.testing.assert_array_equal(trainer.embeddings.tables[8].lookup(batch.slot("user").values), vectors)


def test_empty_record_is_a_version_and_nothing_else(world, rows, dense) -> None:
    trainer = world.trainer()
    trainer.step(world.batch(0))
    before = rows(trainer), dense(trainer.model)
    empty = encode_examples(
        world.schema, world.batch(0).take(torch.empty(0, dtype=torch.int64)).to_examples(world.schema), {"actions/0": 7}
    )
    report = trainer.learn(Record(0, 0, empty))
    assert report is not None
    assert (report.example_count, report.is_learned, trainer.version) == (0, False, 2)
    assert trainer.positions["actions/0"] == 7
    assert (rows(trainer), dense(trainer.model)) == before


def test_examples_deleted_unlearned_are_counted_and_begin_a_new_lineage(world, filled_log) -> None:
    trainer = world.trainer()
    lineage = trainer.lineage
    filled_log.truncate(Topic.EXAMPLES, 0, 10)
    first, _ = filled_log.bounds(Topic.EXAMPLES, 0)
    assert first > 0
    _follow_to_the_end(trainer, filled_log)
    assert trainer.counters["records_gone"] == first
    assert trainer.version == 60 - first
    assert trainer.lineage != lineage


def test_trainer_judges_before_it_learns(world) -> None:
    # A label that is a coin toss: whoever learned before judging would know it.
    trainer = world.trainer(TrainConfig(learning_rate=0.1))
    batch = world.batch(0, 64)
    trainer.step(batch)
    before = trainer.judge.auc
    for _ in range(50):
        trainer.model.train()
        trainer.step(batch)
    assert before < 0.7 < trainer.judge.auc


def test_changed_settings_of_learning_begin_a_new_lineage(world, tmp_path) -> None:
    trainer = world.trainer()
    trainer.step(world.batch(0))
    snapshot = trainer.save(tmp_path)
    assert Trainer.resume(load_snapshot(snapshot), TrainConfig()).lineage == trainer.lineage
    other = Trainer.resume(load_snapshot(snapshot), TrainConfig(learning_rate=0.5))
    assert other.lineage != trainer.lineage
    assert other.version == 1


def test_optimizer_state_of_another_model_is_refused(world, tmp_path) -> None:
    trainer = world.trainer()
    trainer.step(world.batch(0))
    snapshot = load_snapshot(trainer.save(tmp_path))
    wrong = replace(snapshot, optimizer={"nobody.first": torch.zeros(3)})
    with pytest.raises(SnapshotError, match="snapshot 000000000001: the optimiser's state is of another model"):
        Trainer.resume(wrong)


def test_unregistered_model_needs_a_description_for_its_snapshot(world, tmp_path) -> None:
    plain = world.trainer()

    class Mine(type(plain.model)):  # stands for a user's own class
        pass

    plain.model.__class__ = Mine
    with pytest.raises(ConfigError, match="Mine cannot be imported by name"):
        plain.save(tmp_path)
    own = Trainer(plain.model, plain.embed, description={"name": "mine", "options": {"a": 1}})
    own.step(world.batch(0))
    snapshot = load_snapshot(own.save(tmp_path), builder=lambda *_: world.trainer().model)
    assert (snapshot.manifest.model, snapshot.manifest.model_options) == ("mine", {"a": 1})


def test_examples_of_another_schema_are_bad_records(world) -> None:
    record = world.record(0)
    with pa.ipc.open_stream(record) as stream:
        table = stream.read_all()
    metadata = {**table.schema.metadata, b"dolmen.schema": b"ffffffffffffffff"}
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema.with_metadata(metadata)) as stream:
        stream.write_table(table.replace_schema_metadata(metadata))
    with pytest.raises(SchemaError):
        decode_examples(world.schema, bytes(sink.getvalue()))
    trainer = world.trainer()
    assert trainer.learn(Record(0, 0, bytes(sink.getvalue()))) is None
    assert trainer.counters["records_bad"] == 1


def test_a_table_keeps_the_capacity_that_the_settings_give_it(world, tmp_path) -> None:
    trainer = world.trainer(TrainConfig(table_capacity=40))
    for number in range(6):
        trainer.step(world.batch(number))
    assert trainer.counters["evicted"] > 0
    trainer.embeddings.maintain()  # what the last batch brought
    assert max(len(table) for table in trainer.embeddings.tables.values()) == 40
    snapshot = load_snapshot(trainer.save(tmp_path))
    assert Trainer.resume(snapshot).embeddings.capacity == Capacity(40)
    assert Trainer.resume(snapshot, TrainConfig(table_capacity=50)).embeddings.capacity == Capacity(50)


def _told(*items: int, removed: bool = False) -> list[bytes]:
    changes = [CatalogueChange("item", item, {"genres": [f"told-{item}"]}, removed) for item in items]
    return [encode(change) for change in (CatalogueChange("user", 5, {}), *changes)]


def _genre_rows(trainer: Trainer, *items: int) -> list[bool]:
    fids = encode_values(trainer.schema.slot_number("genres"), [f"told-{item}" for item in items])
    return trainer.embed.peek("genres", torch.from_numpy(fids)).any(dim=1).tolist()


def test_what_the_catalogue_tells_gets_rows_where_the_trainer_reads_it(world, filled_log) -> None:
    filled_log.append(Topic.CATALOGUE, _told(1, 2))
    _, end = filled_log.bounds(Topic.EXAMPLES, 0)
    deaf, hears = (world.trainer(TrainConfig(read_catalogue=reads)) for reads in (False, True))
    _follow_to_the_end(deaf, filled_log)
    assert _genre_rows(deaf, 1, 2) == [False, False]
    stop = threading.Event()
    hears.follow(filled_log, stop, between=lambda: stop.set() if hears.offset > end else None, wait_seconds=0.0)
    assert _genre_rows(hears, 1, 2) == [True, True]
    assert hears.positions["catalogue/0"] == 3
    assert hears.judge.state_dict() == deaf.judge.state_dict()  # nobody was asked about them
    filled_log.append(Topic.CATALOGUE, [*_told(3), b"no change", *_told(4), *_told(4, removed=True)])
    stop.clear()
    hears.follow(filled_log, stop, between=lambda: stop.set() if hears.offset > end + 1 else None, wait_seconds=0.0)
    assert _genre_rows(hears, 3, 4) == [True, False]
    assert filled_log.bounds(Topic.EXAMPLES, 0)[1] == end + 2


def test_a_trainer_killed_after_it_wrote_what_the_catalogue_tells_writes_it_once(
    world, filled_log, rows, dense
) -> None:
    filled_log.append(Topic.CATALOGUE, _told(*range(20)))
    config = TrainConfig(read_catalogue=True)
    killed = world.trainer(config)
    _follow_to_the_end(killed, filled_log)
    _, end = filled_log.bounds(Topic.EXAMPLES, 0)
    assert tell_items(filled_log, world.schema, killed.positions)  # and here it is killed
    trainers = [world.trainer(config) for _ in range(2)]
    for trainer in trainers:
        stop, idle = threading.Event(), []

        def between(trainer=trainer, stop=stop, idle=idle) -> None:
            idle.append(trainer.offset)
            if idle[-2:] == [end + 1] * 2:  # once after the last record, once where there is none
                stop.set()

        trainer.follow(filled_log, stop, between=between, wait_seconds=0.0)
    assert filled_log.bounds(Topic.EXAMPLES, 0)[1] == end + 1
    assert rows(trainers[0]) == rows(trainers[1])
    assert dense(trainers[0].model) == dense(trainers[1].model)
    assert trainers[0].positions["catalogue/0"] == 21

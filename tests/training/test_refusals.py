"""Records whose data the model cannot take: what remains is as if they, or those examples, had never been there."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from dolmen.errors import ConfigError, SchemaError
from dolmen.events import Record, encode_examples
from dolmen.features import Batch, Label, Schema, Slot, extract_rows
from dolmen.training import TrainConfig, Trainer, load_snapshot, new_trainer
from dolmen.training.specimens import Specimens

SCHEMA = Schema(
    Slot("user", dim=4),
    Slot("item", dim=5, admit_after=2, expire_after="2d"),
    Slot("brand", dim=5, of="item"),
    Slot("history", dim=5, table="item", many=True, ordered=True, of="user"),
    Slot("history_brand", dim=5, table="brand", many=True, ordered=True, of="user"),
    Label("click"),
)
_DAY_US = 86_400_000_000


def example(number: int, *, lacks: bool = False) -> dict[str, Any]:
    """One that lacks a brand has ids of its own, and a time of its own far ahead."""
    first = number + 1_000_000 * lacks
    brands = [f"b{one % 4}" for one in (first, first + 1)]
    return {
        "user": first % 7,
        "item": first,
        "brand": brands[0],
        "history": [first, first + 1],
        "history_brand": brands[lacks:],
        "click": number % 2,
        "time": 10_000 * _DAY_US + number * _DAY_US // 20 + 9 * _DAY_US * lacks,
    }


def record(offset: int, rows: Sequence[Mapping[str, Any]], *, accounted: int | None = None) -> Record:
    plain = extract_rows(SCHEMA, rows, with_labels=True)
    times_us = torch.tensor([row["time"] for row in rows])
    batch = Batch(size=len(rows), slots=plain.slots, labels=plain.labels, event_times_us=times_us)
    positions = {"actions/0": accounted if accounted is not None else 10 * offset}
    return Record(offset, 2**60, encode_examples(SCHEMA, batch.to_examples(SCHEMA), positions))


def good(offset: int) -> Record:
    return record(offset, [example(12 * offset + one) for one in range(12)])


def trainer_of(model: str = "din", **config: Any) -> Trainer:
    options: dict[str, Any] = {"history": ("history", "history_brand"), "hidden": [8]}
    if model == "joint":
        options = {"ranker": "din", "ranker_options": options, "retriever_options": {"hidden": [8], "dim": 8}}
    return new_trainer(SCHEMA, model, options, TrainConfig(learning_rate=0.01, **config))


Holds = Callable[[Any], Any]


@pytest.fixture
def everything(rows: Holds, dense: Holds) -> Holds:
    """All that goes into a snapshot, but counters."""

    def held(trainer: Trainer) -> tuple[Any, ...]:
        contents = trainer.contents(created_time_us=0)
        return (
            rows(trainer),
            dense(trainer.model),
            {name: tensor.numpy().tobytes() for name, tensor in contents.optimizer.items()},
            contents.evaluation,
            (trainer.version, trainer.offset, trainer.positions, trainer.newest_event_time_us),
        )

    return held


@pytest.mark.parametrize("model", ["din", "joint"])
@pytest.mark.parametrize("evaluate_every", [0, 1])
def test_of_a_record_the_examples_that_fit_are_learned_as_if_the_others_had_never_been_there(
    tmp_path: Path, everything: Holds, model: str, evaluate_every: int
) -> None:
    clean = [example(60 + one) for one in range(12)]
    mixed = [*clean[:3], example(1, lacks=True), *clean[3:11], example(2, lacks=True), clean[11]]
    trained, expected = (trainer_of(model, evaluate_every=evaluate_every) for _ in range(2))
    trained.specimens = Specimens(tmp_path)
    for trainer, rows in ((trained, mixed), (expected, clean)):
        for one in [*map(good, range(5)), record(5, rows), *map(good, range(6, 12))]:
            report = trainer.learn(one)
            assert report is not None
            assert report.is_learned
    assert everything(trained) == everything(expected)
    assert trained.counters["expired"] > 0, "expiry must be part of what is compared"
    changed = {name: count for name, count in trained.counters.items() if count != expected.counters[name]}
    assert changed == {"examples": 12 * 12 + 2, "examples_refused": 2}
    (why,) = tmp_path.glob("*.txt")
    assert "2 of 14 examples: slots 'history' and 'history_brand' have different counts of values" in why.read_text()
    assert "(example 3: 2 and 1)" in why.read_text()


def test_a_record_without_an_example_that_fits_leaves_what_one_that_does_not_decode_leaves(
    tmp_path: Path, everything: Holds
) -> None:
    unusable = record(5, [example(one, lacks=True) for one in range(5)], accounted=777)
    trained, expected = trainer_of(), trainer_of()
    for trainer, fifth in ((trained, unusable), (expected, Record(5, 2**60, b"no arrow"))):
        reports = [trainer.learn(one) for one in [*map(good, range(5)), fifth, *map(good, range(6, 9))]]
        assert [report is None for report in reports] == [place == 5 for place in range(9)]
    assert everything(trained) == everything(expected)
    assert trained.counters == expected.counters
    assert trained.counters["records_bad"] == 1
    # And who comes back from a snapshot of before passes it over again.
    back = trainer_of()
    for one in map(good, range(5)):
        back.learn(one)
    back = Trainer.resume(load_snapshot(back.save(tmp_path)))
    for one in [unusable, *map(good, range(6, 9))]:
        back.learn(one)
    assert everything(back) == everything(trained)


def own_refusal(trainer: Trainer, monkeypatch: pytest.MonkeyPatch, refuse: Callable[[Batch], None]) -> None:
    """A model that finds out by itself, and only after it has read rows."""
    loss = trainer.model.loss

    def refusing(batch: Batch) -> Tensor:
        found = loss(batch)
        refuse(batch)
        return found

    monkeypatch.setattr(trainer.model, "loss", refusing)


def test_what_a_model_finds_out_by_itself_is_passed_over_too_and_a_replay_has_the_same_bits(
    monkeypatch: pytest.MonkeyPatch, everything: Holds
) -> None:
    def refuse(batch: Batch) -> None:
        if bool((batch.slot("user").values & 7 == 3).any()):
            raise SchemaError("user 3 is not welcome")

    held = []
    for _ in range(2):
        trainer = trainer_of()
        own_refusal(trainer, monkeypatch, refuse)
        reports = [trainer.learn(one) for one in [*map(good, range(4)), record(4, [example(3)])]]
        welcome = [sum(example(12 * place + one)["user"] != 3 for one in range(12)) for place in range(4)]
        assert [report.example_count if report else 0 for report in reports[:4]] == welcome
        assert reports[4] is None
        assert (trainer.counters["examples"], trainer.counters["examples_refused"]) == (48, 48 - sum(welcome))
        assert trainer.version == trainer.offset == 5
        held.append(everything(trainer))
    assert held[0] == held[1]


def test_what_is_no_data_s_fault_ends_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    def unable(_: Batch) -> None:
        raise SchemaError("the batch has no slot 'colour'")

    trainer = trainer_of()
    own_refusal(trainer, monkeypatch, unable)
    with pytest.raises(ConfigError, match="cannot work with this schema: the batch has no slot 'colour'"):
        trainer.learn(good(0))

    def broken(_: Batch) -> None:
        raise RuntimeError("out of memory")

    trainer = trainer_of()
    own_refusal(trainer, monkeypatch, broken)
    with pytest.raises(RuntimeError, match="out of memory"):
        trainer.learn(good(0))


def test_histories_that_can_never_go_together_are_refused_before_anything_is_learned() -> None:
    plain = dict(SCHEMA.slots)
    shorter = Slot("history_brand", dim=5, table="brand", many=True, ordered=True, max_len=3, of="user")
    many = Slot("brand", dim=5, many=True, of="item")
    for changed, message in ((shorter, "need one max_len, got None and 3"), (many, "has many values of 'brand'")):
        schema = Schema(*(plain | {changed.name: changed}).values(), Label("click"))
        with pytest.raises(SchemaError, match=message):
            new_trainer(schema, "din", {"history": ("history", "history_brand")})

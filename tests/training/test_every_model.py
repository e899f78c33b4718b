"""What every registered model owes the trainer: options as TOML, snapshots that come back, a schema that is checked."""

import tomllib
from pathlib import Path

import pytest
import tomli_w
import torch

from dolmen import new_trainer
from dolmen.devices import Arithmetic, Device
from dolmen.errors import SnapshotError
from dolmen.features import Label, Schema, Slot
from dolmen.models import entry, names
from dolmen.settings import read_settings, write_settings
from dolmen.testing import example_batch, example_schema
from dolmen.training import TrainConfig, Trainer, load_snapshot, validate


@pytest.mark.parametrize("name", names())
def test_a_snapshot_goes_on_where_it_was_taken_and_asks_for_its_schema(name: str, tmp_path: Path) -> None:
    schema = example_schema()
    trainer = new_trainer(schema, name)
    config = trainer.model.config
    written = tomllib.loads(tomli_w.dumps(write_settings(config)))
    assert read_settings(type(config), written, "model") == config == entry(name).config()
    batches = [example_batch(schema, 16, seed=seed) for seed in range(3)]
    for batch in batches[:2]:
        trainer.step(batch)
    path = trainer.save(tmp_path)
    again = Trainer.resume(load_snapshot(path, schema=schema))
    assert type(again.model) is entry(name).model
    assert again.step(batches[2]).loss == trainer.step(batches[2]).loss
    for key, tensor in trainer.model.state_dict().items():
        assert torch.equal(again.model.state_dict()[key], tensor), key
    other = Schema(Slot("user", dim=8), Slot("item", dim=8), Label("click"))
    with pytest.raises(SnapshotError, match="schema"):
        load_snapshot(path, schema=other)


@pytest.mark.parametrize("name", names())
def test_it_learns_in_bfloat16_nearly_what_it_learns_in_float32(name: str) -> None:
    schema = example_schema()
    batches = [example_batch(schema, 32, seed=seed) for seed in range(3)]
    losses = {}
    for arithmetic in Arithmetic:
        trainer = new_trainer(schema, name, config=TrainConfig(arithmetic=arithmetic, device=Device.AUTO))
        losses[arithmetic] = [trainer.step(batch).loss for batch in batches]
        assert trainer.counters["steps_refused"] == 0
        assert all(one.dtype != torch.bfloat16 for one in trainer.model.state_dict().values())
    # A number of bfloat16 has 8 bits: a product of matrices is off by up to 2^-8 of itself, a loss by less.
    assert losses[Arithmetic.BFLOAT16] == pytest.approx(losses[Arithmetic.FLOAT32], rel=2**-8)
    with torch.no_grad():
        plain = sum(trainer.model.eval().loss(batch).item() for batch in batches) / len(batches)
    assert validate(trainer, batches).loss == pytest.approx(plain, rel=2**-8)

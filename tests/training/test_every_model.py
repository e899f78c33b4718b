"""What every registered model owes the trainer: options as TOML, snapshots that come back, a schema that is checked."""

import tomllib
from pathlib import Path

import pytest
import tomli_w
import torch

from dolmen import new_trainer
from dolmen.errors import SnapshotError
from dolmen.features import Label, Schema, Slot
from dolmen.models import entry, names
from dolmen.settings import read_settings, write_settings
from dolmen.testing import example_batch, example_schema
from dolmen.training import Trainer, load_snapshot


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

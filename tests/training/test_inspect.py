import json

import pytest

from dolmen.errors import SnapshotError
from dolmen.training import describe_snapshot


def test_description_tells_rows_counts_and_ages_by_slot(world, tmp_path) -> None:
    trainer = world.trainer()
    for number in range(10):
        trainer.step(world.batch(number))
    trainer.save(tmp_path, created_time_us=5)
    told = describe_snapshot(tmp_path, top_count=3)
    assert json.loads(json.dumps(told)) == told
    assert told["version"] == 10
    assert told["created_time_us"] == 5
    assert told["slots"].keys() == {"user", "item", "genres"}, "history shares the rows of item"
    assert sum(slot["rows"] for slot in told["slots"].values()) == told["rows"] == len(trainer.embeddings)
    users = trainer.embeddings.tables[8]
    assert told["slots"]["user"]["sights"] == users.total_count(world.schema.slot_number("user"))
    norms = told["slots"]["user"]["norms"]
    assert 0 < norms["min"] <= norms["p50"] <= norms["p99"] <= norms["max"]
    assert told["slots"]["item"]["ages_seconds"]["max"] <= 10 * 86_400 / 4
    top = told["slots"]["user"]["top_ids"]
    assert len(top) == 3
    assert top[0][1] == told["slots"]["user"]["counts"]["max"]
    assert all(0 <= user < 50 for user, _ in top), "small integers read as themselves"


def test_untrained_snapshot_can_be_described_too(world, tmp_path) -> None:
    world.trainer().save(tmp_path)
    told = describe_snapshot(tmp_path)
    assert told["rows"] == 0
    assert told["slots"]["user"]["norms"] == {}


def test_nothing_there_is_said(tmp_path) -> None:
    with pytest.raises(SnapshotError, match="there is no snapshot"):
        describe_snapshot(tmp_path)

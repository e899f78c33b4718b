"""What the studies of ranking by behaviour make of a data set's times."""

from __future__ import annotations

import torch

from dolmen.features import Batch, Jagged, pack_fids, values_of
from dolmen.studies import clicks

DAY = 86_400


def test_an_age_is_a_step_of_the_time_from_the_behaviour_to_its_own_example() -> None:
    schema = clicks._schema(clicks.MOVIELENS, has_ages=True)
    now = 1000 * DAY
    ages = [59, 60, 2 * DAY - 1, 2 * DAY, 179 * DAY, 500 * DAY]
    steps = [0, 1, 10, 11, 17, 18]
    times = torch.tensor([now - age for age in ages])
    history = Jagged(torch.from_numpy(pack_fids(9, times.numpy())), torch.tensor([0, 4, 4, 6]))
    batch = Batch(size=3, slots={"history_when": history}, event_times_us=torch.tensor([now, now + 7, now]) * 1_000_000)

    told = clicks._with_ages(batch, schema)

    assert set(told.slots) == {clicks.AGES}
    assert values_of(told.slot(clicks.AGES).values.numpy()).tolist() == steps
    assert torch.equal(told.slot(clicks.AGES).offsets, history.offsets)

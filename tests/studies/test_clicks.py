"""What the studies of ranking by behaviour share: ages made of times, floors under their arms, what is timed."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import normalize

from dolmen.features import Batch, Jagged, pack_fids, values_of
from dolmen.models.layers.attention import attend_by_angle
from dolmen.models.layers.behaviours import Past, pooled
from dolmen.studies import Finished, Results, Verdict, clicks, sdim, study, verdict_of

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


@pytest.mark.parametrize("name", ["din", "sdim", "tin"])
def test_an_arm_that_learns_nothing_fails_a_guard(name: str) -> None:
    one = study(name)
    cells = [cell for cell in one.quick.cells() if cell.case in (clicks.MOVIELENS, clicks.LONG)]
    for dead in {cell.arm for cell in cells}:
        learned = {
            cell: Finished(figures=dict.fromkeys(one.figures, 0.5 if cell.arm == dead else 0.68), seconds=1.0)
            for cell in cells
        }
        broken = [
            guard.name
            for guard in one.guards
            if verdict_of(guard.rule.findings(Results(learned), [cells[0].case])) is Verdict.FAILS
        ]
        assert f"{dead} learns" in broken


def test_attention_as_it_is_timed_is_what_the_model_computes() -> None:
    generator = torch.Generator().manual_seed(0)
    vectors, candidates = torch.randn(40, 6, generator=generator), torch.randn(3, 6, generator=generator)
    timed = sdim.attended(candidates, normalize(vectors, dim=1), vectors, 0.5)
    for candidate, actual in zip(candidates.split(1), timed, strict=True):
        past = Past(vectors, torch.zeros(40, dtype=torch.int64), torch.tensor([0, 40]))
        expected = pooled(past, attend_by_angle(candidate, past, 0.5))
        assert torch.allclose(actual, expected[0], atol=1e-5)

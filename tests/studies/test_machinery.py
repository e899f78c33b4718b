"""What the machinery computes decides cells, however its code reads."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from dolmen import studies
from dolmen.devices import Device
from dolmen.embedding.table import Table
from dolmen.studies.machinery import BESIDE, machinery_fingerprint
from dolmen.studies.reach import reach_of_study
from dolmen.training.adam import FlatAdam


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    machinery_fingerprint.cache_clear()
    yield
    machinery_fingerprint.cache_clear()


def test_the_same_machinery_has_one_mark_whatever_was_drawn_before() -> None:
    before = machinery_fingerprint(Device.CPU)
    machinery_fingerprint.cache_clear()
    torch.manual_seed(7)
    assert machinery_fingerprint(Device.CPU) == before


@pytest.mark.parametrize(("owner", "method", "place"), [(Table, "apply_gradients", 3), (FlatAdam, "step", 1)])
def test_another_step_is_another_machinery(
    monkeypatch: pytest.MonkeyPatch, owner: type, method: str, place: int
) -> None:
    before = machinery_fingerprint(Device.CPU)
    machinery_fingerprint.cache_clear()
    real = getattr(owner, method)

    def a_little_further(*told: Any, **named: Any) -> Any:
        return real(*told[:place], told[place] * (1 + 1e-6), *told[place + 1 :], **named)

    monkeypatch.setattr(owner, method, a_little_further)
    assert machinery_fingerprint(Device.CPU) != before


def test_every_study_that_trains_is_keyed_by_the_machinery_and_reads_what_the_probe_does_not_show() -> None:
    for name in studies.names():
        reach = reach_of_study(studies.study(name))
        assert reach.machinery, name
        assert {place.partition(":")[0] for place in BESIDE} <= set(reach.modules), name

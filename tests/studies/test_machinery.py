"""What the machinery computes decides cells, however its code reads."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from dolmen import _core, studies
from dolmen.devices import Device
from dolmen.embedding.table import Table
from dolmen.studies.machinery import BESIDE, UNPROBED, machinery_fingerprint
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


def test_the_probe_calls_all_of_the_core_that_is_not_left_out_for_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    """The code of the core is not read, so what the probe does not call could change unseen, as SimHash once could."""
    called: set[str] = set()

    def noting(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*told: Any, **named: Any) -> Any:
            called.add(name)
            return real(*told, **named)

        return call

    for name in _core.__all__:
        real = getattr(_core, name)
        for module in [one for called_so, one in sys.modules.items() if called_so.startswith("dolmen.")]:
            for place in [place for place, there in vars(module).items() if there is real]:
                monkeypatch.setattr(module, place, noting(name, real))
    machinery_fingerprint(Device.CPU)
    assert called == set(_core.__all__) - set(UNPROBED)


@pytest.mark.parametrize("name", ["hash_into_buckets", "read_buckets"])
def test_other_buckets_are_another_machinery(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    before = machinery_fingerprint(Device.CPU)
    machinery_fingerprint.cache_clear()
    real = getattr(_core, name)

    def into(*told: Any) -> None:
        real(*told)
        told[-1][0, 0] += 1

    monkeypatch.setattr(f"dolmen.studies.machinery.{name}", into)
    assert machinery_fingerprint(Device.CPU) != before


def test_every_study_that_trains_is_keyed_by_the_machinery_and_reads_what_the_probe_does_not_show() -> None:
    for name in studies.names():
        reach = reach_of_study(studies.study(name))
        assert reach.machinery, name
        assert {place.partition(":")[0] for place in BESIDE} <= set(reach.modules), name

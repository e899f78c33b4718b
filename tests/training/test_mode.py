"""Switching between judging and learning reaches every module, as torch's own switch does."""

from typing import Any

import torch
from torch import nn

from dolmen.training.mode import set_mode


class Frozen(nn.BatchNorm1d):
    """Keeps its statistics, whatever the model does."""

    def train(self, mode: bool = True) -> Any:
        del mode
        return super().train(False)


def modes(model: nn.Module) -> list[bool]:
    return [module.training for module in model.modules()]


def test_every_module_changes_its_mode_and_back() -> None:
    model: Any = nn.Sequential(nn.Linear(3, 3), nn.Sequential(nn.Dropout(0.5), nn.ReLU()))
    for is_training in (False, True, False):
        set_mode(model, is_training=is_training)
        assert modes(model) == [is_training] * 5
    assert torch.equal(model(torch.ones(1, 3)), model(torch.ones(1, 3)))  # dropout rests


def test_a_module_with_a_switch_of_its_own_is_asked() -> None:
    model: Any = nn.Sequential(nn.Linear(3, 3), Frozen(3).eval())
    model.eval()
    set_mode(model, is_training=True)
    assert modes(model) == [True, True, False]

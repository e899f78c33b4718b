"""Activations that learn: Dice, and the choice among those that a config may name."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import final

import torch
from torch import Tensor, nn

from dolmen.models.layers.moments import Moments

__all__ = ["Activation", "Dice", "activations"]


class Activation(StrEnum):
    """What stands between two layers."""

    DICE = "dice"
    PRELU = "prelu"
    RELU = "relu"
    SIGMOID = "sigmoid"


@final
class Dice(nn.Module):
    """p x + (1 - p) alpha x with p = sigmoid((x - E) / sqrt(Var + epsilon)), channel by channel.

    Source: G. Zhou et al., "Deep Interest Network for Click-Through Rate Prediction", KDD 2018, equations 8 and 9.
    Departs from the paper: without ``of_batch``, E and Var are those of the last ``window`` rows in training, too, so
    that a stream cut into tiny records learns what it is scored with.

    Args:
        channels: columns.
        window: rows that the running moments reach back.
        of_batch: in training, the batch's own moments, as in the paper.
        epsilon: as in the paper.
    """

    def __init__(self, channels: int, window: int, *, of_batch: bool = False, epsilon: float = 1e-8) -> None:
        super().__init__()
        self.moments, self.epsilon = Moments(channels, window, of_batch=of_batch), epsilon
        self.alpha = nn.Parameter(torch.zeros(channels))

    def forward(self, inputs: Tensor) -> Tensor:
        """(count, channels) to the same."""
        mean, variance = self.moments(inputs)
        on = torch.sigmoid((inputs - mean) * torch.rsqrt(variance + self.epsilon))
        # p x + (1 - p) alpha x, with one product less
        activated: Tensor = inputs * torch.lerp(self.alpha, self.alpha.new_ones(()), on)
        return activated


def activations(name: Activation, window: int, *, of_batch: bool = False) -> Callable[[int], nn.Module]:
    """From a width to the activation called ``name``; ``window`` and ``of_batch`` are for ``Dice``."""
    match name:
        case Activation.DICE:
            return lambda width: Dice(width, window, of_batch=of_batch)
        case Activation.PRELU:
            return nn.PReLU
        case Activation.RELU:
            return lambda _: nn.ReLU()
        case Activation.SIGMOID:
            return lambda _: nn.Sigmoid()

"""Mean and variance of each channel, as a batch and as a stream see them, and what normalises by them.

A batch of thousands knows its own moments well. A record of a stream may hold one example, whose variance is 0; there
the moments of the last ``window`` rows are the better estimate, and one formula gives both: the moments so far, with
this batch mixed in by its share of the window. Gradients flow through the batch's share.
"""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn

__all__ = ["Moments", "Normalized"]


@final
class Moments(nn.Module):
    """Mean and (biased) variance by channel. In evaluation mode: those that learning left, whatever the batch.

    Source of the batch form: S. Ioffe and C. Szegedy, "Batch Normalization", ICML 2015, algorithm 1 and 2.

    Args:
        channels: columns.
        window: rows that the running moments reach back; an older row counts less by exp(-age / window).
        of_batch: in training mode use the batch's own moments, as papers do, rather than those of the window.
    """

    mean: Tensor
    variance: Tensor
    filled: Tensor

    def __init__(self, channels: int, window: int, *, of_batch: bool = False) -> None:
        super().__init__()
        self.window, self.of_batch = window, of_batch
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("variance", torch.ones(channels))
        self.register_buffer("filled", torch.zeros(()))  # how much of the window real rows have filled, 0 to 1

    def forward(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance, each (channels,), by which ``rows`` (count, channels) are to be normalised."""
        count = len(rows)
        if not self.training or count == 0:
            return self.mean.clone(), self.variance.clone()
        variance_now, mean_now = torch.var_mean(rows, dim=0, correction=0)
        # As if the rows had come one by one, each with the weight 1 / window. The first ones count in full.
        weight = 1 - (1 - 1 / self.window) ** count
        filled = self.filled + (1 - self.filled) * weight
        share = weight / filled
        apart = mean_now - self.mean
        mean = self.mean + share * apart
        variance = self.variance + share * (variance_now - self.variance) + share * (1 - share) * apart.square()
        with torch.no_grad():
            self.filled.copy_(filled)
            self.mean.copy_(mean)
            self.variance.copy_(variance)
        return (mean_now, variance_now) if self.of_batch else (mean, variance)


@final
class Normalized(nn.Module):
    """Each channel less its mean, over its standard deviation: (count, channels) to the same.

    The start values of rows are a hundredth of what layers expect, and products of two of them a ten-thousandth;
    behind this a network sees them at its own scale from the first step on.
    """

    def __init__(self, channels: int, window: int, *, of_batch: bool = False, epsilon: float = 1e-8) -> None:
        super().__init__()
        self.moments, self.epsilon = Moments(channels, window, of_batch=of_batch), epsilon

    def forward(self, rows: Tensor) -> Tensor:
        """The normalised rows."""
        mean, variance = self.moments(rows)
        normalized: Tensor = (rows - mean) * torch.rsqrt(variance + self.epsilon)
        return normalized

"""Plain layers between vectors and outputs."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import final

from torch import Tensor, nn

__all__ = ["MLP"]


@final
class MLP(nn.Module):
    """Linear layers with ReLU between them: (batch, width_in) to (batch, width_out).

    Args:
        width_in: columns that come in.
        hidden: widths of the hidden layers; none makes it one linear map.
        width_out: columns that go out.
        has_shortcut: add a linear map from in to out. It learns from the first examples on, while the hidden layers,
            whose gradients start small where rows start small, are still waking.
    """

    def __init__(self, width_in: int, hidden: Sequence[int], width_out: int, *, has_shortcut: bool = False) -> None:
        super().__init__()
        widths = [width_in, *hidden]
        layers: list[nn.Module] = []
        for before, after in pairwise(widths):
            layers += [nn.Linear(before, after), nn.ReLU()]
        self.layers = nn.Sequential(*layers, nn.Linear(widths[-1], width_out))
        self.shortcut = nn.Linear(width_in, width_out, bias=False) if has_shortcut and hidden else None

    def forward(self, inputs: Tensor) -> Tensor:
        """The output layer's values, shape (batch, width_out)."""
        out: Tensor = self.layers(inputs)
        return out if self.shortcut is None else out + self.shortcut(inputs)

"""Plain layers between vectors and outputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import final

from torch import Tensor, nn

__all__ = ["MLP"]


@final
class MLP(nn.Module):
    """Linear layers with an activation between them: (batch, width_in) to (batch, width_out).

    Args:
        width_in: columns that come in.
        hidden: widths of the hidden layers; none makes it one linear map.
        width_out: columns that go out.
        starts_at_zero: give zeros until something is learned, for a network that is added to something plainer.
        activation: from the width of a hidden layer to what follows it; ReLU if ``None``.
    """

    def __init__(
        self,
        width_in: int,
        hidden: Sequence[int],
        width_out: int,
        *,
        starts_at_zero: bool = False,
        activation: Callable[[int], nn.Module] | None = None,
    ) -> None:
        super().__init__()
        widths = [width_in, *hidden]
        layers: list[nn.Module] = []
        for before, after in pairwise(widths):
            layers += [nn.Linear(before, after), activation(after) if activation is not None else nn.ReLU()]
        last = nn.Linear(widths[-1], width_out)
        if starts_at_zero:
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)
        self.layers = nn.Sequential(*layers, last)

    def forward(self, inputs: Tensor) -> Tensor:
        """The output layer's values, shape (batch, width_out)."""
        out: Tensor = self.layers(inputs)
        return out

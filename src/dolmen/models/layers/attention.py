"""How much each behaviour has to say about a candidate: DIN's activation unit, and the softmax over a ragged past."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import final

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, normalize

from dolmen.models.layers.behaviours import Past
from dolmen.models.layers.mlp import MLP

__all__ = ["ActivationUnit", "attend", "attend_by_angle", "effective_counts", "softmax_of_each"]


@final
class ActivationUnit(nn.Module):
    """One number for each behaviour: a small network over candidate q, behaviour k, q - k and q k.

    Source: G. Zhou et al., KDD 2018, section 4.3 and figure 2; the four inputs are those of the authors' code.

    The first layer is one matrix W over the four inputs side by side. It is applied as
    (W_q + W_d) q + (W_k - W_d) k + W_p (q k): the same sums, but the part of q once for each example rather than for
    each behaviour, and nothing is laid side by side.

    Args:
        width: of a candidate and of a behaviour.
        hidden: widths of the hidden layers, at least one (paper's figure: 36; the authors' code: 80, 40).
        activation: from a width to what follows each hidden layer.
        starts_at_zero: give zeros until something is learned.
    """

    def __init__(
        self,
        width: int,
        hidden: Sequence[int],
        activation: Callable[[int], nn.Module],
        *,
        starts_at_zero: bool = False,
    ) -> None:
        super().__init__()
        self.first = nn.Linear(4 * width, hidden[0])
        self.activation = activation(hidden[0])
        self.rest = MLP(hidden[0], hidden[1:], 1, starts_at_zero=starts_at_zero, activation=activation)

    def forward(self, candidates: Tensor, past: Past) -> Tensor:
        """Weights (total,) of the behaviours, for candidates (batch, width)."""
        of_candidate, of_past, of_difference, of_product = self.first.weight.chunk(4, dim=1)
        once = linear(candidates, of_candidate + of_difference, self.first.bias)
        owners = past.owners
        hidden = torch.addmm(once.index_select(0, owners), past.vectors, (of_past - of_difference).t())
        products = candidates.index_select(0, owners) * past.vectors
        weights: Tensor = self.rest(self.activation(torch.addmm(hidden, products, of_product.t()))).squeeze(1)
        return weights


def softmax_of_each(scores: Tensor, past: Past) -> Tensor:
    """Softmax of the scores (total,) of each example's behaviours, among themselves."""
    with torch.no_grad():  # any constant of an example cancels out; its largest score keeps exp in range
        largest = scores.new_full((past.size,), -torch.inf).scatter_reduce(0, past.owners, scores, "amax")
    powers = (scores - largest.index_select(0, past.owners)).exp()
    sums = powers.new_zeros(past.size).index_add(0, past.owners, powers)
    return powers / sums.index_select(0, past.owners)


def attend(queries: Tensor, past: Past, temperature: float) -> Tensor:
    """softmax(<q, k> / temperature) over each example's behaviours, (total,), for queries (batch, width)."""
    scores = (queries.index_select(0, past.owners) * past.vectors).sum(dim=1) / temperature
    return softmax_of_each(scores, past)


def attend_by_angle(queries: Tensor, past: Past, temperature: float) -> Tensor:
    """softmax(cos(q, k) / temperature), (total,): as ``attend`` does, however long the vectors are."""
    unit = Past(normalize(past.vectors, dim=1), past.owners, past.offsets)
    return attend(normalize(queries, dim=1), unit, temperature)


def effective_counts(weights: Tensor, past: Past) -> Tensor:
    """Of how many behaviours weights (total,) that are not negative make use in each example, (batch,).

    (sum w)^2 / sum w^2: the whole past where all count alike, 1 where one counts alone, 0 where none does.

    Source: L. Kish, "Survey Sampling", 1965, section 11.7.
    """
    total, squares = (weights.new_zeros(past.size).index_add(0, past.owners, some) for some in (weights, weights**2))
    return torch.where(squares > 0, total**2 / squares, 0.0)

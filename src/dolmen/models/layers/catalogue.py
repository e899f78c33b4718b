"""The softmax over the live catalogue: every item that has a row is a class, and its row is the class's weights.

So there is no list of classes: an item is one as soon as it has a row, and stops being one when that expires. Column 0
of a row is the item's bias, the rest its vector, and input and output rows are the same (tied).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, final

import torch
from torch import Tensor

from dolmen.embedding import Embed

__all__ = ["catalogue_loss", "softmax_loss", "with_bias"]

_CHUNK_QUERIES: Final = 128  # whose logits are made at once: of some thousand rows they stay in the caches; measured
_CHUNK_LOGITS: Final = 1 << 23  # 32 MiB at most, however many rows there are
_POWER: Final = 0.75  # of sights, in draws: popular items come often, and rare ones still do (as in word2vec)


def with_bias(states: Tensor) -> Tensor:
    """States (count, width) as queries (count, 1 + width): their inner product with a row adds the row's bias."""
    return torch.cat([states.new_ones(len(states), 1), states], dim=1)


def catalogue_loss(
    embed: Embed, slot: str, states: Tensor, targets: Tensor, weights: Tensor, *, negatives: int | None
) -> Tensor:
    """The weighted sum of -log P(target), a scalar; P is the softmax over all items of ``slot`` that have a row.

    Args:
        embed: the look-up. Targets must have been read before, so that new ones have their rows.
        slot: the items'.
        states: what came before each target, (count, width), the width of a row less its bias.
        targets: FIDs, (count,). One without a row (not admitted yet) has no say.
        weights: what each counts, (count,).
        negatives: how many items to draw for all of them together instead of taking every item, in proportion to
            sights^0.75, and corrected by ln q so that the sum of the softmax is estimated without bias; ``None``: all.
    """
    live = embed.live(slot)
    candidates, log_counts = live, None
    if negatives is not None and len(live) > 0:
        candidates, log_counts = _drawn(embed, slot, live, targets, negatives)
    rows = embed.peek(slot, candidates)
    places = torch.searchsorted(candidates, targets).clamp(max=max(0, len(candidates) - 1))
    if len(candidates) > 0:
        weights = weights * (candidates[places] == targets)
    else:  # nobody has a row
        states, places, weights = states[:0], places[:0], weights[:0]
    return softmax_loss(with_bias(states), rows, places, weights, log_counts)


def _drawn(embed: Embed, slot: str, live: Tensor, targets: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The targets and ``count`` draws from ``live``, each id once, ascending; and what each stands for.

    An id that was drawn n times with the chance q stands for n / (count q) items, on average one; one that was not
    drawn stands for none. What comes back is the logarithm.
    """
    chances = embed.sights(slot, live).clamp(min=1).pow(_POWER)
    ends = chances.double().cumsum(0)
    drawn = torch.searchsorted(ends, torch.rand(count, dtype=torch.float64) * ends[-1]).clamp(max=len(live) - 1)
    times = torch.bincount(drawn, minlength=len(live))
    stands_for = times * ends[-1] / (count * chances)
    places = torch.searchsorted(live, targets).clamp(max=len(live) - 1)
    chosen = times > 0
    chosen[places[live[places] == targets]] = True
    return live[chosen], stands_for[chosen].log().to(torch.float32)


def softmax_loss(
    queries: Tensor, rows: Tensor, places: Tensor, weights: Tensor, log_counts: Tensor | None = None
) -> Tensor:
    """The weighted sum of -log softmax(queries rows^T)[place], a scalar; nothing of the size of all logits is kept.

    The gradient is computed on the way, a few queries at a time: of the logits it is softmax less one-hot, so each
    chunk of them is made once, used three times while it is near, and forgotten.

    Args:
        queries: (count, width).
        rows: of the candidates, (candidates, width).
        places: the right candidate of each query, (count,).
        weights: what each query counts, (count,).
        log_counts: the logarithm of how many items each candidate stands for, but for the right one, which is one item;
            (candidates,). ``None``: each for itself.
    """
    apply: Callable[..., Tensor] = _SoftmaxLoss.apply
    # Mixed arithmetic ends here: a softmax over many classes sums what two bytes would round away.
    return apply(queries.to(rows.dtype), rows, places, weights, log_counts)


@final
class _SoftmaxLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, queries: Tensor, rows: Tensor, places: Tensor, weights: Tensor, log_counts: Tensor | None
    ) -> Tensor:
        needs_grad = any(ctx.needs_input_grad)
        query_grads = torch.empty_like(queries)
        row_grads = torch.zeros_like(rows)
        losses = queries.new_zeros(len(queries))
        step = max(1, min(_CHUNK_QUERIES, _CHUNK_LOGITS // max(1, len(rows))))
        buffer = queries.new_empty(min(step, len(queries)), len(rows))
        for start in range(0, len(queries), step):
            part = slice(start, start + step)
            own, place = queries[part], places[part].unsqueeze(1)
            logits = torch.mm(own, rows.t(), out=buffer[: len(own)])
            right = logits.gather(1, place)
            if log_counts is not None:
                logits.add_(log_counts).scatter_(1, place, right)
            largest = logits.amax(dim=1, keepdim=True)
            powers = logits.sub_(largest).exp_()
            sums = powers.sum(dim=1, keepdim=True)
            losses[part] = (sums.log() + largest - right).squeeze(1) * weights[part]
            if needs_grad:
                weight = weights[part].unsqueeze(1)
                powers.mul_(weight / sums).scatter_add_(1, place, -weight)
                torch.mm(powers, rows, out=query_grads[part])
                row_grads.addmm_(powers.t(), own)
        if needs_grad:
            ctx.save_for_backward(query_grads, row_grads)
        return losses.sum()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        query_grads, row_grads = ctx.saved_tensors
        return query_grads * grads[0], row_grads * grads[0], None, None, None

"""What models share that read a run from its beginning and tell the next item at each place."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dolmen.features import Batch
from dolmen.models.layers.sequences import Runs, SequenceConfig, SequenceFields

__all__ = ["NextItemConfig", "next_item_loss", "starting_vector"]


@dataclass(frozen=True, kw_only=True)
class NextItemConfig(SequenceConfig):
    """Options of models that read from the beginning: those of ``SequenceConfig`` and

    Args:
        only_last: learn the last item of each run only. For a stream: what came before was learned when it came.
    """

    only_last: bool = False


def starting_vector(width: int) -> nn.Parameter:
    """What stands in front of each run (width,), so that its first item is told from something, too."""
    return nn.Parameter(0.02 * torch.randn(width))


def next_item_loss(
    fields: SequenceFields, batch: Batch, runs: Runs, states: Tensor, config: NextItemConfig, *, is_training: bool
) -> Tensor:
    """-log P of each next item, summed over places / the number of examples, a scalar.

    Args:
        fields: how the item of an example is read; behind the last token of its run stands that one.
        batch: what is learned.
        runs: of histories, with a vector before them.
        states: after each token, (total, width).
        config: whether every place is learned.
        is_training: otherwise only the last item counts: how well the next one is told.
    """
    packed, item = runs.packed, batch.slot(fields.item)
    fields.embed.values(batch, fields.item)  # a sight: the item gets its row, if it is new
    targets = runs.fids.roll(-1)
    targets[packed.last] = item.values[item.offsets[:-1][runs.examples]]
    places = packed.last
    if is_training and not config.only_last:
        # The first item of a long run follows from nothing; it is asked for where nothing else is.
        places = ((packed.positions > 0) | (packed.lengths == 1)[packed.owners]).nonzero().squeeze(1)
    return fields.loss(batch, states[places], targets[places], runs.examples[packed.owners[places]])

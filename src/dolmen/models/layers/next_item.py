"""What models share that read a run from its beginning and tell the next item at each place."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dolmen.embedding import Embed
from dolmen.features import Batch
from dolmen.models.layers.sequences import Runs, SequenceConfig, SequenceModel

__all__ = ["NextItemConfig", "NextItemModel"]


@dataclass(frozen=True, kw_only=True)
class NextItemConfig(SequenceConfig):
    """Options of models that read from the beginning: those of ``SequenceConfig`` and

    Args:
        only_last: learn the last item of each run only. For a stream: what came before was learned when it came.
    """

    only_last: bool = False


class NextItemModel(SequenceModel):
    """A model that reads from the beginning. What it makes of each token is told by its ``states``.

    Args:
        config: which slots, and whether every place is learned.
        embed: the look-up.
    """

    def __init__(self, config: NextItemConfig, embed: Embed) -> None:
        super().__init__(config, embed)
        self._only_last = config.only_last
        # What stands in front of each run, so that its first item is told from something, too.
        self.start = nn.Parameter(0.02 * torch.randn(self.fields.width))

    @abstractmethod
    def states(self, runs: Runs) -> Tensor:
        """After each token, (total, width): what is known of the next one from it and those before it."""

    def queries(self, batch: Batch) -> Tensor:
        """The person's vector, (batch, 1, row_dim). Reads the history only."""
        runs = self.fields.runs(batch, torch.arange(batch.size), before=self.start)
        return self.fields.queries(runs, self.states(runs)[runs.packed.last])

    def loss(self, batch: Batch) -> Tensor:
        """-log P of each next item, summed over places / the number of examples, a scalar.

        Otherwise than in training only the last item counts: how well the next one is told.
        """
        runs = self.fields.runs(batch, self.fields.learned(batch), before=self.start)
        packed, item = runs.packed, batch.slot(self.fields.item)
        self.fields.embed.values(batch, self.fields.item)  # a sight: the item gets its row, if it is new
        targets = runs.fids.roll(-1)  # behind each token stands the next one, behind the last the example's item
        targets[packed.last] = item.values[item.offsets[:-1][runs.examples]]
        places = packed.last
        if self.training and not self._only_last:
            # The first item of a long run follows from nothing; it is asked for where nothing else is.
            places = ((packed.positions > 0) | (packed.lengths == 1)[packed.owners]).nonzero().squeeze(1)
        states = self.states(runs)[places]
        return self.fields.loss(batch, states, targets[places], runs.examples[packed.owners[places]])

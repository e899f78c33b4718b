"""GRU4Rec: a recurrent network reads a person's past item by item, and tells after each what comes next.

Source: B. Hidasi et al., "Session-based Recommendations with Recurrent Neural Networks", ICLR 2016 (arXiv 1511.06939),
section 3: one layer of gated recurrent units between the item that came and the scores of those that may come.
Departs from the paper: whole runs instead of session-parallel mini-batches; a softmax over the catalogue instead of
the ranking losses TOP1 and BPR, as the authors later found better (CIKM 2018: cross-entropy with sampling); input and
output rows are the same, and a linear map leads from the state to their width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn

from dolmen.embedding import Embed
from dolmen.models.config import at_least
from dolmen.models.layers.dropout import Dropout
from dolmen.models.layers.next_item import NextItemConfig, NextItemModel
from dolmen.models.layers.sequences import Runs, check_rates

__all__ = ["GRU4Rec", "GRU4RecConfig"]


@final
@dataclass(frozen=True, kw_only=True)
class GRU4RecConfig(NextItemConfig):
    """Options of ``GRU4Rec``: those of ``NextItemConfig`` and

    Args:
        hidden: width of the recurrent state.
        dropout: of the input.
    """

    hidden: int = 100
    dropout: float = 0.2

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, 1, "hidden")
        check_rates(self, "dropout")


@final
class GRU4Rec(NextItemModel):
    """Can: ``Retrieves``. An item's vector is its row, bias first; a person's is (1, mapped state after the last item).

    Source: Hidasi et al., ICLR 2016.
    """

    def __init__(self, config: GRU4RecConfig, embed: Embed) -> None:
        super().__init__(config, embed)
        self.config = config
        width = self.fields.width
        self.drop = Dropout(config.dropout)
        self.units = nn.GRU(width, config.hidden, batch_first=True)
        self.output = nn.Linear(config.hidden, width)

    def states(self, runs: Runs) -> Tensor:
        """After each token, (total, width)."""
        tokens = self.drop(runs.vectors)
        # Padding stands at the end, where it changes no state of a real token.
        read = [block.unpadded(self.units(block.padded(tokens))[0]) for block in runs.packed.blocks]
        if not read:
            read = [self.units(tokens.new_zeros(1, 1, tokens.shape[1]))[0][0, :0]]  # nothing, but a gradient's way
        states: Tensor = self.output(torch.cat(read))
        return states

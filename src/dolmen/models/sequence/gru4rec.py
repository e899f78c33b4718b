"""GRU4Rec: a recurrent network reads a person's past item by item, and tells after each what comes next.

Source: B. Hidasi et al., "Session-based Recommendations with Recurrent Neural Networks", ICLR 2016 (arXiv 1511.06939),
section 3: one layer of gated recurrent units between the item that came and the scores of those that may come.
Departs from the paper: whole runs instead of session-parallel mini-batches; a softmax over the catalogue instead of
the ranking losses TOP1 and BPR, as the authors later found better (CIKM 2018: cross-entropy with sampling); input and
output rows are the same, and a linear map leads from the state to their width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor, nn

from dolmen.embedding import Embed
from dolmen.features import Batch
from dolmen.models.config import at_least
from dolmen.models.contract import Ability
from dolmen.models.layers.dropout import Dropout
from dolmen.models.layers.next_item import NextItemConfig, next_item_loss, starting_vector
from dolmen.models.layers.sequences import Runs, SequenceFields, check_rates

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
class GRU4Rec(nn.Module):
    """Can: ``Retrieves``. An item's vector is its row, bias first; a person's is (1, mapped state after the last item).

    Source: Hidasi et al., ICLR 2016.
    """

    abilities: ClassVar[frozenset[Ability]] = frozenset({Ability.RETRIEVES})

    def __init__(self, config: GRU4RecConfig, embed: Embed) -> None:
        super().__init__()
        self.config, self.fields = config, SequenceFields(embed, config)
        self.slots, self.dense = self.fields.slots, ()
        self.query_slots, self.item_slots = (self.fields.history,), (self.fields.item,)
        width = self.fields.width
        self.start, self.drop = starting_vector(width), Dropout(config.dropout)
        self.units = nn.GRU(width, config.hidden, batch_first=True)
        self.output = nn.Linear(config.hidden, width)

    @property
    def vector_dim(self) -> int:
        """Width of the vectors: that of a row."""
        return self.fields.row_dim

    def queries(self, batch: Batch) -> Tensor:
        """The person's vector, (batch, 1, row_dim). Reads the history only."""
        runs = self.fields.runs(batch, torch.arange(batch.size), before=self.start)
        return self.fields.queries(runs, self._states(runs)[runs.packed.last])

    def items(self, batch: Batch) -> Tensor:
        """The item's row, (batch, row_dim)."""
        return self.fields.items(batch)

    def loss(self, batch: Batch) -> Tensor:
        """-log P of the item that comes next, summed over places / the number of examples."""
        runs = self.fields.runs(batch, self.fields.learned(batch), before=self.start)
        return next_item_loss(self.fields, batch, runs, self._states(runs), self.config, is_training=self.training)

    def _states(self, runs: Runs) -> Tensor:
        """After each token, (total, width)."""
        tokens = self.drop(runs.vectors)
        # Padding stands at the end, where it changes no state of a real token.
        read = [block.unpadded(self.units(block.padded(tokens))[0]) for block in runs.packed.blocks]
        if not read:
            read = [self.units(tokens.new_zeros(1, 1, tokens.shape[1]))[0][0, :0]]  # nothing, but a gradient's way
        states: Tensor = self.output(torch.cat(read))
        return states

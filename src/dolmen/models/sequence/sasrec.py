"""SASRec: at each place of a person's past, attention over what came before tells what comes next.

Source: W.-C. Kang, J. McAuley, "Self-Attentive Sequential Recommendation", ICDM 2018 (arXiv 1808.09781), section III.
Departs from the paper: learned by a softmax over the catalogue instead of a binary loss against one drawn item each,
which is what held it behind BERT4Rec (A. Klenitskiy, A. Vasilev, RecSys 2023); an item has a bias; a run begins with a
vector of its own, so there is an answer for those without a past, too.
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
from dolmen.models.layers.transformer import TransformerLayer

__all__ = ["SASRec", "SASRecConfig"]


@final
@dataclass(frozen=True, kw_only=True)
class SASRecConfig(NextItemConfig):
    """Options of ``SASRec``: those of ``NextItemConfig`` and

    Args:
        layers: how many transformer layers (paper: b).
        heads: of each layer's attention; the paper finds one as good as more.
        dropout: of the input, of the attention weights and of what each layer adds (paper: 0.5 on sparse data, 0.2 on
            films).
    """

    layers: int = 2
    heads: int = 1
    dropout: float = 0.2

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, 1, "layers", "heads")
        check_rates(self, "dropout")


@final
class SASRec(NextItemModel):
    """Can: ``Retrieves``. An item's vector is its row, bias first; a person's is (1, state after the last item).

    Source: Kang and McAuley, ICDM 2018.
    """

    def __init__(self, config: SASRecConfig, embed: Embed) -> None:
        super().__init__(config, embed)
        self.config = config
        width = self.fields.width
        self.positions = nn.Parameter(torch.empty(config.length + 1, width))
        nn.init.normal_(self.positions, std=0.02)
        self.drop, self.output_norm = Dropout(config.dropout), nn.LayerNorm(width)
        self.layers = nn.ModuleList(
            TransformerLayer(
                width,
                heads=config.heads,
                hidden=width,
                dropout=config.dropout,
                attention_dropout=config.dropout,
                activation=nn.ReLU(),
                is_causal=True,
                norm_first=True,
            )
            for _ in range(config.layers)
        )

    def states(self, runs: Runs) -> Tensor:
        """After each token, (total, width); each knows of itself and those before it."""
        # The paper makes item vectors as large as positions: a norm of width^(1/2) times the table's small start.
        tokens = runs.vectors * self.fields.width**0.5 + self.positions.index_select(0, runs.packed.positions)
        tokens = self.drop(tokens)
        for layer in self.layers:
            tokens = layer(tokens, runs.packed)
        states: Tensor = self.output_norm(tokens)
        return states

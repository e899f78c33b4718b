"""BERT4Rec: items of a past are hidden and told from what stands on both sides; behind its end hides the next one.

Source: F. Sun et al., "BERT4Rec: Sequential Recommendation with Bidirectional Encoder Representations from
Transformer", CIKM 2019 (arXiv 1904.06690), sections 3.2 to 3.6; the norm and dropout of the input, the norm of the
output and the share of runs of which only the last item is hidden are those of the authors' code.
Departs from the paper: masks are drawn anew at each step rather than ten times in advance; the classes of the softmax
are the items that have rows, so the mask is none of them: it is a vector of the model's own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Final, final

import torch
from torch import Tensor, nn

from dolmen.embedding import Embed
from dolmen.features import Batch
from dolmen.models.config import at_least
from dolmen.models.layers.dropout import Dropout
from dolmen.models.layers.packed import Packed
from dolmen.models.layers.sequences import SequenceConfig, SequenceModel, check_rates
from dolmen.models.layers.transformer import TransformerLayer

__all__ = ["BERT4Rec", "BERT4RecConfig", "masked_places"]

_START: Final = 0.006  # about as large as the table's rows begin, as in the paper; else places drown the items at first
_WEIGHT_START: Final = 0.02


@final
@dataclass(frozen=True, kw_only=True)
class BERT4RecConfig(SequenceConfig):
    """Options of ``BERT4Rec``: those of ``SequenceConfig`` and

    Args:
        layers: how many transformer layers (paper: L).
        heads: of each layer's attention (paper: h).
        mask_rate: the share of a run's items that is hidden (paper: rho; 0.6 on Beauty, 0.2 on films).
        last_only_rate: in this share of runs only the last item is hidden, as it is when the next one is asked for. The
            authors' data holds one such copy of each run beside ten others. With 1 a stream learns each action once.
        dropout: of the input and of what each layer adds.
        attention_dropout: of the attention weights.
    """

    layers: int = 2
    heads: int = 2
    mask_rate: float = 0.2
    last_only_rate: float = 1 / 11
    dropout: float = 0.1
    attention_dropout: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, 1, "layers", "heads")
        check_rates(self, "mask_rate", "dropout", "attention_dropout")
        at_least(self, 0, "last_only_rate")


@final
class BERT4Rec(SequenceModel):
    """Can: ``Retrieves``. An item's vector is its row, bias first; a person's is (1, state at the mask).

    Source: Sun et al., CIKM 2019.
    """

    skipped_checks: ClassVar[Mapping[str, str]] = {
        "overfits_a_batch": "what is hidden is drawn anew at each step: where all else is hidden, nothing tells it"
    }

    def __init__(self, config: BERT4RecConfig, embed: Embed) -> None:
        super().__init__(config, embed)
        self.config = config
        width = self.fields.width
        self.mask = nn.Parameter(torch.empty(width))
        self.positions = nn.Parameter(torch.empty(config.length + 1, width))
        self.input_norm, self.drop = nn.LayerNorm(width), Dropout(config.dropout)
        self.layers = nn.ModuleList(
            TransformerLayer(
                width,
                heads=config.heads,
                hidden=4 * width,
                dropout=config.dropout,
                attention_dropout=config.attention_dropout,
                activation=nn.GELU(),
                is_causal=False,
                norm_first=False,
            )
            for _ in range(config.layers)
        )
        self.head = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.LayerNorm(width))
        for parameter in self.parameters():
            if parameter.ndim == 2:
                _draw(parameter, _WEIGHT_START)
        for parameter in (self.mask, self.positions):
            _draw(parameter, _START)

    def queries(self, batch: Batch) -> Tensor:
        """The person's vector, (batch, 1, row_dim): a mask is put behind the history, and asked what it hides."""
        runs = self.fields.runs(batch, torch.arange(batch.size), after=self.mask)
        return self.fields.queries(runs, self._states(runs.vectors, runs.packed, runs.packed.last))

    def loss(self, batch: Batch) -> Tensor:
        """-log P of every hidden item, summed over them / the number of examples.

        In training items are hidden at random, otherwise each run's last one: how well the next item is told.
        """
        runs = self.fields.runs(batch, self.fields.learned(batch), with_item=True)
        places = self._hidden(runs.packed)
        tokens = runs.vectors.index_copy(0, places, self.mask.expand(len(places), -1))
        states = self._states(tokens, runs.packed, places)
        return self.fields.loss(batch, states, runs.fids[places], runs.examples[runs.packed.owners[places]])

    def _hidden(self, packed: Packed) -> Tensor:
        if not self.training:
            return packed.last
        places = masked_places(packed, self.config.mask_rate)
        if not self.config.last_only_rate:
            return places
        is_last_only = torch.rand(len(packed.lengths)) < self.config.last_only_rate
        return torch.cat([places[~is_last_only[packed.owners[places]]], packed.last[is_last_only]])

    def _states(self, tokens: Tensor, packed: Packed, places: Tensor) -> Tensor:
        """What the head makes of the tokens at ``places``, (count, width)."""
        tokens = self.drop(self.input_norm(tokens + self.positions.index_select(0, packed.positions)))
        for layer in self.layers:
            tokens = layer(tokens, packed)
        states: Tensor = self.head(tokens.index_select(0, places))
        return states


def masked_places(packed: Packed, rate: float) -> Tensor:
    """Tokens to hide, by run: of n tokens round(n rate) of them, at least 1, each choice as likely as any other."""
    counts = (packed.lengths * rate).round().clamp(min=1).to(torch.int64)
    # Owners ascend, so sorting by owner + [0, 1) shuffles each run within itself.
    order = (packed.owners + torch.rand(len(packed.owners), dtype=torch.float64)).argsort()
    return order[packed.positions < counts.index_select(0, packed.owners)]


def _draw(parameter: nn.Parameter, deviation: float) -> None:
    nn.init.trunc_normal_(parameter, std=deviation, a=-2 * deviation, b=2 * deviation)

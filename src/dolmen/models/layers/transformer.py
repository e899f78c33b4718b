"""Transformer layers over packed sequences."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from dolmen.models.layers.dropout import Dropout
from dolmen.models.layers.packed import Block, Packed

__all__ = ["Attention", "TransformerLayer"]


@final
class Attention(nn.Module):
    """Each token looks at the tokens of its sequence: multi-head attention (Vaswani et al., NeurIPS 2017, 3.2).

    Args:
        width: of a token.
        heads: each is ``width / heads`` wide, rounded up where that leaves a rest.
        dropout: of the attention weights.
        is_causal: a token sees itself and those before it; otherwise all of its sequence.
    """

    def __init__(self, width: int, heads: int, dropout: float, *, is_causal: bool) -> None:
        super().__init__()
        self.heads, self.is_causal, self.drop = heads, is_causal, Dropout(dropout)
        inner = heads * -(-width // heads)
        self.project = nn.Linear(width, 3 * inner)
        self.join = nn.Linear(inner, width)

    def forward(self, tokens: Tensor, packed: Packed) -> Tensor:
        """(total, width) to (total, width)."""
        projected = self.project(tokens)
        looked = [self._look(projected, block) for block in packed.blocks]
        joined: Tensor = self.join(torch.cat(looked) if looked else projected[:, : self.join.in_features])
        return joined

    def _look(self, projected: Tensor, block: Block) -> Tensor:
        parts = block.padded(projected).view(block.count, block.length, 3, self.heads, -1)
        queries, keys, values = parts.permute(2, 0, 3, 1, 4)
        # Padding stands at the end, where a causal layer never looks from a real token.
        mask = None if self.is_causal or block.is_real is None else block.is_real[:, None, None, :]
        if self.drop.dropped and self.training:
            looked = self._drop(queries, keys, mask) @ values
        else:
            looked = scaled_dot_product_attention(queries, keys, values, attn_mask=mask, is_causal=self.is_causal)
        return block.unpadded(looked.transpose(1, 2).flatten(start_dim=2))

    def _drop(self, queries: Tensor, keys: Tensor, mask: Tensor | None) -> Tensor:
        """The attention weights less those that are dropped, (count, head, length, length)."""
        length, width = queries.shape[-2:]
        scores = queries @ keys.transpose(-1, -2) / width**0.5
        if self.is_causal:
            mask = torch.ones(length, length, dtype=torch.bool).tril()
        if mask is not None:
            scores = scores.masked_fill(~mask, -torch.inf)
        dropped: Tensor = self.drop(scores.softmax(dim=-1))
        return dropped


@final
class TransformerLayer(nn.Module):
    """Attention, then a network of one hidden layer for each token; both are added to what came in.

    Args:
        width: of a token.
        heads: of the attention.
        hidden: width of the network's hidden layer.
        dropout: of what attention and network add.
        attention_dropout: of the attention weights.
        activation: of the hidden layer.
        is_causal: see ``Attention``.
        norm_first: norm what goes into each part, as SASRec does; otherwise the sum that comes out, as BERT does.
    """

    def __init__(
        self,
        width: int,
        *,
        heads: int,
        hidden: int,
        dropout: float,
        attention_dropout: float,
        activation: nn.Module,
        is_causal: bool,
        norm_first: bool,
    ) -> None:
        super().__init__()
        self.attention = Attention(width, heads, attention_dropout, is_causal=is_causal)
        self.network = nn.Sequential(nn.Linear(width, hidden), activation, nn.Linear(hidden, width))
        self.attention_norm, self.network_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.drop = Dropout(dropout)
        self.norm_first = norm_first

    def forward(self, tokens: Tensor, packed: Packed) -> Tensor:
        """(total, width) to (total, width)."""
        changed: Tensor
        if self.norm_first:
            tokens = tokens + self.drop(self.attention(self.attention_norm(tokens), packed))
            changed = tokens + self.drop(self.network(self.network_norm(tokens)))
        else:
            tokens = self.attention_norm(tokens + self.drop(self.attention(tokens, packed)))
            changed = self.network_norm(tokens + self.drop(self.network(tokens)))
        return changed

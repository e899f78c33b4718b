"""Sequences of different lengths without padding: the tokens of all in one tensor, one sequence after the other.

Layers that look at one token at a time (a linear map, a norm) take that tensor as it is, so nothing is computed for
padding. Where a layer looks across a sequence, sequences of about one length are padded to a block.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Final, final

import torch
from torch import Tensor

__all__ = ["Block", "Packed"]

_LENGTH_RATIO: Final = 1.5  # of the longest in a block to the shortest: at most a third is padding, and blocks are few


@final
@dataclass(frozen=True, eq=False)
class Block:
    """Neighbouring sequences that are padded to one length.

    Args:
        count: how many sequences.
        length: what they are padded to, at the end.
        tokens: which tokens of the whole are theirs.
        is_real: which places of the block hold one, (count, length); ``None`` where all do.
    """

    count: int
    length: int
    tokens: slice
    is_real: Tensor | None

    def padded(self, tokens: Tensor) -> Tensor:
        """Of the tokens of all sequences, (total, width), those of this block: (count, length, width)."""
        own = tokens[self.tokens]
        if self.is_real is None:
            return own.view(self.count, self.length, -1)
        return own.index_select(0, self._sources).view(self.count, self.length, -1)

    def unpadded(self, block: Tensor) -> Tensor:
        """The inverse: from (count, length, width) to the block's own tokens."""
        flat = block.reshape(self.count * self.length, -1)
        return flat if self.is_real is None else flat.index_select(0, self._places)

    @cached_property
    def _places(self) -> Tensor:
        """Where in the flat block each token stands."""
        assert self.is_real is not None
        return self.is_real.flatten().nonzero().squeeze(1)

    @cached_property
    def _sources(self) -> Tensor:
        """Which token stands at each place of the flat block; at one that is padding, the one before it."""
        assert self.is_real is not None
        return self.is_real.flatten().cumsum(0) - 1


@final
@dataclass(frozen=True, eq=False)
class Packed:
    """``lengths``: of each sequence, int64 (count,), at least 1 and ascending."""

    lengths: Tensor

    @cached_property
    def offsets(self) -> Tensor:
        """Where each sequence's tokens begin, and the end, (count + 1,)."""
        offsets = torch.zeros(len(self.lengths) + 1, dtype=torch.int64)
        torch.cumsum(self.lengths, dim=0, out=offsets[1:])
        return offsets

    @cached_property
    def owners(self) -> Tensor:
        """The sequence of each token, (total,)."""
        return torch.repeat_interleave(self.lengths)

    @cached_property
    def positions(self) -> Tensor:
        """The place of each token in its sequence, from 0, (total,)."""
        return torch.arange(len(self.owners)) - self.offsets.index_select(0, self.owners)

    @cached_property
    def last(self) -> Tensor:
        """The token that ends each sequence, (count,)."""
        return self.offsets[1:] - 1

    @cached_property
    def blocks(self) -> list[Block]:
        """All sequences, in order, in blocks of about one length."""
        return list(self._blocks())

    def _blocks(self) -> Iterator[Block]:
        lengths, offsets = self.lengths.tolist(), self.offsets.tolist()
        start = 0
        while start < len(lengths):
            limit, end = lengths[start] * _LENGTH_RATIO, start + 1
            while end < len(lengths) and lengths[end] <= limit:
                end += 1
            longest = lengths[end - 1]
            is_real = None
            if longest != lengths[start]:
                is_real = torch.arange(longest) < self.lengths[start:end].unsqueeze(1)
            yield Block(end - start, longest, slice(offsets[start], offsets[end]), is_real)
            start = end

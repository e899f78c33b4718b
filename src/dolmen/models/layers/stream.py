"""What a model remembers of the stream: how often ids come, and which items were acted on lately.

Both live in registered buffers of fixed size, so they are in every snapshot, and a run that was killed goes on alike.
Only training mode moves them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, final

import torch
from torch import Tensor, nn

from dolmen.features import Batch, Jagged, Schema

__all__ = ["DistinctRows", "RecentRows", "StreamFrequency", "values_kept"]

_NOTHING: Final = -1  # No FID is negative.
_MANY_KEPT: Final = 16  # values that are remembered of a slot with many; genres and tags have fewer
_ODD_FACTORS: Final = (0x1E3779B97F4A7C15, 0x3F58476D1CE4E5B9)  # One hash function each; products wrap at 2^64.


@final
class StreamFrequency(nn.Module):
    """How likely the next draw from a stream is a given id, estimated from the gaps between its draws.

    Source: X. Yi et al., "Sampling-Bias-Corrected Neural Modeling for Large Corpus Item Recommendations", RecSys 2019,
    algorithm 2, with several hash functions as in its section 4.3. Departs from the paper: time counts draws, not
    batches, so that batches may be of any size; draws of one id within a batch count as evenly spaced.

    Args:
        bucket_count: places per hash function; ids that meet in all of them are taken for one.
        rate: weight of the newest gap (paper: alpha). An id's estimate follows its latest 1 / rate draws.
    """

    last_draw: Tensor
    mean_gap: Tensor
    draw_count: Tensor

    def __init__(self, bucket_count: int, rate: float) -> None:
        super().__init__()
        self.rate = rate
        shape = (len(_ODD_FACTORS), bucket_count)
        self.register_buffer("last_draw", torch.zeros(shape, dtype=torch.int64))
        self.register_buffer("mean_gap", torch.zeros(shape))
        self.register_buffer("draw_count", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def update(self, fids: Tensor) -> None:
        """Count these draws, shape (count,)."""
        now = self.draw_count + len(fids)
        for buckets, last_draw, mean_gap in zip(self._buckets(fids), self.last_draw, self.mean_gap, strict=True):
            places, counts = torch.unique(buckets, return_counts=True)
            gaps = (now - last_draw[places]) / counts
            kept = (1 - self.rate) ** counts
            # The first gap is all that is known of a new id: it came once since the beginning.
            known = mean_gap[places]
            mean_gap[places] = torch.where(known == 0, gaps, kept * known + (1 - kept) * gaps)
            last_draw[places] = now
        self.draw_count.copy_(now)

    @torch.no_grad()
    def log_chance(self, fids: Tensor) -> Tensor:
        """Logarithms of the chance that one draw gives each id, shape (count,); an unseen id is as rare as can be."""
        gaps = torch.stack([gap[places] for gap, places in zip(self.mean_gap, self._buckets(fids), strict=True)])
        # A collision can only make an id look more common, so the longest gap is the least disturbed.
        longest = gaps.max(dim=0).values
        unseen = (self.draw_count + 1).to(longest.dtype)
        return -torch.where(longest == 0, unseen, longest).clamp(min=1).log()

    def _buckets(self, fids: Tensor) -> list[Tensor]:
        return [_bucket(fids, factor, self.mean_gap.shape[1]) for factor in _ODD_FACTORS]


@final
class RecentRows(nn.Module):
    """A ring of the last examples' features: the newest ``capacity`` that were pushed.

    Args:
        slots: name and how many values to keep of each slot (the last ones).
        dense: names of the dense features to keep.
        capacity: how many examples.
    """

    position: Tensor
    filled: Tensor

    def __init__(self, slots: Mapping[str, int], dense: Sequence[str], capacity: int) -> None:
        super().__init__()
        self.capacity, self.widths, self.dense = capacity, dict(slots), tuple(dense)
        for name, width in slots.items():
            self.register_buffer(f"slot_{name}", torch.full((capacity, width), _NOTHING, dtype=torch.int64))
        for name in dense:
            self.register_buffer(f"dense_{name}", torch.zeros(capacity))
        self.register_buffer("position", torch.zeros((), dtype=torch.int64))
        self.register_buffer("filled", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def push(self, batch: Batch, rows: Tensor) -> None:
        """Remember the examples of ``batch`` at ``rows``, in that order."""
        rows = rows[-self.capacity :]
        places = (self.position + torch.arange(len(rows))) % self.capacity
        for name, width in self.widths.items():
            self.get_buffer(f"slot_{name}")[places] = _padded(batch.slot(name).take(rows).last(width), width)
        for name in self.dense:
            self.get_buffer(f"dense_{name}")[places] = batch.dense[name][rows]
        self.position.copy_((self.position + len(rows)) % self.capacity)
        self.filled.copy_((self.filled + len(rows)).clamp(max=self.capacity))

    @torch.no_grad()
    def spread(self, count: int) -> Batch:
        """At most ``count`` different examples, spread evenly over the ring; the start moves as the ring does."""
        filled = int(self.filled)
        count = min(count, filled)
        places = (torch.arange(count) * filled // max(1, count) + self.position) % max(1, filled)
        return Batch(
            size=count,
            slots={name: _jagged(self.get_buffer(f"slot_{name}")[places]) for name in self.widths},
            dense={name: self.get_buffer(f"dense_{name}")[places] for name in self.dense},
        )


@final
class DistinctRows(nn.Module):
    """What the stream told of each item, once however often it came: a catalogue to draw from evenly.

    An id has one place, by its hash; where two meet the newer stays, so of many more items than ``capacity`` about
    ``capacity`` are known, all as likely.

    Args:
        key: the slot that says which item it is.
        slots: name and how many values to keep of each slot (the last ones).
        dense: names of the dense features to keep.
        capacity: how many places; twice the items lose a fifth of them.
    """

    keys: Tensor

    def __init__(self, key: str, slots: Mapping[str, int], dense: Sequence[str], capacity: int) -> None:
        super().__init__()
        self.key, self.widths, self.dense, self.capacity = key, dict(slots), tuple(dense), capacity
        self.register_buffer("keys", torch.full((capacity,), _NOTHING, dtype=torch.int64))
        for name, width in slots.items():
            self.register_buffer(f"slot_{name}", torch.full((capacity, width), _NOTHING, dtype=torch.int64))
        for name in dense:
            self.register_buffer(f"dense_{name}", torch.zeros(capacity))

    @torch.no_grad()
    def push(self, batch: Batch) -> None:
        """Remember the item of every example that names one."""
        column = batch.slot(self.key)
        rows = (column.lengths > 0).nonzero().squeeze(1)
        keys, last = column.values, torch.arange(len(rows))
        places = _bucket(keys, _ODD_FACTORS[0], self.capacity)
        # Of several examples at one place the last one stays, as if they had come one after the other.
        newest = torch.full((self.capacity,), _NOTHING).scatter_reduce(0, places, last, "amax")
        places = (newest != _NOTHING).nonzero().squeeze(1)
        chosen = newest[places]
        self.keys[places] = keys[chosen]
        for name, width in self.widths.items():
            self.get_buffer(f"slot_{name}")[places] = _padded(batch.slot(name).take(rows[chosen]).last(width), width)
        for name in self.dense:
            self.get_buffer(f"dense_{name}")[places] = batch.dense[name][rows[chosen]]

    @torch.no_grad()
    def known(self) -> Tensor:
        """The places that hold an item, (items,)."""
        return (self.keys != _NOTHING).nonzero().squeeze(1)

    @torch.no_grad()
    def at(self, places: Tensor) -> Batch:
        """The items at ``places``; their slot ``key`` says which they are."""
        slots = {name: _jagged(self.get_buffer(f"slot_{name}")[places]) for name in self.widths}
        return Batch(
            size=len(places),
            slots={**slots, self.key: Jagged.single(self.keys[places])},
            dense={name: self.get_buffer(f"dense_{name}")[places] for name in self.dense},
        )


def values_kept(schema: Schema, name: str) -> int:
    """How many values of a slot are remembered."""
    slot = schema.slot(name)
    return min(slot.max_len or _MANY_KEPT, _MANY_KEPT) if slot.many else 1


def _bucket(fids: Tensor, factor: int, count: int) -> Tensor:
    # The high bits of the product depend on every bit of the FID; the sign is cut off.
    return ((fids * factor) >> 31 & 0x7FFFFFFF) % count


def _padded(column: Jagged, width: int) -> Tensor:
    """(batch, width) from rows of at most ``width`` values, filled up with ``_NOTHING``."""
    padded = torch.full((column.size, width), _NOTHING, dtype=torch.int64)
    padded[torch.arange(width) < column.lengths.unsqueeze(1)] = column.values
    return padded


def _jagged(padded: Tensor) -> Jagged:
    real = padded != _NOTHING
    offsets = torch.zeros(len(padded) + 1, dtype=torch.int64)
    torch.cumsum(real.sum(dim=1), dim=0, out=offsets[1:])
    return Jagged(padded[real], offsets)

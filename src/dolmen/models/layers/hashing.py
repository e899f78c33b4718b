"""SimHash: vectors that point the same way fall into the same bucket, so that a sum by bucket stands in for attention.

Source: Y. Cao et al., "Sampling Is All You Need on Modeling Long-Term User Behaviors for CTR Prediction", CIKM 2022
(arXiv 2205.10249), section 3; the hash is M. Charikar's, STOC 2002.
"""

from __future__ import annotations

from typing import Final, final

import torch
from torch import Tensor, nn

from dolmen._core import hash_into_buckets, read_buckets
from dolmen.models.layers.behaviours import Past

__all__ = ["SimHash", "interest_of"]

_LENGTH_MIN: Final = 1e-6  # below it a sum is taken for empty


@final
class SimHash(nn.Module):
    """``rounds`` independent hashes of ``bits`` bits each (the paper's m / tau and tau).

    Two vectors at the angle theta fall into one bucket of a round with the chance (1 - theta / pi)^bits. The
    projections are drawn once and kept in the model's state: trainer, store and ranker must hash alike.

    Args:
        width: of the vectors.
        rounds: hashes.
        bits: of each, at most 52; 0 puts everything into one bucket.
    """

    projections: Tensor
    places: Tensor

    def __init__(self, width: int, rounds: int, bits: int) -> None:
        super().__init__()
        self.rounds, self.bits = rounds, bits
        self.register_buffer("projections", torch.randn(width, rounds * bits).double())
        # In double, which holds these whole numbers exactly and for which there are fast products.
        self.register_buffer("places", 2.0 ** torch.arange(bits).double(), persistent=False)

    @property
    def bucket_count(self) -> int:
        """Buckets of a round."""
        return 1 << self.bits

    @torch.no_grad()
    def buckets(self, vectors: Tensor) -> Tensor:
        """The bucket of each vector (count, width) in each round, int64 (count, rounds). 0 counts as positive.

        In main memory the core hashes, product by product in one order, so that a vector on the edge of two buckets
        falls where it fell before, whatever comes with it. Elsewhere products of matrices do, whose order is theirs;
        in double precision that matters for no vector one meets.
        """
        if _is_native(vectors):
            buckets = torch.empty(len(vectors), self.rounds, dtype=torch.int64)
            hash_into_buckets(
                vectors.detach().contiguous().numpy(), self.projections.numpy(), self.bits, buckets.numpy()
            )
            return buckets
        signs = vectors.double() @ self.projections >= 0
        codes = signs.view(len(vectors) * self.rounds, self.bits).double() @ self.places
        return codes.to(torch.int64).view(len(vectors), self.rounds)

    @torch.no_grad()
    def sums(self, past: Past, before: Tensor | None = None) -> Tensor:
        """Each bucket's sum of each example's behaviours, oldest first: (batch, rounds, buckets, width).

        ``before``: such sums of what came before, to which these are added, one for each behaviour and round. Whether a
        past comes at once or in parts, the bits are the same.
        """
        width, buckets = past.vectors.shape[1], self.buckets(past.vectors)
        shape = past.size, self.rounds, self.bucket_count, width
        total = past.vectors.new_zeros(shape) if before is None else before.clone()
        rows = total.view(-1, width)
        for hash_round, bucket in enumerate(buckets.unbind(dim=1)):
            rows.index_add_(0, (past.owners * self.rounds + hash_round) * self.bucket_count + bucket, past.vectors)
        return total

    def met(self, queries: Tensor, past: Past) -> Tensor:
        """The sum of the behaviours in the bucket of each query (batch, width): (batch, rounds, width).

        The same numbers in the same order as in ``sums``, without the buckets where no query is: an eighth of the work
        for 3 bits. Gradients reach the behaviours that were met, and not the queries.
        """
        behaviour, hash_round = self._meets(queries, past).nonzero(as_tuple=True)
        cells = past.owners.index_select(0, behaviour) * self.rounds + hash_round
        total = past.vectors.new_zeros(past.size * self.rounds, past.vectors.shape[1])
        total = total.index_add(0, cells, past.vectors.index_select(0, behaviour))
        return total.view(past.size, self.rounds, past.vectors.shape[1])

    def weights(self, queries: Tensor, past: Past) -> Tensor:
        """What each behaviour counts in ``interest_of`` what the queries (batch, width) met, (total,).

        Its share of the rounds in which it was met, each over the length of that round's sum.
        """
        over = _over_lengths(self.met(queries, past)).squeeze(2)
        return (self._meets(queries, past) * over.index_select(0, past.owners)).mean(dim=1)

    def _meets(self, queries: Tensor, past: Past) -> Tensor:
        """Whether each behaviour is in the bucket of its example's query, (total, rounds)."""
        return self.buckets(past.vectors) == self.buckets(queries).index_select(0, past.owners)

    @torch.no_grad()
    def read(self, sums: Tensor, owners: Tensor, queries: Tensor) -> Tensor:
        """``interest_of`` what each query meets in ``sums`` (people, rounds, buckets, width): (batch, width).

        One row for each round, whatever the length of the past. ``owners`` (batch,): whose sums each query reads.
        """
        buckets = self.buckets(queries)
        if _is_native(sums):
            interests = torch.empty(len(queries), sums.shape[3])
            read_buckets(
                sums.detach().contiguous().numpy(), owners.numpy(), buckets.numpy(), _LENGTH_MIN, interests.numpy()
            )
            return interests
        rounds = torch.arange(self.rounds, device=sums.device)
        return interest_of(sums[owners.unsqueeze(1), rounds, buckets])


def _is_native(vectors: Tensor) -> bool:
    """Whether the core takes these: in main memory, of single precision."""
    return vectors.is_cpu and vectors.dtype == torch.float32


def interest_of(met: Tensor) -> Tensor:
    """The mean over rounds of the sums (batch, rounds, width), each made a unit vector; an empty one stays zero.

    Source: Cao et al., CIKM 2022, equation 7.
    """
    return (met * _over_lengths(met)).mean(dim=1)


def _over_lengths(met: Tensor) -> Tensor:
    return torch.rsqrt(met.square().sum(dim=2, keepdim=True).clamp(min=_LENGTH_MIN**2))

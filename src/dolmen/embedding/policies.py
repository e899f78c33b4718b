"""Policies: which rows make up the vector of a feature. Most slots have none, and then each FID owns its row alone.

A policy maps the FIDs of one slot to *keys*, FIDs themselves, in whose rows the slot's vectors live. Keys depend on the
FID and the schema only, so trainer and replicas agree on them without shipping anything.

``hashed``: one of ``policy_rows`` rows, by a hash of the FID (the hash trick; K. Weinberger et al., "Feature Hashing
for Large Scale Multitask Learning", ICML 2009). FIDs that collide share a row.

``quotient_remainder``: the sum of two rows (H.-J. M. Shi et al., "Compositional Embeddings Using Complementary
Partitions", KDD 2020, section 3). With h the hash of the FID and R half of ``policy_rows``, they are number h mod R of
the first half and number (h div R) mod R of the second, so two FIDs share the whole vector with chance 1/R^2. The hash
stands in for the ids themselves: counted ids 0..n-1 would collide in a pattern of their own, or not at all.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final, Protocol, TypeAlias, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dolmen._core import hash_bytes
from dolmen.features import Policy, Schema, pack_fids

__all__ = ["HashedRows", "QuotientRemainderRows", "RowPolicy", "policies_of"]

_FID_BYTES: Final = 8
_Ints: TypeAlias = NDArray[np.int64]


class RowPolicy(Protocol):
    """Maps the FIDs of one slot to the FIDs whose rows are summed."""

    width: ClassVar[int]

    def keys(self, fids: Tensor) -> Tensor:
        """Shape (count * width,) from (count,): the keys of each FID, one FID after the other."""
        ...


@final
@dataclass(frozen=True)
class HashedRows:
    """``row_count`` rows of the slot ``slot_number``; ``seed`` decides who shares."""

    width: ClassVar[int] = 1

    slot_number: int
    row_count: int
    seed: int

    def keys(self, fids: Tensor) -> Tensor:
        """One key a FID, shape (count,)."""
        return torch.from_numpy(pack_fids(self.slot_number, _hashes(fids, self.seed) % self.row_count))


@final
@dataclass(frozen=True)
class QuotientRemainderRows:
    """Two halves of ``row_count`` rows in all; ``seed`` decides who shares."""

    width: ClassVar[int] = 2

    slot_number: int
    row_count: int
    seed: int

    def keys(self, fids: Tensor) -> Tensor:
        """Remainder's key and quotient's key, FID by FID, shape (count * 2,)."""
        half = self.row_count // 2
        hashes = _hashes(fids, self.seed)
        pairs = np.stack([hashes % half, half + hashes // half % half], axis=1)
        return torch.from_numpy(pack_fids(self.slot_number, pairs.ravel()))


def policies_of(schema: Schema) -> dict[str, RowPolicy]:
    """By slot, for those that have a policy; a slot that shares another's rows has the other's."""
    kinds: dict[Policy, type[HashedRows] | type[QuotientRemainderRows]] = {
        Policy.HASHED: HashedRows,
        Policy.QUOTIENT_REMAINDER: QuotientRemainderRows,
    }
    found: dict[str, RowPolicy] = {}
    for name in schema.slots:
        owner = schema.owner(name)
        if owner.policy in kinds:
            assert owner.policy_rows is not None, "Slot asks for policy_rows with such a policy"
            found[name] = kinds[owner.policy](schema.slot_number(name), owner.policy_rows, owner.policy_seed)
    return found


def _hashes(fids: Tensor, seed: int) -> _Ints:
    """XXH64 of each FID, 53 bits of it. The FID holds the slot's number, so slots do not collide in step."""
    octets = np.ascontiguousarray(fids.numpy()).view(np.uint8)
    return hash_bytes(octets, np.arange(0, len(octets) + 1, _FID_BYTES), seed)

"""Which course of learning parameters are of: versions and epochs count the steps of one course only.

A learner that is restored from what it saved, or copied, goes on from there by itself: what it learns next is not what
the other learns, or had learned, under the same numbers. So it goes on under a new name, which remembers how far it
shares the way of the old one.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, final

__all__ = ["Lineage"]

_ANCESTORS_MAX: Final = 64  # They travel with every delta.


@final
@dataclass(frozen=True)
class Lineage:
    """The name of one course of learning, and of those that it goes on from.

    Args:
        name: 16 hex digits, drawn at its beginning.
        ancestors: by name, how far the way is shared: up to this version or epoch.

    >>> one = Lineage()
    >>> other = one.branch(5)
    >>> other.leads_through(one.name, 5), other.leads_through(one.name, 6), one.leads_through(other.name, 0)
    (True, False, False)
    """

    name: str = field(default_factory=lambda: secrets.token_hex(8))
    ancestors: Mapping[str, int] = field(default_factory=dict)

    def branch(self, at: int) -> Lineage:
        """A new course that goes on from here, at this version or epoch. It remembers its last 64 ancestors."""
        remembered = [*self.ancestors.items(), (self.name, at)][-_ANCESTORS_MAX:]
        return Lineage(ancestors=dict(remembered))

    def leads_through(self, name: str, at: int) -> bool:
        """Whether what the course ``name`` had at ``at`` is on this one's way."""
        return name == self.name or at <= self.ancestors.get(name, -1)

"""The simulated worlds that can be loaded by name, as large as MovieLens 100K: 100,000 impressions."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final, final

from dolmen.datasets.dataset import Dataset, DatasetInfo
from dolmen.datasets.world import DRIFTING, INFO, STEADY, World, WorldConfig

__all__ = ["ENTRIES", "SimulatedEntry"]

_SLATES: Final = 10_000


@final
@dataclass(frozen=True)
class SimulatedEntry:
    """A world that is made when it is loaded."""

    info: DatasetInfo
    config: WorldConfig

    def where(self) -> str | None:
        """Nowhere, and always at hand."""
        return "simulated when it is loaded"

    def damage(self) -> str | None:
        """There are no files."""
        return None

    def how_to_get(self) -> str:
        """Nothing is needed."""
        return "made when it is loaded"

    def load(self, *, download: bool) -> Dataset:  # noqa: ARG002 - nothing to download
        """Make the first 10,000 slates."""
        return World(self.config).dataset(_SLATES, self.info)


ENTRIES: Final = (
    SimulatedEntry(replace(INFO, summary=f"{INFO.summary}; nothing ever changes"), STEADY),
    SimulatedEntry(
        replace(
            INFO,
            name="world-drifting",
            title="Simulated world that drifts",
            summary=f"{INFO.summary}; tastes and fashions turn, items come and go",
        ),
        DRIFTING,
    ),
)

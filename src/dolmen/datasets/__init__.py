"""Real data by name, and a simulated world with known truth: tables, slates in time order, and examples."""

from dolmen.datasets.catalogue import Entry, item_changes, latest, people
from dolmen.datasets.dataset import Dataset, DatasetInfo, Slate, Split
from dolmen.datasets.examples import Batches
from dolmen.datasets.registry import describe, load, names, where
from dolmen.datasets.world import World, WorldConfig

__all__ = [
    "Batches",
    "Dataset",
    "DatasetInfo",
    "Entry",
    "Slate",
    "Split",
    "World",
    "WorldConfig",
    "describe",
    "item_changes",
    "latest",
    "load",
    "names",
    "people",
    "where",
]

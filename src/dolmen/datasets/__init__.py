"""Real data by name, and a simulated world with known truth: tables, slates in time order, and examples."""

from dolmen.datasets.catalogue import Entry, item_changes, latest, people
from dolmen.datasets.dataset import Dataset, DatasetInfo, Negatives, Order, Slate, actions_table, impressions_table
from dolmen.datasets.examples import Batches
from dolmen.datasets.registry import describe, load, names, where
from dolmen.datasets.world import World, WorldConfig
from dolmen.evaluation import Split

__all__ = [
    "Batches",
    "Dataset",
    "DatasetInfo",
    "Entry",
    "Negatives",
    "Order",
    "Slate",
    "Split",
    "World",
    "WorldConfig",
    "actions_table",
    "describe",
    "impressions_table",
    "item_changes",
    "latest",
    "load",
    "names",
    "people",
    "where",
]

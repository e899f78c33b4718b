from .catalogue import Entry, item_changes, latest, people
from .dataset import Dataset, DatasetInfo, Negatives, Order, Slate, Split, actions_table, impressions_table
from .examples import Batches
from .registry import damage, describe, how_to_get, load, names, where
from .world import World, WorldConfig

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
    "damage",
    "describe",
    "how_to_get",
    "impressions_table",
    "item_changes",
    "latest",
    "load",
    "names",
    "people",
    "where",
]

"""Ids to vectors: the collisionless table, the rows of a schema, and the look-up that models are handed."""

from dolmen.embedding.lookup import Embed, Pooling, Tape
from dolmen.embedding.optimizers import SGD, AdaGrad, Adam, Optimizer, optimizer_from_dict, optimizer_to_dict
from dolmen.embedding.precision import Precision
from dolmen.embedding.store import Embeddings, table_folder_name
from dolmen.embedding.table import Capacity, Delta, MemoryUse, RowRules, Table, Upkeep

__all__ = [
    "SGD",
    "AdaGrad",
    "Adam",
    "Capacity",
    "Delta",
    "Embed",
    "Embeddings",
    "MemoryUse",
    "Optimizer",
    "Pooling",
    "Precision",
    "RowRules",
    "Table",
    "Tape",
    "Upkeep",
    "optimizer_from_dict",
    "optimizer_to_dict",
    "table_folder_name",
]

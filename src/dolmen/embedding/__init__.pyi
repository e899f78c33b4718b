from .lookup import Embed, Pooling, Tape
from .optimizers import SGD, AdaGrad, Adam, Optimizer, optimizer_from_dict, optimizer_to_dict
from .precision import Precision
from .store import Embeddings, table_folder_name
from .table import Capacity, Delta, MemoryUse, RowRules, Table, Upkeep

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

"""dolmen: real-time recommendations on one loop, one table, one contract.

The names here are what a program needs most; each folder has the rest. They are imported when they are first used, so
that ``import dolmen`` and ``dolmen --help`` do not wait for torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from dolmen import datasets
    from dolmen.client import Client
    from dolmen.embedding import Embed, Embeddings, Table
    from dolmen.features import Batch, Dense, Label, Schema, Side, Slot
    from dolmen.training import TrainConfig, Trainer, new_trainer

__version__ = "0.1.0"

__all__ = [
    "Batch",
    "Client",
    "Dense",
    "Embed",
    "Embeddings",
    "Label",
    "Schema",
    "Side",
    "Slot",
    "Table",
    "TrainConfig",
    "Trainer",
    "datasets",
    "new_trainer",
]

_HOMES: Final = {
    "Client": "client",
    **dict.fromkeys(("Embed", "Embeddings", "Table"), "embedding"),
    **dict.fromkeys(("Batch", "Dense", "Label", "Schema", "Side", "Slot"), "features"),
    **dict.fromkeys(("TrainConfig", "Trainer", "new_trainer"), "training"),
}


def __getattr__(name: str) -> Any:
    if name == "datasets":
        return importlib.import_module("dolmen.datasets")
    if name in _HOMES:
        return getattr(importlib.import_module(f"dolmen.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'dolmen' has no attribute {name!r}")

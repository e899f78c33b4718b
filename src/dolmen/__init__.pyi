from . import datasets
from .client import Client
from .embedding import Embed, Embeddings, Table
from .features import Batch, Dense, Label, Schema, Side, Slot
from .training import TrainConfig, Trainer, new_trainer

__version__: str

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

"""CiteULike: 210,528 articles that 5,551 researchers put into their libraries; pairs only, in the source's split."""

from __future__ import annotations

from typing import Final

import numpy as np
import pyarrow as pa

from dolmen.datasets.actions import action_dataset
from dolmen.datasets.dataset import Dataset, DatasetInfo, Order
from dolmen.datasets.entry import Tables, parquet_entry
from dolmen.evaluation import GivenSplit
from dolmen.features import Label, Schema, Slot

__all__ = ["ENTRY", "INFO", "SCHEMA"]

INFO: Final = DatasetInfo(
    name="citeulike",
    title="CiteULike",
    summary="210,528 articles in 5,551 people's libraries, without order",
    source_url="https://github.com/geon0325/LightGCNpp",
    citation=(
        "Chong Wang, David M. Blei. 2011. Collaborative Topic Modeling for Recommending Scientific Articles. KDD. "
        "https://doi.org/10.1145/2020408.2020480"
    ),
    terms="for research; cite the authors",
    terms_url="https://github.com/geon0325/LightGCNpp",
    statistics={"users": 5551, "items": 16_980, "interactions": 210_528, "clicks": 210_528},
    content_sha256="f5244244a48230991d07422cb4e3f8854cdbac8d05f7263f22b5a4bf49798227",
    notes="Train, validation and test as published: 151,918, 18,727 and 39,883 pairs; 24 pairs occur twice.",
    used_by=("CML", "NGCF", "kNN-Embed"),
)
SCHEMA: Final = Schema(Slot("user"), Slot("item"), Label("click"))

_PARTS: Final = ("train", "valid", "test")


def _build(info: DatasetInfo, tables: Tables) -> Dataset:
    pairs = pa.concat_tables([tables[name] for name in _PARTS])
    parts = np.repeat(np.arange(len(_PARTS), dtype=np.int8), [len(tables[name]) for name in _PARTS])
    return action_dataset(info, SCHEMA, pairs["user"], pairs["item"], order=Order.NONE, rule=GivenSplit(parts))


ENTRY: Final = parquet_entry(INFO, _PARTS, _build)

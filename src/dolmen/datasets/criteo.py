"""Criteo display advertising, its first 10,000 rows: shown ads and whether they were clicked, in order.

Neither the person nor the ad is told, only 13 counts and 26 hashed categories. ``log_i1`` to ``log_i13`` are
ln(1 + count), with counts below 0 taken as 0, as is usual for these columns.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dolmen.datasets.dataset import Dataset, DatasetInfo, Order, impressions_table
from dolmen.datasets.entry import Tables, parquet_entry
from dolmen.features import Dense, Label, Schema, Slot

__all__ = ["ENTRY", "INFO", "SCHEMA"]

INFO: Final = DatasetInfo(
    name="criteo-kaggle-10k",
    title="Criteo display advertising (Kaggle), the first 10,000 rows",
    summary="10,000 shown ads with 13 counts and 26 hashed categories, in order",
    source_url="https://www.kaggle.com/c/criteo-display-ad-challenge",
    citation="Criteo Labs. 2014. Display Advertising Challenge. Kaggle.",
    terms="CC BY-NC-SA 4.0; cite Criteo Labs",
    terms_url="https://creativecommons.org/licenses/by-nc-sa/4.0/",
    statistics={"users": 0, "items": 0, "interactions": 10_000, "clicks": 2182},
    content_sha256="4d87ad455cb23068cdb3cadf0f7ef99d538d7dc995d2cc7bc8cf842572077b06",
    notes=(
        "The first of 45.8 million rows, so too few for figures of any paper. Neither person, ad nor time is told: "
        "user and item are null, and rows are in order."
    ),
    used_by=("embedding compression", "Unified Embedding", "iHAS", "DNIS"),
)

_COUNTS: Final = tuple(f"I{number}" for number in range(1, 14))
_CATEGORIES: Final = tuple(f"C{number}" for number in range(1, 27))

SCHEMA: Final = Schema(
    *(Slot(name) for name in _CATEGORIES), *(Dense(f"log_{name.lower()}") for name in _COUNTS), Label("click")
)


def _build(info: DatasetInfo, tables: Tables) -> Dataset:
    rows = tables["train_first_10000"]
    logs = {
        f"log_{name.lower()}": pc.log1p(pc.max_element_wise(rows[name].cast(pa.float64()), 0.0, skip_nulls=False))
        for name in _COUNTS
    }
    interactions = impressions_table(rows["label"], **{name: rows[name] for name in (*_COUNTS, *_CATEGORIES)}, **logs)
    nobody = pa.table({"id": pa.array(np.empty(0, dtype=np.int64))})
    return Dataset(info, SCHEMA, nobody, nobody, interactions, order=Order.LOG)


ENTRY: Final = parquet_entry(INFO, ("train_first_10000",), _build)

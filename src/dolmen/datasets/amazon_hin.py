"""Amazon reviews with times, categories and brands: 195,791 ratings of 2,753 items by 6,170 people, complete.

Prepared as DIN and TIN prepare Amazon Electronics: each review is an action, whatever its rating; a person's reviews
stand in order of time, and those of one day (times are days) in the order of the source; the last one tests, the one
before validates. ``with_negatives(1)`` adds the papers' one random item for each.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import pyarrow as pa

from dolmen.datasets.amazon import CITATION, TERMS, TERMS_URL
from dolmen.datasets.dataset import Dataset, DatasetInfo, Order, actions_table
from dolmen.datasets.entry import Tables, grouped, parquet_entry
from dolmen.evaluation import LeaveOneOut
from dolmen.features import Label, Schema, Side, Slot

__all__ = ["ENTRY", "INFO", "SCHEMA"]

INFO: Final = DatasetInfo(
    name="amazon-hin",
    title="Amazon reviews with categories and brands",
    summary="195,791 ratings with days, categories and brands; each a positive, in order",
    source_url="https://github.com/librahu/HIN-Datasets-for-Recommendation-and-Network-Embedding",
    citation=CITATION,
    terms=TERMS,
    terms_url=TERMS_URL,
    statistics={"users": 6170, "items": 2753, "interactions": 195_791, "clicks": 195_791},
    content_sha256="db51b0f41832189b849cb7e6e6a01a25e52216b8219bf9a215a105aab016b3ff",
    notes=(
        "The source does not say which domain the items are of, and writes times in days. Every review counts as an "
        "action, as in DIN. ``views`` names things seen together with an item; they are ids of their own, not items."
    ),
    used_by=("DIN", "TIN", "SDIM"),
)

SCHEMA: Final = Schema(
    Slot("user"),
    Slot("item"),
    Slot("categories", many=True, of=Side.ITEM),
    Slot("brand", of=Side.ITEM),
    Slot("history", table="item", many=True, ordered=True, max_len=50, of=Side.USER),
    Slot("history_categories", table="categories", many=True, ordered=True, max_len=150, of=Side.USER),
    Label("click"),
)


def _build(info: DatasetInfo, tables: Tables) -> Dataset:
    ratings = tables["ratings"]
    time, user = ratings["timestamp"].to_numpy(), ratings["user"].to_numpy()
    ratings = ratings.take(pa.array(np.argsort(time, kind="stable")))
    ids = pa.array(np.unique(tables["item_brand"]["item"].to_numpy()))
    items = pa.table(
        {
            "id": ids,
            "categories": grouped(ids, tables["item_category"], "item", "category"),
            "brand": grouped(ids, tables["item_brand"], "item", "brand").flatten(),
            "views": grouped(ids, tables["item_view"], "item", "view"),
        }
    )
    instants = pa.array(ratings["timestamp"].to_numpy() * 1_000_000, pa.timestamp("us", tz="UTC"))
    interactions = actions_table(ratings["user"], ratings["item"], instants, rating=ratings["rating"].cast(pa.int8()))
    users = pa.table({"id": pa.array(np.unique(user))})
    return Dataset(info, SCHEMA, items, users, interactions, order=Order.ROWS, rule=LeaveOneOut())


ENTRY: Final = parquet_entry(INFO, ("ratings", "item_category", "item_brand", "item_view"), _build)

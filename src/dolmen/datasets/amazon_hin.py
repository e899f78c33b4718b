"""Amazon reviews with times, categories and brands: 195,791 ratings of 2,753 items by 6,170 people, complete.

Prepared as DIN and TIN prepare Amazon Electronics: each review is an action, whatever its rating; a person's reviews
stand in order of time, and those of one day (times are days) in the order of the source; the last one tests, the one
before validates. ``with_negatives(1)`` adds the papers' one random item for each.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import pyarrow as pa

from dolmen.datasets.actions import action_dataset, read_numbers
from dolmen.datasets.amazon import CITATION, TERMS, TERMS_URL
from dolmen.datasets.dataset import Dataset, DatasetInfo, Order
from dolmen.datasets.entry import Tables, grouped, parquet_entry
from dolmen.datasets.sources import Archive, Files, Layout, Place
from dolmen.evaluation import LeaveOneOut
from dolmen.features import Label, Schema, Side, Slot

__all__ = ["ENTRY", "INFO", "PUBLISHED", "SCHEMA"]

INFO: Final = DatasetInfo(
    name="amazon-hin",
    title="Amazon reviews with categories and brands",
    summary="195,791 reviews with days, categories and brands; each a positive, in order",
    source_url="https://github.com/librahu/HIN-Datasets-for-Recommendation-and-Network-Embedding",
    citation=CITATION,
    terms=TERMS,
    terms_url=TERMS_URL,
    statistics={"users": 6170, "items": 2753, "interactions": 195_791, "clicks": 195_791},
    content_sha256="db51b0f41832189b849cb7e6e6a01a25e52216b8219bf9a215a105aab016b3ff",
    notes=(
        "The source does not say which domain the items are of, and writes times in days. Every review counts as an "
        "action, as in DIN. views names things seen together with an item; they are ids of their own, not items."
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
PUBLISHED: Final = Layout(
    "the published text files",
    (INFO.name,),
    ("user_item.dat", "item_view.dat", "item_category.dat", "item_brand.dat"),
)

_ADDRESS: Final = (
    "https://raw.githubusercontent.com/librahu/HIN-Datasets-for-Recommendation-and-Network-Embedding/"
    "cc05c484b628b08237f0a876fcebf99d736ccbea/Amazon"
)
_SUMS: Final = (
    "d14fcc5b04f0d701d326149bc4f18d471156f189ff1f4d0fefa14511c4cb42c8",
    "42b1aec0a0eb9d71a265efb491dd951b523723637bb18f80f87c72d4fa6819da",
    "17b9158f777fbb0b8b035a9b675c2f7d2e9f7ad81f34919d3e6db4289c9dc6bf",
    "65f4eaddff343a365ad474a6841bbaf541af1b2d96081c4adaeeeb8a7a8a313b",
)
_NUMBER: Final = pa.int32()


def _read_published(place: Place) -> Tables:
    ratings = read_numbers(
        place, "user_item.dat", "\t", user=_NUMBER, item=_NUMBER, rating=pa.float32(), timestamp=pa.int64()
    )
    relations = {
        f"item_{name}": read_numbers(place, f"item_{name}.dat", ",", item=_NUMBER, **{name: _NUMBER})
        for name in ("category", "brand", "view")
    }
    return {"ratings": ratings, **relations}


def _build(info: DatasetInfo, tables: Tables) -> Dataset:
    ratings = tables["ratings"]
    ratings = ratings.take(pa.array(np.argsort(ratings["timestamp"].to_numpy(), kind="stable")))
    ids = pa.array(np.unique(tables["item_brand"]["item"].to_numpy()))
    items = pa.table(
        {
            "id": ids,
            "categories": grouped(ids, tables["item_category"], "item", "category"),
            "brand": grouped(ids, tables["item_brand"], "item", "brand").flatten(),
            "views": grouped(ids, tables["item_view"], "item", "view"),
        }
    )
    return action_dataset(
        info,
        SCHEMA,
        ratings["user"],
        ratings["item"],
        event_time=pa.array(ratings["timestamp"].to_numpy() * 1_000_000, pa.timestamp("us", tz="UTC")),
        rating=ratings["rating"].cast(pa.int8()),
        items=items,
        order=Order.LOG,
        rule=LeaveOneOut(),
    )


ENTRY: Final = parquet_entry(
    INFO,
    ("ratings", "item_category", "item_brand", "item_view"),
    _build,
    readers={PUBLISHED: _read_published},
    downloads=(
        Files(
            tuple(
                Archive(f"{_ADDRESS}/{name}", sha256=sha256)
                for name, sha256 in zip(PUBLISHED.files, _SUMS, strict=True)
            )
        ),
    ),
)

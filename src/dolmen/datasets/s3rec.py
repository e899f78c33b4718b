"""Sequences with attributes of their items, as S3-Rec prepared them: everybody and everything at least five times.

Order, no times; the last action tests, the one before validates. What an attribute means the files do not say: brands
and categories by number. For Yelp another project's file gives names and categories in words.
"""

from __future__ import annotations

import json
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dolmen.datasets.actions import action_dataset
from dolmen.datasets.amazon import CITATION as AMAZON_CITATION
from dolmen.datasets.amazon import TERMS, TERMS_URL
from dolmen.datasets.dataset import Dataset, DatasetInfo, Order
from dolmen.datasets.entry import StoredEntry, Tables, grouped, parquet_entry
from dolmen.datasets.sources import Archive, Files, Layout, Place
from dolmen.evaluation import LeaveOneOut
from dolmen.features import Label, Schema, Side, Slot

__all__ = ["ENTRIES", "SCHEMA"]

SCHEMA: Final = Schema(
    Slot("user"),
    Slot("item"),
    Slot("attributes", many=True, of=Side.ITEM),
    Slot("history", table="item", many=True, ordered=True, max_len=50, of=Side.USER),
    Slot("history_attributes", table="attributes", many=True, ordered=True, max_len=200, of=Side.USER),
    Label("click"),
)

_CITATION: Final = (
    "Kun Zhou, Hui Wang, Wayne Xin Zhao, et al. 2020. S3-Rec: Self-Supervised Learning for Sequential Recommendation "
    "with Mutual Information Maximization. CIKM. https://doi.org/10.1145/3340531.3411954"
)
_SOURCE: Final = "https://github.com/RUCAIBox/CIKM2020-S3Rec"
_ADDRESS: Final = (
    "https://raw.githubusercontent.com/RUCAIBox/CIKM2020-S3Rec/2a81540ae18615d88ef88227b0c066e5b74781e5/data"
)


def _build(info: DatasetInfo, tables: Tables) -> Dataset:
    actions = tables["sequences"]
    ids = pa.array(np.unique(actions["item"].to_numpy()))
    items = pa.table({"id": ids, "attributes": grouped(ids, tables["item_attributes"], "item", "attribute")})
    text = tables.get("items_text")
    if text is not None:
        rows = pc.index_in(ids, value_set=text["item"].combine_chunks())
        items = items.append_column("name", text["name"].take(rows).cast(pa.string()))
        categories = pc.split_pattern(text["categories"].take(rows).cast(pa.string()), ", ")
        items = items.append_column("categories", categories)
    return action_dataset(
        info, SCHEMA, actions["user"], actions["item"], items=items, order=Order.PERSON, rule=LeaveOneOut()
    )


def _entry(info: DatasetInfo, name: str, sequences_sha256: str, attributes_sha256: str) -> StoredEntry:
    sequences, attributes = f"{name}.txt", f"{name}_item2attributes.json"

    def read_published(place: Place) -> Tables:
        lines = [line.split() for line in (place / sequences).read_text(encoding="utf-8").splitlines()]
        lengths = np.array([len(line) - 1 for line in lines])
        starts = np.cumsum(lengths) - lengths
        of_items = json.loads((place / attributes).read_text(encoding="utf-8"))
        return {
            "sequences": pa.table(
                {
                    "user": pa.array(np.repeat([int(line[0]) for line in lines], lengths), pa.int32()),
                    "position": pa.array(np.arange(lengths.sum()) - np.repeat(starts, lengths), pa.int16()),
                    "item": pa.array([int(item) for line in lines for item in line[1:]], pa.int32()),
                }
            ),
            "item_attributes": pa.table(
                {
                    "item": pa.array([int(item) for item, own in of_items.items() for _ in own], pa.int32()),
                    "attribute": pa.array([one for own in of_items.values() for one in own], pa.int32()),
                }
            ),
        }

    layout = Layout("the published files", (info.name,), (sequences, attributes))
    files = Files(
        (
            Archive(f"{_ADDRESS}/{sequences}", sha256=sequences_sha256),
            Archive(f"{_ADDRESS}/{attributes}", sha256=attributes_sha256),
        )
    )
    return parquet_entry(
        info, ("sequences", "item_attributes"), _build, readers={layout: read_published}, downloads=(files,)
    )


ENTRIES: Final = (
    _entry(
        DatasetInfo(
            name="amazon-beauty-seq",
            title="Amazon Beauty, 5-core, as in S3-Rec",
            summary="198,502 reviews by 22,363 people in order, with numbers for brands and categories",
            source_url=_SOURCE,
            citation=f"{AMAZON_CITATION} {_CITATION}",
            terms=TERMS,
            terms_url=TERMS_URL,
            statistics={"users": 22_363, "items": 12_101, "interactions": 198_502, "clicks": 198_502},
            content_sha256="de3201cd86cafc440d8102074c248a301a21c67efe0b6df39152d156a79352c1",
            notes="Order, no times, names or titles. People and items with fewer than 5 reviews are left out.",
            used_by=("MQSA-TED", "BERT4Rec", "SSL for items"),
        ),
        "Beauty",
        "226cce9c3105299ca0db9615d7d3fb32b3175e90da43100ae352599f0f0107b8",
        "129e40f67486f6877eff0f5318cfa8530ee8ac23d8b0d1de04e1bb7a2ba0b2d4",
    ),
    _entry(
        DatasetInfo(
            name="amazon-sports-seq",
            title="Amazon Sports and Outdoors, 5-core, as in S3-Rec",
            summary="296,337 reviews by 35,598 people in order, with numbers for brands and categories",
            source_url=_SOURCE,
            citation=f"{AMAZON_CITATION} {_CITATION}",
            terms=TERMS,
            terms_url=TERMS_URL,
            statistics={"users": 35_598, "items": 18_357, "interactions": 296_337, "clicks": 296_337},
            content_sha256="7e258486b8de998c8c43ac8c553da672db1e57939d10486469e1c463a94ed99f",
            notes="Order, no times, names or titles. People and items with fewer than 5 reviews are left out.",
            used_by=("MQSA-TED", "BERT4Rec", "SSL for items"),
        ),
        "Sports_and_Outdoors",
        "2a095e0648872beb9982408958290f5d655db5be2911c3756b5446de9f0b8de2",
        "7fb10733ac4f1811384a52144cdefa7fcc7536fa80a7232c5da9bd789155c34b",
    ),
    parquet_entry(
        DatasetInfo(
            name="yelp-seq",
            title="Yelp from 2019 on, 5-core, as in S3-Rec",
            summary="316,354 visits of 30,431 people to businesses in order, with names and categories",
            source_url=_SOURCE,
            citation=_CITATION,
            terms="academic use only, no redistribution",
            terms_url="https://www.yelp.com/dataset",
            statistics={"users": 30_431, "items": 20_033, "interactions": 316_354, "clicks": 316_354},
            content_sha256="846a58ebe10fa0946b3d5d55446b33dd6ab93a7bdc64ec249d392249c5107e30",
            notes=(
                "Order, no times; a business may come again. Names and categories are joined from the files of LETTER "
                "(https://github.com/HonghuiBao2000/LETTER), which number the businesses one lower."
            ),
            used_by=("MQSA-TED", "AlphaRec", "RecGPT"),
        ),
        ("sequences", "item_attributes", "items_text"),
        _build,
    ),
)

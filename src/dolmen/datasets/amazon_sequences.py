"""What people reviewed on Amazon, in order, as the papers on sequences use it: the papers' own files.

No times are told, only each person's order. Every review counts as an action; the last one tests, the one before
validates.
"""

from __future__ import annotations

from typing import Final

import pyarrow as pa

from dolmen.datasets.actions import action_dataset, read_numbers
from dolmen.datasets.amazon import CITATION, TERMS, TERMS_URL
from dolmen.datasets.dataset import Dataset, DatasetInfo, Order
from dolmen.datasets.entry import StoredEntry, Tables, parquet_entry
from dolmen.datasets.sources import Archive, Layout, Place
from dolmen.evaluation import LeaveOneOut
from dolmen.features import Label, Schema, Side, Slot

__all__ = ["ENTRIES", "SCHEMA"]

SCHEMA: Final = Schema(
    Slot("user"),
    Slot("item"),
    Slot("history", table="item", many=True, ordered=True, max_len=50, of=Side.USER),
    Label("click"),
)


def _build(info: DatasetInfo, tables: Tables) -> Dataset:
    actions = tables["interactions"]
    return action_dataset(info, SCHEMA, actions["user"], actions["item"], order=Order.PERSON, rule=LeaveOneOut())


def _entry(info: DatasetInfo, published: Archive) -> StoredEntry:
    file_name = published.url.rpartition("/")[2]

    def read_published(place: Place) -> Tables:
        return {"interactions": read_numbers(place, file_name, " ", user=pa.int32(), item=pa.int32())}

    layout = Layout("the published text file", (info.name,), (file_name,))
    return parquet_entry(info, ("interactions",), _build, readers={layout: read_published}, downloads=(published,))


ENTRIES: Final = (
    _entry(
        DatasetInfo(
            name="bert4rec-beauty",
            title="Amazon Beauty, as in BERT4Rec",
            summary="353,962 reviews by 40,226 people in order, the paper's own file",
            source_url="https://github.com/FeiSun/BERT4Rec",
            citation=CITATION,
            terms=TERMS,
            terms_url=TERMS_URL,
            statistics={"users": 40_226, "items": 54_542, "interactions": 353_962, "clicks": 353_962},
            content_sha256="9f8abf172ea60c0c8379c27ce819adc4b8664bdeaa213895c1fc4241ba4bd2a6",
            notes="People with fewer than 5 reviews are left out, as in the paper. Order, no times.",
            used_by=("BERT4Rec", "SASRec"),
        ),
        Archive(
            "https://raw.githubusercontent.com/FeiSun/BERT4Rec/615eaf2004abecda487a38d5b0c72f3dcfcae5b3/data/beauty.txt",
            sha256="f480b7a7403852342ffd8f9809bb30697dd669be31813d0e204b698fec86ef49",
        ),
    ),
    _entry(
        DatasetInfo(
            name="sasrec-video-games",
            title="Amazon Video Games, as in SASRec",
            summary="287,107 reviews by 31,013 people in order",
            source_url="https://github.com/pmixer/SASRec.pytorch",
            citation=CITATION,
            terms=TERMS,
            terms_url=TERMS_URL,
            statistics={"users": 31_013, "items": 23_715, "interactions": 287_107, "clicks": 287_107},
            content_sha256="3069a1ed7d45a8a8c1aefadce277401b1c3408162025ced9313687d1cf9b955b",
            notes="Order, no times.",
            used_by=("SASRec", "BERT4Rec"),
        ),
        Archive(
            "https://raw.githubusercontent.com/pmixer/SASRec.pytorch/fde8a9c08febc2c898dc269b1d98ab762c50d2be/"
            "python/data/Video.txt",
            sha256="b7376fe24430743f411dc7f567285657b2adb3f74361cc7ba0aee94f3024b651",
        ),
    ),
)

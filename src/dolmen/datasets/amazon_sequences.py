"""What people reviewed on Amazon, in order, as the papers on sequences use it: the papers' own files.

No times are told, only each person's order. Every review counts as an action; the last one tests, the one before
validates.
"""

from __future__ import annotations

import io
from functools import partial
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv

from dolmen.datasets.amazon import CITATION, TERMS, TERMS_URL
from dolmen.datasets.dataset import Dataset, DatasetInfo, Order, actions_table
from dolmen.datasets.entry import StoredEntry, Tables, parquet_entry
from dolmen.datasets.sources import Download, Layout, Place
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
    users, items = (pa.table({"id": pa.array(np.unique(actions[name].to_numpy()))}) for name in ("user", "item"))
    interactions = actions_table(actions["user"], actions["item"])
    return Dataset(info, SCHEMA, items, users, interactions, order=Order.ROWS, rule=LeaveOneOut())


def _read_text(file_name: str, place: Place) -> Tables:
    """Lines of a person's and an item's number, as published."""
    with (place / file_name).open("rb") as file:
        table = pacsv.read_csv(
            io.BytesIO(file.read()),
            read_options=pacsv.ReadOptions(column_names=["user", "item"]),
            parse_options=pacsv.ParseOptions(delimiter=" "),
            convert_options=pacsv.ConvertOptions(column_types={"user": pa.int32(), "item": pa.int32()}),
        )
    return {"interactions": table}


def _entry(info: DatasetInfo, file_name: str, *downloads: Download) -> StoredEntry:
    text = Layout("the published text file", (info.name,), (file_name,))
    return parquet_entry(
        info, ("interactions",), _build, readers={text: partial(_read_text, file_name)}, downloads=downloads
    )


ENTRIES: Final = (
    _entry(
        DatasetInfo(
            name="bert4rec-beauty",
            title="Amazon Beauty, as in BERT4Rec",
            summary="353,962 actions of 40,226 people in order, the paper's own file",
            source_url="https://github.com/FeiSun/BERT4Rec",
            citation=CITATION,
            terms=TERMS,
            terms_url=TERMS_URL,
            statistics={"users": 40_226, "items": 54_542, "interactions": 353_962, "clicks": 353_962},
            content_sha256="9f8abf172ea60c0c8379c27ce819adc4b8664bdeaa213895c1fc4241ba4bd2a6",
            notes="People with fewer than 5 actions are left out, as in the paper. Order, no times.",
            used_by=("BERT4Rec", "SASRec"),
        ),
        "beauty.txt",
    ),
    _entry(
        DatasetInfo(
            name="sasrec-video-games",
            title="Amazon Video Games, as in SASRec",
            summary="287,107 actions of 31,013 people in order",
            source_url="https://github.com/pmixer/SASRec.pytorch",
            citation=CITATION,
            terms=TERMS,
            terms_url=TERMS_URL,
            statistics={"users": 31_013, "items": 23_715, "interactions": 287_107, "clicks": 287_107},
            content_sha256="3069a1ed7d45a8a8c1aefadce277401b1c3408162025ced9313687d1cf9b955b",
            notes="Order, no times.",
            used_by=("SASRec", "BERT4Rec"),
        ),
        "Video.txt",
    ),
)

"""Book-Crossing, its core: books that 2,946 people read or rated, with titles and where people live; pairs only."""

from __future__ import annotations

from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from dolmen.datasets.actions import action_dataset
from dolmen.datasets.dataset import Dataset, DatasetInfo, Order
from dolmen.datasets.entry import Tables, parquet_entry
from dolmen.evaluation import PersonRatio
from dolmen.features import Label, Schema, Side, Slot

__all__ = ["ENTRY", "INFO", "SCHEMA"]

INFO: Final = DatasetInfo(
    name="book-crossing-core",
    title="Book-Crossing, people with 20 books and more",
    summary="272,678 books of 2,946 people with titles, authors and ratings, without order",
    source_url="https://github.com/caserec/Datasets-for-Recommender-Systems",
    citation=(
        "Cai-Nicolas Ziegler, Sean M. McNee, Joseph A. Konstan, Georg Lausen. 2005. Improving Recommendation Lists "
        "Through Topic Diversification. WWW. https://doi.org/10.1145/1060745.1060754"
    ),
    terms="for research; cite the authors",
    terms_url="https://github.com/caserec/Datasets-for-Recommender-Systems",
    statistics={"users": 2946, "items": 17_384, "interactions": 272_678, "clicks": 272_678},
    content_sha256="35051630ffa38b692cce9a0efa79586bc1455e05482e4788dd787fdda8e60785",
    notes=(
        "Having a book is an action; rating (1 to 10) is null where none was given. A year of 0 and an age that is no "
        "number are unknown, and null here. Some names are garbled in the source."
    ),
    used_by=("AlphaRec",),
)
SCHEMA: Final = Schema(
    Slot("user"),
    Slot("item"),
    Slot("author", of=Side.ITEM),
    Slot("publisher", of=Side.ITEM),
    Slot("location", of=Side.USER),
    Label("click"),
)


def _build(info: DatasetInfo, tables: Tables) -> Dataset:
    held = tables["implicit"].append_column("row", pa.array(range(len(tables["implicit"]))))
    held = held.join(tables["ratings"], ["user", "item"]).sort_by("row")
    books, people = tables["books"], tables["users"]
    items = {"id": books["item"], **{name: _text(books, name) for name in ("title", "author", "publisher", "isbn")}}
    users = {"id": people["user"].cast(pa.int32()), "location": _text(people, "location")}
    return action_dataset(
        info,
        SCHEMA,
        held["user"],
        held["item"],
        rating=held["rating"],
        items=pa.table({**items, "year": _number(books, "year")}),
        users=pa.table({**users, "age": _number(people, "age")}),
        order=Order.NONE,
        rule=PersonRatio(seed=0),
    )


def _text(table: pa.Table, name: str) -> pa.ChunkedArray:
    return table[name].cast(pa.string())


def _number(table: pa.Table, name: str) -> pa.ChunkedArray:
    """The numbers in a column of text; null where there is none, and for 0."""
    text = _text(table, name)
    is_number = pc.match_substring_regex(text, "^[1-9][0-9]{0,4}$")
    return pc.if_else(is_number, text, None).cast(pa.int32())


ENTRY: Final = parquet_entry(INFO, ("implicit", "ratings", "books", "users"), _build)

"""What the MovieLens sets have in common: films, people, ratings, and the pages on which they were rated.

MovieLens showed pages of films and people rated many of them at once. What was on a page was not recorded, so it is
reconstructed: ratings of one person that follow each other within 60 seconds were made on one page, of at most 10.
The order on the page was not recorded either: ``position`` is the order of rating, and says nothing about attention.
A rating of 4 or 5 counts as a click. Every film of a page was rated, so the lower ratings are its non-clicks.
"""

from __future__ import annotations

import re
from typing import Final

import numpy as np
import pyarrow as pa

from dolmen.datasets.dataset import Dataset, DatasetInfo
from dolmen.datasets.entry import Tables
from dolmen.errors import DataError
from dolmen.features import Label, Schema, Side, Slot

__all__ = ["CITATION", "SCHEMA", "TERMS", "USERS", "build", "items_table", "ratings_table", "split_title"]

CITATION: Final = (
    "F. Maxwell Harper and Joseph A. Konstan. 2015. The MovieLens Datasets: History and Context. "
    "ACM Transactions on Interactive Intelligent Systems 5, 4, Article 19. https://doi.org/10.1145/2827872"
)
TERMS: Final = (
    "free for research with acknowledgement; no redistribution and no commercial use without permission of GroupLens"
)
PAGE_GAP_SECONDS: Final = 60
PAGE_LENGTH_MAX: Final = 10
CLICK_RATING_MIN: Final = 4

SCHEMA: Final = Schema(
    Slot("user"),
    Slot("item"),
    Slot("genres", many=True, of=Side.ITEM),
    Slot("release_year", of=Side.ITEM),
    Slot("age", of=Side.USER),
    Slot("gender", of=Side.USER),
    Slot("occupation", of=Side.USER),
    Slot("history", table="item", many=True, ordered=True, max_len=50, of=Side.USER),
    Slot("history_genres", table="genres", many=True, ordered=True, max_len=100, of=Side.USER),
    Label("click"),
)

ITEMS: Final = pa.schema(
    [
        ("id", pa.int64()),
        ("title", pa.string()),
        ("genres", pa.list_(pa.string())),
        ("release_year", pa.int64()),
    ]
)
USERS: Final = pa.schema(
    [
        ("id", pa.int64()),
        ("age", pa.int64()),
        ("gender", pa.string()),
        ("occupation", pa.string()),
        ("zip_code", pa.string()),
    ]
)
RATINGS: Final = pa.schema(
    [
        ("user", pa.int64()),
        ("item", pa.int64()),
        ("rating", pa.int64()),
        ("time", pa.int64()),  # seconds since the epoch
    ]
)

_TITLE_AND_YEAR: Final = re.compile(r"^(.*\S)\s*\((\d{4})\)(?:\s+\(V\))?$")  # (V): released on video only


def split_title(title: str) -> tuple[str, int | None]:
    """The title and the year that MovieLens writes behind it.

    >>> split_title("Toy Story (1995)"), split_title("unknown")
    (('Toy Story', 1995), ('unknown', None))
    """
    match = _TITLE_AND_YEAR.match(title.strip())
    return (match[1], int(match[2])) if match else (title.strip(), None)


def items_table(ids: list[int], titles: list[str], years: list[int | None], genres: list[list[str]]) -> pa.Table:
    """Films, in order of id."""
    return pa.table([ids, titles, genres, years], schema=ITEMS)


def ratings_table(user: pa.Array, item: pa.Array, rating: pa.Array, time: pa.Array) -> pa.Table:
    """Ratings in the order of the original file."""
    columns = [pa.chunked_array(c) if isinstance(c, list) else c for c in (user, item, rating, time)]
    return pa.table([column.cast(pa.int64()) for column in columns], schema=RATINGS)


def build(info: DatasetInfo, tables: Tables) -> Dataset:
    """The data set, from its films, people and ratings.

    Raises:
        DataError: a rating is not between 1 and 5.
    """
    ratings = tables["ratings"]
    user, item, rating, time = (ratings[name].to_numpy() for name in RATINGS.names)
    if len(ratings) and not 1 <= rating.min() <= rating.max() <= 5:
        raise DataError(f"{info.name}: ratings must be between 1 and 5, got {rating.min()} to {rating.max()}")
    order = np.lexsort((time, user))  # stable: ratings of one person in one second keep the file's order
    rows = np.arange(len(order))
    starts_visit = np.ones(len(order), dtype=bool)
    starts_visit[1:] = (np.diff(user[order]) != 0) | (np.diff(time[order]) > PAGE_GAP_SECONDS)
    place_in_visit = rows - np.maximum.accumulate(np.where(starts_visit, rows, 0))
    position = place_in_visit % PAGE_LENGTH_MAX
    page = np.cumsum(position == 0) - 1
    page_time = time[order][position == 0]
    page_rank = np.empty(len(page_time), dtype=np.int64)
    page_rank[np.argsort(page_time, kind="stable")] = np.arange(len(page_time))
    in_time = np.argsort(page_rank[page], kind="stable")
    rows = order[in_time]
    instants = {"event_time": page_time[page][in_time], "action_time": time[rows]}
    interactions = pa.table(
        {
            "user": user[rows],
            "item": item[rows],
            "rating": pa.array(rating[rows], pa.int8()),
            **{name: pa.array(at * 1_000_000, pa.timestamp("us", tz="UTC")) for name, at in instants.items()},
            "click": pa.array(rating[rows] >= CLICK_RATING_MIN, pa.int8()),
            "slate": page_rank[page][in_time],
            "position": pa.array(position[in_time], pa.int16()),
        }
    )
    return Dataset(info, SCHEMA, tables["items"], tables["users"], interactions)

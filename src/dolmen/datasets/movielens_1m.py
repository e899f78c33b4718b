"""MovieLens 1M: 1,000,209 ratings of 3,883 films by 6,040 people, 2000 to 2003.

Only its publisher has all of it, so there is one layout and one way to get it. Ages are groups, named by their first
year: 1 stands for under 18, then 18, 25, 35, 45, 50 and 56.
"""

from __future__ import annotations

import io
from typing import Final

import pyarrow as pa
import pyarrow.csv as pacsv

from dolmen.datasets.dataset import DatasetInfo
from dolmen.datasets.entry import StoredEntry, Tables
from dolmen.datasets.movielens import CITATION, TERMS, USERS, build, items_table, ratings_table, split_title
from dolmen.datasets.sources import Archive, Layout, Place

__all__ = ["ENTRY", "INFO", "OFFICIAL"]

_OCCUPATIONS: Final = (
    "other",
    "academic/educator",
    "artist",
    "clerical/admin",
    "college/grad student",
    "customer service",
    "doctor/health care",
    "executive/managerial",
    "farmer",
    "homemaker",
    "K-12 student",
    "lawyer",
    "programmer",
    "retired",
    "sales/marketing",
    "scientist",
    "self-employed",
    "technician/engineer",
    "tradesman/craftsman",
    "unemployed",
    "writer",
)

INFO: Final = DatasetInfo(
    name="movielens-1m",
    title="MovieLens 1M",
    summary="1,000,209 ratings of films with times, titles, genres and people, 2000-2003",
    source_url="https://grouplens.org/datasets/movielens/1m/",
    citation=CITATION,
    terms=TERMS,
    terms_url="https://files.grouplens.org/datasets/movielens/ml-1m-README.txt",
    statistics={"users": 6040, "items": 3883, "interactions": 1_000_209, "clicks": 575_281},
)

OFFICIAL: Final = Layout(
    "the official files",
    ("movielens-1m/ml-1m.zip/ml-1m", "ml-1m.zip/ml-1m", "movielens-1m/ml-1m", "movielens-1m", "ml-1m"),
    ("movies.dat", "users.dat", "ratings.dat"),
)


def _read_official(place: Place) -> Tables:
    films = _lines(place, "movies.dat")
    parted = [split_title(film[1]) for film in films]
    people = _lines(place, "users.dat")
    with (place / "ratings.dat").open("rb") as file:
        ratings = pacsv.read_csv(
            io.BytesIO(file.read().replace(b"::", b"\t")),
            read_options=pacsv.ReadOptions(column_names=["user", "item", "rating", "time"]),
            parse_options=pacsv.ParseOptions(delimiter="\t", quote_char=False),
        )
    return {
        "items": items_table(
            [int(film[0]) for film in films],
            [title for title, _ in parted],
            [year for _, year in parted],
            [film[2].split("|") for film in films],
        ),
        "users": pa.table(
            [
                [int(person[0]) for person in people],
                [int(person[2]) for person in people],
                [person[1] for person in people],
                [_OCCUPATIONS[int(person[3])] for person in people],
                [person[4] for person in people],
            ],
            schema=USERS,
        ),
        "ratings": ratings_table(*ratings.columns),
    }


def _lines(place: Place, name: str) -> list[list[str]]:
    text = (place / name).read_text(encoding="latin-1")
    return [line.split("::") for line in text.split("\n") if line]


ENTRY: Final = StoredEntry(
    info=INFO,
    readers={OFFICIAL: _read_official},
    downloads=(
        Archive(
            "https://files.grouplens.org/datasets/movielens/ml-1m.zip",
            sha256="a6898adb50b9ca05aa231689da44c217cb524e7ebd39d264c56e2832f2c54e20",
        ),
    ),
    build=build,
)

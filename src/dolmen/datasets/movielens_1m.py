"""MovieLens 1M: 1,000,209 ratings of 3,883 films by 6,040 people, 2000 to 2003; and a sample of a tenth of the ratings.

Only its publisher has all of it, so there is one layout and one way to get it. The sample, 100,000 of the ratings, goes
around with all films and people as Parquet; on its reconstructed pages, nine films of ten are missing. Ages are groups,
named by their first year: 1 stands for under 18, then 18, 25, 35, 45, 50 and 56.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any, Final

import pyarrow as pa
import pyarrow.csv as pacsv

from dolmen.datasets.dataset import DatasetInfo
from dolmen.datasets.entry import StoredEntry, Tables, read_parquet
from dolmen.datasets.movielens import CITATION, TERMS, USERS, build, items_table, ratings_table, split_title
from dolmen.datasets.sources import Archive, Layout, Place

__all__ = ["ENTRY", "INFO", "OFFICIAL", "SAMPLE_ENTRY", "SAMPLE_INFO", "SAMPLE_PARQUET"]

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

SAMPLE_INFO: Final = DatasetInfo(
    name="movielens-1m-sample",
    title="MovieLens 1M, a sample",
    summary="100,000 ratings drawn from MovieLens 1M, with all its films and people",
    source_url="https://github.com/massquantity/LibRecommender/tree/master/examples/sample_data",
    citation=CITATION,
    terms=TERMS,
    terms_url="https://files.grouplens.org/datasets/movielens/ml-1m-README.txt",
    statistics={"users": 6040, "items": 3883, "interactions": 100_000},
    content_sha256="afa0298c91a025ee7f210f9d82a01cf3a89564709a322988c04ab0f26f904668",
    notes="How the ratings were drawn is not documented. Nine films of ten are missing on each page.",
    used_by=("Monolith",),
)

OFFICIAL: Final = Layout(
    "the official files",
    ("movielens-1m/ml-1m.zip/ml-1m", "ml-1m.zip/ml-1m", "movielens-1m/ml-1m", "movielens-1m", "ml-1m"),
    ("movies.dat", "users.dat", "ratings.dat"),
)

SAMPLE_PARQUET: Final = Layout(
    "Parquet tables of the sample",
    ("movielens-1m", "movielens-1m-sample"),
    ("movies.parquet", "users.parquet", "ratings_sample_100k.parquet"),
)


def _read_official(place: Place) -> Tables:
    films, people = _lines(place, "movies.dat"), _lines(place, "users.dat")
    with (place / "ratings.dat").open("rb") as file:
        ratings = pacsv.read_csv(
            io.BytesIO(file.read().replace(b"::", b"\t")),
            read_options=pacsv.ReadOptions(column_names=["user", "item", "rating", "time"]),
            parse_options=pacsv.ParseOptions(delimiter="\t", quote_char=False),
        )
    return {**_films_and_people(films, people), "ratings": ratings_table(*ratings.columns)}


def _read_sample(place: Place) -> Tables:
    films, people, ratings = read_parquet(place, ("movies", "users", "ratings_sample_100k")).values()
    return {
        **_films_and_people(
            list(zip(*(films[name].to_pylist() for name in ("movie_id", "title", "genres")), strict=True)),
            list(
                zip(
                    *(people[name].to_pylist() for name in ("user_id", "gender", "age", "occupation", "zip_code")),
                    strict=True,
                )
            ),
        ),
        "ratings": ratings_table(*(ratings[name] for name in ("user_id", "movie_id", "rating", "timestamp"))),
    }


def _films_and_people(films: Sequence[Sequence[Any]], people: Sequence[Sequence[Any]]) -> dict[str, pa.Table]:
    """From rows of (id, title and year, genres) and of (id, gender, age, occupation, zip code)."""
    parted = [split_title(film[1]) for film in films]
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
SAMPLE_ENTRY: Final = StoredEntry(info=SAMPLE_INFO, readers={SAMPLE_PARQUET: _read_sample}, downloads=(), build=build)

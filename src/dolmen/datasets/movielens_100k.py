"""MovieLens 100K: 100,000 ratings of 1,682 films by 943 people, September 1997 to April 1998, complete.

Three layouts give the same tables. ``release_date`` and the links to IMDb are only in two of them and are left out.
"""

from __future__ import annotations

import io
from typing import Final

import pyarrow as pa
import pyarrow.csv as pacsv

from dolmen.datasets.dataset import DatasetInfo
from dolmen.datasets.entry import StoredEntry, Tables, read_parquet
from dolmen.datasets.movielens import (
    CITATION,
    TERMS,
    USERS,
    build,
    items_table,
    ratings_table,
    split_title,
)
from dolmen.datasets.sources import Archive, Layout, Place, Wheel

__all__ = ["ENTRY", "GENRES", "INFO", "OFFICIAL", "PARQUET", "RECBOLE"]

GENRES: Final = (
    "unknown",
    "Action",
    "Adventure",
    "Animation",
    "Children's",
    "Comedy",
    "Crime",
    "Documentary",
    "Drama",
    "Fantasy",
    "Film-Noir",
    "Horror",
    "Musical",
    "Mystery",
    "Romance",
    "Sci-Fi",
    "Thriller",
    "War",
    "Western",
)

INFO: Final = DatasetInfo(
    name="movielens-100k",
    title="MovieLens 100K",
    summary="100,000 ratings of films with times, titles, genres and people, 1997-1998",
    source_url="https://grouplens.org/datasets/movielens/100k/",
    citation=CITATION,
    terms=TERMS,
    terms_url="https://files.grouplens.org/datasets/movielens/ml-100k-README.txt",
    statistics={"users": 943, "items": 1682, "interactions": 100_000, "clicks": 55_375},
    content_sha256="9e4c73ba297d9b02625b2a22412c796f3997c273a79b928aaa51a847e0ca37dd",
)

PARQUET: Final = Layout("Parquet tables", ("movielens-100k",), ("movies.parquet", "users.parquet", "ratings.parquet"))
OFFICIAL: Final = Layout(
    "the official files",
    (
        "movielens-100k/ml-100k.zip/ml-100k",
        "ml-100k.zip/ml-100k",
        "movielens-100k/ml-100k",
        "movielens-100k",
        "ml-100k",
    ),
    ("u.item", "u.user", "u.data"),
)
_WHEEL_FOLDER: Final = "recbole-1.2.1-py3-none-any.whl/recbole/dataset_example/ml-100k"
RECBOLE: Final = Layout(
    "the files in the package recbole",
    (f"movielens-100k/{_WHEEL_FOLDER}", _WHEEL_FOLDER, "movielens-100k", "ml-100k"),
    ("ml-100k.item", "ml-100k.user", "ml-100k.inter"),
)


def _read_parquet(place: Place) -> Tables:
    movies, users, ratings = read_parquet(place, ("movies", "users", "ratings")).values()
    flags = [movies[genre].to_pylist() for genre in GENRES]
    return {
        "items": _items(movies["movie_id"].to_pylist(), movies["movie_title"].to_pylist(), flags),
        "users": users.rename_columns(USERS.names).cast(USERS),
        "ratings": ratings_table(*(ratings[name] for name in ("user_id", "movie_id", "rating", "timestamp"))),
    }


def _read_official(place: Place) -> Tables:
    films = [line.split("|") for line in (place / "u.item").read_text(encoding="latin-1").splitlines() if line]
    flags = [[int(film[5 + genre]) for film in films] for genre in range(len(GENRES))]
    ratings = _csv(place, "u.data", "\t", ["user", "item", "rating", "time"])
    return {
        "items": _items([int(film[0]) for film in films], [film[1] for film in films], flags),
        "users": _csv(place, "u.user", "|", USERS.names, types=USERS).cast(USERS),
        "ratings": ratings_table(*ratings.columns),
    }


def _read_recbole(place: Place) -> Tables:
    films = [line.split("\t") for line in (place / "ml-100k.item").read_text(encoding="utf-8").splitlines()[1:]]
    titles, years = [], []
    for _, written_title, written_year, _ in films:
        # Two films differ from the original there: the one without a title, and one marked (V) behind the year.
        title, year = split_title("unknown" if written_title == "unkonwn" else written_title)
        titles.append(title)
        years.append(int(written_year) if written_year.isdigit() else year)
    ratings = _csv(place, "ml-100k.inter", "\t", ["user", "item", "rating", "time"], skip=1)
    return {
        "items": items_table([int(film[0]) for film in films], titles, years, [film[3].split() for film in films]),
        "users": _csv(place, "ml-100k.user", "\t", USERS.names, types=USERS, skip=1).cast(USERS),
        "ratings": ratings_table(*ratings.columns),
    }


def _items(ids: list[int], titles: list[str], flags: list[list[int]]) -> pa.Table:
    """Films from titles as written with the year, and one list of 0/1 a genre."""
    parted = [split_title(title) for title in titles]
    genres = [[genre for genre, flag in zip(GENRES, row, strict=True) if flag] for row in zip(*flags, strict=True)]
    return items_table(ids, [title for title, _ in parted], [year for _, year in parted], genres)


def _csv(
    place: Place, name: str, delimiter: str, columns: list[str], *, types: pa.Schema | None = None, skip: int = 0
) -> pa.Table:
    with (place / name).open("rb") as file:
        return pacsv.read_csv(
            io.BytesIO(file.read()),
            read_options=pacsv.ReadOptions(column_names=columns, skip_rows=skip),
            parse_options=pacsv.ParseOptions(delimiter=delimiter, quote_char=False),
            convert_options=pacsv.ConvertOptions(column_types=types),
        )


ENTRY: Final = StoredEntry(
    info=INFO,
    readers={PARQUET: _read_parquet, OFFICIAL: _read_official, RECBOLE: _read_recbole},
    downloads=(
        Archive(
            "https://files.grouplens.org/datasets/movielens/ml-100k.zip",
            sha256="50d2a982c66986937beb9ffb3aa76efe955bf3d5c6b761f4e3a7cd717c6a3229",
        ),
        Wheel("recbole==1.2.1", sha256="9c9948202011f37eb0a7c6768129313f00d6403ad221ec940d5e2d5d5f33a407"),
    ),
    build=build,
)

import hashlib
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dolmen.datasets import Dataset, movielens, movielens_1m, movielens_100k, sources
from dolmen.datasets.entry import Tables, content_sha256
from dolmen.errors import DataError

GENRES = movielens_100k.GENRES
# Made up. The second film has an accent, a comma and no genre flag but one; the third no title, as in the original.
FILMS = [
    (1, "Stone Story (1995)", "01-Jan-1995", {"Animation", "Comedy"}),
    (2, "Été, L' (Summer) (1996) (V)", "02-Feb-1996", {"Drama"}),
    (3, "unknown", None, {"unknown"}),
]
PEOPLE = [(1, 24, "M", "technician", "85711"), (2, 53, "F", "other", "T8H1N")]
RATINGS = [(1, 2, 4, 880_000_000), (2, 1, 3, 880_000_100), (1, 1, 5, 880_000_010), (1, 3, 1, 880_000_200)]


def write_parquet(folder: Path) -> None:
    movies: dict[str, Any] = {
        "movie_id": [film[0] for film in FILMS],
        "movie_title": [film[1] for film in FILMS],
        **{genre: [int(genre in film[3]) for film in FILMS] for genre in GENRES},
    }
    users = dict(zip(["user_id", "age", "gender", "occupation", "zip_code"], zip(*PEOPLE, strict=True), strict=True))
    columns = ["user_id", "movie_id", "rating", "timestamp"]
    ratings = dict(zip(columns, zip(*RATINGS, strict=True), strict=True))
    for name, table in (("movies", movies), ("users", users), ("ratings", ratings)):
        pq.write_table(pa.table({key: list(values) for key, values in table.items()}), folder / f"{name}.parquet")


def write_official(folder: Path) -> None:
    films = [
        "|".join([str(i), title, date or "", "", "", *(str(int(genre in own)) for genre in GENRES)])
        for i, title, date, own in FILMS
    ]
    (folder / "u.item").write_text("\n".join(films) + "\n", encoding="latin-1")
    (folder / "u.user").write_text("".join("|".join(map(str, one)) + "\n" for one in PEOPLE))
    (folder / "u.data").write_text("".join("\t".join(map(str, one)) + "\n" for one in RATINGS))


def write_recbole(folder: Path) -> None:
    names = ["Stone Story", "Été, L' (Summer) (1996) (V)", "unkonwn"]
    years = ["1995", "V", "unkonwn"]
    films = [
        f"{film[0]}\t{name}\t{year}\t{' '.join(genre for genre in GENRES if genre in film[3])}"
        for film, name, year in zip(FILMS, names, years, strict=True)
    ]
    tables = {"item": films, "user": PEOPLE, "inter": RATINGS}
    for name, rows in tables.items():
        lines = [row if isinstance(row, str) else "\t".join(map(str, row)) for row in rows]
        (folder / f"ml-100k.{name}").write_text("\n".join(["header", *lines]) + "\n", encoding="utf-8")


WRITERS = {
    movielens_100k.PARQUET: write_parquet,
    movielens_100k.OFFICIAL: write_official,
    movielens_100k.RECBOLE: write_recbole,
}


def tables_of(layout: sources.Layout, place: sources.Place) -> Tables:
    return movielens_100k.ENTRY.readers[layout](place)


@pytest.mark.parametrize("layout", WRITERS, ids=lambda layout: layout.description)
def test_each_layout_gives_the_same_tables(tmp_path: Path, layout: sources.Layout) -> None:
    WRITERS[layout](tmp_path)

    tables = tables_of(layout, tmp_path)

    assert tables["items"].to_pylist() == [
        {"id": 1, "title": "Stone Story", "genres": ["Animation", "Comedy"], "release_year": 1995},
        {"id": 2, "title": "Été, L' (Summer)", "genres": ["Drama"], "release_year": 1996},
        {"id": 3, "title": "unknown", "genres": ["unknown"], "release_year": None},
    ]
    assert [tuple(row.values()) for row in tables["users"].to_pylist()] == PEOPLE
    assert [tuple(row.values()) for row in tables["ratings"].to_pylist()] == RATINGS
    assert tables["items"].schema == movielens.ITEMS
    assert tables["users"].schema == movielens.USERS
    assert tables["ratings"].schema == movielens.RATINGS


def test_every_layout_is_found_where_the_documentation_says(cut_off: Path) -> None:
    folder = cut_off / "movielens-100k"
    folder.mkdir(parents=True)
    write_official(folder)
    assert movielens_100k.ENTRY.where() == str(folder)

    write_parquet(folder)
    found = sources.find(list(movielens_100k.ENTRY.readers))
    assert found == (movielens_100k.PARQUET, folder)


@pytest.mark.fault
@pytest.mark.parametrize("layout", WRITERS, ids=lambda layout: layout.description)
def test_damaged_files_are_refused_or_read_as_the_original(tmp_path: Path, layout: sources.Layout) -> None:
    """Some bytes hold nothing that is read, such as a date that is left out; all others are missed when they change."""
    WRITERS[layout](tmp_path)
    expected = content_sha256(tables_of(layout, tmp_path))
    info = replace(movielens_100k.INFO, content_sha256=expected, statistics={"interactions": len(RATINGS)})
    entry = replace(movielens_100k.ENTRY, info=info)
    original = entry.read(layout, tmp_path)

    refusals: list[str] = []
    for name in layout.files:
        whole = (tmp_path / name).read_bytes()
        places = range(0, len(whole), max(1, len(whole) // 40))
        flipped = [whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :] for place in places]
        for damaged in [b"", whole[: len(whole) // 2], *flipped]:
            (tmp_path / name).write_bytes(damaged)
            try:
                assert entry.read(layout, tmp_path).interactions == original.interactions
            except DataError as problem:
                refusals.append(str(problem))
        (tmp_path / name).write_bytes(whole)
    assert len(refusals) > 30
    assert all("delete that copy" in refusal for refusal in refusals)


def test_movielens_1m_is_read_from_its_official_files(cut_off: Path) -> None:
    archive = cut_off / "ml-1m.zip"
    archive.parent.mkdir()
    with zipfile.ZipFile(archive, "w") as made:
        films = "1::Stone Story (1995)::Animation|Comedy\n9::L'\u00e9t\u00e9 (Summer)(1982)::Drama\n"
        made.writestr("ml-1m/movies.dat", films.encode("latin-1"))
        made.writestr("ml-1m/users.dat", "1::F::1::10::48067\n2::M::56::16::70072-1\n")
        made.writestr("ml-1m/ratings.dat", "1::9::5::978300760\n2::1::3::978302109\n")
    info = replace(movielens_1m.INFO, statistics={"users": 2, "items": 2, "interactions": 2, "clicks": 1})

    dataset = replace(movielens_1m.ENTRY, info=info).load(download=False)

    assert dataset.items.to_pylist() == [
        {"id": 1, "title": "Stone Story", "genres": ["Animation", "Comedy"], "release_year": 1995},
        {"id": 9, "title": "L'été (Summer)", "genres": ["Drama"], "release_year": 1982},
    ]
    assert dataset.users.to_pylist() == [
        {"id": 1, "age": 1, "gender": "F", "occupation": "K-12 student", "zip_code": "48067"},
        {"id": 2, "age": 56, "gender": "M", "occupation": "self-employed", "zip_code": "70072-1"},
    ]
    assert [(slate.user, slate.items, slate.clicked) for slate in dataset.slates()] == [
        (1, [9], [True]),
        (2, [1], [False]),
    ]
    with pytest.raises(DataError, match="counted 2 users, expected 6040"):
        movielens_1m.ENTRY.load(download=False)


ratings_logs = st.lists(
    st.tuples(st.integers(1, 3), st.integers(1, 40), st.integers(1, 5), st.integers(0, 400)), min_size=1, max_size=60
)


def pages_naively(ratings: list[tuple[int, int, int, int]]) -> list[list[tuple[int, int, int, int]]]:
    pages: list[list[tuple[int, int, int, int]]] = []
    for user in (1, 2, 3):
        page: list[tuple[int, int, int, int]] = []
        for rating in sorted((one for one in ratings if one[0] == user), key=lambda one: one[3]):
            if page and (rating[3] - page[-1][3] > 60 or len(page) == 10):
                pages.append(page)
                page = []
            page.append(rating)
        pages += [page] if page else []
    return sorted(pages, key=lambda page: page[0][3])


@pytest.mark.property
@settings(max_examples=80, deadline=None)
@given(ratings_logs)
def test_pages_are_those_of_the_naive_twin(ratings: list[tuple[int, int, int, int]]) -> None:
    tables = {
        "items": movielens.items_table([], [], [], []),
        "users": pa.table([[]] * 5, schema=movielens.USERS),
        "ratings": pa.table(list(map(list, zip(*ratings, strict=True))), schema=movielens.RATINGS),
    }

    dataset = movielens.build(movielens_100k.INFO, tables)

    found = [[(slate.user, item) for item in slate.items] + [slate.time_us // 1_000_000] for slate in dataset.slates()]
    expected = [[(one[0], one[1]) for one in page] + [page[0][3]] for page in pages_naively(ratings)]
    assert found == expected
    for slate, page in zip(dataset.slates(), pages_naively(ratings), strict=True):
        waits_us = [(one[3] - page[0][3]) * 1_000_000 for one in page]
        assert slate.delays_us == [wait if one[2] >= 4 else 0 for wait, one in zip(waits_us, page, strict=True)]
    assert dataset.interactions["click"].to_pylist() == [
        int(one[2] >= 4) for page in pages_naively(ratings) for one in page
    ]


def test_a_rating_out_of_range_is_refused() -> None:
    ratings = movielens.ratings_table(*(pa.array([value]) for value in (1, 1, 6, 0)))
    items, users = movielens.items_table([1], ["a"], [None], [[]]), pa.table([[]] * 5, schema=movielens.USERS)

    with pytest.raises(DataError, match="between 1 and 5, got 6 to 6"):
        movielens.build(movielens_100k.INFO, {"items": items, "users": users, "ratings": ratings})


@pytest.mark.data
def test_movielens_100k_is_complete_and_in_time_order(ratings_of_films: Dataset) -> None:
    times = ratings_of_films.interactions["event_time"].to_pylist()

    assert repr(ratings_of_films).startswith("Dataset('movielens-100k': 943 users, 1,682 items, 100,000 interactions")
    assert times == sorted(times)
    assert sum(len(slate.items) for slate in ratings_of_films.slates()) == 100_000
    assert sum(batch.size for batch in ratings_of_films.batches(4096)) == 100_000
    assert ratings_of_films.items["title"][0].as_py() == "Toy Story"


@pytest.mark.data
def test_every_copy_of_movielens_100k_on_this_machine_gives_the_same_tables(ratings_of_films: Dataset) -> None:
    copies = [
        (layout, place) for layout in WRITERS for place in map(layout.find, sources.search_path()) if place is not None
    ]

    assert copies
    for layout, place in copies:
        assert content_sha256(tables_of(layout, place)) == ratings_of_films.info.content_sha256


@pytest.mark.data
def test_the_official_files_of_movielens_100k_give_the_same_tables(tmp_path: Path) -> None:
    """A Parquet copy has every column, so the published files can be rebuilt from it byte for byte."""
    found = sources.find([movielens_100k.PARQUET])
    if found is None:
        pytest.skip("movielens-100k: no Parquet copy on this machine (only it has the columns to rebuild the rest)")
    _, place = found
    published = {
        "u.item": ("movies", "|", "latin-1", "553841ebc7de3a0fd0d6b62a204ea30c1e651aacfb2814c7a6584ac52f2c5701"),
        "u.user": ("users", "|", "utf-8", "f120e114da2e8cf314fd28f99417c94ae9ddf1cb6db8ce0e4b5995d40e90e62c"),
        "u.data": ("ratings", "\t", "utf-8", "06416e597f82b7342361e41163890c81036900f418ad91315590814211dca490"),
    }
    for name, (table, separator, encoding, expected) in published.items():
        with (place / f"{table}.parquet").open("rb") as file:
            rows = pq.read_table(pa.BufferReader(file.read())).to_pylist()
        lines = [separator.join("" if value is None else str(value) for value in row.values()) for row in rows]
        data = "".join(f"{line}\n" for line in lines).encode(encoding)
        assert hashlib.sha256(data).hexdigest() == expected, f"{name} is not the published file"
        (tmp_path / name).write_bytes(data)

    tables = tables_of(movielens_100k.OFFICIAL, tmp_path)

    assert content_sha256(tables) == movielens_100k.INFO.content_sha256

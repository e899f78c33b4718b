"""The stored data sets, where they are on this machine: counted, checked, and the same from the published files."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from dolmen import datasets
from dolmen.datasets import Dataset, Order, amazon_fashion, amazon_hin, registry, sources
from dolmen.datasets.entry import StoredEntry, Tables, content_sha256
from dolmen.datasets.sources import Archive, Files
from dolmen.errors import DataError

STORED = [name for name in datasets.names() if not datasets.describe(name).simulated]


def entry_of(name: str) -> StoredEntry:
    entry = registry._entry(name)
    assert isinstance(entry, StoredEntry)
    return entry


def load(name: str) -> Dataset:
    try:
        return datasets.load(name, download=False)
    except DataError as problem:
        pytest.skip(f"{name}: {problem}")


def tables_here(name: str) -> Tables:
    entry = entry_of(name)
    found = sources.find([layout for layout in entry.readers if layout.description == "Parquet tables"])
    if found is None:
        pytest.skip(f"{name}: no Parquet copy on this machine")
    return entry.readers[found[0]](found[1])


@pytest.mark.data
@pytest.mark.parametrize("name", STORED)
def test_every_stored_set_loads_and_gives_examples_of_each_part(name: str) -> None:
    dataset = load(name)

    assert dataset.info.content_sha256 or dataset.info.statistics
    used = np.concatenate([dataset.rows(split) for split in ("train", "validation", "test")])
    assert len(np.unique(used)) == len(used)
    for split in ("train", "test"):
        batch = next(iter(dataset.batches(64, split)))
        assert set(batch.slots) == set(dataset.schema.slots)
        assert set(batch.labels) == set(dataset.schema.labels)
    if dataset.order in {Order.LOG, Order.PERSON} and "history" in dataset.schema.slots:
        train = dataset.sequence_batches(64, "train", max_len=50)
        assert int(next(iter(train)).slot("history").lengths.max()) <= 50


def published_pairs(tables: Tables) -> dict[str, bytes]:
    actions = tables["interactions"]
    pairs = zip(actions["user"].to_pylist(), actions["item"].to_pylist(), strict=True)
    return {"": "".join(f"{user} {item}\n" for user, item in pairs).encode()}


def published_hin(tables: Tables) -> dict[str, bytes]:
    ratings = zip(
        *(tables["ratings"][name].to_pylist() for name in ("user", "item", "rating", "timestamp")), strict=True
    )
    files = {"user_item.dat": "".join(f"{u}\t{i}\t{rating:.0f}\t{time}\n" for u, i, rating, time in ratings)}
    for name in ("view", "category", "brand"):
        rows = zip(*(column.to_pylist() for column in tables[f"item_{name}"].columns), strict=True)
        files[f"item_{name}.dat"] = "".join(f"{item},{one}\n" for item, one in rows)
    return {name: text.encode() for name, text in files.items()}


def published_s3rec(tables: Tables) -> dict[str, bytes]:
    sequences: dict[int, list[int]] = {}
    for user, item in zip(*(tables["sequences"][name].to_pylist() for name in ("user", "item")), strict=True):
        sequences.setdefault(user, []).append(item)
    attributes: dict[str, list[int]] = {}
    for item, one in zip(*(tables["item_attributes"][name].to_pylist() for name in ("item", "attribute")), strict=True):
        attributes.setdefault(str(item), []).append(one)
    lines = "".join(f"{user} {' '.join(map(str, own))}\n" for user, own in sequences.items())
    return {".txt": lines.encode(), ".json": json.dumps(attributes).encode()}


PUBLISHED = {
    "amazon-hin": published_hin,
    "bert4rec-beauty": published_pairs,
    "sasrec-video-games": published_pairs,
    "amazon-beauty-seq": published_s3rec,
    "amazon-sports-seq": published_s3rec,
}


@pytest.mark.data
@pytest.mark.parametrize("name", PUBLISHED)
def test_the_published_files_give_the_same_tables(name: str, tmp_path: Path) -> None:
    """A Parquet copy has every value, so the published files can be written again from it, byte for byte."""
    tables, entry = tables_here(name), entry_of(name)
    (layout,) = [one for one in entry.readers if one.description != "Parquet tables"]
    (download,) = entry.downloads
    archives = download.files if isinstance(download, Files) else (download,)
    written = PUBLISHED[name](tables)
    for file_name, archive in zip(layout.files, archives, strict=True):
        assert isinstance(archive, Archive)
        data = next(data for end, data in written.items() if file_name.endswith(end))
        assert hashlib.sha256(data).hexdigest() == archive.sha256, f"{file_name} is not the published file"
        (tmp_path / file_name).write_bytes(data)

    assert content_sha256(entry.readers[layout](tmp_path)) == entry.info.content_sha256 == content_sha256(tables)


def test_amazon_reviews_are_read_and_put_in_order(tmp_path: Path) -> None:
    """Made up: four reviews by two people, the second pair on one day."""
    files = {
        "user_item.dat": "1\t0\t5\t172800\n0\t1\t3\t86400\n0\t0\t4\t86400\n0\t2\t1\t0\n",
        "item_category.dat": "0,7\n0,8\n1,7\n",
        "item_brand.dat": "0,3\n1,4\n2,3\n",
        "item_view.dat": "2,9\n",
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    entry = amazon_hin.ENTRY

    dataset = entry.build(amazon_hin.INFO, entry.readers[amazon_hin.PUBLISHED](tmp_path))

    assert dataset.items.to_pylist() == [
        {"id": 0, "categories": [7, 8], "brand": 3, "views": []},
        {"id": 1, "categories": [7], "brand": 4, "views": []},
        {"id": 2, "categories": [], "brand": 3, "views": [9]},
    ]
    told = dataset.interactions.select(["user", "item", "rating"]).to_pylist()
    assert [tuple(row.values()) for row in told] == [(0, 2, 1), (0, 1, 3), (0, 0, 4), (1, 0, 5)]
    assert dataset.sequences()["item"].to_pylist() == [[2, 1, 0], [0]]
    assert [dataset.rows(split).tolist() for split in ("train", "validation", "test")] == [[0, 3], [1], [2]]
    (batch,) = dataset.batches(9, "test")
    assert batch.slot("categories").lengths.tolist() == [2]
    assert batch.slot("history_categories").lengths.tolist() == [1]


def test_fashion_reviews_are_put_in_order_and_tell_what_was_bought() -> None:
    """Made up: four reviews by two people; one without a rating, one that says nothing of what was bought."""
    told = {
        "reviewerID": ["B", "A", "B", "B"],
        "asin": ["X", "Y", "Y", "X"],
        "overall": [5.0, None, 1.0, 4.0],
        "verified": [True, True, False, True],
        "style": [
            '{"Size:": " Big Boys", "Color:": " Blue/Pink"}',
            None,
            '{"Size Name:": " 8-8.5", "Style:": " Flat"}',
            '{"Color:": " Grey"}',
        ],
        "summary": ["Nice", "Fine", "Oops", "Good"],
        "reviewText": ["It fits.", None, "It does not.", "It fits."],
        "vote": [None, "35", None, None],
        "unixReviewTime": [172_800, 86_400, 86_400, 172_800],
    }

    dataset = amazon_fashion.ENTRY.build(amazon_fashion.INFO, {"reviews": pa.table(told)})

    columns = ["user", "item", "rating", "size", "color", "text", "helpful_votes"]
    assert [tuple(row.values()) for row in dataset.interactions.select(columns).to_pylist()] == [
        ("A", "Y", None, None, None, None, 35),
        ("B", "Y", 1, "8-8.5", None, "It does not.", None),
        ("B", "X", 5, "Big Boys", "Blue/Pink", "It fits.", None),
        ("B", "X", 4, None, "Grey", "It fits.", None),
    ]
    assert dataset.sequences()["item"].to_pylist() == [["Y"], ["Y", "X", "X"]]
    assert [dataset.rows(split).tolist() for split in ("train", "validation", "test")] == [[0, 1], [2], [3]]


@pytest.mark.data
def test_most_people_of_the_fashion_set_wrote_one_text() -> None:
    told = load("amazon-fashion-5core").interactions.group_by("user").aggregate([("text", "count_distinct")])
    assert pa.compute.sum(pa.compute.less_equal(told["text_count_distinct"], 1)).as_py() == 374


@pytest.mark.data
def test_paper_statistics_hold_under_the_papers_protocol() -> None:
    """DIN on Amazon: 1,689,188 - 192,403 x 2 positives train and each person tests once; here in small numbers."""
    reviews = load("amazon-hin")
    assert len(reviews.rows("train")) == 195_791 - 2 * 6170
    assert len(reviews.rows("test")) == len(reviews.rows("validation")) == 6170
    beauty = load("bert4rec-beauty")
    assert len(beauty.rows("test")) == beauty.users.num_rows == 40_226  # everybody has five actions at least
    assert pa.compute.min(pa.compute.list_value_length(beauty.sequences()["item"])).as_py() == 5


@pytest.mark.data
def test_the_page_of_a_set_says_what_it_holds() -> None:
    columns = load("amazon-hin").columns()

    assert columns["items"] == "id (int32), categories (list<item: int32>), brand (int32), views (list<item: int32>)"
    assert "rating (int8)" in columns["interactions"]

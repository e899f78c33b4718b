"""Avazu, 100 rows of its log of mobile ads: enough to try a loader or a schema, nothing more."""

from __future__ import annotations

from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dolmen.datasets.dataset import Dataset, DatasetInfo, Order, impressions_table
from dolmen.datasets.entry import Tables, parquet_entry
from dolmen.features import Label, Schema, Slot

__all__ = ["ENTRY", "INFO", "SCHEMA"]

INFO: Final = DatasetInfo(
    name="avazu-sample-100",
    title="Avazu click log, 100 rows",
    summary="100 shown ads with 22 categories; a sample of the format",
    source_url="https://www.kaggle.com/c/avazu-ctr-prediction",
    citation="Avazu. 2014. Click-Through Rate Prediction. Kaggle.",
    terms="the rules of the Kaggle competition",
    terms_url="https://www.kaggle.com/c/avazu-ctr-prediction/rules",
    statistics={"users": 0, "items": 0, "interactions": 100, "clicks": 20},
    content_sha256="103673ff74b12b678c917c78f8d587e8da698bba45a396b37807110d0e89a6da",
    notes="100 of 40.4 million rows, all of one hour: no figure means anything. Neither person nor ad is told.",
    used_by=("iHAS", "embedding compression"),
)

_CATEGORIES: Final = (
    "C1",
    "banner_pos",
    "site_id",
    "site_domain",
    "site_category",
    "app_id",
    "app_domain",
    "app_category",
    "device_id",
    "device_ip",
    "device_model",
    "device_type",
    "device_conn_type",
    *(f"C{number}" for number in range(14, 22)),
)

SCHEMA: Final = Schema(Slot("hour"), *(Slot(name) for name in _CATEGORIES), Label("click"))


def _build(info: DatasetInfo, tables: Tables) -> Dataset:
    rows = tables["avazu_sample"]
    hours = rows["hour"].cast(pa.string())  # YYMMDDHH, UTC
    times = pc.strptime(hours, format="%y%m%d%H", unit="us").cast(pa.timestamp("us", tz="UTC"))
    interactions = impressions_table(
        rows["click"].cast(pa.int8()),
        times,
        hour=pc.utf8_slice_codeunits(hours, 6, 8).cast(pa.int64()),
        **{name: rows[name].cast(pa.string()) for name in _CATEGORIES},
    )
    nobody = pa.table({"id": pa.array(np.empty(0, dtype=np.int64))})
    return Dataset(info, SCHEMA, nobody, nobody, interactions, order=Order.LOG)


ENTRY: Final = parquet_entry(INFO, ("avazu_sample",), _build)

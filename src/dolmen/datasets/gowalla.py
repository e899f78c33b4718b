"""Gowalla: 1,027,370 places visited by 29,858 people, each pair once, every person and place at least ten times.

The split is that of NGCF (Wang et al., SIGIR 2019): ``part`` of the interactions is ``train``, ``validation`` (a tenth
of the paper's training part) or ``test``. The files have no times, so every row has that of 1970-01-01 and rows stand
in the files' order, part by part. All rows are visits: to learn from them, put negatives beside them.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dolmen.datasets.dataset import Dataset, DatasetInfo
from dolmen.datasets.entry import StoredEntry, Tables
from dolmen.datasets.sources import Layout, Place
from dolmen.features import Label, Schema, Slot

__all__ = ["ENTRY", "INFO", "PARQUET", "SCHEMA"]

INFO: Final = DatasetInfo(
    name="gowalla",
    title="Gowalla",
    summary="1,027,370 check-ins at places, as in the paper of NGCF; without times",
    source_url="https://github.com/gusye1234/LightGCN-PyTorch/tree/master/data/gowalla",
    citation=(
        "X. Wang, X. He, M. Wang, F. Feng, T.-S. Chua. 2019. Neural Graph Collaborative Filtering. SIGIR, 165-174. "
        "E. Cho, S. Myers, J. Leskovec. 2011. Friendship and Mobility. KDD 2011, 1082-1090."
    ),
    terms="public for research; SNAP asks to be cited",
    terms_url="https://snap.stanford.edu/data/loc-gowalla.html",
    statistics={"users": 29_858, "items": 40_981, "interactions": 1_027_370, "visits": 1_027_370},
    content_sha256="dd224d40a020af36afe98dc83365037a2a10cb025765986458e550a6c0b8ec27",
)
SCHEMA: Final = Schema(Slot("user"), Slot("item"), Label("visit"))
PARQUET: Final = Layout("Parquet tables", ("gowalla",), ("train.parquet", "valid.parquet", "test.parquet"))

_PARTS: Final = {"train.parquet": "train", "valid.parquet": "validation", "test.parquet": "test"}
_INSTANT: Final = pa.timestamp("us", tz="UTC")


def _read_parquet(place: Place) -> Tables:
    parts = []
    for name, part in _PARTS.items():
        with (place / name).open("rb") as file:
            visits = pq.read_table(pa.BufferReader(file.read()))
        columns = {name: visits[name].cast(pa.int64()) for name in ("user", "item")}
        parts.append(pa.table({**columns, "part": pa.array([part] * len(visits), pa.string())}))
    return {"visits": pa.concat_tables(parts)}


def build(info: DatasetInfo, tables: Tables) -> Dataset:
    """The data set, from its visits in the files' order."""
    visits = tables["visits"].combine_chunks()
    count = len(visits)
    instant = pa.array(np.zeros(count, dtype=np.int64), _INSTANT)
    interactions = pa.table(
        {
            "user": visits["user"],
            "item": visits["item"],
            "event_time": instant,
            "action_time": instant,
            "visit": pa.array(np.ones(count, dtype=np.int8)),
            "slate": np.arange(count),
            "position": pa.array(np.zeros(count), pa.int16()),
            "part": visits["part"],
        }
    )
    users, items = (pa.table({"id": np.unique(visits[name].to_numpy())}) for name in ("user", "item"))
    return Dataset(info, SCHEMA, items, users, interactions, label="visit")


ENTRY: Final = StoredEntry(info=INFO, readers={PARQUET: _read_parquet}, downloads=(), build=build)

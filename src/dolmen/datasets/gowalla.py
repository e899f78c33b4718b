"""Gowalla: 1,027,370 places visited by 29,858 people, each pair once, every person and place at least ten times.

The split is that of NGCF (Wang et al., SIGIR 2019); its training part is ``train`` and ``validation`` (a tenth of it)
together. There are no times. All rows are visits, so to learn from them take ``with_negatives``.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import pyarrow as pa

from dolmen.datasets.dataset import Dataset, DatasetInfo, Order, actions_table
from dolmen.datasets.entry import Tables, parquet_entry
from dolmen.evaluation import GivenSplit
from dolmen.features import Label, Schema, Slot

__all__ = ["ENTRY", "INFO", "SCHEMA"]

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
    statistics={"users": 29_858, "items": 40_981, "interactions": 1_027_370, "clicks": 1_027_370},
    content_sha256="532fdf8b4feebe83e452ff07dee33481d1a75443b72bf80e0709c86a9019953b",
    notes="No times, and each pair once. Validation is a tenth of NGCF's training part.",
    used_by=("Monolith", "NGCF", "kNN-Embed"),
)
SCHEMA: Final = Schema(Slot("user"), Slot("item"), Label("click"))

_FILES: Final = ("train", "valid", "test")


def build(info: DatasetInfo, tables: Tables) -> Dataset:
    """The data set, from its visits part by part."""
    visits = pa.concat_tables([tables[name] for name in _FILES])
    user, item = (visits[name].cast(pa.int64()).combine_chunks() for name in ("user", "item"))
    parts = np.repeat(np.arange(len(_FILES), dtype=np.int8), [len(tables[name]) for name in _FILES])
    users, items = (pa.table({"id": pa.array(np.unique(column.to_numpy()))}) for column in (user, item))
    return Dataset(info, SCHEMA, items, users, actions_table(user, item), order=Order.NONE, rule=GivenSplit(parts))


ENTRY: Final = parquet_entry(INFO, _FILES, build)

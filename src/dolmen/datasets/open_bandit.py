"""Open Bandit, its small version: what a fashion shop showed under two known policies, and what was clicked.

Two campaigns (``all``, ``women``) times two policies (``random``, ``bts``: Bernoulli Thompson sampling), 10,000
impressions each. Each row says with what probability its policy showed the item, which is what off-policy evaluation
needs. Campaigns number their items on their own, so an item's id here is ``women/12``.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import pyarrow as pa

from dolmen.datasets.dataset import Dataset, DatasetInfo, Order, impressions_table
from dolmen.datasets.entry import Tables, parquet_entry
from dolmen.features import Dense, Label, Schema, Side, Slot

__all__ = ["ENTRY", "INFO", "SCHEMA"]

INFO: Final = DatasetInfo(
    name="open-bandit",
    title="Open Bandit Dataset, small version",
    summary="40,000 impressions of fashion items with place, propensity and two policies",
    source_url="https://github.com/st-tech/zr-obp",
    citation=(
        "Yuta Saito, Shunsuke Aihara, Megumi Matsutani, Yusuke Narita. 2021. Open Bandit Dataset and Pipeline: Towards "
        "Realistic and Reproducible Off-Policy Evaluation. NeurIPS Datasets and Benchmarks."
    ),
    terms="CC BY 4.0 (ZOZO, Inc.); cite the authors",
    terms_url="https://creativecommons.org/licenses/by/4.0/",
    statistics={"users": 0, "items": 126, "interactions": 40_000},
    content_sha256="9f1e91f780960271d228df19f95bd6353f388805718e46db741eda0c38cbffef",
    notes=(
        "People are known by four hashed features only, so user is null. place is where on the page the item was (1 to "
        "3), propensity the chance with which its policy showed it there, affinity what the person had to do with the "
        "item before. When a click came is not told: action_time is that of the impression."
    ),
    used_by=("dynamic pricing",),
)
SCHEMA: Final = Schema(
    Slot("item"),
    Slot("place"),
    Slot("campaign"),
    *(Slot(f"user_feature_{number}") for number in range(4)),
    *(Slot(f"item_feature_{number}", of=Side.ITEM) for number in (1, 2, 3)),
    Dense("affinity"),
    Dense("item_feature_0", of=Side.ITEM),
    Label("click"),
)

_CAMPAIGNS: Final = ("all", "women")
_POLICIES: Final = ("random", "bts")


def _build(info: DatasetInfo, tables: Tables) -> Dataset:
    logs = pa.concat_tables(
        [_log(tables[f"{policy}_{campaign}"], policy, campaign) for campaign in _CAMPAIGNS for policy in _POLICIES]
    )
    logs = logs.take(pa.array(np.argsort(logs["event_time"].cast(pa.int64()).to_numpy(), kind="stable")))
    more = {name: logs[name] for name in logs.column_names if name not in {"click", "event_time"}}
    items = pa.concat_tables([_items(tables[f"item_context_{campaign}"], campaign) for campaign in _CAMPAIGNS])
    nobody = pa.table({"id": pa.array(np.empty(0, dtype=np.int64))})
    interactions = impressions_table(logs["click"], logs["event_time"], **more)
    return Dataset(info, SCHEMA, items, nobody, interactions, order=Order.TIME)


def _log(rows: pa.Table, policy: str, campaign: str) -> pa.Table:
    item = rows["item_id"].to_numpy().astype(np.int64)
    affinity_names = [name for name in rows.column_names if name.startswith("user-item_affinity_")]
    affinities = np.stack([rows[name].to_numpy() for name in affinity_names], axis=1)
    return pa.table(
        {
            "item": pa.array([f"{campaign}/{number}" for number in item]),
            "place": rows["position"].cast(pa.int64()),
            "click": rows["click"].cast(pa.int8()),
            "propensity": rows["propensity_score"],
            "campaign": pa.array([campaign] * len(rows)),
            "policy": pa.array([policy] * len(rows)),
            **{f"user_feature_{n}": rows[f"user_feature_{n}"].cast(pa.string()) for n in range(4)},
            "affinity": affinities[np.arange(len(rows)), item],
            "event_time": rows["timestamp"],
        }
    )


def _items(context: pa.Table, campaign: str) -> pa.Table:
    names = [f"item_feature_{number}" for number in range(4)]
    features = {name: context[name].cast(pa.float64() if name.endswith("0") else pa.string()) for name in names}
    return pa.table({"id": pa.array([f"{campaign}/{item}" for item in context["item_id"].to_pylist()]), **features})


ENTRY: Final = parquet_entry(
    INFO,
    (
        *(f"{policy}_{campaign}" for campaign in _CAMPAIGNS for policy in _POLICIES),
        *(f"item_context_{campaign}" for campaign in _CAMPAIGNS),
    ),
    _build,
)

"""RetailRocket, its core: what 3,431 visitors of a shop viewed, put into the basket and bought; pairs only."""

from __future__ import annotations

from typing import Final

import pyarrow as pa

from dolmen.datasets.actions import action_dataset
from dolmen.datasets.dataset import Dataset, DatasetInfo, Order
from dolmen.datasets.entry import Tables, parquet_entry
from dolmen.evaluation import PersonRatio
from dolmen.features import Label, Schema, Slot

__all__ = ["ENTRY", "INFO", "SCHEMA"]

_ACTIONS: Final = ("view", "add_to_cart", "purchase")

INFO: Final = DatasetInfo(
    name="retailrocket-core",
    title="RetailRocket, a shop's visitors",
    summary="79,595 pairs of 3,431 visitors and products: viewed, in the basket, bought; without order",
    source_url="https://github.com/caserec/Datasets-for-Recommender-Systems",
    citation="Retail Rocket. 2016. Retailrocket recommender system dataset. Kaggle.",
    terms="CC BY-NC-SA 4.0",
    terms_url="https://creativecommons.org/licenses/by-nc-sa/4.0/",
    statistics={
        "users": 3431,
        "items": 8885,
        "interactions": 79_595,
        "clicks": 79_595,
        "views": 78_371,
        "add_to_carts": 9028,
        "purchases": 5088,
    },
    content_sha256="d48b21d9896e2aaf963901d84be798994c3b97583a9ac05bfb3aafc7db3e98a0",
    notes=(
        "A row is a person and a product; view, add_to_cart and purchase say which of them happened, and click that "
        "any did. Repeats, people with fewer than 10 and products with fewer than 40 events are left out by the source."
    ),
    used_by=("UNICON",),
)
SCHEMA: Final = Schema(Slot("user"), Slot("item"), Label("click"), *(Label(name) for name in _ACTIONS))


def _build(info: DatasetInfo, tables: Tables) -> Dataset:
    parts = []
    for action in _ACTIONS:
        pairs = tables[action].select(["visitorid", "itemid"]).rename_columns(["user", "item"])
        ones, zeros = (pa.array([number] * len(pairs), pa.int8()) for number in (1, 0))
        for name in _ACTIONS:
            pairs = pairs.append_column(name, ones if name == action else zeros)
        parts.append(pairs)
    told = pa.concat_tables(parts)
    together = told.group_by(["user", "item"], use_threads=False).aggregate([(name, "max") for name in _ACTIONS])
    columns = {name: together[f"{name}_max"] for name in _ACTIONS}
    return action_dataset(
        info, SCHEMA, together["user"], together["item"], order=Order.NONE, rule=PersonRatio(seed=0), **columns
    )


ENTRY: Final = parquet_entry(INFO, _ACTIONS, _build)

"""Steam: what 12,393 people bought on Steam and how long they played it; pairs only."""

from __future__ import annotations

from typing import Final

import pyarrow as pa

from dolmen.datasets.actions import action_dataset
from dolmen.datasets.dataset import Dataset, DatasetInfo, Order
from dolmen.datasets.entry import Tables, parquet_entry
from dolmen.evaluation import PersonRatio
from dolmen.features import Label, Schema, Slot

__all__ = ["ENTRY", "INFO", "SCHEMA"]

INFO: Final = DatasetInfo(
    name="steam-200k",
    title="Steam video games",
    summary="129,511 purchases by 12,393 people with hours played and names of games, without order",
    source_url="https://www.kaggle.com/datasets/tamber/steam-video-games",
    citation="Tamber. 2016. Steam Video Games. Kaggle.",
    terms="public data; do not try to identify people",
    terms_url="https://www.kaggle.com/datasets/tamber/steam-video-games",
    statistics={"users": 12_393, "items": 5155, "interactions": 129_511, "clicks": 129_511},
    content_sha256="de6517f7376f2de8e49338580f5e526cd47a0e11c88eeb9b17555b0a742544e7",
    notes=(
        "A purchase is an action; hours is null where nothing was played (the longest where the source has several). "
        "707 purchases repeat a pair, as in the source. The numbers of people on Steam are left out."
    ),
    used_by=("kNN-Embed", "SSL for items"),
)
SCHEMA: Final = Schema(Slot("user"), Slot("item"), Label("click"))


def _build(info: DatasetInfo, tables: Tables) -> Dataset:
    hours = tables["plays"].group_by(["user_id", "game_id"]).aggregate([("hours", "max")])
    bought = tables["purchases"].append_column("row", pa.array(range(len(tables["purchases"]))))
    played = bought.join(hours, ["user_id", "game_id"]).sort_by("row")
    games = tables["games"].rename_columns(["id", "name"]).cast(pa.schema([("id", pa.int32()), ("name", pa.string())]))
    return action_dataset(
        info,
        SCHEMA,
        played["user_id"],
        played["game_id"],
        hours=played["hours_max"],
        items=games,
        order=Order.NONE,
        rule=PersonRatio(seed=0),
    )


ENTRY: Final = parquet_entry(INFO, ("purchases", "plays", "games"), _build)

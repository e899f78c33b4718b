"""Amazon-M2, the public test of its second task: 34,688 sessions in Spanish, French and Italian shops.

A session is a person here: nobody is known beyond it. What was looked at before trains, the next item tests.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dolmen.datasets.actions import action_dataset
from dolmen.datasets.dataset import Dataset, DatasetInfo, Order
from dolmen.datasets.entry import Tables, parquet_entry
from dolmen.evaluation import GivenSplit, Split
from dolmen.features import Label, Schema, Side, Slot

__all__ = ["ENTRY", "INFO", "SCHEMA"]

INFO: Final = DatasetInfo(
    name="amazon-m2-task2",
    title="Amazon-M2, sessions of task 2",
    summary="34,688 shopping sessions in three shops in order, each with its next item",
    source_url="https://github.com/HaitaoMao/Amazon-M2",
    citation=(
        "Wei Jin, Haitao Mao, Zheng Li, et al. 2023. Amazon-M2: A Multilingual Multi-locale Shopping Session Dataset "
        "for Recommendation and Text Generation. NeurIPS Datasets and Benchmarks."
    ),
    terms="Apache 2.0, according to the authors",
    terms_url="https://github.com/HaitaoMao/Amazon-M2",
    statistics={"users": 34_688, "items": 26_841, "interactions": 166_968, "clicks": 166_968},
    content_sha256="92690f65ab19f32a3f818d639a101ab6fdea6ff85e700be326e507b5a660716b",
    notes=(
        "The public test sessions; the 3.6 million training sessions and what the products are called are not among "
        "them. Order, no times. A product may come again in a session."
    ),
    used_by=("Amazon-M2", "BERT4Rec"),
)
SCHEMA: Final = Schema(
    Slot("user"),
    Slot("item"),
    Slot("locale", of=Side.USER),
    Slot("history", table="item", many=True, ordered=True, max_len=50, of=Side.USER),
    Label("click"),
)


def _build(info: DatasetInfo, tables: Tables) -> Dataset:
    sessions = tables["sessions"].combine_chunks()
    before = sessions["prev_items"].combine_chunks()
    lengths = pc.list_value_length(before).to_numpy().astype(np.int64) + 1
    ends = np.cumsum(lengths)
    is_next = np.zeros(int(lengths.sum()), dtype=bool)
    is_next[ends - 1] = True
    both = pa.concat_arrays([before.flatten(), sessions["next_item"].combine_chunks().cast(pa.string())])
    places = np.empty(len(is_next), dtype=np.int64)
    places[~is_next] = np.arange(int((~is_next).sum()))
    places[is_next] = int((~is_next).sum()) + np.arange(len(sessions))
    item = both.take(pa.array(places))
    parts = np.where(is_next, Split.TEST.number, Split.TRAIN.number).astype(np.int8)
    numbers = np.arange(len(sessions))
    return action_dataset(
        info,
        SCHEMA,
        np.repeat(numbers, lengths),
        item,
        items=pa.table({"id": item.unique().sort()}),
        users=pa.table({"id": numbers, "locale": sessions["locale"].cast(pa.string())}),
        order=Order.PERSON,
        rule=GivenSplit(parts),
    )


ENTRY: Final = parquet_entry(INFO, ("sessions",), _build)

"""Amazon Fashion, 5-core: 3,176 reviews of 31 items by 406 people with days, texts, sizes and colours, complete.

Prepared as the larger set with categories is, after DIN: each review is an action, whatever its rating; a person's
reviews stand in order of time, and those of one day in the order of the source; the last one tests, the one before
validates.

The shop files one review under several of its items: of most people all reviews are one text of one day. So what comes
next says more of the shop than of the person, and the set serves what reads texts, sizes and colours.
"""

from __future__ import annotations

import json
from typing import Final

import numpy as np
import pyarrow as pa

from dolmen.datasets.actions import action_dataset
from dolmen.datasets.amazon import TERMS, TERMS_URL
from dolmen.datasets.dataset import Dataset, DatasetInfo, Order
from dolmen.datasets.entry import Tables, parquet_entry
from dolmen.evaluation import LeaveOneOut
from dolmen.features import Label, Schema, Side, Slot

__all__ = ["ENTRY", "INFO", "SCHEMA"]

INFO: Final = DatasetInfo(
    name="amazon-fashion-5core",
    title="Amazon Fashion, 5-core, with texts, sizes and colours",
    summary="3,176 reviews by 406 people with days, texts, sizes and colours; each a positive, in order",
    source_url="https://github.com/miranda-ham/IR_Project",
    citation=(
        "Jianmo Ni, Jiacheng Li, Julian McAuley. 2019. Justifying Recommendations using Distantly-Labeled Reviews and "
        "Fine-Grained Aspects. EMNLP-IJCNLP. https://doi.org/10.18653/v1/D19-1018"
    ),
    terms=TERMS,
    terms_url=TERMS_URL,
    statistics={"users": 406, "items": 31, "interactions": 3176, "clicks": 3176},
    content_sha256="0840263f722aa4e78e8471826ef1d6c85947e5d2da111f98034acc3e58d66597",
    notes=(
        "Times are days. Every review counts as an action, as in DIN, repeats included; one has no rating. Of 374 "
        "people all reviews are one text, which the shop filed under several items: next to nothing can be learned of "
        "what comes next. size and color are what was bought."
    ),
    used_by=("review-aware size and fit",),
)
SCHEMA: Final = Schema(
    Slot("user"),
    Slot("item"),
    Slot("history", table="item", many=True, ordered=True, max_len=50, of=Side.USER),
    Label("click"),
)

_SIZES: Final = ("Size:", "Size Name:")
_COLORS: Final = ("Color:",)


def _build(info: DatasetInfo, tables: Tables) -> Dataset:
    reviews = tables["reviews"]
    reviews = reviews.take(pa.array(np.argsort(reviews["unixReviewTime"].to_numpy(), kind="stable")))
    text = {name: reviews[name].cast(pa.string()) for name in ("reviewerID", "asin", "summary", "reviewText", "vote")}
    bought = [json.loads(style) if style is not None else {} for style in reviews["style"].to_pylist()]
    return action_dataset(
        info,
        SCHEMA,
        text["reviewerID"],
        text["asin"],
        event_time=pa.array(reviews["unixReviewTime"].to_numpy() * 1_000_000, pa.timestamp("us", tz="UTC")),
        rating=reviews["overall"].cast(pa.int8()),
        verified=reviews["verified"],
        size=_told(bought, _SIZES),
        color=_told(bought, _COLORS),
        summary=text["summary"],
        text=text["reviewText"],
        helpful_votes=text["vote"].cast(pa.int32()),
        order=Order.LOG,
        rule=LeaveOneOut(),
    )


def _told(bought: list[dict[str, str]], names: tuple[str, ...]) -> pa.Array:
    """What was bought under the first of ``names`` that is there; null where none is."""
    found = (next((one[name].strip() for name in names if name in one), None) for one in bought)
    return pa.array(found, pa.string())


ENTRY: Final = parquet_entry(INFO, ("reviews",), _build)

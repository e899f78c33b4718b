"""Data sets of actions only: what they have in common once their tables are read."""

from __future__ import annotations

import io
from typing import TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
from numpy.typing import NDArray

from dolmen.datasets.dataset import Dataset, DatasetInfo, Order, actions_table
from dolmen.datasets.sources import Place
from dolmen.evaluation import SplitRule
from dolmen.features import Schema

__all__ = ["action_dataset", "read_numbers"]

_Values: TypeAlias = pa.ChunkedArray | pa.Array | NDArray[np.int64]


def action_dataset(
    info: DatasetInfo,
    schema: Schema,
    user: _Values,
    item: _Values,
    *,
    order: Order,
    rule: SplitRule,
    event_time: pa.ChunkedArray | pa.Array | None = None,
    items: pa.Table | None = None,
    users: pa.Table | None = None,
    **more: _Values,
) -> Dataset:
    """A data set in which each row is one person's action on one item.

    Args:
        info: what is known of it.
        schema: its fields; ``click`` is 1 throughout.
        user: who acted, shape (rows,).
        item: on what, shape (rows,).
        order: what the order of rows means.
        rule: the protocol that its papers use.
        event_time: when, if known.
        items: the catalogue; the ids that occur if ``None``.
        users: the people; the ids that occur if ``None``.
        more: further columns of the interactions.
    """
    interactions = actions_table(user, item, event_time, **more)
    tables = [
        table if table is not None else pa.table({"id": pa.array(np.unique(interactions[name].to_numpy()))})
        for name, table in (("item", items), ("user", users))
    ]
    return Dataset(info, schema, tables[0], tables[1], interactions, order=order, rule=rule)


def read_numbers(place: Place, file_name: str, delimiter: str, **columns: pa.DataType) -> pa.Table:
    """A text file of numbers without a header, as ``columns``."""
    with (place / file_name).open("rb") as file:
        return pacsv.read_csv(
            io.BytesIO(file.read()),
            read_options=pacsv.ReadOptions(column_names=list(columns)),
            parse_options=pacsv.ParseOptions(delimiter=delimiter),
            convert_options=pacsv.ConvertOptions(column_types=columns),
        )

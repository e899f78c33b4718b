"""Raw values to feature ids, and the columns that models read."""

from dolmen.features.batch import Batch, Jagged, examples_schema
from dolmen.features.extract import extract_rows, extract_table
from dolmen.features.fids import RawId, encode_array, encode_values, pack_fids, slot_numbers, values_of
from dolmen.features.lifetimes import Absent, Admission, Eviction
from dolmen.features.schema import Dense, Label, Policy, Schema, Side, Slot

__all__ = [
    "Absent",
    "Admission",
    "Batch",
    "Dense",
    "Eviction",
    "Jagged",
    "Label",
    "Policy",
    "RawId",
    "Schema",
    "Side",
    "Slot",
    "encode_array",
    "encode_values",
    "examples_schema",
    "extract_rows",
    "extract_table",
    "pack_fids",
    "slot_numbers",
    "values_of",
]

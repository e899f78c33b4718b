from .attributes import extract_side, extract_usable
from .batch import Batch, Jagged, Spread
from .extract import extract_rows, extract_table
from .fids import RawId, encode_array, encode_values, pack_fids, slot_numbers, values_of
from .layout import examples_schema
from .lifetimes import Absent, Admission, Eviction
from .schema import Dense, Label, Policy, Schema, Side, Slot

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
    "Spread",
    "encode_array",
    "encode_values",
    "examples_schema",
    "extract_rows",
    "extract_side",
    "extract_table",
    "extract_usable",
    "pack_fids",
    "slot_numbers",
    "values_of",
]

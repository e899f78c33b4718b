"""The native core: hashing and the embedding table. Python code uses it through `features` and `embedding`."""

from dolmen._core._native import AllRows as NativeAllRows
from dolmen._core._native import Table as NativeTable
from dolmen._core._native import checksum, first_foreign, hash_bytes, hash_into_buckets, pool_rows, read_buckets

__all__ = [
    "NativeAllRows",
    "NativeTable",
    "checksum",
    "first_foreign",
    "hash_bytes",
    "hash_into_buckets",
    "pool_rows",
    "read_buckets",
]

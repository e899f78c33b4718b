"""The native core: hashing and the embedding table. Python code uses it through `features` and `embedding`."""

from dolmen._core._native import AllRows as NativeAllRows
from dolmen._core._native import Table as NativeTable
from dolmen._core._native import checksum, first_foreign, hash_bytes, pool_rows

__all__ = ["NativeAllRows", "NativeTable", "checksum", "first_foreign", "hash_bytes", "pool_rows"]

"""How a row's vector is stored where it is only read."""

from enum import StrEnum

__all__ = ["Precision"]


class Precision(StrEnum):
    """Of the vectors in tables that serve; look-ups, files and deltas carry float32 whatever is stored."""

    FLOAT32 = "float32"  # 4 bytes a column: exact
    FLOAT16 = "float16"  # 2 bytes: within 2^-11 of each value; what is beyond 65,504 becomes that
    BFLOAT16 = "bfloat16"  # 2 bytes: within 2^-8 of each value, however large
    INT8 = "int8"  # 1 byte, and 4 a row: within 1/254 of the largest value of the row

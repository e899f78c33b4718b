"""What a configuration may say of where and how a model is computed. What then happens is in ``compute``.

Apart from it, since reading a configuration should not wait for torch.
"""

from __future__ import annotations

from enum import StrEnum

__all__ = ["Arithmetic", "Device"]


class Device(StrEnum):
    """``auto`` is the graphics processor where torch sees one, and else the processor."""

    CPU = "cpu"
    CUDA = "cuda"
    AUTO = "auto"


class Arithmetic(StrEnum):
    """``bfloat16``: products of matrices are taken with numbers of two bytes; parameters, sums and losses keep four."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"

"""Request ids: the name of one question and its slate, made by whoever asks (or by the server, where nobody did)."""

from __future__ import annotations

import secrets

__all__ = ["new_request_id"]


def new_request_id(now_us: int) -> str:
    """128 bits in hexadecimal, of which the first 48 are the time in milliseconds: ids of one moment lie together.

    >>> new_request_id(1_700_000_000_000_000)[:12]
    '018bcfe56800'
    """
    return f"{now_us // 1000:012x}{secrets.token_hex(10)}"

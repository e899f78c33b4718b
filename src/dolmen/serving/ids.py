"""Raw ids as keys of a store, and as they come in a URL or from JavaScript."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from typing import Final

from dolmen.features import RawId

__all__ = ["id_of", "key_of", "key_prefix", "resolve"]

_KEY_BYTES_MAX: Final = 500  # LMDB takes 511
_DIGITS: Final = re.compile(r"-?(0|[1-9][0-9]{0,18})")


def key_of(raw: RawId) -> bytes:
    """A store's key: another for each id, 7 and "7" included, ordered by the id's text."""
    key = (b"i" if isinstance(raw, int) else b"s") + str(raw).encode()
    if len(key) <= _KEY_BYTES_MAX:
        return key
    return b"h" + hashlib.blake2b(key, digest_size=32).digest()


def key_prefix(kind: bytes, text: str) -> bytes:
    """Where the keys of ids that start with ``text`` begin; ``kind`` is ``b"i"`` for integers, ``b"s"`` for strings."""
    return (kind + text.encode())[:_KEY_BYTES_MAX]


def id_of(key: bytes) -> RawId | None:
    """The inverse of ``key_of``; ``None`` for ids so long that only a hash was kept."""
    if key[:1] == b"i":
        return int(key[1:])
    return key[1:].decode() if key[:1] == b"s" else None


def resolve(raw: RawId, is_known: Callable[[RawId], bool]) -> RawId:
    """Which id is meant: a text of digits is the integer where the integer is known and the text is not.

    A URL can only carry texts, and JavaScript often does, while many a catalogue counts its items: without this, person
    7 would come in as a stranger called "7".
    """
    if isinstance(raw, str) and _DIGITS.fullmatch(raw) and not is_known(raw):
        number = int(raw)
        if is_known(number):
            return number
    return raw

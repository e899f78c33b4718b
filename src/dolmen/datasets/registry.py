"""The list of data sets. A new one is a module with an ``ENTRY``, and a line here."""

from __future__ import annotations

from typing import Final

from dolmen.datasets import (
    amazon_fashion,
    amazon_hin,
    amazon_m2,
    amazon_sequences,
    avazu,
    book_crossing,
    citeulike,
    criteo,
    gowalla,
    movielens_1m,
    movielens_100k,
    open_bandit,
    retailrocket,
    s3rec,
    simulated,
    steam_200k,
    ta_feng,
)
from dolmen.datasets.dataset import Dataset, DatasetInfo
from dolmen.datasets.entry import Entry
from dolmen.errors import UnknownDataError
from dolmen.settings import suggestion

__all__ = ["damage", "describe", "how_to_get", "load", "names", "where"]

_ENTRIES: Final[dict[str, Entry]] = {
    entry.info.name: entry
    for entry in (
        movielens_100k.ENTRY,
        movielens_1m.ENTRY,
        movielens_1m.SAMPLE_ENTRY,
        ta_feng.ENTRY,
        gowalla.ENTRY,
        amazon_hin.ENTRY,
        amazon_fashion.ENTRY,
        *amazon_sequences.ENTRIES,
        *s3rec.ENTRIES,
        amazon_m2.ENTRY,
        citeulike.ENTRY,
        steam_200k.ENTRY,
        book_crossing.ENTRY,
        retailrocket.ENTRY,
        criteo.ENTRY,
        avazu.ENTRY,
        open_bandit.ENTRY,
        *simulated.ENTRIES,
    )
}


def names() -> list[str]:
    """All data sets that can be loaded by name.

    >>> "movielens-100k" in names()
    True
    """
    return list(_ENTRIES)


def describe(name: str) -> DatasetInfo:
    """What is known of a data set without loading it.

    Raises:
        UnknownDataError: there is none of this name; the message offers the nearest.
    """
    return _entry(name).info


def where(name: str) -> str | None:
    """Where a data set would be read from now; ``None`` if it has to be downloaded first.

    Raises:
        UnknownDataError: there is none of this name.
    """
    return _entry(name).where()


def damage(name: str) -> str | None:
    """What can be seen to be wrong with a data set's files without reading them whole; ``None`` where nothing can.

    Only ``load`` checks every value.

    Raises:
        UnknownDataError: there is none of this name.
    """
    return _entry(name).damage()


def how_to_get(name: str) -> str:
    """What it takes to have a data set here that is not: that it can be fetched, or where to find it by hand.

    Raises:
        UnknownDataError: there is none of this name.
    """
    return _entry(name).how_to_get()


def load(name: str, *, download: bool = True) -> Dataset:
    """A data set by name: from the search path, or downloaded into the cache if ``download`` allows it.

    Raises:
        UnknownDataError: there is none of this name.
        DataError: it is not to be had (the message says how to get it by hand and where to put it), or what is there is
            not what its name says.
    """
    return _entry(name).load(download=download)


def _entry(name: str) -> Entry:
    try:
        return _ENTRIES[name]
    except KeyError:
        raise UnknownDataError(f"there is no data set {name!r}{suggestion(name, list(_ENTRIES))}") from None

"""One entry of the list of data sets: what it is, and how it is read."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol, final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from rich.console import Console

from dolmen.datasets.dataset import Dataset, DatasetInfo
from dolmen.datasets.sources import TORN, Download, Layout, Place, fetch, find, incomplete, missing
from dolmen.errors import DataError

__all__ = ["Entry", "StoredEntry", "Tables", "content_sha256", "grouped", "parquet_entry", "read_parquet"]

_PARQUET: Final = b"PAR1"

Tables = Mapping[str, pa.Table]
"""The tables of a source, with the same names, columns, types and row order whatever layout they were read from."""


class Entry(Protocol):
    """What the list of data sets needs of each."""

    @property
    def info(self) -> DatasetInfo:
        """What is known before loading."""
        ...

    def where(self) -> str | None:
        """Where it would be read from now; ``None`` if it has to be downloaded first."""
        ...

    def damage(self) -> str | None:
        """What can be seen to be wrong with its files without reading them whole; ``None``: nothing, or it has none."""
        ...

    def how_to_get(self) -> str:
        """What it takes to have it here, in a few words."""
        ...

    def load(self, *, download: bool) -> Dataset:
        """Read it, after a download if that is needed and allowed.

        Raises:
            DataError: it is not to be had, or is not what its name says.
        """
        ...


@final
@dataclass(frozen=True)
class StoredEntry:
    """A data set that is kept in files.

    ``readers``: how each layout becomes tables. ``downloads``: the ways to get it, in order. ``build``: tables to
    data set. What is read is checked against ``info.content_sha256`` and ``info.statistics``.
    """

    info: DatasetInfo
    readers: Mapping[Layout, Callable[[Place], Tables]]
    downloads: Sequence[Download]
    build: Callable[[DatasetInfo, Tables], Dataset]

    def where(self) -> str | None:
        """The folder or archive where its files lie."""
        found = find(list(self.readers))
        return str(found[1]) if found is not None else None

    def damage(self) -> str | None:
        """The first file that cannot be read, is empty, or is called Parquet and does not begin and end as such; what
        lies here in parts only, where nothing is whole.
        """
        found = find(list(self.readers))
        if found is None:
            return next(iter(incomplete(list(self.readers))), None)
        layout, place = found
        for name in layout.files:
            try:
                damage = _damage(place / name)
            except TORN as problem:
                damage = f"cannot be read: {str(problem) or type(problem).__name__}"
            if damage is not None:
                return f"{name} {damage}"
        return None

    def how_to_get(self) -> str:
        """Whether it can be fetched, or where somebody finds it who must bring it here by hand."""
        return "to be fetched" if self.downloads else f"by hand: {self.info.source_url}"

    def load(self, *, download: bool) -> Dataset:
        """Read, check and build it.

        Raises:
            DataError: it is not to be had, or is not what its name says.
        """
        found = find(list(self.readers))
        if download or found is not None:
            self._tell_incomplete(found)
        if found is None:
            if not download or not self.downloads:
                raise missing(self.info, list(self.readers), self.downloads)
            fetch(self.info, self.downloads)
            found = find(list(self.readers))
            if found is None:
                raise DataError(f"{self.info.name}: what was downloaded holds none of the files that it should hold")
        return self.read(*found)

    def read(self, layout: Layout, place: Place) -> Dataset:
        """Read from ``place``, which has ``layout``; check and build.

        Raises:
            DataError: a file cannot be read, or the values are not those of the original.
        """
        mend = "delete that copy and load again to get a fresh one"
        if not self.downloads:
            mend = f"that copy is damaged; get it again by hand: {self.info.source_url}"
        try:
            tables = self.readers[layout](place)
        except Exception as problem:  # a damaged file can make a parser raise anything; the cause stays attached
            said = str(problem) if isinstance(problem, DataError) else f"{type(problem).__name__}: {problem}"
            raise DataError(f"{self.info.name}: {place} ({layout.description}): {said}; {mend}") from problem
        found = content_sha256(tables)
        if self.info.content_sha256 is not None and found != self.info.content_sha256:
            raise DataError(
                f"{self.info.name}: the values in {place} ({layout.description}) have sha256 {found}, "
                f"expected {self.info.content_sha256}; {mend}"
            )
        dataset = self.build(self.info, tables)
        _check_statistics(dataset)
        return dataset

    def _tell_incomplete(self, found: tuple[Layout, Place] | None) -> None:
        """Say on stderr that a copy somebody put here is not used, since it is not whole."""
        if found is None and not self.downloads:
            return  # the error that follows says it
        console = Console(stderr=True, highlight=False)
        instead = f"read from {found[1]}" if found is not None else "fetched"
        for one in incomplete(list(self.readers)):
            console.print(f"{self.info.name}: {one}; it is {instead} instead", markup=False, soft_wrap=True)


def parquet_entry(
    info: DatasetInfo,
    files: Sequence[str],
    build: Callable[[DatasetInfo, Tables], Dataset],
    *,
    readers: Mapping[Layout, Callable[[Place], Tables]] | None = None,
    downloads: Sequence[Download] = (),
) -> StoredEntry:
    """A data set that is kept as Parquet tables in a folder of its name; most are.

    Args:
        info: what is known of it.
        files: the names of its tables, without ``.parquet``; ``build`` gets them by these names.
        build: tables to data set.
        readers: other layouts in which it may lie, and how each gives the same tables.
        downloads: the ways to get it.
    """
    layout = Layout("Parquet tables", (info.name,), tuple(f"{name}.parquet" for name in files))
    return StoredEntry(info, {layout: lambda place: read_parquet(place, files), **(readers or {})}, downloads, build)


def read_parquet(place: Place, names: Sequence[str]) -> Tables:
    """The Parquet tables called ``names`` in ``place``.

    Raises:
        DataError: one cannot be read; the message names its file.
    """
    tables = {}
    for name in names:
        with (place / f"{name}.parquet").open("rb") as file:
            octets = file.read()
        try:
            tables[name] = pq.read_table(pa.BufferReader(octets))
        except (pa.ArrowException, OSError) as problem:
            said = str(problem).partition("'<Buffer>': ")[2] or str(problem)  # it was told of no file
            said = said.partition(". ")[0].rstrip(".") or type(problem).__name__
            raise DataError(f"{name}.parquet ({len(octets):,} bytes) cannot be read: {said}") from problem
    return tables


def grouped(ids: pa.Array, table: pa.Table, key: str, value: str) -> pa.Array:
    """For each of ``ids`` the list of the ``value`` s that ``table`` has beside it as ``key``, in the table's order."""
    places = pc.index_in(table[key].combine_chunks(), value_set=ids.cast(table[key].type))
    known = places.is_valid()
    places, values = places.filter(known).to_numpy(), table[value].combine_chunks().filter(known)
    ends = np.concatenate([[0], np.cumsum(np.bincount(places, minlength=len(ids)))])
    return pa.ListArray.from_arrays(
        pa.array(ends, pa.int32()), values.take(pa.array(np.argsort(places, kind="stable")))
    )


def _damage(file: Place) -> str | None:
    with file.open("rb") as octets:
        begin = octets.read(len(_PARQUET))
        if not begin:
            return "is empty"
        if not file.name.endswith(".parquet"):
            return None
        if begin != _PARQUET:
            return "is no Parquet file"
        if isinstance(file, Path):  # in an archive, the way to the end is through all that comes before it
            octets.seek(-len(_PARQUET), os.SEEK_END)
            if octets.read() != _PARQUET:
                return "is cut short"
    return None


def content_sha256(tables: Tables) -> str:
    """A checksum of values, which does not depend on the files, chunks or null padding that they came with.

    >>> content_sha256({"t": pa.table({"x": [1, 2]})}) == content_sha256({"t": pa.table({"x": pa.array([1, 2])})})
    True
    """
    digest = hashlib.sha256()
    for table_name, table in sorted(tables.items()):
        for name in table.column_names:
            column = table[name]
            digest.update(f"{table_name}.{name}:{column.type}:{len(column)}\n".encode())
            if pa.types.is_integer(column.type) and not column.null_count:
                digest.update(column.to_numpy().astype("<i8").tobytes())
            else:
                digest.update(repr(column.to_pylist()).encode())
    return digest.hexdigest()


def _check_statistics(dataset: Dataset) -> None:
    counted = {
        "users": dataset.users.num_rows,
        "items": dataset.items.num_rows,
        "interactions": len(dataset),
        "slates": dataset.slate_count,
        **{f"{name}s": int(np.sum(dataset.interactions[name].to_numpy())) for name in dataset.schema.labels},
    }
    for name, expected in dataset.info.statistics.items():
        if counted.get(name) != expected:
            raise DataError(f"{dataset.info.name}: counted {counted.get(name)} {name}, expected {expected}")

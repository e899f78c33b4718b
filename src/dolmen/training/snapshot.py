"""Snapshots: everything needed to go on as if nothing had happened, in one folder, made visible by one rename.

    snapshots/000000001234/
        manifest.json         what this is, and size and checksum of every other file; itself checksummed
        table-16.arrow        the rows of dim 16, with optimiser state, ages, counts
        dense.safetensors     the model's parameters and buffers
        optimizer.safetensors the state of the dense optimiser
        evaluation.json       the state of progressive evaluation

The name is the version. There is no random state to keep: step n draws from the run's seed and n. A reader trusts
nothing: what is torn, damaged or of another schema is refused by name, and the next older one is taken.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, final

import msgspec
import safetensors
import safetensors.torch
from torch import Tensor

import dolmen
from dolmen.embedding import Embed, Embeddings
from dolmen.errors import DolmenError, SnapshotError
from dolmen.features import Schema
from dolmen.models import Model, build
from dolmen.telemetry import logger
from dolmen.training.checksum import checksum_of, checksum_of_file

__all__ = [
    "Contents",
    "Manifest",
    "ModelBuilder",
    "Parameters",
    "Snapshot",
    "SnapshotFolder",
    "find_snapshot",
    "load_snapshot",
    "read_manifest",
    "verify_snapshot",
]

_log = logger(__name__)

_FORMAT: Final = 1
_MANIFEST: Final = "manifest.json"
_NO_CHECKSUM: Final = "0" * 16
_DENSE: Final = "dense.safetensors"
_OPTIMIZER: Final = "optimizer.safetensors"
_EVALUATION: Final = "evaluation.json"
_VERSION_DIGITS: Final = 12
_UNFINISHED: Final = ".unfinished-"

ModelBuilder = Callable[[str, Mapping[str, Any], Embed], Model]
"""Makes a model of a name and a configuration: ``dolmen.models.build``, or yours."""


class FileEntry(msgspec.Struct, frozen=True):
    """Size and checksum of one file of a snapshot."""

    bytes: int
    checksum: int


class _Head(msgspec.Struct):
    checksum: str
    format: int


class Manifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a snapshot says of itself.

    ``version``: steps since the beginning. ``offset``: next record of ``examples``. ``lineage``: the course of learning
    (see ``sync``). ``parameters_offset``: deltas that go beyond this version lie at this offset of the topic
    ``parameters`` or later. ``positions``: next offset by ``topic/partition`` of what these parameters include.
    ``counters``: the trainer's own.
    """

    checksum: str
    format: int
    dolmen: str
    version: int
    offset: int
    lineage: str
    schema: dict[str, list[dict[str, Any]]]
    schema_fingerprint: str
    model: str
    model_options: dict[str, Any]
    train: dict[str, Any]
    created_time_us: int
    newest_event_time_us: int
    positions: dict[str, int]
    parameters_offset: int
    counters: dict[str, int]
    files: dict[str, FileEntry]


@final
@dataclass(frozen=True, kw_only=True)
class Parameters:
    """A consistent view of what is served: take it once for each request.

    ``version`` of the rows, ``dense_version`` of the dense layers, which may be a little older.
    """

    schema: Schema
    model: Model
    embed: Embed
    embeddings: Embeddings
    version: int
    dense_version: int
    lineage: str
    newest_event_time_us: int
    positions: Mapping[str, int]


@final
@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """A snapshot, loaded. ``optimizer``: the dense optimiser's tensors by ``<parameter>.<name>``; empty for serving."""

    path: Path
    manifest: Manifest
    parameters: Parameters
    optimizer: Mapping[str, Tensor]
    evaluation: Mapping[str, Any]


@final
@dataclass(frozen=True, kw_only=True)
class Contents:
    """What a trainer hands over to be written; see ``Manifest`` for the fields of the same name."""

    schema: Schema
    model: Model
    embeddings: Embeddings
    model_name: str
    model_options: Mapping[str, Any]
    train: Mapping[str, Any]
    version: int
    offset: int
    lineage: str
    created_time_us: int
    newest_event_time_us: int
    positions: Mapping[str, int]
    parameters_offset: int
    counters: Mapping[str, int]
    evaluation: Mapping[str, Any]
    optimizer: Mapping[str, Tensor]


@final
@dataclass(frozen=True)
class Copied:
    """A snapshot whose bytes are written but not yet on disk for certain, and not visible."""

    folder: Path
    manifest: Manifest
    row_count: int


@final
class SnapshotFolder:
    """The snapshots of one trainer. One process writes; any may read.

    Writing has two halves, so that learning waits for the first only: ``copy`` takes the parameters as they are now,
    ``seal`` (which may run in another thread) flushes them to disk, checksums, renames and deletes all but the newest
    ``keep``.
    """

    def __init__(self, folder: Path | str, *, keep: int = 3) -> None:
        if keep < 1:
            raise ValueError(f"keep must be at least 1, got {keep}")
        self.folder = Path(folder)
        self.keep = keep

    def write(self, contents: Contents) -> Path:
        """Both halves at once; returns the new snapshot's folder."""
        return self.seal(self.copy(contents))

    def copy(self, contents: Contents) -> Copied:
        """Write the parameters as they are now under a name that no reader looks at."""
        folder = self.folder / f"{_UNFINISHED}{contents.version}-{os.getpid()}"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        contents.embeddings.save(folder)
        _save_tensors(contents.model.state_dict(), folder / _DENSE)
        _save_tensors(contents.optimizer, folder / _OPTIMIZER)
        (folder / _EVALUATION).write_bytes(msgspec.json.encode(contents.evaluation))
        manifest = Manifest(
            checksum=_NO_CHECKSUM,
            format=_FORMAT,
            dolmen=dolmen.__version__,
            version=contents.version,
            offset=contents.offset,
            lineage=contents.lineage,
            schema=contents.schema.to_dict(),
            schema_fingerprint=contents.schema.fingerprint,
            model=contents.model_name,
            model_options=dict(contents.model_options),
            train=dict(contents.train),
            created_time_us=contents.created_time_us,
            newest_event_time_us=contents.newest_event_time_us,
            positions=dict(contents.positions),
            parameters_offset=contents.parameters_offset,
            counters=dict(contents.counters),
            files={},
        )
        return Copied(folder, manifest, len(contents.embeddings))

    def seal(self, copied: Copied) -> Path:
        """Make a copied snapshot durable and visible; returns its folder."""
        files: dict[str, FileEntry] = {}
        for path in sorted(copied.folder.iterdir()):
            _flush(path)
            files[path.name] = FileEntry(bytes=path.stat().st_size, checksum=checksum_of_file(path))
        (copied.folder / _MANIFEST).write_bytes(_encode_manifest(msgspec.structs.replace(copied.manifest, files=files)))
        _flush(copied.folder / _MANIFEST)
        _flush(copied.folder)
        target = self.folder / f"{copied.manifest.version:0{_VERSION_DIGITS}d}"
        if target.exists():  # an earlier run wrote this version, perhaps badly: what we hold is certainly good
            shutil.rmtree(target)
        copied.folder.rename(target)
        _flush(self.folder)
        for old in self.paths()[self.keep :]:
            shutil.rmtree(old, ignore_errors=True)  # a reader that has it open keeps its files
        return target

    def sweep(self) -> None:
        """Delete what writers that were killed left behind. Only where no other process writes here."""
        for path in self.folder.glob(f"{_UNFINISHED}*"):
            shutil.rmtree(path, ignore_errors=True)

    def paths(self) -> list[Path]:
        """Every snapshot's folder, newest first, valid or not."""
        return _snapshot_paths(self.folder)

    def newest(self, schema: Schema | None = None) -> Path | None:
        """The newest valid snapshot, or ``None`` where there is no snapshot at all. See ``find_snapshot``."""
        return find_snapshot(self.folder, schema) if self.paths() else None


def find_snapshot(folder: Path | str, schema: Schema | None = None) -> Path:
    """The newest valid snapshot at ``folder``: a snapshot itself, a folder of snapshots, or a trainer's state folder.

    What is torn, damaged or not of ``schema`` is passed over with a warning in the log.

    Raises:
        SnapshotError: there is no valid one; the message says of each what is wrong with it.
    """
    folder = Path(folder)
    if (folder / _MANIFEST).exists():
        verify_snapshot(folder, schema)
        return folder
    if (folder / "snapshots").is_dir():
        folder = folder / "snapshots"
    problems: list[str] = []
    for path in _snapshot_paths(folder):
        try:
            verify_snapshot(path, schema)
        except SnapshotError as problem:
            _log.warning("snapshot passed over", path=str(path), problem=str(problem))
            problems.append(str(problem))
        else:
            return path
    if not problems:
        raise SnapshotError(
            f"{folder}: there is no snapshot here; 'dolmen train' or the trainer of 'dolmen up' writes them"
        )
    raise SnapshotError(f"{folder}: none of {len(problems)} snapshots can be used: {'; '.join(problems)}")


def read_manifest(path: Path | str) -> Manifest:
    """What the snapshot at ``path`` says of itself, without looking at its other files.

    Raises:
        SnapshotError: the manifest is missing, damaged or of another format.
    """
    path = Path(path)
    try:
        text = (path / _MANIFEST).read_bytes()
    except OSError as problem:
        raise SnapshotError(f"snapshot {path.name}: {_MANIFEST} cannot be read: {problem}") from None
    return _decode_manifest(path, text)


def verify_snapshot(path: Path | str, schema: Schema | None = None) -> Manifest:
    """Check every byte of the snapshot at ``path``; returns its manifest.

    Raises:
        SnapshotError: a file is missing, cut short or damaged, or the snapshot is not of ``schema``.
    """
    path = Path(path)
    manifest = read_manifest(path)
    if schema is not None and manifest.schema_fingerprint != schema.fingerprint:
        raise SnapshotError(
            f"snapshot {path.name} is of schema {manifest.schema_fingerprint}, asked for is {schema.fingerprint};"
            " a changed schema needs a new folder"
        )
    for name, entry in manifest.files.items():
        try:
            size = (path / name).stat().st_size
        except OSError:
            raise SnapshotError(f"snapshot {path.name}: {name} is missing; fetch the whole folder again") from None
        if size != entry.bytes:
            raise SnapshotError(
                f"snapshot {path.name}: {name} has {size} bytes, the manifest promises {entry.bytes};"
                " the copy was cut short, fetch it again"
            )
        if checksum_of_file(path / name) != entry.checksum:
            raise SnapshotError(f"snapshot {path.name}: {name} fails its checksum; its bytes were changed")
    return manifest


def load_snapshot(
    path: Path | str, *, schema: Schema | None = None, builder: ModelBuilder = build, for_serving: bool = False
) -> Snapshot:
    """Read a snapshot: schema, tables and model, ready to score or to go on learning.

    Args:
        path: the snapshot's folder, or a folder of snapshots, of which the newest valid one is taken.
        schema: what it must be of; any if ``None``.
        builder: makes the model; yours, if the model is not one of ``dolmen models``.
        for_serving: leave the optimiser's state out; such tables never get new rows by a look-up.

    Raises:
        SnapshotError: see ``find_snapshot``; or the model cannot be built as the snapshot says.
    """
    path = find_snapshot(path, schema)
    manifest = read_manifest(path)
    try:
        schema = schema if schema is not None else Schema.from_dict(manifest.schema)
        embeddings = Embeddings.load(path, schema)
        if for_serving:
            embeddings = embeddings.serving_copy()
        embed = Embed(embeddings)
        model = builder(manifest.model, manifest.model_options, embed)
        model.load_state_dict(safetensors.torch.load_file(path / _DENSE))
        optimizer = {} if for_serving else safetensors.torch.load_file(path / _OPTIMIZER)
        evaluation = {} if for_serving else msgspec.json.decode((path / _EVALUATION).read_bytes(), type=dict[str, Any])
    except (RuntimeError, KeyError, OSError, DolmenError, msgspec.DecodeError, safetensors.SafetensorError) as problem:
        raise SnapshotError(f"snapshot {path.name} cannot be loaded: {problem}") from problem
    return Snapshot(
        path=path,
        manifest=manifest,
        parameters=Parameters(
            schema=schema,
            model=model.eval() if for_serving else model,
            embed=embed,
            embeddings=embeddings,
            version=manifest.version,
            dense_version=manifest.version,
            lineage=manifest.lineage,
            newest_event_time_us=manifest.newest_event_time_us,
            positions=manifest.positions,
        ),
        optimizer=optimizer,
        evaluation=evaluation,
    )


def _encode_manifest(manifest: Manifest) -> bytes:
    # The checksum is that of the same text with zeros in its place, so that the file stays plain JSON.
    text = msgspec.json.format(
        msgspec.json.encode(msgspec.structs.replace(manifest, checksum=_NO_CHECKSUM), order="sorted")
    )
    return text.replace(_NO_CHECKSUM.encode(), b"%016x" % checksum_of(text), 1)


def _decode_manifest(path: Path, text: bytes) -> Manifest:
    name = f"snapshot {path.name}: {_MANIFEST}"
    try:
        head = msgspec.json.decode(text, type=_Head)
        if checksum_of(text.replace(head.checksum.encode(), _NO_CHECKSUM.encode(), 1)) != int(head.checksum, 16):
            raise SnapshotError(f"{name} fails its checksum; its bytes were changed")
        if head.format != _FORMAT:
            raise SnapshotError(f"snapshot {path.name} has format {head.format}, this release reads {_FORMAT}")
        return msgspec.json.decode(text, type=Manifest)
    except (msgspec.DecodeError, ValueError) as problem:
        raise SnapshotError(f"{name} cannot be read: {problem}") from None


def _snapshot_paths(folder: Path) -> list[Path]:
    names = [path for path in folder.glob("[0-9]*") if path.name.isdigit()] if folder.is_dir() else []
    return sorted(names, key=lambda path: int(path.name), reverse=True)


def _save_tensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    # Copies, since safetensors refuses tensors that share memory (a layer used twice is written twice).
    path.write_bytes(
        safetensors.torch.save({name: tensor.detach().clone().contiguous() for name, tensor in tensors.items()})
    )


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

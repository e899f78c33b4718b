"""Snapshots: everything needed to go on as if nothing had happened, in one folder, made visible by one rename.

    snapshots/000000001234/
        manifest.json         what this is, and size and checksum of every other file; itself checksummed
        table-16/             the rows of dim 16, with optimiser state, ages, counts; see ``embedding.table_file``
        dense.safetensors     the model's parameters and buffers
        optimizer.safetensors the state of the dense optimiser
        evaluation.json       the state of progressive evaluation

The name is the version. There is no random state to keep: step n draws from the run's seed and n. A reader trusts
nothing: what is torn, damaged or of another schema is refused by name, and the next older one is taken.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, final

import msgspec
import safetensors
import safetensors.torch
import torch
from torch import Tensor

import dolmen
from dolmen.checksums import NO_CHECKSUM, FileEntry, entry_of, flush, is_sealed, sealed
from dolmen.compute import ON_CPU, Compute
from dolmen.embedding import Embed, Embeddings, Precision, table_file, table_folder_name
from dolmen.embedding.instant import TableInstant
from dolmen.errors import DolmenError, SnapshotError
from dolmen.features import Batch, Schema
from dolmen.lineage import Lineage
from dolmen.models import Model, build
from dolmen.telemetry import logger
from dolmen.unfinished import clear_unfinished, unfinished

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
_DENSE: Final = "dense.safetensors"
_OPTIMIZER: Final = "optimizer.safetensors"
_EVALUATION: Final = "evaluation.json"
_VERSION_DIGITS: Final = 12
_REPLACED: Final = ".replaced-"

ModelBuilder = Callable[[str, Mapping[str, Any], Embed], Model]
"""Makes a model of a name and a configuration: ``dolmen.models.build``, or yours."""


class _Head(msgspec.Struct):
    checksum: str
    format: int


class Manifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a snapshot says of itself.

    ``version``: steps since the beginning. ``offset``: next record of ``examples``. ``lineage``: the course of learning
    (see ``sync``). ``ancestors``: the courses that this one went on from, by the version at which each was left.
    ``parameters_offset``: deltas that go beyond this version lie at this offset of the topic
    ``parameters`` or later. ``positions``: next offset by ``topic/partition`` of what these parameters include.
    ``counters``: the trainer's own. ``dataset``: what was learned, such as a data set's name; empty where nobody said,
    as in snapshots of earlier releases.
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
    ancestors: dict[str, int] = {}
    dataset: str = ""


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
    compute: Compute = ON_CPU

    @contextmanager
    def computing(self) -> Iterator[None]:
        """Within, the model answers ``placed`` batches, where it is and by its arithmetic."""
        with torch.inference_mode(), self.compute.running():
            yield

    def placed(self, batch: Batch) -> Batch:
        """``batch`` where the model is."""
        return batch.to(str(self.compute.device))


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
    lineage: Lineage
    created_time_us: int
    newest_event_time_us: int
    positions: Mapping[str, int]
    parameters_offset: int
    counters: Mapping[str, int]
    evaluation: Mapping[str, Any]
    optimizer: Mapping[str, Tensor]
    dataset: str = ""


@final
@dataclass(frozen=True)
class Copied:
    """Parameters as they were at one instant, not yet written. The rows are copied as they are written or changed."""

    manifest: Manifest
    row_count: int
    tables: Mapping[int, TableInstant]
    files: Mapping[str, bytes]


@final
class SnapshotFolder:
    """The snapshots of one trainer. One process writes; any may read.

    Writing has two halves, so that learning waits for the first only: ``copy`` takes the parameters as they are now,
    ``seal`` (which may run in another thread while learning goes on) writes, flushes, renames and deletes all but the
    newest ``keep``.
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
        """The parameters as they are now. It takes one bit a row, and the dense layers whole; nothing is written."""
        manifest = Manifest(
            checksum=NO_CHECKSUM,
            format=_FORMAT,
            dolmen=dolmen.__version__,
            version=contents.version,
            offset=contents.offset,
            lineage=contents.lineage.name,
            ancestors=dict(contents.lineage.ancestors),
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
            dataset=contents.dataset,
        )
        return Copied(
            manifest=manifest,
            row_count=len(contents.embeddings),
            tables=contents.embeddings.instants(),
            files={
                _DENSE: _tensor_bytes(contents.model.state_dict()),
                _OPTIMIZER: _tensor_bytes(contents.optimizer),
                _EVALUATION: msgspec.json.encode(contents.evaluation),
            },
        )

    def seal(self, copied: Copied) -> Path:
        """Write a copy, make it durable and visible; returns its folder.

        Raises:
            OSError: it could not be written; the older snapshots are as they were. The copy is of no more use.
        """
        target = self.folder / f"{copied.manifest.version:0{_VERSION_DIGITS}d}"
        replaced = self.folder / f"{_REPLACED}{target.name}"
        with unfinished(target) as path:
            self._write(copied, path)
            if target.exists():  # an earlier run wrote this version, perhaps badly: what we hold is certainly good
                shutil.rmtree(replaced, ignore_errors=True)
                target.rename(replaced)  # aside, and not away: it may be the only one, until ours is in its place
            try:
                path.rename(target)
            except OSError:
                self._put_back(replaced)
                raise
        flush(self.folder)
        shutil.rmtree(replaced, ignore_errors=True)
        for old in self.paths()[self.keep :]:
            shutil.rmtree(old, ignore_errors=True)  # a reader that has it open keeps its files
        return target

    def _write(self, copied: Copied, folder: Path) -> None:
        files: dict[str, FileEntry] = {}
        for dim, instant in copied.tables.items():
            with instant:
                name = table_folder_name(dim)
                written = table_file.write(folder / name, instant)
                files |= {f"{name}/{file}": entry for file, entry in written.items()}
        for name, octets in copied.files.items():
            (folder / name).write_bytes(octets)
            flush(folder / name)
            files[name] = entry_of(folder / name)
        (folder / _MANIFEST).write_bytes(_encode_manifest(msgspec.structs.replace(copied.manifest, files=files)))
        flush(folder / _MANIFEST)
        flush(folder)

    def sweep(self) -> None:
        """Delete what writers that were killed left behind, and put back what they were about to replace. Only where no
        other process writes here.
        """
        for path in self.folder.glob(f"{_REPLACED}*"):
            self._put_back(path)
        for path in self.folder.glob(f"{_REPLACED}*"):
            shutil.rmtree(path, ignore_errors=True)
        if self.folder.is_dir():
            clear_unfinished(self.folder)

    def _put_back(self, replaced: Path) -> None:
        target = self.folder / replaced.name.removeprefix(_REPLACED)
        if replaced.exists() and not target.exists():
            replaced.rename(target)
            flush(self.folder)

    def clear(self) -> None:
        """Delete every snapshot."""
        for path in self.paths():
            shutil.rmtree(path)

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
        if (problem := entry.problem_of(path / name)) is not None:
            raise SnapshotError(f"snapshot {path.name}: {name} {problem}")
    return manifest


def load_snapshot(
    path: Path | str,
    *,
    schema: Schema | None = None,
    builder: ModelBuilder = build,
    for_serving: bool = False,
    precision: Precision = Precision.FLOAT32,
    compute: Compute = ON_CPU,
) -> Snapshot:
    """Read a snapshot: schema, tables and model, ready to score or to go on learning.

    Args:
        path: the snapshot's folder, or a folder of snapshots, of which the newest valid one is taken.
        schema: what it must be of; any if ``None``.
        builder: makes the model; yours, if the model is not one of ``dolmen models``.
        for_serving: leave the optimiser's state out; such tables never get new rows by a look-up.
        precision: what vectors are stored as, where they are for serving.
        compute: where the model is to answer. A trainer moves it by its own settings.

    Raises:
        SnapshotError: see ``find_snapshot``; or the model cannot be built as the snapshot says.
    """
    path = find_snapshot(path, schema)
    manifest = read_manifest(path)
    try:
        schema = schema if schema is not None else Schema.from_dict(manifest.schema)
        if for_serving:
            embeddings = Embeddings.load_for_serving(path, schema, precision=precision, is_checked=True)
        else:
            embeddings = Embeddings.load(path, schema, is_checked=True)
        embed = Embed(embeddings)
        model = builder(manifest.model, manifest.model_options, embed)
        model.load_state_dict(safetensors.torch.load_file(path / _DENSE))
        model.to(str(compute.device))
        embed.device = str(compute.device)
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
            compute=compute,
        ),
        optimizer=optimizer,
        evaluation=evaluation,
    )


def _encode_manifest(manifest: Manifest) -> bytes:
    unsealed = msgspec.structs.replace(manifest, checksum=NO_CHECKSUM)
    return sealed(msgspec.json.format(msgspec.json.encode(unsealed, order="sorted")))


_head_decoder: Final = msgspec.json.Decoder(_Head)
_manifest_decoder: Final = msgspec.json.Decoder(Manifest)


def _decode_manifest(path: Path, text: bytes) -> Manifest:
    name = f"snapshot {path.name}: {_MANIFEST}"
    try:
        head = _head_decoder.decode(text)
        if not is_sealed(text, head.checksum):
            raise SnapshotError(f"{name} fails its checksum; its bytes were changed")
        if head.format != _FORMAT:
            raise SnapshotError(f"snapshot {path.name} has format {head.format}, this release reads {_FORMAT}")
        return _manifest_decoder.decode(text)
    except (msgspec.DecodeError, ValueError) as problem:
        raise SnapshotError(f"{name} cannot be read: {problem}") from None


def _snapshot_paths(folder: Path) -> list[Path]:
    names = [path for path in folder.glob("[0-9]*") if path.name.isdigit()] if folder.is_dir() else []
    return sorted(names, key=lambda path: int(path.name), reverse=True)


def _tensor_bytes(tensors: Mapping[str, Tensor]) -> bytes:
    # Copies, since safetensors refuses tensors that share memory (a layer used twice is written twice).
    return safetensors.torch.save({name: tensor.detach().clone().contiguous() for name, tensor in tensors.items()})

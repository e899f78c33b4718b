"""Learning from data sets and streams, snapshots, and the sync that keeps replicas fresh."""

from dolmen.training.config import TrainConfig
from dolmen.training.fit import EpochReport, FitReport, Validation, validate
from dolmen.training.inspect import describe_snapshot, describe_table
from dolmen.training.settings import TrainerSettings, new_trainer, open_trainer
from dolmen.training.snapshot import (
    Manifest,
    Parameters,
    Snapshot,
    SnapshotFolder,
    find_snapshot,
    load_snapshot,
    read_manifest,
    verify_snapshot,
)
from dolmen.training.stage import run_trainer
from dolmen.training.sync import DeltaFollower, Fed, ParameterDelta, apply_delta, decode_parts, encode_delta
from dolmen.training.trainer import StepReport, Trainer

__all__ = [
    "DeltaFollower",
    "EpochReport",
    "Fed",
    "FitReport",
    "Manifest",
    "ParameterDelta",
    "Parameters",
    "Snapshot",
    "SnapshotFolder",
    "StepReport",
    "TrainConfig",
    "Trainer",
    "TrainerSettings",
    "Validation",
    "apply_delta",
    "decode_parts",
    "describe_snapshot",
    "describe_table",
    "encode_delta",
    "find_snapshot",
    "load_snapshot",
    "new_trainer",
    "open_trainer",
    "read_manifest",
    "run_trainer",
    "validate",
    "verify_snapshot",
]

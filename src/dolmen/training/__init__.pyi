from .config import TrainConfig
from .fit import EpochReport, FitReport, Validation, validate
from .inspect import describe_snapshot, describe_table
from .opening import new_trainer, open_trainer
from .settings import TrainerSettings
from .snapshot import (
    Manifest,
    Parameters,
    Snapshot,
    SnapshotFolder,
    find_snapshot,
    load_snapshot,
    read_manifest,
    verify_snapshot,
)
from .stage import run_trainer
from .sync import DeltaFollower, Fed, ParameterDelta, apply_delta, decode_parts, encode_delta
from .trainer import StepReport, Trainer
from .trial import try_model

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
    "try_model",
    "validate",
    "verify_snapshot",
]

"""Where the stages of the loop run: one machine's processes, their configuration, and a look at what they keep."""

from dolmen.cluster.batch import BatchReport, snapshot_config, train_in_batch
from dolmen.cluster.config import Config, ModelConfig
from dolmen.cluster.inspect import Inspection, inspect_path
from dolmen.cluster.supervisor import RestartPolicy, Stage, Supervisor
from dolmen.cluster.up import run_up

__all__ = [
    "BatchReport",
    "Config",
    "Inspection",
    "ModelConfig",
    "RestartPolicy",
    "Stage",
    "Supervisor",
    "inspect_path",
    "run_up",
    "snapshot_config",
    "train_in_batch",
]

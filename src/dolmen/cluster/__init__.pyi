from .batch import BatchReport, snapshot_config, train_in_batch
from .config import Config, ModelConfig
from .inspect import Inspection, inspect_path
from .supervisor import RestartPolicy, Stage, Supervisor
from .up import run_up

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

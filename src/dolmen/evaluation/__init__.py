"""How good: metrics, each defined once, and progressive evaluation of a stream."""

from dolmen.evaluation.metrics import auc, calibration_ratio, expected_calibration_error, log_loss
from dolmen.evaluation.progressive import Progressive

__all__ = ["Progressive", "auc", "calibration_ratio", "expected_calibration_error", "log_loss"]

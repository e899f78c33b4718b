"""Progressive evaluation: each prediction is judged when its label comes, on the stream, in bounded memory.

AUC needs an order of all scores, which a stream does not keep; it is counted here in fine bins of the logit instead.
Two scores that share a bin count as a tie, so with bins of 1/128 the AUC is off by at most half the share of
positive-negative pairs that lie within 1/128 of each other's logit.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any, Final, final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dolmen.errors import SnapshotError
from dolmen.evaluation.guards import require_probabilities
from dolmen.evaluation.metrics import auc_of_counts, columns, log_losses, sums_at

__all__ = ["Progressive"]

_BINS_PER_UNIT: Final = 128
_LOGIT_MAX: Final = 16  # a probability of 1 in 9 million; what lies beyond counts in the last bin
_BIN_COUNT: Final = 2 * _LOGIT_MAX * _BINS_PER_UNIT
_PANE_COUNT: Final = 16  # a window forgets in steps of one pane
_FORMAT: Final = 1


@final
class _Pane:
    """What is kept of some examples: how many lay in each bin of the logit, and three sums."""

    def __init__(self) -> None:
        self.positives = np.zeros(_BIN_COUNT)
        self.negatives = np.zeros(_BIN_COUNT)
        self.count = 0
        self.loss_sum = 0.0
        self.probability_sum = 0.0

    def add(self, other: _Pane) -> None:
        self.positives += other.positives
        self.negatives += other.negatives
        self.count += other.count
        self.loss_sum += other.loss_sum
        self.probability_sum += other.probability_sum

    def to_dict(self) -> dict[str, Any]:
        return {
            "positives": _sparse(self.positives),
            "negatives": _sparse(self.negatives),
            "count": self.count,
            "loss_sum": self.loss_sum,
            "probability_sum": self.probability_sum,
        }

    @classmethod
    def from_dict(cls, state: Mapping[str, Any]) -> _Pane:
        pane = cls()
        for column, (places, counts) in ((pane.positives, state["positives"]), (pane.negatives, state["negatives"])):
            column[places] = counts
        pane.count = int(state["count"])
        pane.loss_sum, pane.probability_sum = float(state["loss_sum"]), float(state["probability_sum"])
        return pane


@final
class Progressive:
    """Metrics of a stream of predictions: over all of it, and over its last ``window`` examples.

    Examples without a prediction (NaN) are passed over. Not safe for use by several threads at once.

    Args:
        window: how many of the newest examples ``recent()`` covers, give or take a sixteenth and one update.

    >>> progressive = Progressive()
    >>> progressive.update([0.9, 0.2, float("nan")], [1, 0, 1])
    2
    >>> progressive.auc
    1.0
    """

    def __init__(self, window: int = 20_000) -> None:
        if window < _PANE_COUNT:
            raise ValueError(f"window must be at least {_PANE_COUNT}, got {window}")
        self.window = window
        self._total = _Pane()
        self._panes: deque[_Pane] = deque([_Pane()], maxlen=_PANE_COUNT)

    def update(self, probabilities: ArrayLike, labels: ArrayLike, weights: ArrayLike | None = None) -> int:
        """Judge predictions made before their labels were known. Returns how many there were (NaN is none).

        Args:
            probabilities: in [0, 1], shape (count,).
            labels: 0 or 1, shape (count,).
            weights: what each counts, such as 1 / sampling rate; 1 if ``None``.

        Raises:
            ValueError: shapes differ, a label is neither 0 nor 1, a probability outside [0, 1], or a weight below 0 or
                not finite. Nothing is counted then.
        """
        probability = np.asarray(probabilities, dtype=np.float64)
        told = ~np.isnan(probability)
        probability, label, weight = columns(np.where(told, probability, 0.5), labels, weights)
        require_probabilities(probability)
        probability, label, weight = probability[told], label[told], weight[told]
        if probability.size == 0:
            return 0
        pane = _Pane()
        with np.errstate(divide="ignore"):  # probabilities of 0 and 1 are infinite logits, and belong to the end bins
            logits = np.log(probability) - np.log1p(-probability)
        places = ((np.clip(logits, -_LOGIT_MAX, _LOGIT_MAX) + _LOGIT_MAX) * _BINS_PER_UNIT).astype(np.int64)
        places = np.minimum(places, _BIN_COUNT - 1)
        pane.positives = sums_at(places, weight * label, _BIN_COUNT)
        pane.negatives = sums_at(places, weight * (1 - label), _BIN_COUNT)
        pane.count = int(probability.size)
        pane.loss_sum = float(weight @ log_losses(probability, label))
        pane.probability_sum = float(weight @ probability)
        self._total.add(pane)
        if self._panes[-1].count >= self.window // _PANE_COUNT:
            self._panes.append(_Pane())
        self._panes[-1].add(pane)
        return pane.count

    @property
    def count(self) -> int:
        """How many predictions were judged."""
        return self._total.count

    @property
    def auc(self) -> float:
        """Over the whole stream; ``nan`` until a positive and a negative came."""
        return _figures(self._total)["auc"]

    @property
    def log_loss(self) -> float:
        """Over the whole stream."""
        return _figures(self._total)["log_loss"]

    @property
    def calibration_ratio(self) -> float:
        """What was predicted over what happened, over the whole stream."""
        return _figures(self._total)["calibration_ratio"]

    def total(self) -> dict[str, float]:
        """``count``, ``auc``, ``log_loss`` and ``calibration_ratio`` of the whole stream."""
        return _figures(self._total)

    def recent(self) -> dict[str, float]:
        """The same of its newest ``window`` examples."""
        merged = _Pane()
        for pane in self._panes:
            merged.add(pane)
        return _figures(merged)

    def state_dict(self) -> dict[str, Any]:
        """Everything, ready for JSON."""
        return {
            "format": _FORMAT,
            "bins_per_unit": _BINS_PER_UNIT,
            "window": self.window,
            "total": self._total.to_dict(),
            "panes": [pane.to_dict() for pane in self._panes],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what ``state_dict`` returned; the window is that of the state.

        Raises:
            SnapshotError: the state is of another format.
        """
        if (state.get("format"), state.get("bins_per_unit")) != (_FORMAT, _BINS_PER_UNIT):
            raise SnapshotError(
                f"progressive evaluation: format {_FORMAT} with {_BINS_PER_UNIT} bins a unit is needed, "
                f"got {state.get('format')} with {state.get('bins_per_unit')}"
            )
        total, panes = _Pane.from_dict(state["total"]), [_Pane.from_dict(pane) for pane in state["panes"]]
        self.window = int(state["window"])
        self._total, self._panes = total, deque(panes, maxlen=_PANE_COUNT)


def _figures(pane: _Pane) -> dict[str, float]:
    positives, everything = float(pane.positives.sum()), float(pane.positives.sum() + pane.negatives.sum())
    return {
        "count": pane.count,
        "auc": auc_of_counts(pane.positives, pane.negatives),
        "log_loss": pane.loss_sum / everything if everything > 0 else float("nan"),
        "calibration_ratio": pane.probability_sum / positives if positives > 0 else float("nan"),
    }


def _sparse(column: NDArray[np.float64]) -> list[list[float]]:
    """Places that hold something, and what they hold."""
    places = np.flatnonzero(column)
    return [places.tolist(), column[places].tolist()]

"""Negative sampling: which negatives are kept, and the correction that makes predictions true again.

Negatives outnumber positives by far, so each is kept with odds r only. A model trained on what is left predicts too
high: its odds are 1/r times the true odds. Adding ln r to the served logit undoes exactly that.

Source: S. Wang, H. Zhang, J. Wang, "Nonuniform Negative Sampling and Log Odds Correction with Rare Events Data",
NeurIPS 2021; used for serving in section 2.3 of "Monolith" (ORSUM 2022, arXiv 2209.07663).
"""

from __future__ import annotations

import math
from typing import Any, TypeVar

from dolmen.errors import ConfigError
from dolmen.features import RawId
from dolmen.seeds import uniform_of

__all__ = ["check_rate", "corrected_logits", "corrected_probabilities", "is_kept"]

Numbers = TypeVar("Numbers", bound=Any)
"""A float, or an array or tensor of any shape."""


def is_kept(seed: int, request_id: str, item: RawId, rate: float) -> bool:
    """Whether this negative becomes an example. The same answer after a restart, and in any order of events.

    >>> is_kept(0, "r", "film", 1.0), is_kept(0, "r", "film", 0.0)
    (True, False)
    """
    return rate >= 1.0 or uniform_of(seed, request_id, item) < rate


def corrected_logits(logits: Numbers, rate: float) -> Numbers:
    """True logits from those of a model whose negatives were kept with odds ``rate``: ``logits + ln rate``.

    The order of items does not change, so AUC cannot show whether this was forgotten; calibration does.

    >>> corrected_logits(0.0, 1.0)
    0.0
    """
    check_rate(rate)
    corrected: Numbers = logits + math.log(rate)
    return corrected


def corrected_probabilities(probabilities: Numbers, rate: float) -> Numbers:
    """The same for probabilities: q becomes q / (q + (1 - q) / rate).

    >>> corrected_probabilities(0.5, 0.25)
    0.2
    """
    check_rate(rate)
    corrected: Numbers = probabilities / (probabilities + (1.0 - probabilities) / rate)
    return corrected


def check_rate(rate: float) -> None:
    """Refuse what cannot be corrected for.

    Raises:
        ConfigError: ``rate`` is not in (0, 1].
    """
    if not 0.0 < rate <= 1.0:
        raise ConfigError(f"join.negative_rate must be above 0 and at most 1, got {rate}")

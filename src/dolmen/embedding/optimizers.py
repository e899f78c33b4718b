"""How a gradient changes a row: the settings of the sparse optimisers whose steps the native table fuses.

Each is a frozen value that can be written to JSON and back. All arithmetic of a step is float32. The state of a
row stands beside its vector and leaves with it, so a row that was expired and comes back starts afresh.
``weight_decay`` (λ) is L2: λ·w is added to the gradient of a row when the row is updated, and only then.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar, Final, TypeAlias

__all__ = [
    "FTRL",
    "SGD",
    "AdaDelta",
    "AdaGrad",
    "Adam",
    "Momentum",
    "Optimizer",
    "RMSProp",
    "RowwiseAdaGrad",
    "optimizer_from_dict",
    "optimizer_to_dict",
]


@dataclass(frozen=True, kw_only=True)
class SGD:
    """Plain descent: w -= rate·g. No state."""

    name: ClassVar[str] = "sgd"

    learning_rate: float = 0.01
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        _require_learning_settings(self)


@dataclass(frozen=True, kw_only=True)
class AdaGrad:
    """Rates that shrink with use, for each column of a row: n += g²; w -= rate·g / (√n + epsilon).

    A rare id keeps its large steps while a popular one has settled, which is why it is the default for ids.
    Source: Duchi, Hazan, Singer, "Adaptive Subgradient Methods", JMLR 2011. State: n, one number a column.
    """

    name: ClassVar[str] = "adagrad"

    learning_rate: float = 0.05
    initial_accumulator: float = 0.1
    epsilon: float = 1e-8
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        _require_learning_settings(self)
        _require(self, "initial_accumulator", self.initial_accumulator >= 0.0, "0 or more")
        _require_epsilon(self, self.epsilon)


@dataclass(frozen=True, kw_only=True)
class Adam:
    """Rates from running means of the gradient and its square (Kingma, Ba, ICLR 2015, algorithm 1).

    Each row counts its own steps, so the correction of the means' start is exact for a row that is touched once in
    a thousand batches; a row that is not touched does not move. State: m and v, one number a column each, and t.
    """

    name: ClassVar[str] = "adam"

    learning_rate: float = 0.001
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        _require_learning_settings(self)
        _require(self, "beta1", 0.0 <= self.beta1 < 1.0, "in [0, 1)")
        _require(self, "beta2", 0.0 <= self.beta2 < 1.0, "in [0, 1)")
        _require_epsilon(self, self.epsilon)


@dataclass(frozen=True, kw_only=True)
class RowwiseAdaGrad:
    """`AdaGrad` with one accumulator a row, of the mean of g² over its columns. State: one number a row."""

    name: ClassVar[str] = "rowwise_adagrad"

    learning_rate: float = 0.05
    initial_accumulator: float = 0.1
    epsilon: float = 1e-8
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        _require_learning_settings(self)
        _require(self, "initial_accumulator", self.initial_accumulator >= 0.0, "0 or more")
        _require_epsilon(self, self.epsilon)


@dataclass(frozen=True, kw_only=True)
class Momentum:
    """Heavy ball: b = momentum·b + g; w -= rate·b. State: b. A row that is not touched does not roll on."""

    name: ClassVar[str] = "momentum"

    learning_rate: float = 0.01
    momentum: float = 0.9
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        _require_learning_settings(self)
        _require(self, "momentum", 0.0 <= self.momentum < 1.0, "in [0, 1)")


@dataclass(frozen=True, kw_only=True)
class RMSProp:
    """A running mean of g² in place of AdaGrad's sum, so rates recover (Tieleman, Hinton, 2012). State: the mean."""

    name: ClassVar[str] = "rmsprop"

    learning_rate: float = 0.01
    decay: float = 0.99
    epsilon: float = 1e-8
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        _require_learning_settings(self)
        _require(self, "decay", 0.0 <= self.decay < 1.0, "in [0, 1)")
        _require_epsilon(self, self.epsilon)


@dataclass(frozen=True, kw_only=True)
class AdaDelta:
    """Steps in the unit of the weights, from running means of g² and of squared steps (Zeiler, 2012, algorithm 1)."""

    name: ClassVar[str] = "adadelta"

    learning_rate: float = 1.0
    decay: float = 0.9
    epsilon: float = 1e-6
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        _require_learning_settings(self)
        _require(self, "decay", 0.0 <= self.decay < 1.0, "in [0, 1)")
        _require(self, "epsilon", self.epsilon > 0.0, "above 0")


@dataclass(frozen=True, kw_only=True)
class FTRL:
    """FTRL-Proximal: exact zeros by ``l1`` (McMahan et al., KDD 2013, algorithm 1). State: z and n.

    A weight follows from z and n alone, so a start value does not outlast the first step: use ``initial_range=0``.
    ``learning_rate`` and ``beta`` are the paper's alpha and beta; ``l2`` takes the place of weight decay.
    """

    name: ClassVar[str] = "ftrl"

    learning_rate: float = 0.05
    beta: float = 1.0
    l1: float = 0.0
    l2: float = 0.0

    def __post_init__(self) -> None:
        _require(self, "learning_rate", self.learning_rate > 0.0, "above 0")
        for setting in ("beta", "l1", "l2"):
            _require(self, setting, getattr(self, setting) >= 0.0, "0 or more")


Optimizer: TypeAlias = SGD | AdaGrad | Adam | RowwiseAdaGrad | Momentum | RMSProp | AdaDelta | FTRL

_KINDS: Final[tuple[type[Optimizer], ...]] = (SGD, AdaGrad, Adam, RowwiseAdaGrad, Momentum, RMSProp, AdaDelta, FTRL)
_BY_NAME: Final = {kind.name: kind for kind in _KINDS}


def optimizer_to_dict(optimizer: Optimizer) -> dict[str, Any]:
    """The settings as plain values, with the optimiser's ``name``.

    >>> optimizer_to_dict(SGD(learning_rate=0.5))
    {'name': 'sgd', 'learning_rate': 0.5, 'weight_decay': 0.0}
    """
    return {"name": optimizer.name, **asdict(optimizer)}


def optimizer_from_dict(settings: Mapping[str, Any]) -> Optimizer:
    """What `optimizer_to_dict` wrote; settings that are left out take their defaults.

    Raises:
        ValueError: the name or a setting is unknown, or a value is out of range.

    >>> optimizer_from_dict({"name": "sgd", "learning_rate": 0.5})
    SGD(learning_rate=0.5, weight_decay=0.0)
    """
    values = dict(settings)
    name = values.pop("name", None)
    kind = _BY_NAME.get(name) if isinstance(name, str) else None
    if kind is None:
        raise ValueError(f"optimizer.name must be one of {', '.join(_BY_NAME)}, got {name!r}")
    known = [field.name for field in fields(kind)]
    for key in values:
        if key not in known:
            raise ValueError(f"optimizer {name} has no setting {key!r}; it has {', '.join(known)}")
    return kind(**values)


def _require(optimizer: Optimizer, setting: str, holds: bool, expected: str) -> None:
    value = getattr(optimizer, setting)
    if not (holds and math.isfinite(value)):
        raise ValueError(f"{type(optimizer).__name__}.{setting} must be {expected}, got {value}")


def _require_learning_settings(
    optimizer: SGD | AdaGrad | Adam | RowwiseAdaGrad | Momentum | RMSProp | AdaDelta,
) -> None:
    _require(optimizer, "learning_rate", optimizer.learning_rate > 0.0, "above 0")
    _require(optimizer, "weight_decay", optimizer.weight_decay >= 0.0, "0 or more")


def _require_epsilon(optimizer: Optimizer, epsilon: float) -> None:
    _require(optimizer, "epsilon", epsilon >= 0.0, "0 or more")

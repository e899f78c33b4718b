"""How a gradient changes a row: the settings of the sparse optimisers whose steps the native table fuses.

Each is a frozen value that can be written to JSON and back. All arithmetic of a step is float32. The state of a
row stands beside its vector and leaves with it, so a row that was expired and comes back starts afresh.
A step has this order: gradients of equal ids are summed; the sum is clipped (each value to ±``gradient_value_max``,
then the row's length to ``gradient_norm_max``); ``weight_decay`` (λ) adds λ·w to it (L2), when the row is updated and
only then; the rate is ``learning_rate`` times the slot's and the call's scale. At a rate of 0 nothing moves.
Sums and means of squares end at 2^126: a mean forgets one huge gradient with time, where infinity would stay. A sum
(AdaGrad, FTRL) forgets nothing, and such a row hardly moves again: clip where gradients may be huge.
Settings must be finite and in range in float32 too; a rate and λ may be 10^6 at most, a scale 100.
"""

import typing
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar, Final, Self, TypeAlias

from dolmen.errors import ConfigError
from dolmen.settings import read_settings, require_bool, require_float32, suggestion

__all__ = [
    "FTRL",
    "SGD",
    "AMSGrad",
    "AdaDelta",
    "AdaGrad",
    "Adam",
    "GroupFTRL",
    "LazyAdam",
    "Momentum",
    "Optimizer",
    "RMSProp",
    "RowwiseAdaGrad",
    "RowwiseAdam",
    "decay_of",
    "optimizer_from_dict",
    "optimizer_to_dict",
]

_RATE_MAX: Final = 1e6
_SMALLEST: Final = 1e-12  # of what is divided by
_OF_TORCH: Final[Mapping[str, tuple[str, ...]]] = {
    "lr": ("learning_rate",),
    "betas": ("beta1", "beta2"),
    "eps": ("epsilon",),
    "initial_accumulator_value": ("initial_accumulator",),
    "alpha": ("decay", "learning_rate"),
    "rho": ("decay",),
}
"""What torch's optimisers and the papers call settings, and what ours are called."""


@dataclass(frozen=True, kw_only=True)
class _Clipping:
    """What every optimiser can do to a row's summed gradient first.

    Args:
        gradient_value_max: each value is cut to this size; ``None`` cuts nothing.
        gradient_norm_max: then a row's gradient is cut to this length; ``None`` cuts nothing.
    """

    name: ClassVar[str]

    gradient_value_max: float | None = None
    gradient_norm_max: float | None = None

    def __new__(cls, *values: object, **settings: object) -> Self:
        # What `__init__` is given, told of in our words.
        if values:
            raise TypeError(
                f"{cls.__name__} takes its settings by name, got {values[0]!r:.80}; write "
                f"{cls.__name__}(learning_rate={values[0]!r:.80})"
            )
        known = [one.name for one in fields(cls)]
        for name in settings:
            if name not in known:
                ours = [one for one in _OF_TORCH.get(name, ()) if one in known]
                mend = f"; write {' and '.join(f'{one}=' for one in ours)}" if ours else suggestion(name, known)
                raise TypeError(f"{cls.__name__} has no setting {name!r}{mend}")
        return super().__new__(cls)

    def __post_init__(self) -> None:
        for setting in ("gradient_value_max", "gradient_norm_max"):
            if getattr(self, setting) is not None:
                _keep_number(self, setting, is_above_zero=True)


@dataclass(frozen=True, kw_only=True)
class SGD(_Clipping):
    """Plain descent: w -= rate·g. No state.

    Args:
        learning_rate: of a step.
        weight_decay: λ of L2: λ·w is added to the gradient; 0 for none.
    """

    name: ClassVar[str] = "sgd"

    learning_rate: float = 0.01
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        _keep_learning_settings(self)
        _require_decay_to_zero(self)


@dataclass(frozen=True, kw_only=True)
class AdaGrad(_Clipping):
    """Rates that shrink with use, for each column of a row: n += g²; w -= rate·g / (√n + epsilon).

    A rare id keeps its large steps while a popular one has settled, which is why it is the default for ids.
    Source: Duchi, Hazan, Singer, "Adaptive Subgradient Methods", JMLR 2011. State: n, one number a column.

    Args:
        learning_rate: of a step, before it is divided by the root of n.
        initial_accumulator: n of a new row; the larger, the smaller its first steps.
        epsilon: added to the root, or 0 would divide. At least 1e-12 unless ``initial_accumulator`` is above 0.
        weight_decay: λ of L2: λ·w is added to the gradient; 0 for none.
    """

    name: ClassVar[str] = "adagrad"

    learning_rate: float = 0.05
    initial_accumulator: float = 0.1
    epsilon: float = 1e-8
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        _keep_learning_settings(self)
        _keep_number(self, "initial_accumulator")
        _keep_number(self, "epsilon")
        if self.initial_accumulator == 0:
            _require_divisor(self, "epsilon")


@dataclass(frozen=True, kw_only=True)
class _AdamFamily(_Clipping):
    """Settings that the kinds of Adam share.

    Args:
        learning_rate: of a step.
        beta1: how much of the gradients' mean a step keeps.
        beta2: how much of their squares' mean.
        epsilon: added to the root of that mean. At least 1e-12.
        weight_decay: λ; 0 for none.
        decoupled: the weight loses rate·λ·w beside the step (AdamW); otherwise λ·w is added to the gradient (L2).
    """

    learning_rate: float = 0.001
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    weight_decay: float = 0.0
    decoupled: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        _keep_learning_settings(self)
        _keep_number(self, "beta1", below=1.0)
        _keep_number(self, "beta2", below=1.0)
        _keep_number(self, "epsilon")
        _require_divisor(self, "epsilon")
        if require_bool(f"{type(self).__name__}.decoupled", self.decoupled):
            _require_decay_to_zero(self)


@dataclass(frozen=True, kw_only=True)
class Adam(_AdamFamily):
    """Rates from running means of the gradient and its square (Kingma, Ba, ICLR 2015, algorithm 1).

    Each row counts its own steps, so the correction of the means' start is exact for a row that is touched once in
    a thousand batches; a row that is not touched does not move. State: m and v, one number a column each, and t.
    ``decoupled``: Loshchilov, Hutter, ICLR 2019, algorithm 2.
    """

    name: ClassVar[str] = "adam"


@dataclass(frozen=True, kw_only=True)
class LazyAdam(_AdamFamily):
    """`Adam` whose t is the table's count of batches: what frameworks call lazy Adam. State: m and v.

    A row that comes late takes its first steps uncorrected: the first is (1-beta1)/√(1-beta2) times `Adam`'s, three
    times as long by default. It spares one number a row, and repeats the results of those frameworks.
    """

    name: ClassVar[str] = "lazy_adam"


@dataclass(frozen=True, kw_only=True)
class RowwiseAdam(_AdamFamily):
    """`Adam` with one v a row, of the mean of g² over its columns. State: m, one number a column, and v and t."""

    name: ClassVar[str] = "rowwise_adam"


@dataclass(frozen=True, kw_only=True)
class AMSGrad(_AdamFamily):
    """`Adam` that divides by the largest v so far (Reddi, Kale, Kumar, ICLR 2018, algorithm 2), so rates only fall.

    Both means are corrected as in `Adam`, which the paper leaves out. State: m, v, max v (one number a column) and t.
    """

    name: ClassVar[str] = "amsgrad"


@dataclass(frozen=True, kw_only=True)
class RowwiseAdaGrad(_Clipping):
    """`AdaGrad` with one accumulator a row, of the mean of g² over its columns. State: one number a row.

    Args:
        learning_rate: of a step, before it is divided by the root of n.
        initial_accumulator: n of a new row; the larger, the smaller its first steps.
        epsilon: added to the root, or 0 would divide. At least 1e-12 unless ``initial_accumulator`` is above 0.
        weight_decay: λ of L2: λ·w is added to the gradient; 0 for none.
    """

    name: ClassVar[str] = "rowwise_adagrad"

    learning_rate: float = 0.05
    initial_accumulator: float = 0.1
    epsilon: float = 1e-8
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        _keep_learning_settings(self)
        _keep_number(self, "initial_accumulator")
        _keep_number(self, "epsilon")
        if self.initial_accumulator == 0:
            _require_divisor(self, "epsilon")


@dataclass(frozen=True, kw_only=True)
class Momentum(_Clipping):
    """Heavy ball (Polyak, 1964): b = momentum·b + g; w -= rate·b. A row that is not touched does not roll on. State: b.

    Args:
        learning_rate: of a step.
        momentum: how much of the steps before a step keeps, below 1.
        weight_decay: λ of L2: λ·w is added to the gradient; 0 for none.
    """

    name: ClassVar[str] = "momentum"

    learning_rate: float = 0.01
    momentum: float = 0.9
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        _keep_learning_settings(self)
        _require_decay_to_zero(self)
        _keep_number(self, "momentum", below=1.0)


@dataclass(frozen=True, kw_only=True)
class RMSProp(_Clipping):
    """A running mean of g² in place of AdaGrad's sum, so rates recover (Tieleman, Hinton, 2012). State: the mean.

    Args:
        learning_rate: of a step, before it is divided by the root of the mean.
        decay: how much of the mean a step keeps, below 1.
        epsilon: added to the root, so that nothing is divided by 0. At least 1e-12.
        weight_decay: λ of L2: λ·w is added to the gradient; 0 for none.
    """

    name: ClassVar[str] = "rmsprop"

    learning_rate: float = 0.01
    decay: float = 0.99
    epsilon: float = 1e-8
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        _keep_learning_settings(self)
        _keep_number(self, "decay", below=1.0)
        _keep_number(self, "epsilon")
        _require_divisor(self, "epsilon")


@dataclass(frozen=True, kw_only=True)
class AdaDelta(_Clipping):
    """Steps in the unit of the weights, from running means of g² and of squared steps (Zeiler, 2012, algorithm 1).

    Args:
        learning_rate: factor on a step, whose size follows from the means; the paper has none, so 1.
        decay: how much of both means a step keeps, below 1.
        epsilon: added to both means below their roots; sets the size of the first steps.
        weight_decay: λ of L2: λ·w is added to the gradient; 0 for none.
    """

    name: ClassVar[str] = "adadelta"

    learning_rate: float = 1.0
    decay: float = 0.9
    epsilon: float = 1e-6
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        _keep_learning_settings(self)
        _keep_number(self, "decay", below=1.0)
        _keep_number(self, "epsilon")
        _require_divisor(self, "epsilon")


@dataclass(frozen=True, kw_only=True)
class FTRL(_Clipping):
    """FTRL-Proximal: exact zeros by ``l1`` (McMahan et al., KDD 2013, algorithm 1). State: z and n.

    A start value is kept in part, through z, as far as the first gradient outweighs ``beta``: in a
    ``Table(initial_range=0)`` gradients alone make a weight. A rate's scale (of a slot or schedule) weighs the
    gradient in z, and leaves the curvature to ``learning_rate``: a lower rate would else shrink what was learned.

    Args:
        learning_rate: the paper's alpha.
        beta: the paper's: the larger, the smaller the first steps. At least 1e-12, unless ``l2`` is.
        l1: what a weight's gradients must earn, or it is exactly zero.
        l2: pulls weights towards zero, in the place of weight decay.
    """

    name: ClassVar[str] = "ftrl"

    learning_rate: float = 0.05
    beta: float = 1.0
    l1: float = 0.0
    l2: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        _keep_number(self, "learning_rate", is_above_zero=True, most=_RATE_MAX)
        _require_divisor(self, "learning_rate")
        _keep_number(self, "l1")
        _keep_number(self, "l2")
        _keep_number(self, "beta")
        if self.l2 < _SMALLEST:
            _require_divisor(self, "beta")


@dataclass(frozen=True, kw_only=True)
class GroupFTRL(FTRL):
    """`FTRL` with the sparse group lasso: a row whose gradients do not earn ``l21`` is zero as a whole.

    Source: Yue et al., "Adaptive Optimizers with Sparse Group Lasso", ECML PKDD 2021, theorem 1, for FTRL's curvature
    and a row as the group. With ``l21=0`` it is `FTRL`. State: z and n.

    Args:
        l21: what a row's gradients must earn as a whole, times the root of its length, or all of it is exactly zero.
    """

    name: ClassVar[str] = "group_ftrl"

    l21: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        _keep_number(self, "l21")


Optimizer: TypeAlias = (
    SGD
    | AdaGrad
    | Adam
    | LazyAdam
    | RowwiseAdam
    | AMSGrad
    | RowwiseAdaGrad
    | Momentum
    | RMSProp
    | AdaDelta
    | FTRL
    | GroupFTRL
)

_KINDS: Final[tuple[type[Optimizer], ...]] = typing.get_args(Optimizer)
_BY_NAME: Final = {kind.name: kind for kind in _KINDS}


def decay_of(optimizer: Optimizer) -> float:
    """The share of a weight that a step takes off as its decay: 0 where decay is divided by what the gradient is.

    >>> decay_of(SGD(learning_rate=0.5, weight_decay=0.1))
    0.05
    """
    if isinstance(optimizer, SGD | Momentum) or (isinstance(optimizer, _AdamFamily) and optimizer.decoupled):
        return optimizer.learning_rate * optimizer.weight_decay
    return 0.0


def optimizer_to_dict(optimizer: Optimizer) -> dict[str, Any]:
    """The settings as plain values, with the optimiser's ``name``; what is ``None`` is left out.

    >>> optimizer_to_dict(SGD(learning_rate=0.5))
    {'name': 'sgd', 'learning_rate': 0.5, 'weight_decay': 0.0}
    """
    return {"name": optimizer.name, **{name: value for name, value in asdict(optimizer).items() if value is not None}}


def optimizer_from_dict(settings: Mapping[str, Any]) -> Optimizer:
    """What `optimizer_to_dict` wrote; settings that are left out take their defaults.

    Raises:
        ConfigError: the name or a setting is unknown (the message offers the nearest), a value is out of range, or
            ``settings`` is no mapping.

    >>> optimizer_from_dict({"name": "sgd", "learning_rate": 0.5})
    SGD(gradient_value_max=None, gradient_norm_max=None, learning_rate=0.5, weight_decay=0.0)
    """
    if not isinstance(settings, Mapping):
        mend = f"write {{'name': {settings!r:.80}}}" if isinstance(settings, str) else "optimizer_to_dict makes them"
        raise ConfigError(f"optimizer must be settings by name, got {settings!r:.80}; {mend}")
    values = dict(settings)
    name = values.pop("name", None)
    kind = _BY_NAME.get(name) if isinstance(name, str) else None
    if kind is None:
        raise ConfigError(f"optimizer.name: there is no optimizer {name!r}{suggestion(str(name), _BY_NAME)}")
    return read_settings(kind, values, "optimizer")


def _keep_number(
    optimizer: Any,
    setting: str,
    *,
    is_above_zero: bool = False,
    below: float | None = None,
    most: float | None = None,
) -> None:
    # Python's own number, also where NumPy's or a fraction was given: JSON holds no other.
    name, value = f"{type(optimizer).__name__}.{setting}", getattr(optimizer, setting)
    number = require_float32(name, value, is_above_zero=is_above_zero, below=below, most=most)
    object.__setattr__(optimizer, setting, number)


def _keep_learning_settings(optimizer: Any) -> None:
    _keep_number(optimizer, "learning_rate", is_above_zero=True, most=_RATE_MAX)
    _keep_number(optimizer, "weight_decay", most=_RATE_MAX)


def _require_divisor(optimizer: Any, setting: str) -> None:
    value = getattr(optimizer, setting)
    if value < _SMALLEST:
        name = f"{type(optimizer).__name__}.{setting}"
        raise ValueError(f"{name} must be at least {_SMALLEST:g}, since steps divide by it, got {value:g}")


def _require_decay_to_zero(optimizer: Any) -> None:
    if decay_of(optimizer) > 1.0:
        raise ValueError(
            f"{type(optimizer).__name__}.weight_decay must be at most {1.0 / optimizer.learning_rate:g} (1 / "
            f"learning_rate), or each step throws a weight past zero, got {optimizer.weight_decay:g}"
        )

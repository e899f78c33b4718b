"""Each fused optimiser against the same formulas in NumPy.

The native steps are float32 with each operation rounded on its own (no fused multiply-add), and NumPy rounds the same
operations alike, so both agree to the last bit where the order of operations is the same. A tolerance of one unit in
the last place a step is left for a reference that is written as the paper writes it.
"""

import json
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from dolmen.embedding.optimizers import (
    FTRL,
    SGD,
    AdaDelta,
    AdaGrad,
    Adam,
    Momentum,
    Optimizer,
    RMSProp,
    RowwiseAdaGrad,
    optimizer_from_dict,
    optimizer_to_dict,
)
from dolmen.embedding.table import Table

Vector = NDArray[np.float32]
State = dict[str, Vector]
f32 = np.float32


def sgd_step(_o: SGD, w: Vector, g: Vector, _state: State, rate: np.float32) -> Vector:
    return w - rate * g


def adagrad_step(o: AdaGrad, w: Vector, g: Vector, state: State, rate: np.float32) -> Vector:
    state["n"] = state.get("n", np.full_like(w, o.initial_accumulator)) + g * g
    return w - rate * g / (np.sqrt(state["n"]) + f32(o.epsilon))


def adam_step(o: Adam, w: Vector, g: Vector, state: State, rate: np.float32) -> Vector:
    t = state["t"] = state.get("t", np.zeros(1, f32)) + f32(1)
    state["m"] = f32(o.beta1) * state.get("m", np.zeros_like(w)) + (f32(1) - f32(o.beta1)) * g
    state["v"] = f32(o.beta2) * state.get("v", np.zeros_like(w)) + (f32(1) - f32(o.beta2)) * (g * g)
    m_hat = state["m"] / f32(1 - float(f32(o.beta1)) ** int(t[0]))
    v_hat = state["v"] / f32(1 - float(f32(o.beta2)) ** int(t[0]))
    return w - rate * m_hat / (np.sqrt(v_hat) + f32(o.epsilon))


def rowwise_adagrad_step(o: RowwiseAdaGrad, w: Vector, g: Vector, state: State, rate: np.float32) -> Vector:
    squares = np.add.accumulate(g * g)[-1]  # In order: numpy.sum adds in pairs.
    state["n"] = state.get("n", np.full(1, o.initial_accumulator, f32)) + squares / f32(len(w))
    return w - rate * g / (np.sqrt(state["n"]) + f32(o.epsilon))


def momentum_step(o: Momentum, w: Vector, g: Vector, state: State, rate: np.float32) -> Vector:
    state["b"] = f32(o.momentum) * state.get("b", np.zeros_like(w)) + g
    return w - rate * state["b"]


def rmsprop_step(o: RMSProp, w: Vector, g: Vector, state: State, rate: np.float32) -> Vector:
    state["n"] = f32(o.decay) * state.get("n", np.zeros_like(w)) + (f32(1) - f32(o.decay)) * (g * g)
    return w - rate * g / (np.sqrt(state["n"]) + f32(o.epsilon))


def adadelta_step(o: AdaDelta, w: Vector, g: Vector, state: State, rate: np.float32) -> Vector:
    keep, take, epsilon = f32(o.decay), f32(1) - f32(o.decay), f32(o.epsilon)
    moved = state.get("moved", np.zeros_like(w))
    state["n"] = keep * state.get("n", np.zeros_like(w)) + take * (g * g)
    move = np.sqrt(moved + epsilon) / np.sqrt(state["n"] + epsilon) * g
    state["moved"] = keep * moved + take * (move * move)
    return w - rate * move


def ftrl_step(o: FTRL, w: Vector, g: Vector, state: State, rate: np.float32) -> Vector:
    n, z = state.get("n", np.zeros_like(w)), state.get("z", np.zeros_like(w))
    sigma = (np.sqrt(n + g * g) - np.sqrt(n)) / rate
    z, n = z + (g - sigma * w), n + g * g
    state["n"], state["z"] = n, z
    shrunk = -(z - np.sign(z) * f32(o.l1)) / ((f32(o.beta) + np.sqrt(n)) / rate + f32(o.l2))
    return np.where(np.abs(z) <= f32(o.l1), f32(0), shrunk)


CASES: list[tuple[Optimizer, Callable[..., Vector]]] = [
    (SGD(learning_rate=0.1), sgd_step),
    (SGD(learning_rate=0.1, weight_decay=0.01), sgd_step),
    (AdaGrad(), adagrad_step),
    (AdaGrad(learning_rate=0.3, initial_accumulator=0.0, epsilon=1e-6, weight_decay=0.02), adagrad_step),
    (RowwiseAdaGrad(), rowwise_adagrad_step),
    (RowwiseAdaGrad(learning_rate=0.3, initial_accumulator=0.0, weight_decay=0.02), rowwise_adagrad_step),
    (Momentum(), momentum_step),
    (Momentum(momentum=0.5, weight_decay=0.1), momentum_step),
    (RMSProp(), rmsprop_step),
    (RMSProp(decay=0.5, weight_decay=0.1), rmsprop_step),
    (AdaDelta(), adadelta_step),
    (AdaDelta(decay=0.5, weight_decay=0.1), adadelta_step),
    (FTRL(), ftrl_step),
    (FTRL(l1=0.5, l2=0.25, beta=0.1), ftrl_step),
    (Adam(), adam_step),
    (Adam(learning_rate=0.01, beta1=0.5, beta2=0.7, weight_decay=0.1), adam_step),
]


@pytest.mark.parametrize(("optimizer", "step"), CASES, ids=[str(case[0]) for case in CASES])
@pytest.mark.parametrize("dim", [1, 7, 16, 33])
def test_steps_equal_the_reference(optimizer: Optimizer, step: Callable[..., Vector], dim: int) -> None:
    rng = np.random.default_rng(dim)
    table = Table(dim, optimizer=optimizer, seed=dim)
    fid = np.array([11])
    w = table.lookup_or_insert(fid, 0)[0]
    state: State = {}
    for t in range(50):
        scale = f32(1.0 if t % 3 else 0.5)
        gradient = (rng.normal(size=dim) * 10.0 ** rng.uniform(-4, 2)).astype(f32)
        table.apply_gradients(fid, gradient[None], learning_rate_scale=float(scale))
        g = gradient + f32(getattr(optimizer, "weight_decay", 0.0)) * w
        w = step(optimizer, w, g, state, f32(optimizer.learning_rate) * scale)
        np.testing.assert_array_max_ulp(table.lookup(fid)[0], w, maxulp=1)
        w = table.lookup(fid)[0]


def test_ftrl_leaves_exact_zeros() -> None:
    table = Table(4, optimizer=FTRL(l1=1.0), initial_range=0.0)
    table.lookup_or_insert(np.array([1]), 0)
    table.apply_gradients(np.array([1]), np.array([[0.5, -0.9, 1.5, -2.0]], f32))
    moved = table.lookup(np.array([1]))[0]
    assert moved[:2].tolist() == [0.0, 0.0]
    assert moved[2] < 0 < moved[3]


def test_adam_counts_the_steps_of_each_row_by_itself() -> None:
    table = Table(1, optimizer=Adam(learning_rate=0.1))
    table.assign(np.array([1, 2]), np.zeros((2, 1), f32))
    gradient = np.array([[0.5]], f32)
    for _ in range(5000):  # Beyond the table of corrections, too.
        table.apply_gradients(np.array([1]), gradient)
    table.apply_gradients(np.array([2]), gradient)
    # The first step of any row is rate·sign(g), whenever it comes.
    assert table.lookup(np.array([2])).item() == pytest.approx(-0.1, rel=1e-6)
    # With a constant gradient each mean is the gradient itself, so every step is the rate.
    assert table.lookup(np.array([1])).item() == pytest.approx(-0.1 * 5000, rel=1e-3)


@pytest.mark.parametrize("optimizer", [case[0] for case in CASES], ids=str)
def test_settings_survive_json(optimizer: Optimizer) -> None:
    assert optimizer_from_dict(json.loads(json.dumps(optimizer_to_dict(optimizer)))) == optimizer


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "adagard"}, "optimizer.name must be one of sgd, adagrad, adam.*got 'adagard'"),
        ({"learning_rate": 1.0}, "optimizer.name must be one of"),
        ({"name": "sgd", "momentum": 1.0}, "optimizer sgd has no setting 'momentum'"),
        ({"name": "sgd", "learning_rate": 0.0}, r"SGD.learning_rate must be above 0, got 0.0"),
        ({"name": "adam", "beta2": 1.0}, r"Adam.beta2 must be in \[0, 1\), got 1.0"),
        ({"name": "adagrad", "epsilon": float("inf")}, "AdaGrad.epsilon must be 0 or more, got inf"),
        ({"name": "adagrad", "weight_decay": -1.0}, "AdaGrad.weight_decay must be 0 or more, got -1.0"),
    ],
)
def test_bad_settings_are_named(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        optimizer_from_dict(settings)

"""Each fused optimiser against the same formulas in NumPy.

The native steps are float32 with each operation rounded on its own (no fused multiply-add), and NumPy rounds the same
operations alike, so both agree to the last bit where the order of operations is the same. A tolerance of one unit in
the last place a step is left for a reference that is written as the paper writes it.
"""

import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import fields, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, reject, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from dolmen._core import NativeTable
from dolmen.embedding.optimizers import (
    FTRL,
    SGD,
    AdaDelta,
    AdaGrad,
    Adam,
    AMSGrad,
    GroupFTRL,
    LazyAdam,
    Momentum,
    Optimizer,
    RMSProp,
    RowwiseAdaGrad,
    RowwiseAdam,
    optimizer_from_dict,
    optimizer_to_dict,
)
from dolmen.embedding.table import Capacity, RowRules, Table

Vector = NDArray[np.float32]
State = dict[str, Vector]
f32 = np.float32

LARGEST, SMALLEST = float(np.finfo(f32).max), float(np.finfo(f32).smallest_subnormal)
ABOVE_ZERO = st.sampled_from([SMALLEST, 1e-38, 1e-23, 1e-12, 1e-8, 1.0, 1e8, 1e19, 1e30, LARGEST])
SIZES = st.just(0.0) | ABOVE_ZERO
SIGNED = st.tuples(SIZES, st.sampled_from([-1.0, 1.0])).map(lambda one: one[0] * one[1])
RATES = st.sampled_from([0.0, SMALLEST, 1e-12, 1e-6, 0.01, 1.0, 1e6])
SCALES = st.sampled_from([0.0, SMALLEST, 1e-12, 0.01, 1.0, 100.0])
SETTINGS = {
    "learning_rate": RATES,
    "weight_decay": RATES,
    "gradient_value_max": st.none() | ABOVE_ZERO,
    "gradient_norm_max": st.none() | ABOVE_ZERO,
    "decoupled": st.booleans(),
    **dict.fromkeys(
        ("beta1", "beta2", "decay", "momentum"), st.sampled_from([0.0, 0.5, float(np.nextafter(f32(1), f32(0)))])
    ),
}


def sgd_step(_o: SGD, w: Vector, g: Vector, _state: State, rate: np.float32) -> Vector:
    return w - rate * g


def adagrad_step(o: AdaGrad, w: Vector, g: Vector, state: State, rate: np.float32) -> Vector:
    state["n"] = state.get("n", np.full_like(w, o.initial_accumulator)) + g * g
    return w - rate * g / (np.sqrt(state["n"]) + f32(o.epsilon))


def adam_step(
    o: Adam | LazyAdam | RowwiseAdam | AMSGrad, w: Vector, g: Vector, state: State, rate: np.float32
) -> Vector:
    t = state["t"] = state.get("t", np.zeros(1, f32)) + f32(1)
    square = np.add.accumulate(g * g)[-1:] / f32(len(w)) if isinstance(o, RowwiseAdam) else g * g
    state["m"] = f32(o.beta1) * state.get("m", np.zeros_like(w)) + (f32(1) - f32(o.beta1)) * g
    state["v"] = f32(o.beta2) * state.get("v", np.zeros_like(square)) + (f32(1) - f32(o.beta2)) * square
    state["most"] = np.maximum(state.get("most", np.zeros_like(square)), state["v"])
    m_hat = state["m"] / f32(1 - float(f32(o.beta1)) ** int(t[0]))
    v_hat = state["most" if isinstance(o, AMSGrad) else "v"] / f32(1 - float(f32(o.beta2)) ** int(t[0]))
    kept = w - rate * f32(o.weight_decay) * w if o.decoupled else w
    return kept - rate * m_hat / (np.sqrt(v_hat) + f32(o.epsilon))


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


def ftrl_sums(o: FTRL, w: Vector, g: Vector, state: State, scale: np.float32) -> tuple[Vector, Vector]:
    n, z = state.get("n", np.zeros_like(w)), state.get("z", np.zeros_like(w))
    sigma = (np.sqrt(n + g * g) - np.sqrt(n)) / f32(o.learning_rate)
    state["n"], state["z"] = n + g * g, z + (scale * g - sigma * w)
    return state["z"], (f32(o.beta) + np.sqrt(state["n"])) / f32(o.learning_rate) + f32(o.l2)


def ftrl_step(o: FTRL, w: Vector, g: Vector, state: State, scale: np.float32) -> Vector:
    z, curvature = ftrl_sums(o, w, g, state, scale)
    return np.where(np.abs(z) <= f32(o.l1), f32(0), -(z - np.sign(z) * f32(o.l1)) / curvature)


def group_ftrl_step(o: GroupFTRL, w: Vector, g: Vector, state: State, scale: np.float32) -> Vector:
    z, curvature = ftrl_sums(o, w, g, state, scale)
    beyond = np.maximum(np.abs(z) - f32(o.l1), f32(0))
    norm = np.sqrt(np.add.accumulate(f32(2) * (beyond * beyond) / curvature)[-1])
    most = np.sqrt(f32(len(w))) * f32(o.l21)
    return -np.sign(z) * (beyond / curvature * (f32(1) - most / norm)) if norm > most else np.zeros_like(w)


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
    (GroupFTRL(learning_rate=0.5), group_ftrl_step),
    (GroupFTRL(l1=0.5, l21=2.0, l2=0.25, beta=0.1), group_ftrl_step),
    (Adam(), adam_step),
    (Adam(weight_decay=0.1, decoupled=True), adam_step),
    (LazyAdam(), adam_step),
    (LazyAdam(learning_rate=0.01, weight_decay=0.1), adam_step),
    (RowwiseAdam(), adam_step),
    (RowwiseAdam(beta1=0.5, weight_decay=0.1, decoupled=True), adam_step),
    (AMSGrad(), adam_step),
    (AMSGrad(beta2=0.7, weight_decay=0.1), adam_step),
    (Adam(learning_rate=0.01, beta1=0.5, beta2=0.7, weight_decay=0.1), adam_step),
]


ONE_OF_EACH = [kind() for kind in get_args(Optimizer)]


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
        is_l2 = not getattr(optimizer, "decoupled", False)
        g = gradient + f32(getattr(optimizer, "weight_decay", 0.0) if is_l2 else 0.0) * w
        rate = f32(1.0 if isinstance(optimizer, FTRL) else optimizer.learning_rate) * scale
        w = step(optimizer, w, g, state, rate)
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


def torch_twins() -> list[tuple[Optimizer, Callable[[list[torch.Tensor]], torch.optim.Optimizer]]]:
    """Ours and PyTorch's, of the same settings, where both mean the same by them."""
    return [
        (SGD(learning_rate=0.1, weight_decay=0.01), lambda p: torch.optim.SGD(p, lr=0.1, weight_decay=0.01)),
        (Momentum(momentum=0.7), lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.7)),
        (
            AdaGrad(initial_accumulator=0.1),
            lambda p: torch.optim.Adagrad(p, lr=0.05, initial_accumulator_value=0.1, eps=1e-8),
        ),
        (RMSProp(decay=0.9), lambda p: torch.optim.RMSprop(p, lr=0.01, alpha=0.9)),
        (AdaDelta(), lambda p: torch.optim.Adadelta(p, lr=1.0, rho=0.9, eps=1e-6)),
        (Adam(weight_decay=0.01), lambda p: torch.optim.Adam(p, lr=0.001, weight_decay=0.01)),
        (
            Adam(weight_decay=0.01, decoupled=True),
            lambda p: torch.optim.AdamW(p, lr=0.001, weight_decay=0.01),
        ),
        (LazyAdam(), lambda p: torch.optim.Adam(p, lr=0.001)),
        (AMSGrad(), lambda p: torch.optim.Adam(p, lr=0.001, amsgrad=True)),
    ]


@pytest.mark.parametrize(("optimizer", "make_twin"), torch_twins(), ids=[str(one) for one, _ in torch_twins()])
def test_a_row_of_every_batch_walks_with_pytorchs_optimizer(
    optimizer: Optimizer, make_twin: Callable[[list[torch.Tensor]], torch.optim.Optimizer]
) -> None:
    rng = np.random.default_rng(3)
    table = Table(8, optimizer=optimizer, seed=3)
    fid = np.array([5])
    weights = torch.from_numpy(table.lookup_or_insert(fid, 0)[0].copy()).double().requires_grad_()
    twin = make_twin([weights])
    for _ in range(200):
        gradient = rng.normal(size=8).astype(f32)
        table.apply_gradients(fid, gradient[None])
        weights.grad = torch.from_numpy(gradient).double()
        twin.step()
    # PyTorch goes in float64 here: 200 steps in float32, each rounded by 2^-24 of a weight below 2 or of a step.
    np.testing.assert_allclose(table.lookup(fid)[0], weights.detach().numpy(), rtol=0, atol=200 * 2.0**-23)


def test_lazy_adam_counts_the_batches_of_the_table(tmp_path: Path) -> None:
    beta1, beta2 = LazyAdam().beta1, LazyAdam().beta2
    table = Table(1, optimizer=LazyAdam(learning_rate=0.1))
    table.assign(np.array([1, 2]), np.zeros((2, 1), f32))
    for _ in range(20_000):
        table.apply_gradients(np.array([1]), np.array([[0.5]], f32))
    table.save(tmp_path / "table")
    for again in (table, Table.load(tmp_path / "table")):
        again.apply_gradients(np.array([2]), np.array([[0.5]], f32))
        # So late, nothing is corrected: the first step is rate·(1-beta1)·g / √((1-beta2)·g²).
        assert again.lookup(np.array([2])).item() == pytest.approx(-0.1 * (1 - beta1) / (1 - beta2) ** 0.5, rel=1e-4)


def test_a_group_lasso_step_is_the_minimum_that_the_theorem_says() -> None:
    optimizer = GroupFTRL(learning_rate=0.5, beta=1.0, l1=0.3, l21=0.2, l2=0.4)
    table = Table(3, optimizer=optimizer, initial_range=0.0)
    table.lookup_or_insert(np.array([1]), 0)
    gradient = np.array([1.5, -0.2, -0.9], f32)
    table.apply_gradients(np.array([1]), gradient[None])
    w = torch.from_numpy(table.lookup(np.array([1]))[0]).double().requires_grad_()
    # From w = 0: z is the gradient, and the curvature is (beta + |g|) / rate + l2.
    z = torch.from_numpy(gradient).double()
    curvature = (1.0 + z.abs()) / 0.5 + 0.4

    def objective(at: torch.Tensor) -> torch.Tensor:
        group = 3**0.5 * 0.2 * (curvature / 2 * at * at).sum().sqrt()
        return (z * at + curvature / 2 * at * at + 0.3 * at.abs()).sum() + group

    lowest = objective(w.detach())
    assert w[1] == 0.0
    assert lowest < objective(torch.zeros(3)), "the row has earned its place"
    rng = torch.Generator().manual_seed(1)
    for size in (1e-1, 1e-2, 1e-3):
        for _ in range(100):
            assert objective(w.detach() + size * torch.randn(3, generator=rng, dtype=torch.float64)) > lowest


def test_a_row_that_does_not_earn_its_group_penalty_is_zero_as_a_whole() -> None:
    optimizer = GroupFTRL(learning_rate=0.5, l21=1.0)
    table = Table(4, optimizer=optimizer, initial_range=0.0)
    table.lookup_or_insert(np.array([1, 2]), 0)
    gradients = np.array([[0.5] * 4, [5.0, 0.1, 0.1, 0.1]], f32)
    table.apply_gradients(np.array([1, 2]), gradients)
    weak, strong = table.lookup(np.array([1, 2]))
    assert not weak.any()
    assert strong.all()


def norm_clipped(g: Vector, norm_max: float = 2.0) -> Vector:
    """In float64, where no square of a float32 overflows or vanishes."""
    wide = g.astype(np.float64)
    norm = np.sqrt(np.add.accumulate(wide * wide)[-1])
    return (wide * (norm_max / norm)).astype(f32) if norm > norm_max else g


@pytest.mark.parametrize(
    ("limits", "clip"),
    [
        ({"gradient_value_max": 0.5}, lambda g: np.clip(g, f32(-0.5), f32(0.5))),
        ({"gradient_norm_max": 2.0}, norm_clipped),
    ],
    ids=["by value", "by norm"],
)
def test_the_summed_gradient_of_a_row_is_clipped(limits: dict[str, float], clip: Callable[[Vector], Vector]) -> None:
    table = Table(3, optimizer=replace(SGD(learning_rate=1.0), **limits), initial_range=0.0)
    table.lookup_or_insert(np.array([1, 2]), 0)
    gradients = np.array([[3.0, -4.0, 0.25], [0.25, 0.0, 0.125], [3.0, -4.0, 0.25]], f32)
    table.apply_gradients(np.array([1, 2, 1]), gradients)
    # The two gradients of 1 are each too long, and so is their sum; that of 2 is within both limits.
    expected = f32(0) - np.array([clip(gradients[0] + gradients[2]), gradients[1]])
    assert table.lookup(np.array([1, 2])).tobytes() == expected.tobytes()


def test_values_are_clipped_before_the_norm() -> None:
    optimizer = SGD(learning_rate=1.0, gradient_value_max=1.0, gradient_norm_max=1.0)
    table = Table(2, optimizer=optimizer, initial_range=0.0)
    table.lookup_or_insert(np.array([1]), 0)
    table.apply_gradients(np.array([1]), np.array([[100.0, -1.0]], f32))
    # Cut to (1, -1), then to length 1; by norm alone the first column would have kept nearly all of it.
    np.testing.assert_array_max_ulp(table.lookup(np.array([1]))[0], np.array([-1, 1], f32) / np.sqrt(f32(2)), maxulp=1)


@pytest.mark.parametrize("size", [1e-30, 1e-12, 1e20, 1e37])
def test_the_norm_of_a_huge_or_tiny_gradient_is_clipped_as_any_other(size: float) -> None:
    optimizer = SGD(learning_rate=1.0, gradient_norm_max=1e-31)
    table = Table(2, optimizer=optimizer, initial_range=0.0)
    table.lookup_or_insert(np.array([1]), 0)
    gradient = np.array([3.0, -4.0], f32) * f32(size)
    table.apply_gradients(np.array([1]), gradient[None])
    expected = -norm_clipped(gradient, float(f32(1e-31)))
    np.testing.assert_array_max_ulp(table.lookup(np.array([1]))[0], expected, maxulp=1)


@pytest.mark.parametrize("optimizer", ONE_OF_EACH, ids=lambda one: one.name)
def test_a_row_goes_on_learning_after_a_gradient_whose_square_overflows(optimizer: Optimizer) -> None:
    table, fid = Table(3, optimizer=optimizer), np.array([1])
    table.lookup_or_insert(fid, 0)
    for size in (1e20, 3e19):
        before = table.lookup(fid)
        table.apply_gradients(fid, np.full((1, 3), size, f32))
        assert (table.lookup(fid) != before).all()
    chunk = next(table.export_chunks())
    assert np.isfinite(chunk.states).all()
    assert np.isfinite(chunk.vectors).all()


@st.composite
def any_optimizer(draw: st.DrawFn) -> Optimizer:
    """Whatever settings are accepted, mostly at the ends of their ranges."""
    kind = draw(st.sampled_from(get_args(Optimizer)))
    try:
        return kind(**{one.name: draw(SETTINGS.get(one.name, SIZES)) for one in fields(kind)})
    except ValueError:
        reject()


@pytest.mark.property
@settings(deadline=None, max_examples=400, suppress_health_check=[HealthCheck.filter_too_much])
@given(
    any_optimizer(),
    st.lists(st.tuples(st.lists(SIGNED, min_size=3, max_size=3), SCALES), min_size=1, max_size=5),
    SCALES,
)
def test_what_is_learned_is_finite(
    optimizer: Optimizer, steps: list[tuple[list[float], float]], slot_scale: float
) -> None:
    rules, fid = {0: RowRules(learning_rate_scale=slot_scale)}, np.array([1])
    try:
        table = Table(3, optimizer=optimizer, rules=rules)
    except ValueError:
        reject()
    table.lookup_or_insert(fid, 0)
    for gradient, scale in steps:
        with suppress(ValueError):  # A gradient may be too large for the rate, a scale for the decay.
            table.apply_gradients(fid, np.array([gradient], f32), learning_rate_scale=scale)
        chunk = next(table.export_chunks())
        assert np.isfinite(chunk.vectors).all()
        assert np.isfinite(chunk.states).all()


def test_scales_that_throw_a_decaying_weight_past_zero_are_refused_before_anything_moves() -> None:
    fid, grads = np.array([1]), np.ones((1, 3), f32)
    optimizer = SGD(learning_rate=0.1, weight_decay=1.0)
    with pytest.raises(ValueError, match=r"times the scales \(of a slot 30, of the call 1\), must be at most 1"):
        Table(3, optimizer=optimizer, rules={0: RowRules(learning_rate_scale=30.0)})
    table = Table(3, optimizer=optimizer)
    table.lookup_or_insert(fid, 0)
    before = table.lookup(fid).tobytes()
    with pytest.raises(ValueError, match=r"of the call 11\), must be at most 1, .* got 1.1"):
        table.apply_gradients(fid, grads, 11.0)
    assert table.lookup(fid).tobytes() == before
    assert table.apply_gradients(fid, grads, 10.0) == 1
    assert Table(3, optimizer=AdaGrad(weight_decay=1e6)).apply_gradients(fid, grads, 100.0) == 0


@pytest.mark.parametrize("optimizer", ONE_OF_EACH, ids=lambda one: one.name)
def test_the_higher_the_rate_the_sooner_a_gradient_is_refused(optimizer: Optimizer) -> None:
    fid, grads = np.array([1]), np.full((1, 3), 1e20, f32)
    fast = replace(optimizer, learning_rate=1e6)
    with pytest.raises(ValueError, match=r"grads must be at most 5.*e\+14 .* got 1e\+20 at position .* of FID 1 "):
        Table(3, optimizer=fast).apply_gradients(fid, grads)
    table = Table(3, optimizer=replace(fast, gradient_norm_max=1.0))
    table.lookup_or_insert(fid, 0)
    assert table.apply_gradients(fid, grads) == 1


@pytest.mark.parametrize("kind", [FTRL, GroupFTRL])
def test_a_lower_rate_undoes_nothing_that_ftrl_learned(kind: type[FTRL]) -> None:
    # Without l1 and l2 each of its steps is AdaGrad's with the square root's beta in epsilon's place, at any rate: what
    # differs is rounding, some ulps of z in each of 200 steps.
    follows = Table(4, optimizer=kind(learning_rate=1.0, beta=1.0), initial_range=0.0)
    leads = Table(4, optimizer=AdaGrad(learning_rate=1.0, initial_accumulator=0.0, epsilon=1.0), initial_range=0.0)
    fid, target = np.array([1]), f32([1.0, -0.8, 0.5, 0.9])
    for step in range(200):
        scale = min(step / 20, 1.0) * 0.5 ** (step / 20)  # Warm-up, then decay to a thousandth.
        for table in (follows, leads):
            gradient = table.lookup_or_insert(fid, 0) - target
            table.apply_gradients(fid, gradient, learning_rate_scale=scale)
    np.testing.assert_allclose(follows.lookup(fid), leads.lookup(fid), rtol=1e-3)
    assert np.abs(follows.lookup(fid) - target).max() < 0.1, "and it has learned"


@pytest.mark.parametrize("optimizer", [AdaGrad(), FTRL(), Adam()], ids=lambda one: one.name)
def test_each_slot_learns_at_its_own_rate(optimizer: Optimizer, tmp_path: Path) -> None:
    scales = {0: 1.0, 1: 0.25, 2: 0.0}
    rules = {slot: RowRules(learning_rate_scale=scale) for slot, scale in scales.items()}
    table = Table(4, optimizer=optimizer, rules=rules, seed=1)
    fids = np.array([(slot << 53) + 7 for slot in scales])
    table.lookup_or_insert(fids, 0)
    before, gradients = table.lookup(fids), np.ones((3, 4), f32)
    table.save(tmp_path / "table")
    loaded = Table.load(tmp_path / "table")
    for again in (table, loaded):
        assert again.apply_gradients(fids, gradients, learning_rate_scale=0.5) == 2
    assert loaded.lookup(fids).tobytes() == table.lookup(fids).tobytes()
    for row, scale in zip(range(2), (0.5, 0.125), strict=True):
        alone = Table(4, optimizer=optimizer, seed=1)
        alone.assign(fids[row : row + 1], before[row : row + 1])
        alone.apply_gradients(fids[row : row + 1], gradients[:1], learning_rate_scale=scale)
        assert alone.lookup(fids[row : row + 1]).tobytes() == table.lookup(fids[row : row + 1]).tobytes()
    assert table.lookup(fids[2:]).tobytes() == before[2:].tobytes(), "at rate 0 nothing moves, FTRL's weights neither"


def test_the_native_table_names_a_setting_that_it_does_not_know() -> None:
    with pytest.raises(ValueError, match="optimizer sgd has no setting momentum"):
        NativeTable(2, "sgd", {"learning_rate": 0.1, "weight_decay": 0.0, "momentum": 0.9}, 0, 0, 0.01, "float32")
    with pytest.raises(ValueError, match="optimizer sgd needs the setting weight_decay"):
        NativeTable(2, "sgd", {"learning_rate": 0.1}, 0, 0, 0.01, "float32")
    with pytest.raises(ValueError, match="unknown optimizer lion"):
        NativeTable(2, "lion", {}, 0, 0, 0.01, "float32")


@pytest.mark.parametrize("optimizer", [case[0] for case in CASES], ids=str)
def test_settings_survive_json(optimizer: Optimizer) -> None:
    assert optimizer_from_dict(json.loads(json.dumps(optimizer_to_dict(optimizer)))) == optimizer


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64, np.longdouble, Fraction, int])
def test_numbers_of_every_kind_are_kept_as_pythons_own_and_saved(kind: Callable[[float], Any], tmp_path: Path) -> None:
    half: Any = kind(0.5) if kind is not int else 1  # what both sides of each bound allow
    for number, optimizer in enumerate(get_args(Optimizer)):
        names = [one.name for one in fields(optimizer) if one.name not in {"decoupled", "beta1", "beta2"}]
        shares = {"momentum", "decay"} if kind is int else set()
        given = {name: half for name in names if name not in shares}
        table = Table(
            2,
            optimizer=optimizer(**given),
            initial_range=half,
            rules={1: RowRules(learning_rate_scale=half, capacity=np.uint16(9), admit_after=np.int8(2))},
            capacity=Capacity(np.int32(7)),
            seed=np.uint64(3),
        )
        table.save(tmp_path / f"table-{number}")
        loaded = Table.load(tmp_path / f"table-{number}")
        expected = optimizer(**{name: float(half) for name in given})
        assert loaded.optimizer == table.optimizer == expected
        assert all(type(getattr(table.optimizer, name)) is float for name in given)
        assert optimizer_from_dict(json.loads(json.dumps(optimizer_to_dict(table.optimizer)))) == expected
        assert loaded.rules == {1: RowRules(learning_rate_scale=float(half), capacity=9, admit_after=2)}
        assert (loaded.initial_range, loaded.capacity, loaded.seed) == (float(half), Capacity(7), 3)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "adagard"}, "optimizer.name: there is no optimizer 'adagard'; did you mean 'adagrad'"),
        ({"learning_rate": 1.0}, "optimizer.name: there is no optimizer None; known are adadelta"),
        ({"name": "sgd", "momentum": 1.0}, "optimizer: unknown setting 'momentum'"),
        ({"name": "sgd", "learning_rate": 0.0}, r"SGD.learning_rate must be above 0 and at most 1e\+06, got 0.0"),
        ({"name": "adam", "beta2": 1.0}, r"Adam.beta2 must be in \[0, 1\), got 1.0"),
        ({"name": "adagrad", "epsilon": float("inf")}, "AdaGrad.epsilon must be 0 or more and finite, got inf"),
        (
            {"name": "adagrad", "weight_decay": -1.0},
            r"AdaGrad.weight_decay must be 0 or more and at most 1e\+06, got -1.0",
        ),
        ({"name": "sgd", "gradient_norm_max": 0.0}, "SGD.gradient_norm_max must be above 0 and finite, got 0.0"),
        (
            {"name": "ftrl", "gradient_value_max": float("nan")},
            "FTRL.gradient_value_max must be above 0 and finite, got nan",
        ),
        ({"name": "group_ftrl", "l21": -1.0}, "GroupFTRL.l21 must be 0 or more and finite, got -1.0"),
        (
            {"name": "adagrad", "learning_rate": 1e39},
            r"AdaGrad.learning_rate must be above 0 and at most 1e\+06, got 1e\+39",
        ),
        ({"name": "sgd", "gradient_norm_max": 1e-46}, "SGD.gradient_norm_max must be above 0 .* make it 0, got 1e-46"),
        ({"name": "adam", "beta2": 1 - 1e-12}, r"Adam.beta2 must be in \[0, 1\) also in float32, which .* make it 1"),
        ({"name": "ftrl", "l1": 1e39}, "FTRL.l1 must be 0 or more and finite also in float32"),
        ({"name": "sgd", "weight_decay": 1e39}, r"SGD.weight_decay must be 0 or more and at most 1e\+06, got 1e\+39"),
        (
            {"name": "sgd", "learning_rate": 0.5, "weight_decay": 3},
            r"SGD.weight_decay must be at most 2 \(1 / learning",
        ),
        ({"name": "adam", "weight_decay": 2e3, "decoupled": True}, r"Adam.weight_decay must be at most 1000 \(1 / lea"),
        (
            {"name": "ftrl", "learning_rate": 1e-13},
            "FTRL.learning_rate must be at least 1e-12, since steps divide by it, got",
        ),
        ({"name": "adagrad", "initial_accumulator": 0.0, "epsilon": 0.0}, "AdaGrad.epsilon must be at least 1e-12"),
        ({"name": "ftrl", "beta": 0.0}, "FTRL.beta must be at least 1e-12, since steps divide by it, got 0"),
        ({"name": "lazy_adam", "beta1": 1.0}, r"LazyAdam.beta1 must be in \[0, 1\), got 1.0"),
    ],
)
def test_bad_settings_are_named(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        optimizer_from_dict(settings)

"""Running moments against every row's weight kept by hand, and Dice against its definition."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from dolmen.models.layers.activations import Dice
from dolmen.models.layers.moments import Moments, Normalized


@settings(max_examples=30, deadline=None)
@given(sizes=st.lists(st.integers(0, 9), min_size=1, max_size=8), window=st.integers(1, 20), seed=st.integers(0, 9))
def test_moments_are_those_of_all_rows_so_far_with_fading_weights(sizes: list[int], window: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    moments = Moments(2, window)
    rows, weights = np.empty((0, 2)), np.empty(0)
    for size in sizes:
        batch = random.normal(3, 2, (size, 2))
        mean, variance = moments(torch.tensor(batch, dtype=torch.float32))
        if size == 0:
            continue
        share = 1 - (1 - 1 / window) ** size  # of a batch, as if its rows had come one by one
        weights = np.concatenate([weights * (1 - share), np.full(size, share / size)])
        rows = np.concatenate([rows, batch])
        expected = np.average(rows, axis=0, weights=weights)
        spread = np.average((rows - expected) ** 2, axis=0, weights=weights)
        assert mean.numpy() == pytest.approx(expected, abs=1e-4)
        assert variance.detach().numpy() == pytest.approx(spread, abs=1e-3)
    frozen = moments.eval()(torch.full((5, 2), 1e6))
    if rows.size:
        assert frozen[0].numpy() == pytest.approx(np.average(rows, axis=0, weights=weights), abs=1e-4)
    else:
        assert frozen[0].tolist() == [0, 0]
        assert frozen[1].tolist() == [1, 1]


def test_moments_of_the_batch_are_its_own_whatever_came_before() -> None:
    moments = Moments(1, window=4, of_batch=True)
    moments(torch.full((50, 1), 100.0))
    mean, variance = moments(torch.tensor([[1.0], [3.0]]))
    assert (mean.item(), variance.item()) == (2, 1)
    # What scoring uses is the running one: two rows of a window of four weigh 1 - (3 / 4)^2.
    assert moments.eval()(torch.zeros(1, 1))[0].item() == pytest.approx(100 + (2 - 100) * (1 - 0.75**2), rel=1e-4)


def test_dice_in_training_is_the_papers_formula_over_the_batch() -> None:
    torch.manual_seed(0)
    dice = Dice(3, window=100, of_batch=True)
    with torch.no_grad():
        dice.alpha.copy_(torch.tensor([0.3, -0.5, 2.0]))
    inputs = torch.randn(7, 3) * 4 + 1
    actual = dice(inputs).detach().numpy()
    x = inputs.numpy().astype(np.float64)
    chance = 1 / (1 + np.exp(-(x - x.mean(axis=0)) / np.sqrt(x.var(axis=0) + 1e-8)))
    expected = chance * x + (1 - chance) * np.array([0.3, -0.5, 2.0]) * x
    assert actual == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("of_batch", [True, False])
def test_gradients_pass_through_the_moments_of_a_batch(of_batch: bool) -> None:
    torch.manual_seed(1)

    def dice_of(inputs: torch.Tensor, alpha: torch.Tensor) -> torch.Tensor:
        dice = Dice(2, window=10, of_batch=of_batch).double()
        for warm in (torch.ones(3, 2), torch.full((4, 2), -1.0)):
            dice(warm.double())
        return torch.func.functional_call(dice, {"alpha": alpha}, (inputs,))

    inputs = torch.randn(5, 2, dtype=torch.float64, requires_grad=True)
    alpha = torch.randn(2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(dice_of, (inputs, alpha))


def test_dice_without_spread_is_prelu() -> None:
    dice, prelu = Dice(1, window=10).eval(), nn.PReLU()
    with torch.no_grad():
        dice.alpha.fill_(0.25)
        dice.moments.variance.zero_()
    inputs = torch.tensor([[-2.0], [-0.1], [0.3], [5.0]])
    assert torch.allclose(dice(inputs), prelu(inputs))


def test_a_batch_of_none_or_one_gives_no_nan_and_moves_only_what_it_should() -> None:
    normalized = Normalized(2, window=10)
    assert normalized(torch.empty(0, 2)).shape == (0, 2)
    assert normalized.moments.filled == 0
    assert torch.equal(normalized(torch.tensor([[5.0, -3.0]])), torch.zeros(1, 2))  # it is its own mean
    assert normalized.moments.filled == pytest.approx(0.1)

import copy

import pytest
import torch
from torch import nn

from dolmen.errors import ConfigError, SnapshotError
from dolmen.training.adam import FlatAdam


def _network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 3), nn.BatchNorm1d(3))


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_flat_adam_equals_torchs_own(weight_decay: float) -> None:
    ours, theirs = _network(), _network()
    flat = FlatAdam(ours.named_parameters(), weight_decay=weight_decay)
    adam = torch.optim.AdamW(theirs.parameters(), lr=0.01, weight_decay=weight_decay)
    for number in range(200):
        batch = torch.randn(16, 5, generator=torch.Generator().manual_seed(number))
        for network in (ours, theirs):
            if network is ours:
                flat.begin()
            else:
                adam.zero_grad()
            network(batch).square().sum().backward()
        flat.step(0.01)
        adam.step()
    for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_gradients_are_scaled_then_cut() -> None:
    parameter = nn.Parameter(torch.zeros(2))
    flat = FlatAdam([("w", parameter)])
    for scale, norm_max, expected in ((1.0, None, 5.0), (0.1, None, 0.5), (1.0, 2.0, 2.0), (0.1, 2.0, 0.5)):
        flat.begin()
        (parameter * torch.tensor([3.0, 4.0])).sum().backward()
        before = flat.state_dict()["w.first"]
        flat.step(0.1, gradient_scale=scale, norm_max=norm_max)
        moved = (flat.state_dict()["w.first"] - 0.9 * before).norm().item() / 0.1
        assert moved == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_gradient_that_is_not_finite_moves_nothing(bad: float) -> None:
    parameter = nn.Parameter(torch.ones(3))
    flat = FlatAdam([("w", parameter)])
    flat.begin()
    (parameter * torch.tensor([1.0, bad, 1.0])).sum().backward()
    assert not flat.step(0.1)
    assert parameter.tolist() == [1.0, 1.0, 1.0]
    assert int(flat.state_dict()["steps"]) == 0


def test_state_survives_and_goes_on_alike() -> None:
    one, other = _network(), _network()
    first = FlatAdam(one.named_parameters())
    for number in range(6):
        if number == 3:
            other.load_state_dict(one.state_dict())
            second = FlatAdam(other.named_parameters())
            second.load_state_dict(first.state_dict())
        for network, flat in ((one, first), *([(other, second)] if number >= 3 else [])):
            flat.begin()
            network(torch.ones(4, 5) * torch.arange(4.0).unsqueeze(1)).sum().backward()
            flat.step(0.05)
    for name, tensor in one.state_dict().items():
        assert torch.equal(other.state_dict()[name], tensor), name


def test_copy_of_the_model_is_its_own() -> None:
    network = _network()
    flat = FlatAdam(network.named_parameters())
    copied = copy.deepcopy(network)
    flat.begin()
    network(torch.randn(4, 5)).square().sum().backward()
    flat.step(0.5)
    assert not torch.equal(network[0].weight, copied[0].weight)


def test_state_of_another_model_is_refused() -> None:
    flat = FlatAdam([("w", nn.Parameter(torch.zeros(2)))])
    with pytest.raises(SnapshotError, match=r"another model: v\.first does not fit"):
        flat.load_state_dict(FlatAdam([("v", nn.Parameter(torch.zeros(2)))]).state_dict())
    with pytest.raises(SnapshotError, match="a shape does not fit"):
        flat.load_state_dict(FlatAdam([("w", nn.Parameter(torch.zeros(3)))]).state_dict())


def test_parameters_of_another_kind_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"parameter w is torch\.float64"):
        FlatAdam([("w", nn.Parameter(torch.zeros(2, dtype=torch.float64)))])


def test_model_without_dense_layers_can_be_stepped() -> None:
    flat = FlatAdam([])
    flat.begin()
    assert flat.step(0.1)
    flat.load_state_dict(flat.state_dict())

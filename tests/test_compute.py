"""Where and how a model is computed: what a configuration may say, and what is then done."""

import tomllib

import pytest
import tomli_w
import torch

from dolmen.compute import ON_CPU, Compute
from dolmen.devices import Arithmetic, Device
from dolmen.errors import ConfigError
from dolmen.settings import read_settings, write_settings
from dolmen.training import TrainConfig


def test_auto_takes_what_is_there_and_cuda_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert Compute.of("auto", section="train") == ON_CPU
    with pytest.raises(
        ConfigError, match=r'serving\.device is "cuda", and torch .* sees no CUDA device here; take "cpu"'
    ):
        Compute.of("cuda", section="serving")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert Compute.of("auto", section="train").device is Device.CUDA
    assert Compute.of("cpu", section="train") == ON_CPU


def test_matrices_are_multiplied_in_the_arithmetic_and_parameters_stay_as_they_are() -> None:
    layer = torch.nn.Linear(3, 2)
    with Compute(arithmetic=Arithmetic.BFLOAT16).running():
        assert layer(torch.ones(1, 3)).dtype == torch.bfloat16
    with ON_CPU.running():
        assert layer(torch.ones(1, 3)).dtype == torch.float32
    assert layer.weight.dtype == torch.float32


def test_both_are_settings_of_learning_that_survive_a_file() -> None:
    told = TrainConfig(device=Device.AUTO, arithmetic=Arithmetic.BFLOAT16)
    written = tomllib.loads(tomli_w.dumps(write_settings(told)))
    assert written["device"] == "auto"
    assert read_settings(TrainConfig, written, "train") == told
    for name, value, known in (("device", "gpu", "cpu, cuda, auto"), ("arithmetic", "float16", "float32, bfloat16")):
        with pytest.raises(ConfigError, match=rf"train\.{name} must be one of {known}, got '{value}'"):
            TrainConfig(**{name: value})

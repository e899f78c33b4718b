"""Adam for the dense layers, in one piece of memory.

Source: Kingma and Ba, ICLR 2015, algorithm 1; weight decay decoupled as in Loshchilov and Hutter, ICLR 2019. The same
as ``torch.optim.AdamW`` (a test compares them), but parameters, gradients and moments each lie in one flat tensor. A
step of a small network is then a handful of calls rather than one for each layer, and starting a trainer does not load
torch's compiler, which ``torch.optim`` does: more than a second at each restart.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Final, final

import torch
from torch import Tensor, nn

from dolmen.errors import ConfigError, SnapshotError

__all__ = ["FlatAdam"]

_STEPS: Final = "steps"


@final
class FlatAdam:
    """Steps ``named``, parameters by name on one device. Each becomes a view of one tensor.

    Call ``begin`` before each backward pass, then ``step``. A parameter that the loss did not touch has the gradient 0.

    Raises:
        ConfigError: a parameter is not float32.
    """

    def __init__(
        self,
        named: Iterable[tuple[str, nn.Parameter]],
        *,
        weight_decay: float = 0.0,
        beta1: float = 0.9,
        beta2: float = 0.999,
        epsilon: float = 1e-8,
    ) -> None:
        self._names: dict[str, tuple[nn.Parameter, slice]] = {}
        end = 0
        for name, parameter in named:
            if parameter.dtype != torch.float32:
                raise ConfigError(f"the model's parameter {name} is {parameter.dtype}; the trainer steps float32 only")
            self._names[name] = parameter, slice(end, end + parameter.numel())
            end += parameter.numel()
        self._weight_decay, self._beta1, self._beta2, self._epsilon = weight_decay, beta1, beta2, epsilon
        device = next((one.device for one, _ in self._names.values()), None)
        self._values, self._gradient = torch.zeros(end, device=device), torch.zeros(end, device=device)
        self._first, self._second = torch.zeros_like(self._values), torch.zeros_like(self._values)
        self._scratch = torch.zeros_like(self._values)
        self._steps = 0
        self._gradients: list[tuple[nn.Parameter, Tensor]] = []
        for parameter, place in self._names.values():
            shape = parameter.shape
            self._values[place] = parameter.detach().flatten()
            parameter.data = self._values[place].view(shape)
            self._gradients.append((parameter, self._gradient[place].view(shape)))

    def begin(self) -> None:
        """Make every gradient 0, in the memory where ``step`` reads it."""
        self._gradient.zero_()
        for parameter, gradient in self._gradients:
            parameter.grad = gradient

    @torch.no_grad()
    def step(self, learning_rate: float, *, gradient_scale: float = 1.0, norm_max: float | None = None) -> bool:
        """One step by the gradients times ``gradient_scale``, cut to the length ``norm_max``.

        False, and nothing moved, where they are not finite.
        """
        norm = torch.linalg.vector_norm(self._gradient).item() * gradient_scale
        if not math.isfinite(norm):
            return False
        if norm_max is not None and norm > norm_max:
            gradient_scale *= norm_max / norm
        gradient, first, second, scratch = self._gradient, self._first, self._second, self._scratch
        gradient.mul_(gradient_scale)
        self._steps += 1
        first.lerp_(gradient, 1 - self._beta1)
        second.mul_(self._beta2).addcmul_(gradient, gradient, value=1 - self._beta2)
        torch.sqrt(second, out=scratch)
        scratch.div_(math.sqrt(1 - self._beta2**self._steps)).add_(self._epsilon)
        if self._weight_decay:
            self._values.mul_(1 - learning_rate * self._weight_decay)
        self._values.addcdiv_(first, scratch, value=-learning_rate / (1 - self._beta1**self._steps))
        return True

    def state_dict(self) -> dict[str, Tensor]:
        """Moments by parameter, ``<name>.first`` and ``<name>.second``, and the count of ``steps``; copies."""
        state = {_STEPS: torch.tensor(self._steps)}
        for name, (parameter, place) in self._names.items():
            state[f"{name}.first"] = self._first[place].clone().view(parameter.shape)
            state[f"{name}.second"] = self._second[place].clone().view(parameter.shape)
        return state

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """The inverse of ``state_dict``.

        Raises:
            SnapshotError: the state is of other parameters; nothing was loaded then.
        """
        expected = self.state_dict()
        if expected.keys() != state.keys() or any(state[name].shape != one.shape for name, one in expected.items()):
            odd = [n for n in sorted({*expected, *state}) if n not in expected or n not in state] or ["a shape"]
            raise SnapshotError(f"the optimiser's state is of another model: {odd[0]} does not fit")
        self._steps = int(state[_STEPS])
        for name, (_, place) in self._names.items():
            self._first[place] = state[f"{name}.first"].flatten()
            self._second[place] = state[f"{name}.second"].flatten()

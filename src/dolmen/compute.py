"""Where a model's layers are computed, and with which numbers. Tables stay in main memory: rows come and go."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Final, final

import torch

from dolmen.devices import Arithmetic, Device
from dolmen.errors import ConfigError
from dolmen.settings import chosen

__all__ = ["ON_CPU", "Compute", "torch_threads"]


@final
@dataclass(frozen=True)
class Compute:
    """A device that is there, and an arithmetic. ``of`` makes one from what a configuration says."""

    device: Device = Device.CPU
    arithmetic: Arithmetic = Arithmetic.FLOAT32

    @classmethod
    def of(cls, device: str, arithmetic: str = Arithmetic.FLOAT32, *, section: str) -> Compute:
        """What the settings ``device`` and ``arithmetic`` of ``section`` ask for; ``auto`` is decided here.

        Raises:
            ConfigError: there is no such kind of device or arithmetic, or the device is not there.
        """
        device = chosen(Device, device, f"{section}.device")
        arithmetic = chosen(Arithmetic, arithmetic, f"{section}.arithmetic")
        is_there = torch.cuda.is_available()
        if device is Device.CUDA and not is_there:
            raise ConfigError(
                f'{section}.device is "cuda", and torch {torch.__version__} sees no CUDA device here; take "cpu", or '
                '"auto" to take what is there'
            )
        if device is Device.AUTO:
            device = Device.CUDA if is_there else Device.CPU
        return cls(device, arithmetic)

    def running(self) -> AbstractContextManager[None]:
        """Within, what a model makes anew lies on the device, and products are taken in the arithmetic.

        On the processor in ``float32`` it costs nothing: that is how torch is anyway.
        """
        return nullcontext() if self == ON_CPU else self._running()

    @contextmanager
    def _running(self) -> Iterator[None]:
        with ExitStack() as entered:
            if self.device is not Device.CPU:
                entered.enter_context(torch.device(str(self.device)))
            if self.arithmetic is not Arithmetic.FLOAT32:
                entered.enter_context(torch.autocast(str(self.device), torch.bfloat16))
            yield


ON_CPU: Final = Compute()


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Within, torch uses ``count`` threads for one product of matrices; then as many as before.

    Of itself it takes every core, and for steps as small as ours more threads mostly wait for each other.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)

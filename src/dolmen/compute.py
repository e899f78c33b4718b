"""Where a model's layers are computed, and with which numbers. Tables stay in main memory: rows come and go."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, TypeVar, final

import torch

from dolmen.errors import ConfigError

__all__ = ["ON_CPU", "Arithmetic", "Compute", "Device", "chosen"]


class Device(StrEnum):
    """``auto`` is the graphics processor where torch sees one, and else the processor."""

    CPU = "cpu"
    CUDA = "cuda"
    AUTO = "auto"


class Arithmetic(StrEnum):
    """``bfloat16``: products of matrices are taken with numbers of two bytes; parameters, sums and losses keep four."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"


KindT = TypeVar("KindT", bound=StrEnum)


def chosen(kinds: type[KindT], value: str, name: str) -> KindT:
    """The one of ``kinds`` that a setting called ``name`` says.

    Raises:
        ConfigError: it says none of them.
    """
    try:
        return kinds(value)
    except ValueError:
        raise ConfigError(f"{name} must be one of {', '.join(kinds)}, got {value!r}") from None


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

"""What a person sees while a data set is learned: a bar with early numbers on a terminal, or a line now and then.

Numbers come from the first batches on, so that a run that goes wrong can be stopped in its first seconds.
"""

from __future__ import annotations

import math
import time
from types import TracebackType
from typing import Final, Protocol, Self, TextIO, final

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Column

__all__ = ["FitProgress", "Numbers"]

_LINE_SECONDS: Final = 10.0  # between lines where there is no terminal
_SMOOTHING: Final = 0.98  # of the shown loss, per batch: about the last fifty


class Numbers(Protocol):
    """Where the progress reads the AUC so far, when it draws; ``Trainer.judge`` is one."""

    @property
    def auc(self) -> float:
        """So far, in this epoch; NaN until both labels were seen."""
        ...


@final
class FitProgress:
    """Shows how a fit goes. Enter it, ``begin`` each epoch, ``advance`` after each batch, ``end`` each epoch.

    Args:
        epochs: how many there will be.
        numbers: where the AUC is read; not shown if ``None``.
        show: ``True``: always; ``False``: never; ``None``: where ``stream`` is a terminal.
        stream: where to; stderr if ``None``.
    """

    def __init__(
        self, epochs: int, numbers: Numbers | None = None, *, show: bool | None = None, stream: TextIO | None = None
    ) -> None:
        self._console = Console(file=stream, stderr=stream is None)
        is_terminal = self._console.is_terminal
        self._bar = _new_bar(self._console) if is_terminal and show is not False else None
        self._has_lines = bool(show) and not is_terminal
        self._epochs, self._source = epochs, numbers
        self._task: TaskID | None = None
        self._loss = self._started_at = self._shown_at = 0.0
        self._begin_epoch(0, None)

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def begin(self, epoch: int, batch_count: int | None) -> None:
        """Epoch ``epoch`` (from 1) starts; ``batch_count`` if it is known."""
        self._begin_epoch(epoch, batch_count)
        if self._bar is not None:
            self._task = self._bar.add_task(self._name, total=batch_count, numbers="")

    def advance(self, example_count: int, loss: float) -> None:
        """One batch was learned."""
        self._batches += 1
        self._examples += example_count
        self._loss = loss if self._batches == 1 else _SMOOTHING * self._loss + (1 - _SMOOTHING) * loss
        now = time.monotonic()
        if self._bar is not None and self._task is not None:
            if now - self._shown_at >= 0.1:
                self._shown_at = now
                self._bar.update(self._task, completed=self._batches, numbers=self._numbers(now))
        elif self._has_lines and now - self._shown_at >= _LINE_SECONDS:
            self._shown_at = now
            whole = f"/{self._total}" if self._total is not None else ""
            self._line(f"{self._name} batch {self._batches}{whole}  {self._numbers(now)}")

    def end(self, told: str) -> None:
        """The epoch is over; ``told`` is what validation says."""
        numbers = f"{self._numbers(time.monotonic())}{'  ' if told else ''}{told}"
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, total=self._batches, completed=self._batches, numbers=numbers)
        elif self._has_lines:
            self._line(f"{self._name} done  {numbers}")

    @property
    def seconds(self) -> float:
        """Since this epoch began."""
        return time.monotonic() - self._started_at

    @property
    def _name(self) -> str:
        return f"epoch {self._epoch}/{self._epochs}"

    def _begin_epoch(self, epoch: int, batch_count: int | None) -> None:
        self._epoch, self._total = epoch, batch_count
        self._batches = self._examples = 0
        self._loss = 0.0
        self._started_at = time.monotonic()
        self._shown_at = self._started_at - _LINE_SECONDS + 1.0  # the first line comes after a second

    def _numbers(self, now: float) -> str:
        rate = self._examples / max(now - self._started_at, 1e-9)
        told = f"{rate:,.0f} examples/s  loss {self._loss:.4f}"
        auc = self._source.auc if self._source is not None else math.nan
        return told if math.isnan(auc) else f"{told}  AUC {auc:.4f}"

    def _line(self, text: str) -> None:
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)


def _new_bar(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[numbers]}", table_column=Column(no_wrap=True)),
        TimeRemainingColumn(elapsed_when_finished=True),
        console=console,
    )

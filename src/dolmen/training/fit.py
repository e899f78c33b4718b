"""Learning from a data set: passes over batches, validated, with early numbers; the same steps as on a stream."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sized
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, final

import numpy as np
import torch

from dolmen.compute import torch_threads
from dolmen.evaluation import auc, log_loss
from dolmen.features import Batch
from dolmen.models import scorer
from dolmen.training.progress import FitProgress

if TYPE_CHECKING:
    from dolmen.training.trainer import Trainer

__all__ = ["EpochReport", "FitReport", "Validation", "fit", "validate"]


@final
@dataclass(frozen=True, kw_only=True)
class Validation:
    """How good the model is on examples it does not learn from. ``auc`` and ``log_loss`` are NaN if it cannot score.

    ``loss`` is the model's own, a mean over examples.
    """

    loss: float
    example_count: int
    auc: float = math.nan
    log_loss: float = math.nan


@final
@dataclass(frozen=True, kw_only=True)
class EpochReport:
    """One pass. ``loss`` and ``auc`` are progressive: of each batch just before it was learned; NaN if not judged."""

    epoch: int
    example_count: int
    seconds: float
    loss: float
    auc: float
    validation: Validation | None = None


@final
@dataclass(frozen=True, kw_only=True)
class FitReport:
    """What a fit did. ``best_epoch`` (from 1): whose parameters the trainer holds now."""

    epochs: list[EpochReport] = field(default_factory=list)
    best_epoch: int = 0


def fit(
    trainer: Trainer,
    batches: Iterable[Batch],
    *,
    epochs: int = 1,
    validation: Iterable[Batch] | None = None,
    patience: int | None = None,
    progress: bool | None = None,
) -> FitReport:
    """Learn ``batches`` ``epochs`` times over. Same batches, seed and settings: same parameters, bit for bit.

    Args:
        trainer: whose model learns. Torch takes as many threads as its tables do (``trainer.embeddings.threads``, one
            unless set): steps are small, and with every core they take longer and cost several times as much.
        batches: iterable as often as there are epochs; ``datasets.Batches`` shuffles anew each time.
        epochs: passes over the data. Rows of ids overfit soon: one pass is what a stream would give.
        validation: judged after each epoch.
        patience: stop after this many epochs without a smaller validation loss, and go back to the best one.
        progress: show it; ``None``: on a terminal only.

    Raises:
        ValueError: an option is out of range, or ``batches`` can be iterated once only.
    """
    if epochs < 1:
        raise ValueError(f"epochs must be at least 1, got {epochs}")
    if patience is not None and (patience < 1 or validation is None):
        raise ValueError(f"patience must be at least 1 and needs validation batches, got {patience}")
    for name, many in (("batches", batches), ("validation", validation)):
        if isinstance(many, Iterator) and epochs > 1:
            raise ValueError(
                f"{name} can be iterated once only, but epochs is {epochs}; pass a list or datasets.Batches"
            )
    reports: list[EpochReport] = []
    best, best_loss = None, math.inf
    best_epoch = epochs
    with (
        torch_threads(trainer.embeddings.threads),
        torch.random.fork_rng(devices=[]),
        FitProgress(epochs, trainer.judge, show=progress) as shown,
    ):
        for epoch in range(1, epochs + 1):
            reports.append(_epoch(trainer, batches, validation, epoch, shown))
            found = reports[-1].validation
            if patience is None or found is None:
                continue
            if found.loss < best_loss:
                best, best_loss, best_epoch = trainer.keep(), found.loss, epoch
            elif epoch - best_epoch >= patience:
                break
    if best is not None and best_epoch != len(reports):
        trainer.restore(best)
    return FitReport(epochs=reports, best_epoch=best_epoch if best is not None else len(reports))


def validate(trainer: Trainer, batches: Iterable[Batch]) -> Validation:
    """Judge the trainer's model on ``batches``, which changes nothing.

    Raises:
        ValueError: there is no example.
    """
    judge, model = trainer.judge, trainer.model
    total, count = 0.0, 0
    logits: list[np.ndarray] = []
    labels: list[np.ndarray] = []
    weights: list[np.ndarray] = []
    model.eval()
    with torch_threads(trainer.embeddings.threads), torch.no_grad():
        for batch in batches:
            placed = batch.to(str(trainer.compute.device))
            with trainer.compute.running():
                total += model.loss(placed).item() * batch.size
                told = scorer(model).score(placed) if judge is not None else None
            count += batch.size
            if judge is not None and told is not None:
                logits.append(told.float().cpu().numpy())
                labels.append(batch.labels[judge.label].numpy())
                weights.append((batch.weights / batch.sampling_rates).numpy())
    if count == 0:
        raise ValueError("validation has no example; leave it out, or give it some")
    if judge is None:
        return Validation(loss=total / count, example_count=count)
    answers, scores = np.concatenate(labels), np.concatenate(logits)
    probabilities = torch.from_numpy(scores).sigmoid().numpy()
    shares = np.concatenate(weights)
    return Validation(
        loss=total / count,
        example_count=count,
        auc=auc(scores, answers, shares),
        log_loss=log_loss(probabilities, answers, shares),
    )


def _epoch(
    trainer: Trainer, batches: Iterable[Batch], validation: Iterable[Batch] | None, epoch: int, shown: FitProgress
) -> EpochReport:
    judge = trainer.judge
    if judge is not None:
        judge.restart()
    shown.begin(epoch, len(batches) if isinstance(batches, Sized) else None)
    total, count = 0.0, 0
    for batch in batches:
        report = trainer.step(batch)
        total += report.loss * batch.size
        count += batch.size
        shown.advance(batch.size, report.loss)
    seconds = shown.seconds
    found = validate(trainer, validation) if validation is not None else None
    told = f"validation loss {found.loss:.4f}  AUC {found.auc:.4f}" if found is not None else ""
    shown.end(told)
    return EpochReport(
        epoch=epoch,
        example_count=count,
        seconds=seconds,
        loss=total / max(1, count),
        auc=judge.auc if judge is not None else math.nan,
        validation=found,
    )

"""A model tried on a handful of made-up examples, before anything is served with it: one answer, one loss, one step."""

from __future__ import annotations

import sys
import traceback
from typing import Final, cast

import torch
from torch import nn

from dolmen.errors import ConfigError, SchemaError
from dolmen.features import Batch, Schema, extract_rows
from dolmen.models import Model
from dolmen.testing import check_answers
from dolmen.training.trainer import Trainer

__all__ = ["try_model"]

_SIZE: Final = 8
_VALUES: Final = 2  # of each slot with many: as many in all, so that slots go together value by value


def try_model(trainer: Trainer, name: str) -> None:
    """Let the trainer's model answer and learn eight examples. It has learned them then: throw it away.

    Args:
        trainer: new.
        name: of its model, for messages.

    Raises:
        ConfigError: the model raises, or its answers or its loss have another shape than they must have or are not
            finite; the message says what and where.
    """
    batch = _examples(trainer.schema)
    try:
        with torch.random.fork_rng(devices=[]), trainer.compute.running():
            trainer.model.eval()
            check_answers(trainer.model, batch.to(str(trainer.compute.device)))
            report = trainer.step(batch)
    except SchemaError:
        raise
    except Exception as problem:
        place = _place(trainer.model, problem)
        if isinstance(problem, AssertionError) and not place:  # ours, and not the model's own
            raise ConfigError(f"model {name!r} cannot be used: of made-up examples {problem}") from problem
        said = f"{type(problem).__name__}: {problem}".removesuffix(": ")
        raise ConfigError(f"model {name!r} cannot be used: on made-up examples it raises {said}{place}") from problem
    if not report.is_learned:
        raise ConfigError(
            f"model {name!r} cannot be used: of made-up examples its loss is {report.loss}, or its gradients are not"
            " finite, so it would learn nothing"
        )


def _examples(schema: Schema) -> Batch:
    """The first holds no value at all, the others one or two of each slot."""
    count = min([_VALUES, *(slot.max_len for slot in schema.slots.values() if slot.max_len is not None)])
    rows = [
        {
            **{name: [place, place + 1][:count] for name, slot in schema.slots.items() if place and slot.many},
            **{name: place for name, slot in schema.slots.items() if place and not slot.many},
            **{name: float(place) for name in schema.dense if place},
            **{name: float(place % 2) for name in schema.labels},
        }
        for place in range(_SIZE)
    ]
    return extract_rows(schema, rows, with_labels=True)


def _place(model: Model, problem: Exception) -> str:
    """Where in the model's own files it was raised; empty where those are not on the way."""
    own = {type(part).__module__ for part in cast("nn.Module", model).modules()}
    files = {getattr(sys.modules.get(name), "__file__", None) for name in own if not name.startswith("torch.")}
    frames = [frame for frame in traceback.extract_tb(problem.__traceback__) if frame.filename in files]
    return f" ({frames[-1].filename}, line {frames[-1].lineno})" if frames else ""

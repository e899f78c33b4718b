"""Between judging and learning: the mode of a model's modules, changed twice in every step."""

from __future__ import annotations

from typing import cast
from weakref import WeakKeyDictionary

from torch import nn

from dolmen.models import Model

__all__ = ["set_mode"]

_modules: WeakKeyDictionary[nn.Module, list[nn.Module] | None] = WeakKeyDictionary()


def set_mode(model: Model, *, is_training: bool) -> None:
    """What ``model.train(is_training)`` does, without walking the tree of modules each time.

    A model's modules are those that it had when it was first seen here; one with a ``train`` of its own is asked.
    """
    if model.training == is_training:
        return
    root = cast("nn.Module", model)
    if root not in _modules:
        modules = list(root.modules())
        _modules[root] = modules if all(type(one).train is nn.Module.train for one in modules) else None
    plain = _modules[root]
    if plain is None:
        model.train(is_training)
        return
    for module in plain:
        vars(module)["training"] = is_training

"""Models: one file each, one contract for all, and a registry that knows them by name."""

from dolmen.models.contract import (
    Ability,
    Decides,
    Encodes,
    Forecasts,
    Generates,
    Model,
    Retrieves,
    Scores,
    decider,
    encoder,
    forecaster,
    generator,
    retriever,
    scorer,
)
from dolmen.models.registry import Entry, Job, build, describe, entry, names

__all__ = [
    "Ability",
    "Decides",
    "Encodes",
    "Entry",
    "Forecasts",
    "Generates",
    "Job",
    "Model",
    "Retrieves",
    "Scores",
    "build",
    "decider",
    "describe",
    "encoder",
    "entry",
    "forecaster",
    "generator",
    "names",
    "retriever",
    "scorer",
]

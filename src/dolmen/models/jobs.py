"""The names of our models and what each is for, without loading any: a name is checked before a process is started."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Final

from dolmen.errors import ConfigError
from dolmen.settings import suggestion

__all__ = ["JOBS", "Job", "check_name", "check_names"]


class Job(StrEnum):
    """What a model is for; also the folder it stands in."""

    RANKING = "ranking"
    RETRIEVAL = "retrieval"
    SEQUENCE = "sequence"
    JOINT = "joint"


JOBS: Final[Mapping[str, Job]] = {
    "average_pooling": Job.RANKING,
    "bert4rec": Job.SEQUENCE,
    "deepfm": Job.RANKING,
    "din": Job.RANKING,
    "gru4rec": Job.SEQUENCE,
    "joint": Job.JOINT,
    "logistic_regression": Job.RANKING,
    "pnn": Job.RANKING,
    "sasrec": Job.SEQUENCE,
    "sdim": Job.RANKING,
    "ssl_two_tower": Job.RETRIEVAL,
    "tin": Job.RANKING,
    "two_tower": Job.RETRIEVAL,
    "wide_deep": Job.RANKING,
}
"""Of every model in the registry, which has the rest."""
_PARTS: Final = {"ranker": (Job.RANKING,), "retriever": (Job.RETRIEVAL, Job.SEQUENCE)}


def check_name(name: str, where: str, jobs: tuple[Job, ...] = tuple(Job)) -> None:
    """Refuse a name that no model of these jobs has. Of somebody's own (``module:Class``) only the form is looked at.

    Raises:
        ConfigError: the message says ``where`` it stands, and offers the nearest.
    """
    fitting = [one for one, job in JOBS.items() if job in jobs]
    if ":" in name:
        parts = [part for side in name.split(":", 1) for part in side.split(".")]
        if not all(part.isidentifier() for part in parts):
            raise ConfigError(
                f"{where}: {name!r} is not of the form module:Class, as Python imports it; taste:Taste names the class"
                " Taste of taste.py in the folder in which dolmen is started"
            )
        return
    if name not in fitting:
        what = "model" if name not in JOBS else f"{' or '.join(jobs)} model"
        raise ConfigError(f"{where}: there is no {what} {name!r}{suggestion(name, fitting)}")


def check_names(name: str, options: Mapping[str, Any]) -> None:
    """As ``check_name``, of a configuration's model and of those that its options name.

    Raises:
        ConfigError: a name that no model has, or one whose model does other work.
    """
    check_name(name, "model.name")
    if JOBS.get(name) is Job.JOINT:
        for part, jobs in _PARTS.items():
            if isinstance(options.get(part), str):
                check_name(options[part], f"model.options.{part}", jobs)

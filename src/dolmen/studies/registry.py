"""Every study by its name. A new one is a module with a ``STUDY``, and a line here."""

from __future__ import annotations

from typing import Final

from dolmen.errors import ConfigError
from dolmen.settings import suggestion
from dolmen.studies import bert4rec, din, monolith_collisions, sdim, ssl_items, tin
from dolmen.studies.study import Study

__all__ = ["names", "study"]

_STUDIES: Final = {
    one.name: one
    for one in (monolith_collisions.STUDY, din.STUDY, sdim.STUDY, tin.STUDY, bert4rec.STUDY, ssl_items.STUDY)
}


def names() -> list[str]:
    """The names of all studies, in order.

    >>> "monolith-collisions" in names()
    True
    """
    return sorted(_STUDIES)


def study(name: str) -> Study:
    """The study called ``name``.

    Raises:
        ConfigError: there is none; the message offers the nearest.
    """
    if name not in _STUDIES:
        raise ConfigError(f"there is no study {name!r}{suggestion(name, _STUDIES)}")
    return _STUDIES[name]

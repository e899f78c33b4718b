"""Prepares a demo: its folder, its configuration file, and where an earlier run stopped."""

from __future__ import annotations

import json
import shutil
import socket
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import tomli_w

from dolmen.clock import format_duration
from dolmen.datasets import Dataset
from dolmen.errors import ConfigError
from dolmen.models import Job, check_name

__all__ = ["DemoNotes", "DemoOptions", "configuration", "with_port"]

_RATE_WATCHED: Final = 300.0  # events a second: slow enough to follow on the page
_RATE_HEADLESS: Final = 1_020.0
# How long an answer, and the click that follows it at once, may take. The replay presses months into minutes, so a
# person's whole evening passes within a second; a longer window would let the model learn all clicks of an evening
# before the first item that was passed over, and the figures would be about that. A visitor of the page who clicks
# later makes a late positive, which is learned all the same.
_TRANSIT_US: Final = 250_000
_NEGATIVE_RATE_SIMULATED: Final = (
    0.25  # the world's clicks are rare; sampling its negatives shows the correction at work
)
_LEARNING_RATE: Final = 0.1  # one pass over little data: twice the default gained 0.004 of AUC on MovieLens 100K
_ABOUT: Final = "# Written by `dolmen demo`; `dolmen up --config` runs the same stages without the replay.\n"
_NOTES: Final = "demo.json"
_LOOP: Final = ("dolmen.toml", "log", "trainer", "join", "serving")
"""What any dolmen leaves in its folder, a shop's own as well; the notes tell a demo's."""
_OURS: Final = (*_LOOP, "logs", _NOTES)
"""The notes come last: a folder that was cleared in part is still a demo's."""


@final
@dataclass(frozen=True, kw_only=True)
class DemoOptions:
    """What the command line asks for; see ``dolmen demo --help``."""

    data: str = "movielens-100k"
    ranker: str | None = None
    event_count: int | None = None
    rate: float | None = None
    headless: bool = False
    report_path: Path | None = None
    state: Path = Path("state")
    fresh: bool = False
    port: int = 8080
    seed: int = 0

    def __post_init__(self) -> None:
        if self.ranker is not None:
            check_name(self.ranker, "--ranker", (Job.RANKING,))

    @property
    def events_per_second(self) -> float:
        """Items shown and actions a second, at most."""
        if self.rate is not None:
            return self.rate
        return _RATE_HEADLESS if self.headless else _RATE_WATCHED


@final
class DemoNotes:
    """The demo's notes in its state folder: what is replayed, and how far it got.

    A demo is planned once: the joiner's window follows from how fast it is replayed, and the frozen copy's place from
    how much. So a run that goes on keeps the plan of the first, and refuses another.

    Args:
        options: from the command line.

    Raises:
        ConfigError: the folder holds a demo of another plan, or a dolmen that is no demo; nothing was changed.
    """

    def __init__(self, options: DemoOptions) -> None:
        self.folder = options.state
        self._path = options.state / _NOTES
        if not self._path.exists():
            self._check_nobodys()
        elif options.fresh:
            self._clear()
        notes = self._read()
        self.is_new = not (notes and (self.folder / "dolmen.toml").exists())
        self._plan: dict[str, Any] = {
            "data": options.data,
            "ranker": options.ranker,
            "seed": options.seed,
            "events": options.event_count,
            "rate": options.events_per_second,
        }
        if notes:
            self._go_on(options, notes)
        self.slate_count_done = int(notes.get("slate_count_done", 0))

    @property
    def event_count(self) -> int | None:
        """Items shown by all runs of this demo together; all of the data if ``None``."""
        count: int | None = self._plan["events"]
        return count

    @property
    def events_per_second(self) -> float:
        """Items shown and actions a second, at most."""
        return float(self._plan["rate"])

    def save(self, slate_count_done: int) -> None:
        """Note how far the replay got."""
        self.slate_count_done = slate_count_done
        temporary = self._path.with_suffix(".tmp")
        temporary.write_text(json.dumps({**self._plan, "slate_count_done": slate_count_done}))
        temporary.replace(self._path)

    def _go_on(self, options: DemoOptions, notes: dict[str, Any]) -> None:
        asked: dict[str, Any] = {"data": options.data, "seed": options.seed}
        if options.ranker is not None:
            asked["ranker"] = options.ranker
        if options.event_count is not None:
            asked["events"] = options.event_count
        if options.rate is not None:
            asked["rate"] = options.rate
        for name, value in asked.items():
            if notes.get(name) != value:
                had = notes.get(name)
                raise ConfigError(
                    f"{self.folder} holds a demo with --{name} {had if had is not None else 'left out'}, not {value}:"
                    " its window and its frozen copy were chosen for that; go on with the same, or --fresh deletes it,"
                    " or --state names another folder"
                )
        self._plan = {name: notes.get(name) for name in self._plan}

    def _read(self) -> dict[str, Any]:
        try:
            notes: dict[str, Any] = json.loads(self._path.read_text())
        except FileNotFoundError:
            return {}
        except ValueError:
            raise ConfigError(f"{self._path} is damaged; --fresh starts anew") from None
        return notes

    def _check_nobodys(self) -> None:
        """What is here, and is no demo's, is a shop's: its events are not ours to delete, or to add to."""
        found = [name for name in _LOOP if (self.folder / name).exists()]
        if found:
            raise ConfigError(
                f"{self.folder} is no demo's: it holds {', '.join(found)} and no {_NOTES}; nothing was changed, and"
                " --state names another folder"
            )

    def _clear(self) -> None:
        """Delete what a demo wrote, and nothing else that lies beside it."""
        for name in _OURS:
            path = self.folder / name
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)


def configuration(options: DemoOptions, dataset: Dataset) -> str:
    """The text of the configuration file of this demo, which ``dolmen up`` could run as well."""
    simulated = dataset.info.simulated
    negative_rate = _NEGATIVE_RATE_SIMULATED if simulated else 1.0
    shown = min(options.event_count or len(dataset), len(dataset))
    values: dict[str, Any] = {
        "state": ".",
        "dataset": dataset.info.title,
        "simulated": simulated,
        "schema": dataset.schema.to_dict(),
        "model": {"name": "joint", "options": {} if options.ranker is None else {"ranker": options.ranker}},
        "join": {
            "window": format_duration(_window_us(options, dataset, shown)),
            "negative_rate": negative_rate,
            "seed": options.seed,
        },
        "optimizer": {"name": "adagrad", "learning_rate": _LEARNING_RATE},
        "train": {"seed": options.seed},
        "trainer": {"freeze_after_examples": max(1, _example_count(dataset, shown // 2, negative_rate))},
        "serving": {"port": options.port if options.port else _free_port(), "seed": options.seed},
    }
    return _ABOUT + tomli_w.dumps(values)


def with_port(text: str, port: int) -> str:
    """The configuration in ``text``, listening on ``port``; 0 keeps what it has."""
    values = tomllib.loads(text)
    if port:
        values["serving"]["port"] = port
    return _ABOUT + tomli_w.dumps(values)


def _window_us(options: DemoOptions, dataset: Dataset, shown: int) -> int:
    """How long the joiner waits: the data's slow clicks, as fast as the replay makes them, and the transit."""
    rows = dataset.interactions.slice(0, shown)
    times = rows["event_time"].cast(pa.int64()).to_numpy()
    delays = (
        pc.subtract(rows["action_time"].cast(pa.int64()), rows["event_time"].cast(pa.int64())).drop_null().to_numpy()
    )
    if delays.size == 0 or times[-1] == times[0]:
        return _TRANSIT_US
    replay_us = (shown + _click_count(dataset, shown)) / options.events_per_second * 1e6
    slow_us = float(np.percentile(delays, 99)) * replay_us / float(times[-1] - times[0])
    return _TRANSIT_US + int(slow_us / 1000) * 1000


def _example_count(dataset: Dataset, shown: int, negative_rate: float) -> int:
    """About how many examples the first ``shown`` impressions make."""
    clicks = _click_count(dataset, shown)
    return round(clicks + negative_rate * (shown - clicks))


def _click_count(dataset: Dataset, shown: int) -> int:
    """How many of the first ``shown`` impressions were acted on."""
    return int(pc.sum(dataset.interactions[dataset.label].slice(0, shown)).as_py() or 0)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])

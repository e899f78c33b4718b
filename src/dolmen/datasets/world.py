"""A simulated world with known truth, for what real data cannot answer: is this as good as it can be?

People come, are shown slates, look at the top more often than at the bottom, click with a chance that depends on the
item, the fashion and their taste, and their clicks arrive late. Tastes and fashions may drift, items may come and go.
Since the true chances are known, a model can be judged against the best one possible, at any size. Nothing here says
anything about real people, and every data set made here says ``SIMULATED``.

*Logging policy* of ``slates`` and ``dataset``: the same for everybody. Items are drawn one after the other without
replacement, in proportion to rank^-zipf_exponent (Plackett-Luce); an item that leaves hands its rank to its successor.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Final, final

import numpy as np
import pyarrow as pa
from numpy.typing import ArrayLike, NDArray

from dolmen.clock import parse_duration_us
from dolmen.datasets.dataset import Dataset, DatasetInfo, Slate
from dolmen.datasets.draws import normals, uniforms
from dolmen.datasets.truth import Truth
from dolmen.datasets.world_config import DRIFTING, STEADY, WorldConfig
from dolmen.evaluation import auc
from dolmen.features import Label, Schema, Side, Slot
from dolmen.seeds import derive_seed, generator

__all__ = ["DRIFTING", "INFO", "SCHEMA", "STEADY", "Answers", "Margin", "World", "WorldConfig"]

SCHEMA: Final = Schema(
    Slot("user"),
    Slot("item"),
    Slot("genres", many=True, of=Side.ITEM),
    Slot("segment", of=Side.USER),
    Slot("history", table="item", many=True, ordered=True, max_len=50, of=Side.USER),
    Slot("history_genres", table="genres", many=True, ordered=True, max_len=100, of=Side.USER),
    Label("click"),
)
INFO: Final = DatasetInfo(
    name="world",
    title="Simulated world",
    summary="simulated people with known tastes, shown slates of simulated items",
    source_url="",
    citation="none: made by dolmen.datasets.world",
    terms="none: nobody's data; do not present it as observations of people",
    terms_url="",
    simulated=True,
)
_BLOCK: Final = 1024  # slates that are drawn together; fixed, so that a longer log starts with a shorter one
_INSTANT: Final = pa.timestamp("us", tz="UTC")

_Ints = NDArray[np.int64]
_Floats = NDArray[np.float64]
_Bools = NDArray[np.bool_]


@final
@dataclass(frozen=True)
class Answers:
    """What a person does with the items of a slate, in their order: ``clicked``, and after how long (0 if never)."""

    clicked: _Bools
    delays_us: _Ints


@final
@dataclass(frozen=True)
class Margin:
    """AUC on the second half of a log: of the truth, and of the truth as it stood at half time."""

    oracle_auc: float
    frozen_auc: float


@final
@dataclass(frozen=True)
class _Log:
    """Slates in columns: ``users`` and ``times_us`` of shape (count,), the rest (count, slate_size)."""

    users: _Ints
    times_us: _Ints
    items: _Ints
    answers: Answers


@final
class World:
    """The same config gives the same world; items and people are integers. Threads may share it."""

    def __init__(self, config: WorldConfig = STEADY) -> None:
        self.config = config
        self._truth = Truth(config)
        self._seeds = {name: derive_seed(config.seed, "world", name) for name in ("age", "click", "delay")}
        self._shown_odds = _cumulated_zipf(config.items, config.zipf_exponent)
        self._active_odds = _cumulated_zipf(config.users, config.activity_exponent)
        self._lifetime_us = None if config.item_lifetime is None else parse_duration_us(config.item_lifetime)
        self._delay_median_us = parse_duration_us(config.delay_median)

    def __repr__(self) -> str:
        changed = {name: value for name, value in asdict(self.config).items() if value != getattr(STEADY, name)}
        return f"World(SIMULATED: {', '.join(f'{name}={value!r}' for name, value in changed.items()) or 'steady'})"

    def items_at(self, time_us: int) -> _Ints:
        """The items that can be shown at one instant, from the most to the least often shown, shape (items,)."""
        ranks = np.arange(self.config.items)
        return self._item_at(ranks, np.full_like(ranks, time_us))

    def examination(self, positions: ArrayLike) -> _Floats:
        """The chance that each position (from 0) is looked at."""
        examined: _Floats = (np.asarray(positions) + 1.0) ** -float(self.config.position_exponent)
        return examined

    def click_probability(
        self, users: ArrayLike, items: ArrayLike, times_us: ArrayLike, positions: ArrayLike = 0
    ) -> _Floats:
        """The true chance of a click on ``items`` shown to ``users`` at ``times_us`` in ``positions`` (from 0).

        Arguments are broadcast. It may be asked for any item at any time, also before it came or after it left.
        """
        user, item, time = (np.asarray(one, dtype=np.int64) for one in (users, items, times_us))
        chance: _Floats = self.examination(positions) / (1 + np.exp(-self._truth.logits(user, item, time)))
        return chance

    def respond(self, user: int, items: ArrayLike, time_us: int) -> Answers:
        """What ``user`` does when shown ``items``, in this order, at ``time_us``: for a loop that acts on the answers.

        The same question always gets the same answer, and the logged slates hold the answers that this would give.
        """
        item = np.asarray(items, dtype=np.int64)
        answers = self._answers(np.array([user]), np.array([time_us]), item[None, :])
        return Answers(answers.clicked[0], answers.delays_us[0])

    def slates(self, count: int) -> Iterator[Slate]:
        """The first ``count`` slates of the world's log, in time order. A longer log starts with a shorter one."""
        for log in self._logs(count):
            rows = zip(
                log.users.tolist(),
                log.times_us.tolist(),
                log.items.tolist(),
                log.answers.clicked.tolist(),
                log.answers.delays_us.tolist(),
                strict=True,
            )
            for user, time_us, items, clicked, delays_us in rows:
                yield Slate(user, time_us, items, clicked, delays_us)

    def dataset(self, slate_count: int, info: DatasetInfo | None = None) -> Dataset:
        """The first ``slate_count`` slates as tables, with everybody and every item that lived meanwhile.

        ``items`` tells when each came and left (``available_from_us``; ``available_until_us``, null if not yet).
        ``info`` is for data sets with a name of their own; it must say that they are simulated.
        """
        if info is None:
            info = replace(INFO, summary=f"{INFO.summary}; {self!r}")
        if not info.simulated:
            raise ValueError(f"{info.name}: the info of a simulated data set must have simulated=True")
        logs = list(self._logs(slate_count))
        size = self.config.slate_size
        users = np.concatenate([log.users for log in logs]) if logs else np.zeros(0, dtype=np.int64)
        times_us = np.concatenate([log.times_us for log in logs]) if logs else np.zeros(0, dtype=np.int64)
        items = np.concatenate([log.items.ravel() for log in logs]) if logs else np.zeros(0, dtype=np.int64)
        clicked = np.concatenate([log.answers.clicked.ravel() for log in logs]) if logs else np.zeros(0, dtype=bool)
        delays_us = np.concatenate([log.answers.delays_us.ravel() for log in logs]) if logs else items
        shown_us = np.repeat(times_us, size)
        interactions = pa.table(
            {
                "user": np.repeat(users, size),
                "item": items,
                "event_time": pa.array(shown_us, _INSTANT),
                "action_time": pa.array(shown_us + delays_us, _INSTANT, mask=~clicked),
                "click": pa.array(clicked, pa.int8()),
                "slate": np.repeat(np.arange(len(users)), size),
                "position": pa.array(np.tile(np.arange(size), len(users)), pa.int16()),
            }
        )
        people = np.arange(self.config.users)
        segments = pa.array([f"segment-{segment}" for segment in self._truth.segments(people)], pa.string())
        end_us = int(times_us[-1]) if len(times_us) else self.config.start_us
        return Dataset(
            info, SCHEMA, self._items_until(end_us), pa.table({"id": people, "segment": segments}), interactions
        )

    def margin(self, slate_count: int) -> Margin:
        """What standing still costs: AUC of the truth on the second half of a log, and of the truth at half time.

        No model that stopped learning at half time can be expected to beat the second figure by much, nor can any beat
        the first. Items that came later are known to both, so real models that stand still lose more than this.
        """
        halfway_us = self.time_of(slate_count // 2)
        labels: list[_Bools] = []
        oracle: list[_Floats] = []
        frozen: list[_Floats] = []
        positions = np.arange(self.config.slate_size)
        for log in self._logs(slate_count, first=slate_count // 2):
            for chances, times_us in ((oracle, log.times_us[:, None]), (frozen, np.full((1, 1), halfway_us))):
                chances.append(self.click_probability(log.users[:, None], log.items, times_us, positions).ravel())
            labels.append(log.answers.clicked.ravel())
        label = np.concatenate(labels)
        return Margin(auc(np.concatenate(oracle), label), auc(np.concatenate(frozen), label))

    def time_of(self, slate: int) -> int:
        """When slate number ``slate`` (from 0) is shown, to within a block of 1024 slates, in microseconds."""
        return self.config.start_us + round(slate / self.config.slates_per_second * 1e6)

    def _logs(self, count: int, first: int = 0) -> Iterator[_Log]:
        """Slates ``first`` to ``count``, in pieces."""
        for block in range(first // _BLOCK, math.ceil(count / _BLOCK)):
            cut = slice(max(0, first - block * _BLOCK), min(_BLOCK, count - block * _BLOCK))
            log = self._block(block)
            answers = Answers(log.answers.clicked[cut], log.answers.delays_us[cut])
            yield _Log(log.users[cut], log.times_us[cut], log.items[cut], answers)

    def _block(self, block: int) -> _Log:
        """One block: its length in time is fixed, arrivals are uniform in it (a Poisson stream, given its count)."""
        draw = generator(self.config.seed, "world", "block", block)
        start_us, end_us = self.time_of(block * _BLOCK), self.time_of((block + 1) * _BLOCK)
        times_us = np.sort(draw.integers(start_us, max(end_us, start_us + 1), _BLOCK))
        users = np.searchsorted(self._active_odds, draw.random(_BLOCK), side="right")
        items = self._item_at(self._choose(draw), times_us[:, None])
        return _Log(users, times_us, items, self._answers(users, times_us, items))

    def _choose(self, draw: np.random.Generator) -> _Ints:
        """Ranks to show, shape (block, slate_size).

        Drawing with replacement and passing over repeats is Plackett-Luce. A row that has too few different ranks is
        drawn on, not anew, or rows with repeats would be too rare.
        """
        size = self.config.slate_size
        chosen = np.empty((_BLOCK, size), dtype=np.int64)
        left, drawn = np.arange(_BLOCK), np.empty((_BLOCK, 0), dtype=np.int64)
        while len(left):
            more = np.searchsorted(self._shown_odds, draw.random((len(left), 2 * size + 4)), side="right")
            drawn = np.concatenate([drawn, more], axis=1)
            is_new = _is_first(drawn)
            order = np.cumsum(is_new, axis=1)
            enough = order[:, -1] >= size
            taken = is_new[enough] & (order[enough] <= size)
            chosen[left[enough]] = drawn[enough][taken].reshape(-1, size)
            left, drawn = left[~enough], drawn[~enough]
        return chosen

    def _item_at(self, ranks: _Ints, times_us: _Ints) -> _Ints:
        """The item that has each rank: its predecessor's id + the size of the catalogue."""
        return self._generation(ranks, times_us) * self.config.items + ranks

    def _generation(self, ranks: _Ints, times_us: _Ints) -> _Ints:
        if self._lifetime_us is None:
            return np.zeros(np.broadcast_shapes(np.shape(ranks), np.shape(times_us)), dtype=np.int64)
        lived_us = times_us - self.config.start_us + self._ages_us(ranks, self._lifetime_us)
        return lived_us // self._lifetime_us

    def _ages_us(self, ranks: _Ints, lifetime_us: int) -> _Ints:
        """How old each rank's first item was when the world started."""
        return (uniforms(self._seeds["age"], ranks) * lifetime_us).astype(np.int64)

    def _answers(self, users: _Ints, times_us: _Ints, items: _Ints) -> Answers:
        who, when, positions = users[:, None], times_us[:, None], np.arange(items.shape[1])
        chances = self.click_probability(who, items, when, positions)
        clicked = uniforms(self._seeds["click"], who, items, when, positions) < chances
        delays = self._delay_median_us * np.exp(
            self.config.delay_sigma * normals(self._seeds["delay"], who, items, when, positions)
        )
        return Answers(clicked, np.where(clicked, np.maximum(delays, 1.0), 0.0).astype(np.int64))

    def _items_until(self, end_us: int) -> pa.Table:
        ranks = np.arange(self.config.items)
        lives = self._generation(ranks, np.full_like(ranks, end_us)) + 1
        rank = np.repeat(ranks, lives)
        generation = np.arange(len(rank)) - np.repeat(np.cumsum(lives) - lives, lives)
        ids = generation * self.config.items + rank
        order = np.argsort(ids)
        ids, rank, generation = ids[order], rank[order], generation[order]
        genre_names = np.array([f"genre-{number}" for number in range(self.config.genre_count)])
        columns = {
            "id": pa.array(ids),
            "title": pa.array([f"Simulated item {item}" for item in ids]),
            "genres": pa.array([genre_names[own].tolist() for own in self._truth.genres(ids)], pa.list_(pa.string())),
        }
        if self._lifetime_us is None:
            from_us = np.full(len(ids), self.config.start_us)
            until_us = pa.nulls(len(ids), pa.int64())
        else:
            from_us = self.config.start_us - self._ages_us(rank, self._lifetime_us) + generation * self._lifetime_us
            left_us = from_us + self._lifetime_us
            until_us = pa.array(left_us, mask=left_us > end_us)
        return pa.table({**columns, "available_from_us": from_us, "available_until_us": until_us})


def _cumulated_zipf(count: int, exponent: float) -> _Floats:
    """Where each rank's share ends in [0, 1]."""
    ends = np.cumsum(np.arange(1, count + 1) ** -float(exponent))
    ends /= ends[-1]
    ends[-1] = 1.0
    return ends


def _is_first(values: _Ints) -> _Bools:
    """Whether each value of a row was not in the row before."""
    order = np.argsort(values, axis=1, kind="stable")
    ordered = np.take_along_axis(values, order, axis=1)
    starts = np.ones(values.shape, dtype=bool)
    starts[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    first = np.empty(values.shape, dtype=bool)
    np.put_along_axis(first, order, starts, axis=1)
    return first

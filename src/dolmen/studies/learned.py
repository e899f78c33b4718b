"""What a trained model makes of what and when: how strongly it brings a past behaviour in, on the grid of the data's.

Source: H. Zhou et al., "Temporal Interest Network for User Response Prediction", WWW 2024 Companion (arXiv 2308.08487),
section 3: attention times the length of what it weighs. Departs from it: only examples whose past fills every position
take part (``temporal_strength`` says why), and strengths are told as multiples of the mean one, since only their ratios
mean the same in two models.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, final

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from dolmen.datasets import Batches, Dataset, Split
from dolmen.embedding import AdaGrad
from dolmen.errors import ConfigError
from dolmen.evaluation import TemporalCorrelation, rank_correlation
from dolmen.features import Schema, Side, Slot
from dolmen.models import Ability, describe, entry, names, weigher
from dolmen.models.layers.behaviours import TowerConfig
from dolmen.sheets import Sheet
from dolmen.studies.clicks import BATCH
from dolmen.training import TrainConfig, Trainer, new_trainer, validate

__all__ = ["OVER", "Learned", "LearnedCorrelation", "Learner", "by_position", "learn"]

_PASSES: Final = 3  # as in the studies of ranking by behaviour; the optimiser of rows is theirs, too
_JUDGED_BATCH: Final = 4096

OVER: Final = {
    "when": "positions, candidate and behaviour being of one category (mean)",
    "same": "positions and categories, candidate and behaviour being of one",
    "grid": "positions and behaviours' categories (mean)",
    "all": "everything",
}
"""What rank correlations are taken over; where it says mean, over candidates of one category at a time.

Strengths before candidates of different categories differ by the length of these candidates' vectors, too.
"""


@final
@dataclass(frozen=True, kw_only=True)
class Learner:
    """Which model learns, and how.

    Args:
        model: its name, such as ``tin``.
        options: of the model. Of those that rank by behaviour, ``history`` is the items and, where each item has
            exactly one, their categories, unless it is named here; and ``others`` is nothing.
        seed: of its start and of the order in which it learns.
        epochs: passes over the training part.
    """

    model: str
    options: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    epochs: int = _PASSES

    def __post_init__(self) -> None:
        able = [name for name in names() if Ability.WEIGHS in entry(name).abilities]
        if Ability.WEIGHS not in entry(self.model).abilities:
            raise ConfigError(
                f"model {self.model!r} cannot tell what each behaviour of a past counts; name one that can: "
                f"{', '.join(able)}"
            )

    @property
    def label(self) -> str:
        """For people and names of files: what sets it apart from the model as it is by default.

        >>> Learner(model="tin", options={"temperature": 0.5}, seed=1).label
        'tin temperature=0.5 seed=1'
        """
        told = [f"{name}={value}" for name, value in self.options.items()]
        told += [f"epochs={self.epochs}"] if self.epochs != _PASSES else []
        told += [f"seed={self.seed}"] if self.seed else []
        return " ".join([self.model, *told])

    @property
    def arguments(self) -> list[str]:
        """How a command line tells it."""
        told = ["--model", self.model]
        for name, value in self.options.items():
            told += ["--option", f"{name}={value if isinstance(value, str) else json.dumps(value)}"]
        told += ["--epochs", f"{self.epochs}"] if self.epochs != _PASSES else []
        return [*told, *(["--seed", f"{self.seed}"] if self.seed else [])]

    @property
    def stem(self) -> str:
        """``label`` as a part of a file's name."""
        return re.sub(r"[^A-Za-z0-9._]+", "-", self.label).strip("-")


@final
@dataclass(frozen=True, kw_only=True)
class Learned:
    """A model that learned a data set, asked of the part that it learned.

    Args:
        model_options: all of its options.
        auc: on the part that tests; NaN where there is none.
        strengths: of each behaviour, (behaviour,), oldest first within each example, in the order of the examples.
    """

    model_options: Mapping[str, Any]
    auc: float
    strengths: NDArray[np.float64]


@final
@dataclass(frozen=True, kw_only=True)
class LearnedCorrelation:
    """What a model made of the behaviours of a data set.

    Args:
        learner: the model and how it learned.
        model_options: all of the model's options.
        auc: of what it learned, on the part that tests; NaN where there is none.
        example_count: how many examples have a past that fills every position.
        mean_strength: of their behaviours, as the model counts.
        measured: what the data tell, for candidates of each category.
        grids: for the same candidates, (category, position) each: multiples of ``mean_strength``, NaN where no example
            has such a behaviour.
    """

    learner: Learner
    model_options: Mapping[str, Any]
    auc: float
    example_count: int
    mean_strength: float
    measured: tuple[TemporalCorrelation, ...]
    grids: tuple[NDArray[np.float64], ...]

    @property
    def same(self) -> NDArray[np.float64]:
        """Of a behaviour of the candidate's own category, by position from the newest; mean over all candidates."""
        return by_position(self.grids, self._weights)[0]

    @property
    def other(self) -> NDArray[np.float64]:
        """Of a behaviour of another category, mean over these and over all candidates; NaN where there is no other."""
        return by_position(self.grids, self._weights)[1]

    @property
    def rank_correlations(self) -> Mapping[str, float]:
        """Spearman's, between ``measured`` and ``grids``, over each of ``OVER``; NaN where one has no order.

        Measured cells that luck alone fills share one rank.
        """
        pairs = [(grid.sure_bits, own) for grid, own in zip(self.measured, self.grids, strict=True)]
        same = [(bits[place], own[place]) for place, (bits, own) in enumerate(pairs)]
        return {
            "when": self._mean_of([rank_correlation(*rows) for rows in same]),
            "same": rank_correlation(*zip(*same, strict=True)),
            "grid": self._mean_of([rank_correlation(*grids) for grids in pairs]),
            "all": rank_correlation(*zip(*pairs, strict=True)),
        }

    def _mean_of(self, values: Sequence[float]) -> float:
        """Over all candidates, of one value for those of each category."""
        return float(_mean(np.array(values)[:, None], self._weights)[0])

    @property
    def _weights(self) -> list[int]:
        return [grid.example_count for grid in self.measured]

    def sheets(self, attribute: str, categories: Sequence[str]) -> list[Sheet]:
        """For a terminal: strengths of behaviours of the candidate's category, by position; and rank correlations."""
        judged = "" if np.isnan(self.auc) else f", test AUC {self.auc:.4f}"
        title = f"{self.learner.label}{judged}: how strongly it brings such a behaviour in, 1 being the mean behaviour"
        positions = [str(position + 1) for position in range(len(self.same))]
        strengths = Sheet(attribute, *positions, title=title)
        for name, cells in self._rows(categories):
            strengths.add_row(name, *cells)
        ranks = Sheet("rank correlation", "over", title=f"data and {self.learner.label}: 1 where both order alike")
        for name, value in self.rank_correlations.items():
            ranks.add_row(_strength(value), OVER[name])
        return [strengths, ranks]

    def told(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "what": "attention times the length of what it weighs, in multiples of mean_strength",
            "model": self.learner.model,
            "options": dict(self.model_options),
            "seed": self.learner.seed,
            "epochs": self.learner.epochs,
            "test_auc": _number(self.auc),
            "examples": self.example_count,
            "mean_strength": self.mean_strength,
            "rank_correlation": {name: _number(value) for name, value in self.rank_correlations.items()},
            "by_position": {"same": _numbers(self.same), "other": _numbers(self.other)},
            "candidates": [[_numbers(row) for row in grid] for grid in self.grids],
        }

    def lines(self, categories: Sequence[str]) -> list[str]:
        """A part of a page."""
        same, other, last = self.same, self.other, len(self.same)
        rows = self._rows(categories)
        read = ", ".join(f"`{name}`" for name in self.model_options.get("history") or ())
        judged = "" if np.isnan(self.auc) else f" On the part that tests its AUC is {self.auc:.4f}."
        return [
            f"## What {self.learner.label} learned",
            "",
            f"How strongly the trained model brings such a behaviour in: what it weighs it by times the length of what "
            f"that multiplies, 1 being the mean behaviour. {self.learner.epochs} "
            f"{'pass' if self.learner.epochs == 1 else 'passes'} over the training part, seed {self.learner.seed}"
            f"{f', reading {read}' if read else ''}.{judged} Looked at are the {self.example_count:,} examples with "
            f"{last} behaviours or more, so that each position is of the same pasts.",
            "",
            f"- **What.** The newest behaviour counts {_strength(same[0])} where it is of the candidate's category, "
            f"and {_strength(other[0])} where it is of another.",
            f"- **When.** At position {last} the candidate's category counts {_strength(same[-1])}: "
            f"{same[-1] / same[0]:.0%} of what it counts as the newest.",
            "- **As in the data?** Spearman's rank correlation with the bits above is 1 where the model orders as they "
            "do. Cells that luck alone fills share a rank; a mean is over candidates of one category at a time, since "
            "those of different ones also differ by the length of their vectors. Ranks do not say by how much anything "
            "differs: a model that is flat by position may still have its positions in order.",
            "",
            "| rank correlation | over |",
            "| --- | --- |",
            *(f"| {_strength(value)} | {OVER[name]} |" for name, value in self.rank_correlations.items()),
            "",
            f"| candidate's category | {' | '.join(str(position + 1) for position in range(last))} |",
            f"| --- |{' --- |' * last}",
            *(f"| {name} | {' | '.join(cells)} |" for name, cells in rows[: len(categories)]),
            *(f"| *{name}* | {' | '.join(cells)} |" for name, cells in rows[len(categories) :]),
            "",
        ]

    def _rows(self, categories: Sequence[str]) -> list[tuple[str, list[str]]]:
        """A name and a cell for each position; the last two are means."""
        own = [grid[place] for place, grid in enumerate(self.grids)]
        named = [*zip(categories, own, strict=True), ("mean of these", self.same), ("another category", self.other)]
        return [(name, list(map(_strength, values))) for name, values in named]


def by_position(
    grids: Sequence[NDArray[np.float64]], weights: Sequence[int]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """A behaviour of the candidate's own category, and one of another, by position, both (position,).

    Args:
        grids: (category, position) for candidates of each category, in the order of the rows. NaN is left out.
        weights: of each grid in the mean.
    """
    same = np.stack([grid[place] for place, grid in enumerate(grids)])
    others = np.stack([_mean(np.delete(grid, place, axis=0)) for place, grid in enumerate(grids)])
    return _mean(same, weights), _mean(others, weights)


def learn(dataset: Dataset, attribute: str, learner: Learner, position_max: int) -> Learned:
    """Let the model learn the training part, and ask it what each behaviour of that part counts.

    Args:
        dataset: one with histories.
        attribute: the column of its items that the model reads beside the item itself.
        learner: which model.
        position_max: how many behaviours of each past: the newest.

    Raises:
        ConfigError: the model or its options cannot be used, or it looks less far back than ``position_max``.
        SchemaError: the data set has no history, or the options name what it does not have.
    """
    schema, history = _schema(dataset, attribute)
    for name in history[:1]:
        if (length := schema.slot(name).max_len) is not None and length < position_max:
            raise ConfigError(
                f"--positions {position_max}: {learner.model} reads the newest {length} behaviours of "
                f"{dataset.info.name}; look back no farther"
            )
    options = dict(learner.options)
    if issubclass(entry(learner.model).config, TowerConfig):
        options = {**({"history": history} if history else {}), "others": (), **options}
    trainer = new_trainer(
        schema,
        learner.model,
        options,
        TrainConfig(evaluate_every=0, seed=learner.seed),
        optimizer=AdaGrad(learning_rate=0.05),
        dataset=dataset.info.name,
    )
    trainer.fit(
        dataset.batches(BATCH, Split.TRAIN, schema=schema, shuffle_seed=learner.seed),
        epochs=learner.epochs,
    )
    has_test = len(dataset.rows(Split.TEST)) > 0
    tested = validate(trainer, dataset.batches(_JUDGED_BATCH, Split.TEST, schema=schema)) if has_test else None
    strengths = _strengths(trainer, dataset.batches(_JUDGED_BATCH, Split.TRAIN, schema=schema), position_max)
    return Learned(
        model_options=describe(trainer.model)["options"],
        auc=tested.auc if tested is not None else float("nan"),
        strengths=strengths,
    )


def _schema(dataset: Dataset, attribute: str) -> tuple[Schema, tuple[str, ...]]:
    """The data set's fields, and those that tell its past: items and, where each has exactly one, their categories."""
    schema = dataset.schema
    of_items = [name for name, source in schema.history_slots.items() if source == "item" and schema.slot(name).ordered]
    if not of_items:
        return schema, ()
    history = schema.slot(of_items[0])
    slot = schema.slots.get(attribute)
    if slot is None or slot.many or slot.side is not Side.ITEM or not _each_has_one(dataset, attribute):
        return schema, (history.name,)
    beside = Slot(
        f"{history.name}_{attribute}",
        dim=slot.dim,
        table=attribute,
        many=True,
        ordered=True,
        max_len=history.max_len,
        of=Side.USER,
    )
    slots = {**schema.slots, beside.name: beside}
    return Schema(*slots.values(), *schema.dense.values(), *schema.labels.values()), (history.name, beside.name)


def _each_has_one(dataset: Dataset, attribute: str) -> bool:
    known = dataset.items["id"].combine_chunks()
    acted_on = dataset.interactions["item"].combine_chunks()
    is_known = pc.is_in(acted_on, value_set=known.cast(acted_on.type))
    return dataset.items[attribute].null_count == 0 and bool(pc.all(is_known).as_py())


def _strengths(trainer: Trainer, batches: Batches, position_max: int) -> NDArray[np.float64]:
    parameters, able = trainer.parameters(), weigher(trainer.model)
    able.eval()
    found = []
    with parameters.computing():
        for batch in batches:
            told = able.weighed(parameters.placed(batch))
            found.append(told.strengths[told.past.positions <= position_max].double().cpu().numpy())
    return np.concatenate(found)


def _mean(rows: NDArray[np.float64], weights: Sequence[int] | None = None) -> NDArray[np.float64]:
    """By column, of what is there; NaN where nothing is."""
    shares = np.ones(len(rows)) if weights is None else np.asarray(weights, dtype=np.float64)
    told = np.where(np.isnan(rows), 0.0, shares[:, None])
    total = told.sum(axis=0)
    sums = (np.nan_to_num(rows) * told).sum(axis=0)
    means: NDArray[np.float64] = np.divide(sums, total, out=np.full(rows.shape[1], np.nan), where=total > 0)
    return means


def _strength(value: float) -> str:
    return "" if np.isnan(value) else f"{value:.2f}"


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def _numbers(values: NDArray[np.float64]) -> list[float | None]:
    return [_number(value) for value in values]

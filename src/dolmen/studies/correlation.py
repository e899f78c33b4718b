"""What and when together, on a data set: how much a past behaviour tells of an answer, by what it was and how long ago.

TIN's authors measured it before they built a model: a behaviour of the candidate's own category tells most (the
*semantic* pattern), and less the more positions lie between (the *temporal* one). This makes the measurement of any
data set with histories, as a table, as JSON, as a page and as a picture; and where a model is named, it lays beside it
what that model learned (``learned``).

Source: H. Zhou et al., "Temporal Interest Network for User Response Prediction", WWW 2024 Companion (arXiv 2308.08487),
section 3. Departs from it: only the part that trains is looked at, as the test part is for judging; and a cell of luck
alone is told beside, since mutual information of finite data is never 0.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from dolmen.datasets import Dataset
from dolmen.errors import ConfigError, DataError
from dolmen.evaluation import Split, TemporalCorrelation, temporal_correlation, temporal_strength
from dolmen.features import Batch, Label, Schema, Side, Slot, values_of
from dolmen.provenance import machine, program
from dolmen.settings import suggestion
from dolmen.sheets import Sheet
from dolmen.studies.chart import can_draw, panels, style
from dolmen.studies.learned import LearnedCorrelation, Learner, by_position, learn

__all__ = ["CorrelationReport", "measure_correlation", "write_correlation"]

_ROWS_AT_ONCE: Final = 4096
_GRIDS_DRAWN: Final = 5  # with the curves beside them they fill two rows of panels
_PLACE: Final = "place_in_catalogue"


@final
@dataclass(frozen=True, kw_only=True)
class CorrelationReport:
    """What was measured on one data set.

    Args:
        data: the data set's name.
        simulated: whether it tells of nobody real.
        attribute: the column of its items whose values are the categories.
        negatives: random items put beside each that was acted on; 0: those passed over are the source's own.
        example_count: of the part that trains.
        positive_count: how many of them were acted on.
        categories: in words, the most frequent among candidates first.
        grids: for candidates of each category; the rows are ``categories``, too.
        learned: what a model made of it, if one was asked.
    """

    data: str
    simulated: bool
    attribute: str
    negatives: int
    example_count: int
    positive_count: int
    categories: tuple[str, ...]
    grids: tuple[TemporalCorrelation, ...]
    learned: LearnedCorrelation | None = None

    @property
    def stem(self) -> str:
        """How its files are called."""
        told = f"correlation-{self.data}-{self.attribute}"
        return told if self.learned is None else f"{told}-{self.learned.learner.stem}"

    @property
    def same_bits(self) -> NDArray[np.float64]:
        """Of a behaviour of the candidate's own category, by position from the newest; mean over all candidates."""
        return by_position([grid.bits for grid in self.grids], self._weights)[0]

    @property
    def other_bits(self) -> NDArray[np.float64]:
        """Of a behaviour of another category, mean over these and over all candidates; NaN where there is no other."""
        return by_position([grid.bits for grid in self.grids], self._weights)[1]

    @property
    def chance_bits(self) -> float:
        """Of a behaviour that tells nothing, mean over all candidates: what luck alone shows."""
        return float(np.average([grid.chance_bits for grid in self.grids], weights=self._weights))

    @property
    def _weights(self) -> list[int]:
        return [grid.example_count for grid in self.grids]

    def sheets(self) -> list[Sheet]:
        """For a terminal: what a behaviour of the same category tells, by position, in thousandths of a bit; and what a
        model made of it, if one was asked.
        """
        learned = [] if self.learned is None else self.learned.sheets(self.attribute, self.categories)
        return [self._sheet(), *learned]

    def _sheet(self) -> Sheet:
        columns = range(len(self.same_bits))
        title = f"{self.data}: what a behaviour of the candidate's category tells, by position, in thousandths of a bit"
        sheet = Sheet(self.attribute, "candidates", *(str(position + 1) for position in columns), title=title)
        for place, (name, grid) in enumerate(zip(self.categories, self.grids, strict=True)):
            sheet.add_row(name, f"{grid.example_count:,}", *map(_thousandths, grid.bits[place]))
        sheet.add_row("mean of these", "", *map(_thousandths, self.same_bits))
        sheet.add_row("another category", "", *map(_thousandths, self.other_bits))
        sheet.add_row("luck alone", "", *(_thousandths(self.chance_bits) for _ in columns))
        return sheet

    def to_json(self, made_by: Mapping[str, Any]) -> str:
        """Everything, with what it was made by and on."""
        told = {
            "what": "bits that a behaviour of a category at a position back from the candidate tells of the answer",
            **made_by,
            "data": self.data,
            "simulated": self.simulated,
            "attribute": self.attribute,
            "split": str(Split.TRAIN),
            "negatives": self.negatives,
            "examples": self.example_count,
            "positives": self.positive_count,
            "categories": list(self.categories),
            "by_position": {
                "same": self.same_bits.tolist(),
                "other": [None if np.isnan(one) else one for one in self.other_bits.tolist()],
                "luck_alone": self.chance_bits,
            },
            "candidates": [
                {
                    "category": name,
                    "examples": grid.example_count,
                    "luck_alone": grid.chance_bits,
                    "bits": grid.bits.tolist(),
                    "counts": grid.counts.tolist(),
                }
                for name, grid in zip(self.categories, self.grids, strict=True)
            ],
            **({"learned": self.learned.told()} if self.learned is not None else {}),
        }
        return json.dumps(told, indent=1) + "\n"

    def to_markdown(self, made_by: Mapping[str, Any], picture: str | None) -> str:
        """A page for people."""
        same, other, last = self.same_bits, self.other_bits, len(self.same_bits)
        beside = f", and {self.negatives} random beside each of these" if self.negatives else ""
        lines = [
            f"# What and when together: {self.data}, by {self.attribute}{self._and_learned}",
            "",
            *(["**Simulated: no real person or item is in it.**", ""] if self.simulated else []),
            f"How much a past behaviour tells of the answer, by its category (a value of `{self.attribute}`) and its "
            "position back from the candidate, 1 being the newest: the measurement of TIN's section 3 (H. Zhou et al., "
            f"WWW 2024). {self.example_count:,} examples of the training part, {self.positive_count:,} of them acted "
            f"on{beside}.",
            "",
            f"- **What.** The newest behaviour tells {_thousandths(same[0])} thousandths of a bit where it is of the "
            f"candidate's category, and {_thousandths(other[0])} where it is of another.",
            f"- **When.** At position {last} the candidate's category tells {_thousandths(same[-1])}: "
            f"{_share(same[-1], same[0])} of what it tells as the newest.",
            f"- **Luck.** A behaviour that tells nothing shows {_thousandths(self.chance_bits)} on average.",
            "",
            *([f"![bits by category and position]({picture})", ""] if picture is not None else []),
            "Thousandths of a bit that a behaviour of the candidate's category tells, by position:",
            "",
            f"| candidate's category | candidates | {' | '.join(str(position + 1) for position in range(last))} |",
            f"| --- | --- |{' --- |' * last}",
        ]
        for place, (name, grid) in enumerate(zip(self.categories, self.grids, strict=True)):
            lines.append(f"| {name} | {grid.example_count:,} | {' | '.join(map(_thousandths, grid.bits[place]))} |")
        for name, bits in (("mean of these", same), ("another category", other)):
            lines.append(f"| *{name}* | | {' | '.join(map(_thousandths, bits))} |")
        made = made_by["machine"]
        lines += ["", *(self.learned.lines(self.categories) if self.learned is not None else [])]
        lines += [
            f"- command: `{made_by['command']}`",
            f"- commit: {made_by['program']['commit']}",
            f"- machine: {made['cpu']}, {made['cores']} cores",
            f"- date: {made_by['date']}",
        ]
        return "\n".join(lines) + "\n"

    @property
    def _and_learned(self) -> str:
        return "" if self.learned is None else f", and what {self.learned.learner.label} learned"

    def draw(self, path: Path) -> bool:
        """Draw the curves and the first few grids (SVG), of the data and then of the model, if one was asked.

        Returns:
            False where there is nothing to draw with.
        """
        if not can_draw():
            return False
        drawn = self.grids[:_GRIDS_DRAWN]
        curves = {
            "candidate's category": 1000 * self.same_bits,
            "another category": 1000 * self.other_bits,
            "luck alone": np.full(len(self.same_bits), 1000 * self.chance_bits),
        }
        parts = [
            _Drawn("mean over candidates", "thousandths of a bit", "log", curves, [1000 * grid.bits for grid in drawn])
        ]
        if self.learned is not None:
            curves = {"candidate's category": self.learned.same, "another category": self.learned.other}
            grids = list(self.learned.grids[:_GRIDS_DRAWN])
            parts.append(_Drawn(self.learned.learner.label, "times the mean behaviour", "linear", curves, grids))
        count = 1 + len(drawn)
        with panels(count * len(parts), path, name=f"{self.data} {self.attribute}") as axes:
            for place, part in enumerate(parts):
                part.draw(axes[place * count : (place + 1) * count], self.categories)
        return True


@final
@dataclass(frozen=True)
class _Drawn:
    """Curves by position in one panel, and in the others a grid for candidates of each category, (category, position).

    ``unit``: of all of them. ``scale``: of the curves, as matplotlib calls it.
    """

    title: str
    unit: str
    scale: str
    curves: Mapping[str, NDArray[np.float64]]
    grids: Sequence[NDArray[np.float64]]

    def draw(self, axes: Sequence[Any], categories: Sequence[str]) -> None:
        positions = np.arange(1, self.grids[0].shape[1] + 1)
        for index, (name, values) in enumerate(self.curves.items()):
            axes[0].plot(positions, values, **style(index), markersize=4, label=name)
        axes[0].set_yscale(self.scale)
        axes[0].set_title(self.title)
        axes[0].set_xlabel("position back from the candidate")
        axes[0].set_ylabel(self.unit)
        axes[0].grid(visible=True, alpha=0.3)
        axes[0].legend(fontsize=8)
        brightest = max(float(np.nanmax(grid)) for grid in self.grids)
        for axis, grid, name in zip(axes[1:], self.grids, categories, strict=False):
            image = axis.imshow(grid, aspect="auto", cmap="cividis", norm="linear", vmin=0, vmax=brightest)
            axis.set_title(f"candidate: {name}")
            axis.set_xticks(positions - 1, positions)
            axis.set_yticks(range(len(categories)), categories, fontsize=7)
        axes[-1].figure.colorbar(image, ax=axes[1:], label=self.unit, shrink=0.6)


def measure_correlation(
    dataset: Dataset,
    attribute: str,
    *,
    negatives: int = 0,
    position_max: int = 10,
    category_count: int = 10,
    learner: Learner | None = None,
) -> CorrelationReport:
    """Measure a data set's training part, and what a model makes of it.

    Args:
        dataset: one with histories.
        attribute: a column of its items; an item may have several values of it.
        negatives: how many random items to put beside each that was acted on.
        position_max: how many positions back from the candidate.
        category_count: how many values of ``attribute``: those with most candidates.
        learner: a model that learns the same part first and is then asked what it makes of each behaviour.

    Raises:
        ConfigError: items have no such column, or its values are not plain ones; the model or its options cannot be
            used, or it looks less far back.
        DataError: nothing trains, all labels are alike, the order of actions is not known, or no item has a value.
    """
    lists, names = _categories(dataset, attribute)
    if negatives:
        dataset = dataset.with_negatives(negatives)
    part = _Part.of(dataset, lists, position_max)
    labels = part.labels
    if not 0 < labels.sum() < len(labels):
        raise DataError(
            f"{dataset.info.name}: {dataset.label} is {int(labels.any())} in every example, so there is nothing to "
            "tell apart. Put random items beside what people acted on: --negatives 1"
        )
    sizes = np.bincount(part.candidates, minlength=len(names))
    kept = [int(code) for code in np.argsort(-sizes, kind="stable")[:category_count] if sizes[code]]
    if not kept:
        raise DataError(f"{dataset.info.name}: no item of the training part has a value of {attribute!r}")
    grids = tuple(part.grid(code, kept) for code in kept)
    return CorrelationReport(
        data=dataset.info.name,
        simulated=dataset.info.simulated,
        attribute=attribute,
        negatives=negatives,
        example_count=len(labels),
        positive_count=int(labels.sum()),
        categories=tuple(str(names[code]) for code in kept),
        grids=grids,
        learned=_learned(dataset, attribute, part, kept, grids, learner) if learner is not None else None,
    )


def write_correlation(report: CorrelationReport, folder: Path, *, command: str) -> list[Path]:
    """Write ``correlation-DATA-ATTRIBUTE`` as ``.json``, ``.md`` and, where matplotlib is installed, ``.svg``.

    Where a model was asked, its name and those options that were given follow: ``-tin-temperature-0.5``.

    Returns:
        The files.
    """
    made_by = {
        "command": command,
        "date": datetime.datetime.now(tz=datetime.UTC).date().isoformat(),
        "program": program(),
        "machine": machine(),
    }
    folder.mkdir(parents=True, exist_ok=True)
    page, picture, data = (folder / f"{report.stem}.{kind}" for kind in ("md", "svg", "json"))
    is_drawn = report.draw(picture)
    data.write_text(report.to_json(made_by), encoding="utf-8")
    page.write_text(report.to_markdown(made_by, picture.name if is_drawn else None), encoding="utf-8")
    return [data, page, *([picture] if is_drawn else [])]


def _categories(dataset: Dataset, attribute: str) -> tuple[pa.LargeListArray, list[Any]]:
    """The codes of each item's categories, and what the codes stand for; an item more, last, has none."""
    known = [name for name in dataset.items.column_names if name != "id"]
    if attribute not in known:
        tail = suggestion(attribute, known)
        raise ConfigError(f"{dataset.info.name}: its items have no column {attribute!r}{tail}")
    column = dataset.items[attribute].combine_chunks()
    is_list = pa.types.is_list(column.type) or pa.types.is_large_list(column.type)
    values = column.flatten() if is_list else column.drop_null()
    if pa.types.is_nested(values.type):
        raise ConfigError(
            f"{dataset.info.name}: a category is one plain value, and {attribute!r} holds {values.type}; name another"
            " column of its items"
        )
    encoded = values.dictionary_encode()
    counts = pc.fill_null(pc.list_value_length(column), 0) if is_list else column.is_valid().cast(pa.int64())
    offsets = np.concatenate([[0], np.cumsum(counts.to_numpy()), [len(values)]])
    codes = pa.LargeListArray.from_arrays(pa.array(offsets, pa.int64()), encoded.indices.cast(pa.int64()))
    return codes, encoded.dictionary.to_pylist()


@final
@dataclass(frozen=True)
class _Part:
    """The training part: categories of behaviours and of candidates, by their codes.

    ``behaviours``: one after the other, (named,), those of each from ``starts`` (behaviour + 1,). ``offsets``: which
    behaviours each example has, oldest first, (example + 1,). ``candidates``: likewise (named,), and the example of
    each, ``owners``. ``labels``: which examples were acted on.
    """

    behaviours: NDArray[np.int64]
    starts: NDArray[np.int64]
    offsets: NDArray[np.int64]
    candidates: NDArray[np.int64]
    owners: NDArray[np.int64]
    labels: NDArray[np.bool_]
    position_max: int

    @classmethod
    def of(cls, dataset: Dataset, lists: pa.LargeListArray, position_max: int) -> _Part:
        examples = _examples(dataset, position_max)
        past = examples.slot("past")
        behaviours, starts = _taken(lists, values_of(past.values.numpy()))
        candidates, ends = _taken(lists, values_of(examples.slot(_PLACE).values.numpy()))
        owners = np.repeat(np.arange(examples.size), np.diff(ends))
        labels = examples.labels[dataset.label].numpy() > 0
        return cls(behaviours, starts, past.offsets.numpy(), candidates, owners, labels, position_max)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """How many behaviours each example has, up to ``position_max``."""
        return np.diff(self.offsets)

    def is_of(self, code: int) -> NDArray[np.int64]:
        """1 where the candidate is of the category, else 0, (example,)."""
        found = np.zeros(len(self.labels), dtype=np.int64)
        found[self.owners[self.candidates == code]] = 1
        return found

    def grid(self, code: int, kept: Sequence[int]) -> TemporalCorrelation:
        """For candidates of the category ``code``; the rows are ``kept``, in that order."""
        grid = temporal_correlation(
            self.behaviours,
            self.offsets,
            self.is_of(code),
            self.labels,
            target=1,
            position_max=self.position_max,
            starts=self.starts,
            rows=kept,
        )
        order = np.searchsorted(grid.categories, kept)
        return replace(grid, categories=grid.categories[order], bits=grid.bits[order], counts=grid.counts[order])

    def strengths(self, strengths: NDArray[np.float64], code: int, kept: Sequence[int]) -> NDArray[np.float64]:
        """The same of a model's ``strengths`` (behaviour,)."""
        found = temporal_strength(
            strengths,
            self.behaviours,
            self.offsets,
            self.is_of(code),
            target=1,
            position_max=self.position_max,
            starts=self.starts,
            rows=kept,
        )
        return found[np.searchsorted(np.sort(kept), kept)]


def _learned(
    dataset: Dataset,
    attribute: str,
    part: _Part,
    kept: Sequence[int],
    grids: tuple[TemporalCorrelation, ...],
    learner: Learner,
) -> LearnedCorrelation:
    lengths, position_max, longest = part.lengths, part.position_max, int(part.lengths.max())
    if longest < position_max:
        raise DataError(
            f"{dataset.info.name}: no past has {position_max} behaviours, the longest has {longest}; what a model "
            f"learned is told of pasts that fill every position: --positions {max(1, longest)}"
        )
    learned = learn(dataset, attribute, learner, position_max)
    if len(learned.strengths) != part.offsets[-1]:
        raise ConfigError(
            f"{dataset.info.name}: the model tells of {len(learned.strengths):,} behaviours, and the newest "
            f"{position_max} of each past are {part.offsets[-1]:,}; let it read the whole history of items"
        )
    is_whole = lengths >= position_max
    mean = float(learned.strengths[np.repeat(is_whole, lengths)].mean())
    if not mean > 0:
        raise ConfigError(f"{learner.label} counts no behaviour at all, so there is nothing to compare")
    return LearnedCorrelation(
        learner=learner,
        model_options=learned.model_options,
        auc=learned.auc,
        example_count=int(is_whole.sum()),
        mean_strength=mean,
        measured=grids,
        grids=tuple(part.strengths(learned.strengths / mean, code, kept) for code in kept),
    )


def _examples(dataset: Dataset, position_max: int) -> Batch:
    """The training part: of each candidate and each behaviour its item's place in the catalogue."""
    items = dataset.interactions["item"].combine_chunks()
    places = pc.index_in(items, value_set=dataset.items["id"].combine_chunks().cast(items.type))
    known = pc.fill_null(places, dataset.items.num_rows)  # an item that is not in the catalogue has no category
    dataset = replace(dataset, interactions=dataset.interactions.append_column(_PLACE, known))
    schema = Schema(
        Slot("item"),
        Slot(_PLACE, of=Side.ITEM),
        Slot("past", table=_PLACE, many=True, ordered=True, max_len=position_max, of=Side.USER),
        Label(dataset.label),
    )
    batches = list(dataset.batches(_ROWS_AT_ONCE, Split.TRAIN, schema=schema))
    if not batches:
        raise DataError(f"{dataset.info.name}: {dataset.rule} leaves nothing to train on, which is what is measured")
    return Batch.concat(batches)


def _taken(lists: pa.LargeListArray, places: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The lists at ``places``, one after the other; and where each begins, and the end."""
    taken = lists.take(pa.array(places))
    lengths = pc.list_value_length(taken).to_numpy()
    return taken.flatten().to_numpy(), np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])


def _thousandths(bits: float) -> str:
    """For people: what is hidden by the rounding is less than luck shows in ten thousand examples and more.

    >>> _thousandths(0.01234), _thousandths(0.00034)
    ('12.3', '0.34')
    """
    return "" if np.isnan(bits) else f"{1000 * bits:.1f}" if bits >= 0.01 else f"{1000 * bits:.2f}"


def _share(part: float, whole: float) -> str:
    return f"{part / whole:.0%}" if whole > 0 else "no share"

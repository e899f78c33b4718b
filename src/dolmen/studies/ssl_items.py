"""SSL for items: whether telling two views of an item as one helps to find the items that few people chose."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Final, final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from numpy.typing import NDArray

from dolmen import datasets
from dolmen.embedding import AdaGrad
from dolmen.evaluation import Split, rank_catalogue
from dolmen.features import Batch, Jagged, Label, Schema, Side, Slot, extract_table
from dolmen.models import retriever
from dolmen.models.retrieval.ssl_two_tower import SSLTwoTower
from dolmen.seeds import generator
from dolmen.studies.machinery import MACHINERY
from dolmen.studies.results import Cell
from dolmen.studies.rules import Above
from dolmen.studies.study import Chart, Claim, Part, Plan, Setting, Shown, Study
from dolmen.training import TrainConfig, Trainer, new_trainer

__all__ = ["STUDY"]

_FILMS: Final = "movielens-100k"
_TENTH: Final = "movielens-100k-tenth"
_TOWERS: Final[Mapping[str, Any]] = {"content_weight": 0.0}  # ours, and a rival of the paper's idea: off in all arms
_ARMS: Final = {
    "two-tower": "the two towers alone",
    "dropout": "and the contrast of views that differ by dropped values",
    "rfm": "and the contrast of views that share no feature, drawn (RFM)",
    "cfm": "and the contrast of views that share no feature, related ones hidden together (CFM)",
}
_MASKING: Final = {"dropout": "none", "rfm": "random", "cfm": "correlated"}
_COLUMNS: Final = ("item", "genres", "release_year", "decade", "words")
_SCHEMA: Final = Schema(
    Slot("user"),
    Slot("item"),
    Slot("genres", many=True, of=Side.ITEM),
    Slot("release_year", of=Side.ITEM),
    Slot("decade", of=Side.ITEM),
    Slot("words", many=True, of=Side.ITEM),
    Slot("history", table="item", many=True, ordered=True, max_len=50, of=Side.USER),
    Label("click"),
)
_BATCH: Final = 256
_READ_BATCH: Final = 4096


@final
@dataclass(frozen=True)
class _Data:
    """``clicks``: how often each place of the catalogue was chosen in training. ``right``, ``past``: places, by row."""

    train: Batch
    test: Batch
    catalogue: Batch
    clicks: NDArray[np.int64]
    right: Jagged
    past: Jagged


def _run(cell: Cell, setting: Setting) -> Mapping[str, float]:
    data = _data(cell.case)
    count = min(data.train.size, setting.settings.get("examples_max", data.train.size))
    name, options = "two_tower", dict(_TOWERS)
    if cell.arm in _MASKING:
        name, options = "ssl_two_tower", {"towers": _TOWERS, "masking": _MASKING[cell.arm]}
    trainer = new_trainer(
        _SCHEMA,
        name,
        options,
        TrainConfig(evaluate_every=0, seed=cell.seed, device=setting.device),
        optimizer=AdaGrad(learning_rate=0.05),
    )
    if isinstance(trainer.model, SSLTwoTower):
        trainer.model.catalogue.push(trainer.parameters().placed(data.catalogue))  # as the catalogue's feed would
    started = time.process_time()
    for number in range(setting.settings["passes"]):
        order = torch.from_numpy(generator(cell.seed, "order", number).permutation(count))
        for rows in torch.split(order, _BATCH):
            trainer.step(data.train.take(rows))
    seconds = time.process_time() - started
    return {**_figures(data, trainer), "examples_per_cpu_second": count * setting.settings["passes"] / seconds}


def _figures(data: _Data, trainer: Trainer) -> dict[str, float]:
    parameters, able = trainer.parameters(), retriever(trainer.model)
    able.eval()
    asked = [parameters.placed(data.test.take(rows)) for rows in torch.split(torch.arange(data.test.size), _READ_BATCH)]
    with parameters.computing():
        items = able.items(parameters.placed(data.catalogue)).cpu()
        queries = torch.cat([able.queries(batch)[:, 0] for batch in asked]).cpu()
    ranking = rank_catalogue(lambda rows: queries[rows] @ items.T, data.right, len(items), exclude=data.past)
    found = ranking.ranks.values <= 50
    clicks = data.clicks[data.right.values.numpy()]
    is_tail = clicks <= np.median(data.clicks)
    return {
        "recall@50": float(found.mean()),
        "tail_recall@50": float(found[is_tail].mean()),
        "new_recall@50": float(found[clicks == 0].mean()),
    }


@lru_cache(maxsize=1)
def _data(case: str) -> _Data:
    dataset = datasets.load(_FILMS)
    items = dataset.items
    decade = pc.multiply(pc.divide(items["release_year"], 10), 10)
    words = pc.split_pattern_regex(pc.utf8_lower(items["title"]), pattern=r"[^a-z0-9]+")
    items = items.append_column("decade", decade).append_column("words", words)
    dataset = replace(dataset, items=items)
    train = Batch.concat(list(dataset.batches(_READ_BATCH, Split.TRAIN, schema=_SCHEMA)))
    if case == _TENTH:
        train = train.take(torch.from_numpy(generator(0, "tenth").permutation(train.size)[: train.size // 10]))
    test = Batch.concat(list(dataset.batches(_READ_BATCH, Split.TEST, schema=_SCHEMA)))
    test = test.take((test.labels["click"] > 0).nonzero().squeeze(1))
    columns = pa.table({"item": items["id"], **{name: items[name] for name in _COLUMNS[1:]}})
    catalogue = extract_table(_SCHEMA, columns, slots=_COLUMNS, with_labels=False)
    order = catalogue.slot("item").values.argsort()
    fids = catalogue.slot("item").values[order]

    def places(column: Jagged) -> Jagged:
        return Jagged(order[torch.searchsorted(fids, column.values)], column.offsets)

    chosen = places(train.slot("item")).values[train.labels["click"] > 0]
    clicks = torch.bincount(chosen, minlength=catalogue.size).numpy()
    return _Data(train, test, catalogue, clicks, places(test.slot("item")), places(test.slot("history")))


STUDY: Final = Study(
    name="ssl-items",
    title="Self-supervised learning for items",
    paper='T. Yao et al., "Self-supervised Learning for Large-scale Item Recommendations", CIKM 2021, arXiv 2007.12865',
    module=__name__,
    claims=(
        Claim(
            name="tail",
            statement="With correlated masking more of the rarely chosen items are found.",
            paper="better on tail slices (no figure that we could find)",
            rule=Above(arm="cfm", others=("two-tower",), figure="tail_recall@50"),
        ),
        Claim(
            name="overall",
            statement="And no fewer of all items, by more than 0.002.",
            paper="better overall",
            rule=Above(arm="cfm", others=("two-tower",), figure="recall@50", margin=-0.002, sure=False),
        ),
        Claim(
            name="masks",
            statement="Correlated masking finds more rare items than random masking or dropout alone.",
            paper="CFM above RFM",
            rule=Above(arm="cfm", others=("rfm", "dropout"), figure="tail_recall@50"),
        ),
        Claim(
            name="new items",
            statement="Of items that nobody chose in training more are found.",
            paper="significant gain on cold-start slices",
            rule=Above(arm="cfm", others=("two-tower",), figure="new_recall@50"),
        ),
    ),
    guards=(
        Claim(
            name="learns",
            statement="The contrast does not ruin what the towers learn.",
            paper="",
            rule=Above(arm="cfm", others=("two-tower",), figure="recall@50", margin=-0.05, sure=False),
        ),
    ),
    data=(_FILMS,),
    protocol=(
        "A rating of 4 or 5 is a choice, the other ratings of a page were passed over; 80 % train, 10 % validate, 10 % "
        "test, in time order. movielens-100k-tenth: a tenth of the training part, drawn once.",
        "Each chosen film of the test part is ranked among all films but those chosen before. Rare: chosen as often in "
        "training as the median film or less. New: never.",
        "A film is its id, genres, year, decade and the words of its title. Vectors of 15 and towers of 64; AdaGrad "
        "(0.05) on rows, Adam (0.001) on layers, batches of 256; weight 0.2, temperature 0.1, 256 films a step, as a "
        "third party's code has them; tuned for none.",
    ),
    arms=_ARMS,
    figures={
        "recall@50": "share of chosen films that stand among the first 50 of all",
        "tail_recall@50": "the same of rare films",
        "new_recall@50": "the same of new films",
        "examples_per_cpu_second": "learned by one thread, by its own clock",
    },
    chart=Chart(figure="tail_recall@50", lines={name: (name,) for name in _ARMS}),
    full=Plan(
        parts=(
            Part(case=_FILMS, arms=tuple(_ARMS), seed_count=5),
            Part(case=_TENTH, arms=tuple(_ARMS), seed_count=5),
        ),
        settings={"passes": 3},
        minutes=15,
    ),
    quick=Plan(
        parts=(Part(case=_FILMS, arms=("two-tower", "cfm"), seed_count=1),),
        settings={"passes": 1, "examples_max": 40_000},
        minutes=0.5,
    ),
    stands_on=(
        *MACHINERY,
        "dolmen.datasets.movielens",
        "dolmen.evaluation.ranking",
        "dolmen.models.layers.losses",
        "dolmen.models.layers.mlp",
        "dolmen.models.layers.rows",
        "dolmen.models.layers.stream",
        "dolmen.models.retrieval",
    ),
    shows={
        model: Shown(case=_FILMS, arm=arm, figure="recall@50")
        for model, arm in (("two_tower", "two-tower"), ("ssl_two_tower", "cfm"))
    },
    run=_run,
)

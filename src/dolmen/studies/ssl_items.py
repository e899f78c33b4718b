"""SSL for items: whether telling two views of an item as one helps to find the items that few people chose."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Final, final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import normalize

from dolmen import datasets
from dolmen.datasets import Dataset
from dolmen.embedding import AdaGrad
from dolmen.evaluation import Split, TemporalSplit, rank_catalogue
from dolmen.features import Batch, Jagged, Label, Schema, Side, Slot, extract_table
from dolmen.models import retriever
from dolmen.seeds import generator
from dolmen.studies.results import Cell
from dolmen.studies.rules import Above
from dolmen.studies.study import Chart, Claim, Part, Plan, Setting, Shown, Study
from dolmen.training import TrainConfig, Trainer, new_trainer

__all__ = ["STUDY"]

_FILMS: Final = "movielens-100k"
_SAMPLE: Final = "movielens-1m-sample"
_SHOP: Final = "amazon-hin"
_TENTH: Final = "movielens-100k-tenth"
_WITHHELD: Final = "movielens-100k-withheld"
_SHOP_TENTH: Final = "amazon-hin-tenth"
_SHOP_WITHHELD: Final = "amazon-hin-withheld"
_DENSE: Final = (_FILMS, _TENTH, _WITHHELD, _SHOP)  # cases with all of ``_COMMON``
_TOWERS: Final[Mapping[str, Any]] = {"content_weight": 0.0}  # ours, and a rival of the paper's idea: off in all arms
_CATALOGUE: Final = 65_536  # places for at most 3,883 items: no more than 3 % meet another, and are not drawn
_ARMS: Final = {
    "popularity": "items by how often they were chosen in training; learns nothing",
    "unmet": "the two towers alone, which meet no item that nobody was shown: its own rows are zeros",
    "two-tower": "the two towers alone",
    "feature-dropout": "the two towers, with each slot of an item hidden at a rate of 0.2 (FD)",
    "spread-out": "and a penalty on squared cosines of items drawn evenly (SO)",
    "dropout": "and the contrast of views that differ by dropped values",
    "rfm": "and the contrast of views that share no feature, drawn (RFM)",
    "cfm": "and the contrast of views that share no feature, related ones hidden together (CFM); weight 0.2",
    "cfm-003": "as cfm, weight 0.03",
    "cfm-01": "as cfm, weight 0.1",
    "cfm-03": "as cfm, weight 0.3",
    "cfm-1": "as cfm, weight 1",
    "cfm-3": "as cfm, weight 3",
}
_OPTIONS: Final[Mapping[str, Mapping[str, Any]]] = {
    "spread-out": {"aim": "spread"},
    "dropout": {"masking": "none"},
    "rfm": {"masking": "random"},
    "cfm": {"masking": "correlated"},
    "cfm-003": {"masking": "correlated", "weight": 0.03},
    "cfm-01": {"masking": "correlated", "weight": 0.1},
    "cfm-03": {"masking": "correlated", "weight": 0.3},
    "cfm-1": {"masking": "correlated", "weight": 1.0},
    "cfm-3": {"masking": "correlated", "weight": 3.0},
}
_COMMON: Final = tuple(name for name in _ARMS if not name.startswith("cfm-"))  # all but other weights
_TOLD_OF_FILMS: Final = (
    Slot("genres", many=True, of=Side.ITEM),
    Slot("release_year", of=Side.ITEM),
    Slot("decade", of=Side.ITEM),
    Slot("words", many=True, of=Side.ITEM),
)
_TOLD_OF_GOODS: Final = (
    Slot("categories", many=True, of=Side.ITEM),
    Slot("brand", of=Side.ITEM),
    Slot("views", many=True, of=Side.ITEM),
)
_BATCH: Final = 256
_READ_BATCH: Final = 4096
_WINDOWS: Final = 5
_WINDOW_SHARE: Final = 0.1


@final
@dataclass(frozen=True, kw_only=True)
class _Case:
    """What is learned and judged.

    Args:
        dataset: its name.
        features: an item's slots beside its id.
        trained_share: of the training part, drawn.
        withheld_share: of the items; of those training tells nothing.
    """

    dataset: str
    features: tuple[Slot, ...]
    trained_share: float = 1.0
    withheld_share: float = 0.0


_CASES: Final[Mapping[str, _Case]] = {
    _TENTH: _Case(dataset=_FILMS, features=_TOLD_OF_FILMS, trained_share=0.1),
    _FILMS: _Case(dataset=_FILMS, features=_TOLD_OF_FILMS),
    _WITHHELD: _Case(dataset=_FILMS, features=_TOLD_OF_FILMS, withheld_share=0.2),
    _SAMPLE: _Case(dataset=_SAMPLE, features=_TOLD_OF_FILMS),
    _SHOP_TENTH: _Case(dataset=_SHOP, features=_TOLD_OF_GOODS, trained_share=0.1),
    _SHOP: _Case(dataset=_SHOP, features=_TOLD_OF_GOODS),
    _SHOP_WITHHELD: _Case(dataset=_SHOP, features=_TOLD_OF_GOODS, withheld_share=0.2),
}


@final
@dataclass(frozen=True)
class _Data:
    """``clicks``: how often each place of the catalogue was chosen in training. ``right``, ``past``: places, by row."""

    schema: Schema
    train: Batch
    asked: Batch
    catalogue: Batch
    clicks: NDArray[np.int64]
    right: Jagged
    past: Jagged


def _run(cell: Cell, setting: Setting) -> Mapping[str, float]:
    data = _data(cell.case, cell.seed)
    if cell.arm == "popularity":
        scores = torch.from_numpy(data.clicks).to(torch.float32)
        return _recalls(data, lambda rows: scores.expand(len(rows), -1))
    count = min(data.train.size, setting.settings.get("examples_max", data.train.size))
    trainer = _trainer(cell, setting, data.schema)
    if cell.arm != "unmet":
        trainer.meet(data.catalogue)
    started = time.process_time()
    for number in range(setting.settings["passes"]):
        order = torch.from_numpy(generator(cell.seed, "order", number).permutation(count))
        for rows in torch.split(order, _BATCH):
            trainer.step(data.train.take(rows))
    seconds = time.process_time() - started
    return {**_figures(data, trainer), "examples_per_cpu_second": count * setting.settings["passes"] / seconds}


def _trainer(cell: Cell, setting: Setting, schema: Schema) -> Trainer:
    towers = {**_TOWERS, "item_dropout": 0.2} if cell.arm == "feature-dropout" else _TOWERS
    own = _OPTIONS.get(cell.arm)
    return new_trainer(
        schema,
        "two_tower" if own is None else "ssl_two_tower",
        towers if own is None else {"towers": towers, "catalogue": _CATALOGUE, **own},
        TrainConfig(evaluate_every=0, seed=cell.seed, device=setting.device),
        optimizer=AdaGrad(learning_rate=0.05),
    )


def _figures(data: _Data, trainer: Trainer) -> dict[str, float]:
    parameters, able = trainer.parameters(), retriever(trainer.model)
    able.eval()
    asked = [data.asked.take(rows) for rows in torch.split(torch.arange(data.asked.size), _READ_BATCH)]
    with parameters.computing():
        items = able.items(parameters.placed(data.catalogue)).cpu()
        queries = torch.cat([able.queries(parameters.placed(batch))[:, 0] for batch in asked]).cpu()
    directions = normalize(items, dim=1)
    pairs = len(items) * (len(items) - 1)
    cosine = (directions.sum(dim=0).square().sum() - directions.square().sum()) / pairs  # of all pairs, by their sum
    return {**_recalls(data, lambda rows: queries[rows] @ items.T), "cosine": float(cosine)}


def _recalls(data: _Data, score: Callable[[Tensor], Tensor]) -> dict[str, float]:
    ranking = rank_catalogue(score, data.right, data.catalogue.size, exclude=data.past)
    found = ranking.ranks.values <= 50
    clicks = data.clicks[data.right.values.numpy()]
    figures = {"recall@50": found.mean()}
    for name, chosen in (("tail", clicks <= np.median(data.clicks)), ("new", clicks == 0)):
        figures[f"{name}_recall@50"] = found[chosen].mean()
        figures[f"{name}_choices"] = chosen.sum()
    return {name: float(value) for name, value in figures.items()}


@lru_cache(maxsize=1)
def _data(case: str, seed: int) -> _Data:
    """What a case's cells of one seed share: each seed judges another window, and draws anew."""
    told = _CASES[case]
    dataset = _dataset(told.dataset, seed % _WINDOWS)
    schema = _schema(*told.features, history_max=50)
    columns = ("item", *(slot.name for slot in told.features))
    values = pa.table({"item": dataset.items["id"], **{name: dataset.items[name] for name in columns[1:]}})
    catalogue = extract_table(schema, values, slots=columns, with_labels=False)
    order = catalogue.slot("item").values.argsort()
    fids = catalogue.slot("item").values[order]

    def places(column: Jagged) -> Jagged:
        return Jagged(order[torch.searchsorted(fids, column.values)], column.offsets)

    def read(split: Split, schema: Schema) -> Batch:
        return Batch.concat(list(dataset.batches(_READ_BATCH, split, schema=schema)))

    # What stands behind the cut is read as validation: the windows that follow are later still, and not read at all.
    train, asked = read(Split.TRAIN, schema), read(Split.VALIDATION, schema)
    is_chosen = (asked.labels["click"] > 0).nonzero().squeeze(1)
    whole_past = read(Split.VALIDATION, _schema(history_max=None)).slot("history")
    asked, past = asked.take(is_chosen), whole_past.take(is_chosen)
    right = asked.slot("item")
    if told.trained_share < 1:
        count = int(train.size * told.trained_share)
        train = train.take(torch.from_numpy(generator(seed, "tenth").permutation(train.size)[:count]))
    if told.withheld_share:
        drawn = generator(seed, "withheld").permutation(len(fids))[: int(len(fids) * told.withheld_share)]
        withheld = fids[torch.from_numpy(drawn)]
        train = train.take((~torch.isin(train.slot("item").values, withheld)).nonzero().squeeze(1))
        train, asked = (_forget(batch, withheld) for batch in (train, asked))
    chosen = places(train.slot("item")).values[train.labels["click"] > 0]
    clicks = torch.bincount(chosen, minlength=catalogue.size).numpy()
    return _Data(schema, train, asked, catalogue, clicks, places(right), places(past))


def _schema(*features: Slot, history_max: int | None) -> Schema:
    """Whatever the features, people and items have the same ids in each."""
    history = Slot("history", table="item", many=True, ordered=True, max_len=history_max, of=Side.USER)
    return Schema(Slot("user"), Slot("item"), *features, history, Label("click"))


def _dataset(name: str, window: int) -> Dataset:
    """Cut so that this window follows what is trained on; films with decades and words of titles."""
    rule = TemporalSplit(1 - (_WINDOWS - window) * _WINDOW_SHARE, _WINDOW_SHARE)
    dataset = datasets.load(name).with_rule(rule)
    if name == _SHOP:
        return dataset
    items = dataset.items
    decade = pc.multiply(pc.divide(items["release_year"], 10), 10)
    words = pc.split_pattern_regex(pc.utf8_lower(items["title"]), pattern=r"[^a-z0-9]+")
    return replace(dataset, items=items.append_column("decade", decade).append_column("words", words))


def _forget(batch: Batch, fids: Tensor) -> Batch:
    """``batch`` with these ids taken out of its histories."""
    past = batch.slot("history")
    is_kept = ~torch.isin(past.values, fids)
    ends = torch.cat([torch.zeros(1, dtype=torch.int64), is_kept.cumsum(0)])[past.offsets]
    return replace(batch, slots={**batch.slots, "history": Jagged(past.values[is_kept], ends)})


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
            rule=Above(arm="cfm", others=("two-tower", "unmet"), figure="tail_recall@50"),
        ),
        Claim(
            name="overall",
            statement="And no fewer of all items, by more than 0.002.",
            paper="better overall",
            rule=Above(arm="cfm", others=("two-tower", "unmet"), figure="recall@50", margin=-0.002, sure=False),
        ),
        Claim(
            name="masks",
            statement="Correlated masking finds more rare items than random masking or dropout alone.",
            paper="CFM above RFM",
            rule=Above(arm="cfm", others=("rfm", "dropout"), figure="tail_recall@50", cases=_DENSE),
        ),
        Claim(
            name="regularisers",
            statement="And than towers that hide features, or are told to hold items apart.",
            paper="CFM above FD and SO",
            rule=Above(arm="cfm", others=("feature-dropout", "spread-out"), figure="tail_recall@50", cases=_DENSE),
        ),
        Claim(
            name="new items",
            statement="Of items that nobody chose in training more are found.",
            paper="significant gain on cold-start slices",
            rule=Above(arm="cfm", others=("two-tower", "unmet"), figure="new_recall@50"),
        ),
        Claim(
            name="spread",
            statement="Item vectors stand further apart.",
            paper="the loss holds different items apart",
            rule=Above(arm="two-tower", others=("cfm",), figure="cosine"),
        ),
        Claim(
            name="weight",
            statement="Too large a weight of the contrast costs what it brings: of all items fewer are found at 3.",
            paper="the weight has a best value between, too large a one hurts the main task",
            rule=Above(arm="cfm", others=("cfm-3",), figure="recall@50", cases=(_TENTH,)),
        ),
    ),
    guards=(
        Claim(
            name="learns",
            statement="The contrast does not ruin what the towers learn.",
            paper="",
            rule=Above(arm="cfm", others=("two-tower",), figure="recall@50", margin=-0.05, sure=False),
        ),
        Claim(
            name="alive",
            statement="It has learned more than what is popular; a model that has learned nothing finds 50 of 1,682.",
            paper="",
            rule=Above(arm="cfm", others=("popularity",), figure="recall@50", sure=False),
        ),
        Claim(
            name="alive alone",
            statement="So have the towers alone.",
            paper="",
            rule=Above(arm="two-tower", others=("popularity",), figure="recall@50", sure=False),
        ),
    ),
    data=(_FILMS, _SAMPLE, _SHOP),
    protocol=(
        "On films a rating of 4 or 5 is a choice, the other ratings of a page were passed over; in the shop "
        "(amazon-hin) every review is a choice, as the paper's logs hold positives only. All in time order. Each of "
        "five seeds judges another window, a tenth of the data each: the first trains on 50 % and judges what follows, "
        "the last trains on 90 %. So intervals over seeds are over different choices too. What follows a window is not "
        "read, and nothing was tuned on any. The shop was added after the films had been judged, and after a look at "
        "its first window.",
        "-tenth: a tenth of each training part. -withheld: a fifth of the items, drawn by seed, taken out of the "
        "training part and of all histories, so that many choices are of new items. movielens-1m-sample: 100,000 of "
        "that set's ratings, so few of each person's.",
        "Each chosen item of the window is ranked among all items but those that its person chose earlier, in training "
        "or in the window. People are known by their last 50 choices. Rare: chosen as often in training as the median "
        "item or less; where most items never were, these are the new ones. New: never.",
        "A film is its id, genres, year, decade and the words of its title; a good its id, categories, brand and what "
        "is viewed beside it, as the source tells it for all times at once, to all arms alike. All arms but unmet and "
        "popularity first meet the catalogue, as a trainer does that reads it (train.read_catalogue): every item and "
        "feature has a row from then on.",
        "Vectors of 15 and towers of 64; AdaGrad (0.05) on rows, Adam (0.001) on layers, batches of 256; weight 0.2, "
        "temperature 0.1, 256 items a step, as a third party's code has them; three passes; tuned for none.",
    ),
    care=(
        "thousands of items whose features the two towers read anyway; the paper has millions, and its tables of "
        "figures could not be found."
    ),
    arms=_ARMS,
    figures={
        "recall@50": "share of chosen items that stand among the first 50 of all",
        "tail_recall@50": "of the choices of rare items, the share that stands among the first 50 of all",
        "new_recall@50": "of the choices of new items, the share that stands among the first 50 of all",
        "tail_choices": "choices of rare items in the window",
        "new_choices": "choices of new items in the window",
        "cosine": "of the vectors of two items, the mean over all pairs",
        "examples_per_cpu_second": "learned by one thread, by its own clock",
    },
    chart=Chart(figure="tail_recall@50", lines={name: (name,) for name in _COMMON}),
    full=Plan(
        parts=(
            Part(case=_TENTH, arms=tuple(_ARMS), seed_count=5),
            *(
                Part(case=case, arms=("popularity", "unmet", "two-tower", "cfm"), seed_count=5)
                for case in (_FILMS, _WITHHELD)
            ),
            *(
                Part(case=case, arms=("rfm", "feature-dropout", "spread-out", "dropout"), seed_count=5)
                for case in (_WITHHELD, _FILMS)
            ),
            *(
                Part(case=case, arms=("popularity", "unmet", "two-tower", "cfm"), seed_count=5)
                for case in (_SAMPLE, _SHOP, _SHOP_WITHHELD, _SHOP_TENTH)
            ),
            Part(case=_SHOP, arms=("rfm", "feature-dropout", "spread-out", "dropout"), seed_count=5),
        ),
        settings={"passes": 3},
        minutes=120,
    ),
    quick=Plan(
        parts=(Part(case=_FILMS, arms=("popularity", "two-tower", "cfm"), seed_count=1),),
        settings={"passes": 1, "examples_max": 40_000},
        minutes=0.5,
    ),
    shows={
        model: Shown(case=_FILMS, arm=arm, figure="recall@50")
        for model, arm in (("two_tower", "two-tower"), ("ssl_two_tower", "cfm"))
    },
    run=_run,
)

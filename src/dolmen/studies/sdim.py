"""SDIM: whether a hashed past ranks as well as one that is attended to, and what it costs when it is long."""

from __future__ import annotations

import time
from collections.abc import Mapping
from statistics import median
from typing import Any, Final

import torch

from dolmen.models.layers.attention import attend
from dolmen.models.layers.behaviours import Past, pooled
from dolmen.models.layers.hashing import SimHash, interest_of
from dolmen.seeds import derive_seed
from dolmen.studies.clicks import BATCH, EPOCHS, FIGURES, LONG, MODULES, MOVIELENS, PROTOCOL, Arm, judged
from dolmen.studies.results import Cell
from dolmen.studies.rules import Above, Within
from dolmen.studies.study import Chart, Claim, Part, Plan, Setting, Shown, Study

__all__ = ["STUDY"]

_COST: Final = "ranking-cost"
_LENGTHS: Final = (1_000, 10_000, 100_000)
_CANDIDATES: Final = 100
_WIDTH: Final = 64
_REPEATS: Final = 5

_RANKED: Final = {
    "short": "the newest 16 behaviours only",
    "averaged": "and the mean of up to 500",
    "attended": "and softmax attention over up to 500, exactly",
    "hashed": "and SDIM over up to 500: 16 hashes of 3 bits",
    "hashed-1-bit": "the same with 1 bit",
    "hashed-10-bits": "the same with 10 bits",
}
_TIMED: Final = {f"{how}-{length}": (how, length) for how in ("attend", "read", "store") for length in _LENGTHS}
_WORDS: Final = {
    "attend": "exact attention of 100 candidates over {} behaviours",
    "read": "100 candidates read their buckets, which {} behaviours were summed into before",
    "store": "hash {} behaviours and sum them into buckets, which is done once and not for a request",
}
_ARMS: Final = {**_RANKED, **{arm: _WORDS[how].format(f"{length:,}") for arm, (how, length) in _TIMED.items()}}
_MODELS: Final[Mapping[str, Mapping[str, Any]]] = {
    "short": {"long_past": "left_out"},
    "averaged": {"long_past": "averaged"},
    "attended": {"long_past": "attended"},
    "hashed": {},
    "hashed-1-bit": {"bits": 1},
    "hashed-10-bits": {"bits": 10},
}


def _run(cell: Cell, setting: Setting) -> Mapping[str, float]:
    if cell.case == _COST:
        return _cost(cell)
    return judged(cell, Arm("sdim", {"hidden": (80, 40), **_MODELS[cell.arm]}), setting)


@torch.no_grad()
def _cost(cell: Cell) -> Mapping[str, float]:
    """How long one road takes, by the thread's own clock: the median of some goes after one to warm up."""
    how, length = _TIMED[cell.arm]
    torch.manual_seed(derive_seed(cell.seed, cell.arm))
    hashing, vectors, candidates = SimHash(_WIDTH, 16, 3), torch.randn(length, _WIDTH), torch.randn(_CANDIDATES, _WIDTH)
    # Every candidate has the same past: as ranking sees it, one after the other so that memory stays small.
    past = Past(vectors, torch.zeros(length, dtype=torch.int64), torch.tensor([0, length]))
    sums, owners = hashing.sums(past), torch.zeros(_CANDIDATES, dtype=torch.int64)

    def once() -> float:
        match how:
            case "attend":
                outcomes = [pooled(past, attend(one, past, 0.5)) for one in torch.split(candidates, 1)]
                return float(torch.cat(outcomes).sum())
            case "read":
                return float(interest_of(hashing.read(sums, owners, candidates)).sum())
            case _:
                return float(hashing.sums(past).sum())

    taken, checksum = [], once()
    for _ in range(_REPEATS):
        started = time.thread_time()
        assert once() == checksum
        taken.append(time.thread_time() - started)
    return {"milliseconds": median(taken) * 1e3}


STUDY: Final = Study(
    name="sdim",
    title="Sampling is all you need",
    paper=(
        'Y. Cao et al., "Sampling Is All You Need on Modeling Long-Term User Behaviors for CTR Prediction", CIKM 2022, '
        "arXiv 2205.10249"
    ),
    module=__name__,
    claims=(
        Claim(
            name="as good as attention",
            statement="A hashed past ranks as well as an attended one: their AUC differs by at most 0.001.",
            paper="Taobao 0.8854 against 0.8848, industrial 0.7044 against 0.7049",
            rule=Within(arm="hashed", figure="auc", minus="attended", low=-0.001, high=0.001, cases=(LONG,)),
        ),
        Claim(
            name="no worse than attention",
            statement="A hashed past ranks at most 0.001 of AUC below an attended one.",
            paper="Taobao 0.8854 against 0.8848, industrial 0.7044 against 0.7049",
            rule=Within(arm="hashed", figure="auc", minus="attended", low=-0.001, cases=(LONG,)),
        ),
        Claim(
            name="a long past helps",
            statement="It ranks better than the newest behaviours alone, and than the mean of the long past.",
            paper="Taobao 0.8854 against 0.8627 and 0.8669",
            rule=Above(arm="hashed", others=("short", "averaged"), figure="auc", cases=(LONG,)),
        ),
        Claim(
            name="three bits",
            statement="3 bits rank at least as well as 1 and 10.",
            paper="flat, best at 3 (a curve)",
            rule=Above(
                arm="hashed",
                others=("hashed-1-bit", "hashed-10-bits"),
                figure="auc",
                margin=-0.0005,
                sure=False,
                cases=(LONG,),
            ),
        ),
        Claim(
            name="cheap",
            statement="At 10,000 behaviours ranking is at least 10 times cheaper than attention.",
            paper="O(B m log d) against O(B L d)",
            rule=Within(arm="attend-10000", figure="milliseconds", over="read-10000", low=10.0, cases=(_COST,)),
        ),
        Claim(
            name="whatever the length",
            statement="Ranking with 100,000 behaviours costs what it costs with 1,000, within a fifth.",
            paper="independent of L",
            rule=Within(arm="read-100000", figure="milliseconds", over="read-1000", low=0.8, high=1.2, cases=(_COST,)),
        ),
    ),
    guards=(
        Claim(
            name="cheap",
            statement="At 10,000 behaviours ranking is far cheaper than attention.",
            paper="",
            rule=Within(arm="attend-10000", figure="milliseconds", over="read-10000", low=5.0, cases=(_COST,)),
        ),
        Claim(
            name="near",
            statement="A hashed past ranks nearly as well as an attended one.",
            paper="",
            rule=Within(arm="hashed", figure="auc", minus="attended", low=-0.02, cases=(LONG,)),
        ),
    ),
    data=(MOVIELENS,),
    protocol=(
        *PROTOCOL[1:],
        "movielens-100k-long is movielens-100k with pasts of up to 500 clicks; each arm's newest 16 go through an "
        "activation unit of 36, and the last layers are 80 and 40 wide.",
        f"ranking-cost: {_CANDIDATES} candidates, vectors of {_WIDTH}, one thread, random vectors.",
    ),
    arms=_ARMS,
    figures={**FIGURES, "milliseconds": "one request's work on the long past, by the thread's own clock"},
    chart=Chart(figure="auc", lines={name: (name,) for name in _RANKED}),
    full=Plan(
        parts=(
            Part(case=_COST, arms=tuple(_TIMED), seed_count=3),
            Part(case=LONG, arms=tuple(_RANKED), seed_count=3),
        ),
        settings={"epochs": EPOCHS, "batch": BATCH},
        minutes=45,
    ),
    quick=Plan(
        parts=(
            Part(case=_COST, arms=("attend-10000", "read-10000"), seed_count=1),
            Part(case=LONG, arms=("attended", "hashed"), seed_count=1),
        ),
        settings={"epochs": dict.fromkeys(EPOCHS, 1), "batch": BATCH, "examples_max": 20_000},
        minutes=0.8,
    ),
    stands_on=(*MODULES, "dolmen.models.layers.hashing", "dolmen.models.ranking.sdim"),
    shows={"sdim": Shown(case=LONG, arm="hashed", figure="gauc")},
    run=_run,
)

"""Whether a model learns what and when: its grid beside that of made-up data whose truth is known.

    python benchmarks/models/what_and_when.py [--draws 6] [--examples 16000] [--passes 4] [--out FILE]

A candidate of category c is clicked with the chance 1 / (1 + exp(2 - 4 y)): y is 1 where one of the newest h_c
behaviours is of c, and else 0; h is 1, 2 and 4, pasts hold 5 behaviours, and categories are items. Four fifths of the
examples are learned and measured, the rest judges. Each draw has a seed of its own, for the data and for the models.
``second draw`` is no model: other data of the same kind, measured alike, which says how far luck lets anything agree.

``same``: rank correlation with the data over behaviours of the candidate's category; ``all``: over all cells. Cells
that luck alone fills share a rank. ``slope``: how strengths of ``same`` change by position, in multiples of the mean
behaviour's.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from dolmen import new_trainer
from dolmen.embedding import AdaGrad
from dolmen.evaluation import auc, mean_of, rank_correlation, temporal_correlation, temporal_strength
from dolmen.features import Batch, Label, Schema, Side, Slot, extract_table
from dolmen.models import scorer, weigher
from dolmen.provenance import command, machine, program
from dolmen.seeds import generator
from dolmen.training import TrainConfig

HORIZONS = np.array([1, 2, 4])
CATEGORIES, POSITIONS = len(HORIZONS), 5
BATCH = 64
MODELS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "tin": ("tin", {}),
    "tin by angle": ("tin", {"temperature": 0.5}),
    "din": ("din", {}),
    "din softmax": ("din", {"weighing": "softmax"}),
}
SCHEMA = Schema(
    Slot("item", dim=33),
    Slot("history", dim=33, table="item", many=True, ordered=True, of=Side.USER),
    Label("click"),
)
Grids = NDArray[np.float64]  # (candidate's category, behaviour's category, position)


def drawn(seed: int, what: str, size: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
    """Candidates (size,), pasts (size, position) and clicks (size,)."""
    random = generator(seed, what)
    items, pasts = random.integers(0, CATEGORIES, size), random.integers(0, CATEGORIES, (size, POSITIONS))
    is_near = POSITIONS - np.arange(POSITIONS) <= HORIZONS[items][:, None]
    is_alike = ((pasts == items[:, None]) & is_near).any(axis=1)
    return items, pasts, random.random(size) < 1 / (1 + np.exp(2 - 4 * is_alike))


def measured(items: NDArray[np.int64], pasts: NDArray[np.int64], clicks: NDArray[np.bool_]) -> Grids:
    offsets = np.arange(len(items) + 1) * POSITIONS
    rows = range(CATEGORIES)
    grids = (
        temporal_correlation(
            pasts.flatten(), offsets, items, clicks, target=one, rows=rows, position_max=POSITIONS
        ).sure_bits
        for one in rows
    )
    return np.stack(list(grids))


def learned(name: str, seed: int, train: Batch, judged: Batch, passes: int) -> tuple[NDArray[np.float64], float]:
    """Strengths of all behaviours that were learned, (behaviour,), and the AUC on the others."""
    model, options = MODELS[name]
    config = TrainConfig(learning_rate=0.002, evaluate_every=0, seed=seed)
    trainer = new_trainer(
        SCHEMA, model, {"hidden": [32], "window": 500, **options}, config, optimizer=AdaGrad(learning_rate=0.1)
    )
    for place in range(passes):
        order = torch.from_numpy(generator(seed, "order", place).permutation(train.size))
        for rows in torch.split(order, BATCH):
            trainer.step(train.take(rows))
    trainer.model.eval()
    with trainer.parameters().computing():
        strengths = weigher(trainer.model).weighed(train).strengths.double().numpy()
        logits = scorer(trainer.model).score(judged).numpy()
    return strengths / strengths.mean(), auc(logits, judged.labels["click"].numpy())


def agreement(data: Grids, model: Grids) -> dict[str, float]:
    own = np.arange(CATEGORIES)
    same = model[own, own]
    return {
        "same": rank_correlation(data[own, own], same),
        "all": rank_correlation(data, model),
        "slope": float(np.polyfit(np.arange(POSITIONS), same.mean(axis=0), 1)[0]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=6)
    parser.add_argument("--examples", type=int, default=16_000)
    parser.add_argument("--passes", type=int, default=4)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    if options.draws < 2:
        parser.error(f"--draws must be at least 2, or there is no spread; got {options.draws}")
    torch.set_num_threads(1)
    runs: dict[str, list[dict[str, float]]] = {}
    for seed in range(options.draws):
        for name, found in of_draw(seed, options.examples, options.passes).items():
            runs.setdefault(name, []).append(found)
            print(
                f"draw {seed}  {name:12} {'  '.join(f'{key} {value:.3f}' for key, value in found.items())}", flush=True
            )
    told = {
        "what": "rank correlation of what models learned of what and when with what made-up data hold",
        "command": command(options),
        "program": program(),
        "machine": machine(),
        "seeds": list(range(options.draws)),
        "means": {name: {figure: summary(name, figure, mine) for figure in mine[0]} for name, mine in runs.items()},
        "runs": runs,
    }
    if options.out is not None:
        options.out.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")


def of_draw(seed: int, size: int, passes: int) -> dict[str, dict[str, float]]:
    """The figures of each model, and of other data of the same kind, by its name."""
    items, pasts, clicks = drawn(seed, "examples", size)
    columns = {"item": items, "history": pa.array(pasts.tolist(), pa.list_(pa.int64()))}
    batch = extract_table(
        SCHEMA, pa.table({**columns, "click": clicks.astype(np.float32), "event_time": np.arange(size)})
    )
    count = size * 4 // 5
    train, judged = batch.take(torch.arange(count)), batch.take(torch.arange(count, size))
    data = measured(items[:count], pasts[:count], clicks[:count])
    other = agreement(data, measured(*drawn(seed, "second draw", count)))
    found = {"second draw": {figure: other[figure] for figure in ("same", "all")}}
    told = pasts[:count].flatten(), np.arange(count + 1) * POSITIONS, items[:count]
    rows = range(CATEGORIES)
    for name in MODELS:
        strengths, judged_auc = learned(name, seed, train, judged, passes)
        grids = [temporal_strength(strengths, *told, target=one, rows=rows, position_max=POSITIONS) for one in rows]
        found[name] = {**agreement(data, np.stack(grids)), "auc": judged_auc}
    return found


def summary(name: str, figure: str, runs: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Mean, its interval, and the least and most of all draws."""
    values = [run[figure] for run in runs]
    told = {**asdict(mean_of(values)), "least": min(values), "most": max(values)}
    print(f"{name:12} {figure:5} {told['value']:.3f} ({told['least']:.3f} to {told['most']:.3f})")
    return told


if __name__ == "__main__":
    main()

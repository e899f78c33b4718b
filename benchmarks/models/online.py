"""Which ranker learns a stream best: progressive AUC of ``joint`` with each, over the same examples in time order.

    python benchmarks/models/online.py [--data NAME] [--rankers deepfm,din,sdim] [--limit N] [--seeds 3] [--out FILE]

Each example is judged before it is learned, in records of 32 as the joiner makes them, with the settings of the demo:
``[model] options = { ranker = "din" }`` is the line that puts a ranker into the loop, or ``dolmen demo --ranker din``.
A seed decides where rows and layers start; the stream is the same for all. Rankers are compared with the first one seed
by seed.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict
from pathlib import Path

import torch

from dolmen import datasets, new_trainer
from dolmen.embedding import AdaGrad
from dolmen.evaluation import compare, mean_of
from dolmen.features import Batch
from dolmen.provenance import command, machine, program
from dolmen.training import TrainConfig

RECORD = 32
RECENT = 0.5  # the share at the end that is told apart: what is served once the start is over


def learned(examples: list[Batch], data: datasets.Dataset, ranker: str, seed: int) -> dict[str, float]:
    trainer = new_trainer(
        data.schema,
        "joint",
        {"ranker": ranker},
        TrainConfig(seed=seed),
        optimizer=AdaGrad(learning_rate=0.1),
    )
    assert trainer.judge is not None, "joint scores"
    started, half, first = time.process_time(), int(len(examples) * RECENT), 0.0
    for place, batch in enumerate(examples):
        if place == half:
            first = trainer.judge.auc
            trainer.judge.restart()
        trainer.step(batch)
    seconds = time.process_time() - started
    count = sum(batch.size for batch in examples)
    return {
        "auc_first_half": first,
        "auc_second_half": trainer.judge.auc,
        "log_loss_second_half": trainer.judge.figures()["log_loss_online"],
        "examples_per_cpu_second": count / seconds,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="movielens-100k")
    parser.add_argument("--rankers", default="deepfm,din,sdim")
    parser.add_argument("--limit", type=int, default=100_000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    if options.seeds < 2:
        parser.error(f"--seeds must be at least 2, or there is no spread; got {options.seeds}")
    torch.set_num_threads(1)
    data = datasets.load(options.data)
    examples = list(data.batches(RECORD))[: options.limit // RECORD]
    names, seeds = options.rankers.split(","), range(options.seeds)
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    for seed in seeds:
        for name in names:  # in turn, so that a machine that slows down slows all
            runs[name].append(learned(examples, data, name, seed))
            figures = "  ".join(f"{key} {value:,.4g}" for key, value in runs[name][-1].items())
            print(f"seed {seed}  {name:16} {figures}", flush=True)
    means = {
        name: {figure: asdict(mean_of([run[figure] for run in mine])) for figure in mine[0]}
        for name, mine in runs.items()
    }
    first, *others = names
    judged = "auc_second_half"
    gains = {
        name: asdict(compare([run[judged] for run in runs[name]], [run[judged] for run in runs[first]]))
        for name in others
    }
    told = {
        "what": "progressive AUC of joint with each ranker, learned one by one in time order",
        "command": command(options),
        "program": program(),
        "machine": machine(),
        "data": options.data,
        "examples": sum(batch.size for batch in examples),
        "record": RECORD,
        "seeds": list(seeds),
        "means": means,
        f"{judged}_above_{first}": gains,
        "runs": runs,
    }
    for name in names:
        mean = means[name][judged]
        print(f"{name:16} {judged} {mean['value']:.4f} (spread {mean['deviation']:.4f})")
    if options.out is not None:
        options.out.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

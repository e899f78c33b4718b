"""Which ranker learns a stream best: progressive AUC of ``joint`` with each, over the same examples in time order.

    python benchmarks/models/online.py [--data movielens-100k] [--rankers deepfm,din,sdim] [--limit N] [--out FILE]

Each example is judged before it is learned, in records of 32 as the joiner makes them, with the settings of the demo:
``[model] options = { ranker = "din" }`` is the line that puts a ranker into the loop, or ``dolmen demo --ranker din``.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import time
from pathlib import Path

import torch

from dolmen import datasets, new_trainer
from dolmen.embedding import AdaGrad
from dolmen.features import Batch
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
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="movielens-100k")
    parser.add_argument("--rankers", default="deepfm,din,sdim")
    parser.add_argument("--limit", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    data = datasets.load(options.data)
    examples = list(data.batches(RECORD))[: options.limit // RECORD]
    result = {
        "what": "progressive AUC of joint with each ranker, learned one by one in time order",
        "data": options.data,
        "examples": sum(batch.size for batch in examples),
        "record": RECORD,
        "seed": options.seed,
        "commit": subprocess.run(
            ["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False
        ).stdout.strip(),
        "machine": {"processor": platform.processor() or platform.machine(), "cores": os.cpu_count()},
        "rankers": {},
    }
    for name in options.rankers.split(","):
        figures = learned(examples, data, name, options.seed)
        result["rankers"][name] = figures
        print(f"{name:16} " + "  ".join(f"{key} {value:,.4g}" for key, value in figures.items()), flush=True)
    if options.out is not None:
        options.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()

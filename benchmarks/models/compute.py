"""Whether ``bfloat16`` or ``torch.compile`` pay in ``fit``: examples a second of one trainer each, in turn (A B A B).

    python benchmarks/models/compute.py [--data movielens-100k] [--models deepfm,din] [--steps 50] [--out FILE]

One thread, batches of 512. ``compiled``: the layers behind the look-up (DeepFM's network; DIN's activation unit and
last layers) through ``torch.compile`` with shapes of any size; ``warm_seconds`` is what the first five steps take.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from statistics import median

import torch

from dolmen import Trainer, datasets, new_trainer
from dolmen.provenance import command, machine, program
from dolmen.training import TrainConfig

BATCH, WARM, REPEATS, SEED = 512, 5, 3, 0
LAYERS = {"deepfm": ("deep",), "din": ("unit", "tower.layers")}


def trainer_of(arm: str, model: str, data: datasets.Dataset) -> Trainer:
    arithmetic = "bfloat16" if arm == "bfloat16" else "float32"
    trainer = new_trainer(data.schema, model, {}, TrainConfig(evaluate_every=0, arithmetic=arithmetic, seed=SEED))
    if arm == "compiled":
        for name in LAYERS[model]:
            trainer.model.get_submodule(name).compile(dynamic=True)
    return trainer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="movielens-100k")
    parser.add_argument("--models", default="deepfm,din")
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    data = datasets.load(options.data)
    batches = list(data.batches(BATCH, "train"))[: WARM + options.steps]
    result = {
        "what": "examples a second of fit, one thread, by arithmetic and with compiled layers",
        "command": command(options),
        "data": options.data,
        "program": program(),
        "machine": machine(),
        "seed": SEED,
        "batch": BATCH,
        "models": {},
    }
    for model in options.models.split(","):
        arms = {arm: trainer_of(arm, model, data) for arm in ("float32", "bfloat16", "compiled")}
        told: dict[str, dict[str, float]] = {}
        rates: dict[str, list[float]] = {arm: [] for arm in arms}
        for arm, trainer in arms.items():
            started = time.perf_counter()
            for batch in batches[:WARM]:
                trainer.step(batch)
            told[arm] = {"warm_seconds": time.perf_counter() - started}
        for _ in range(REPEATS):
            for arm, trainer in arms.items():
                started = time.perf_counter()
                losses = [trainer.step(batch).loss for batch in batches[WARM:]]
                rates[arm].append(len(losses) * BATCH / (time.perf_counter() - started))
                told[arm]["last_loss"] = sum(losses) / len(losses)
        for arm, some in rates.items():
            told[arm] |= {
                "examples_per_second": median(some),
                "spread": max(some) - min(some),
                "beside_float32": median(some) / median(rates["float32"]),
            }
            print(model, arm, "  ".join(f"{key} {value:,.4g}" for key, value in told[arm].items()), flush=True)
        result["models"][model] = told
    if options.out is not None:
        options.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()

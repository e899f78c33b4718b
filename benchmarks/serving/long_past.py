"""What a past costs a ranking pass, by its length: SDIM over sums kept beforehand, SDIM and DIN over the past itself.

    python benchmarks/serving/long_past.py [--lengths 100,1000,10000,100000] [--out FILE]

One person, 100 candidates, vectors of 16, the server's own parts in one process, one thread. Medians; the first two
are timed in turn over all lengths:

- ``kept``: read the person's sums and score the candidates from them;
- ``slate``: a whole answer from kept sums, which also copies the history into the impression that is logged;
- ``whole``: score them over the whole past with the same model, as a server without sums would;
- ``din``: DIN over the whole past. For both each candidate is an example with a copy of the past (up to 10,000
  behaviours; beyond that they need gigabytes);
- ``add``: one more behaviour, from the event to sums that hold it; ``renew``: make the sums anew from the history.

``logit_gap``: the largest difference between ``kept`` and ``whole``, over two candidates. ``checksum``: of the logits.
``seed``: of rows and layers; items are drawn from the length of the past as their seed.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
import torch

from dolmen.clock import ManualClock
from dolmen.embedding import AdaGrad
from dolmen.events import Action, CatalogueChange, EmbeddedLog, Topic, encode
from dolmen.features import Batch, Label, Schema, Slot
from dolmen.models import condenser, scorer
from dolmen.provenance import command, machine, program
from dolmen.serving import ServeSettings
from dolmen.serving.inputs import Inputs
from dolmen.serving.parts import Parts
from dolmen.serving.recommender import Ask
from dolmen.training import TrainConfig, new_trainer

ITEMS, CANDIDATES, DIM, ADDS, SEED = 20_000, 100, 17, 100, 0
WHOLE_LENGTH_MAX = 10_000
SHORT_REPEATS, LONG_REPEATS = 100, 3
NAME = "anna"


def milliseconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return (time.perf_counter() - started) * 1e3


class Person:
    """One person with a past of ``length``, and the roads to the scores of the candidates."""

    def __init__(self, length: int, folder: Path) -> None:
        self.length = length
        schema = Schema(
            Slot("user", dim=DIM),
            Slot("item", dim=DIM),
            Slot("history", dim=DIM, table="item", many=True, ordered=True, of="user"),
            Label("click"),
        )
        settings = ServeSettings(
            schema=schema,
            log_folder=folder / "log",
            snapshot_folder=folder / "snapshots",
            state_folder=folder / "state",
            history_max=length,
            behaviour_sums_age_max="1000d",
            model_from_version=0,
        )
        self.random, self.clock = np.random.default_rng(length), ManualClock(1_700_000_000_000_000)
        self.log = EmbeddedLog(settings.log_folder)
        for start in range(0, ITEMS, 1000):
            self.log.append(Topic.CATALOGUE, [encode(CatalogueChange("item", start + one)) for one in range(1000)])
        self.parts = Parts(settings, self.log, self.clock)
        self.parts.catalogue.tail.catch_up()
        config = TrainConfig(seed=SEED)
        trainers = {name: new_trainer(schema, name, config=config, optimizer=AdaGrad()) for name in ("sdim", "din")}
        items = self.parts.catalogue.items(np.arange(ITEMS)).slot("item").values
        for trainer in trainers.values():
            trainer.embeddings.lookup_or_insert("item", items, 1)
            trainer.model.eval()
        self.parameters = trainers["sdim"].parameters()
        self.parts.replica.parameters = self.parameters
        self.models = {name: scorer(trainer.model) for name, trainer in trainers.items()}
        able = condenser(trainers["sdim"].model)
        assert able is not None
        self.able = able
        self.act(length)
        inputs = Inputs(settings, self.parts.catalogue, self.parts.behaviours)
        self.rows = self.random.integers(ITEMS, size=CANDIDATES)
        people = inputs.people([inputs.person(NAME, {})])
        self.whole = inputs.beside(people, [CANDIDATES], inputs.items([(self.rows, None)]), self.clock.now_us())
        newest = {"history": self.whole.slot("history").last(able.recent_count)}
        self.short = Batch(size=CANDIDATES, slots={**self.whole.slots, **newest})
        self.owners = torch.zeros(CANDIDATES, dtype=torch.int64)

    def act(self, count: int) -> None:
        chosen = self.random.integers(ITEMS, size=count).tolist()
        acts = [Action(None, None, NAME, one, "click", 1.0, self.clock.now_us()) for one in chosen]
        self.parts.behaviours.prepare(acts)()

    def sums(self) -> torch.Tensor:
        return self.parts.sums.of(self.parameters, [NAME])

    def kept(self) -> torch.Tensor:
        return self.able.score_condensed(self.short, self.sums(), self.owners)

    def slate(self) -> object:
        return self.parts.recommender.answer([Ask(NAME, items=self.rows.tolist())])

    def added(self) -> float:
        self.act(1)
        return milliseconds(self.sums)

    def renewed(self) -> float:
        self.parts.sums._people.clear()
        return milliseconds(self.sums)


def measured(people: list[Person]) -> list[dict[str, float]]:
    taken: list[dict[str, list[float]]] = [{} for _ in people]
    figures: list[dict[str, float]] = []
    for one in people:
        first, truth = one.kept(), one.models["sdim"].score(one.whole.take(torch.arange(2)))
        figures.append({"logit_gap": float((first[:2] - truth).abs().max()), "checksum": float(first.sum())})
    for _ in range(SHORT_REPEATS):
        for one, times in zip(people, taken, strict=True):
            times.setdefault("kept", []).append(milliseconds(one.kept))
            times.setdefault("slate", []).append(milliseconds(one.slate))
    for one, times, found in zip(people, taken, figures, strict=True):
        assert float(one.kept().sum()) == found["checksum"]
        times["add"] = [one.added() for _ in range(SHORT_REPEATS)]
        times["renew"] = [one.renewed() for _ in range(LONG_REPEATS)]
        if one.length <= WHOLE_LENGTH_MAX:
            for name, able in one.models.items():
                road = "whole" if name == "sdim" else name
                times[road] = [
                    milliseconds(lambda able=able, one=one: able.score(one.whole)) for _ in range(LONG_REPEATS)
                ]
    return [
        {
            "length": one.length,
            **{f"{name}_ms": median(some) for name, some in times.items()},
            **{f"{name}_ms_p90": float(np.percentile(some, 90)) for name, some in times.items()},
            "sums_bytes": 4 * int(np.prod(one.able.condensed_shape or ())),
            **found,
        }
        for one, times, found in zip(people, taken, figures, strict=True)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", default="100,1000,10000,100000")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        people = [Person(length, Path(folder) / str(length)) for length in map(int, options.lengths.split(","))]
        results = measured(people)
        for one in people:
            one.parts.state.close()
            one.log.close()
    for one in results:
        print("  ".join(f"{key} {value:,.4g}" for key, value in one.items() if "p90" not in key), flush=True)
    result = {
        "what": "a ranking pass over 100 candidates, by the length of the past; one thread",
        "command": command(options),
        "program": program(),
        "machine": machine(),
        "data": "random items",
        "seed": SEED,
        "candidates": CANDIDATES,
        "width": DIM - 1,
        "lengths": results,
    }
    if options.out is not None:
        options.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()

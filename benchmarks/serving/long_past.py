"""What a past costs a ranking pass, by its length: SDIM over sums kept beforehand, SDIM and DIN over the past itself.

    python benchmarks/serving/long_past.py [--lengths 100,1000,10000,100000] [--out FILE]

One person, 100 candidates, vectors of 16, the server's own parts in one process, one thread. Medians of each road by
itself, as a server goes on one road only:

- ``kept``: read the person's sums and score the candidates from them;
- ``whole``: score them over the whole past with the same model, as a server without sums would;
- ``din``: DIN over the whole past (both up to 10,000 behaviours; beyond that they need gigabytes);
- ``add``: one more behaviour, from the event to sums that hold it; ``renew``: make the sums anew from the history;
- ``slate``: a whole answer from kept sums, which also copies the history into the impression that is logged.

``logit_gap``: the largest difference between ``kept`` and ``whole``, over two candidates. ``checksum``: of the logits.
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
from dolmen.features import Label, Schema, Slot
from dolmen.models import condenser, scorer
from dolmen.provenance import machine, program
from dolmen.serving import ServeSettings
from dolmen.serving.inputs import Inputs
from dolmen.serving.parts import Parts
from dolmen.serving.recommender import Ask
from dolmen.training import new_trainer

ITEMS, CANDIDATES, DIM, ADDS = 20_000, 100, 17, 100
WHOLE_LENGTH_MAX = 10_000
REPEATS = {"kept": 200, "slate": 200, "whole": 3, "din": 3}
PERSON = "anna"


def milliseconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return (time.perf_counter() - started) * 1e3


def measured(length: int, folder: Path) -> dict[str, float]:
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
    )
    random, clock = np.random.default_rng(length), ManualClock(1_700_000_000_000_000)
    log = EmbeddedLog(settings.log_folder)
    for start in range(0, ITEMS, 1000):
        log.append(Topic.CATALOGUE, [encode(CatalogueChange("item", start + one)) for one in range(1000)])
    parts = Parts(settings, log, clock)
    parts.catalogue.tail.catch_up()

    trainers = {name: new_trainer(schema, name, optimizer=AdaGrad()) for name in ("sdim", "din")}
    items = torch.from_numpy(parts.catalogue.items(np.arange(ITEMS)).slot("item").values.numpy())
    for trainer in trainers.values():
        trainer.embeddings.lookup_or_insert("item", items, 1)
        trainer.model.eval()
    parameters = trainers["sdim"].parameters()
    sdim, din = scorer(trainers["sdim"].model), scorer(trainers["din"].model)
    able = condenser(trainers["sdim"].model)
    assert able is not None
    parts.replica.parameters = parameters

    def act(count: int) -> None:
        chosen = random.integers(ITEMS, size=count).tolist()
        parts.behaviours.take([Action(None, None, PERSON, one, "click", 1.0, clock.now_us()) for one in chosen])

    act(length)
    renew = [milliseconds(lambda: parts.sums.of(parameters, [PERSON]))]
    inputs = Inputs(settings, parts.catalogue, parts.behaviours)
    rows = random.integers(ITEMS, size=CANDIDATES)
    candidates = inputs.items([(rows, None)])
    owners = torch.zeros(CANDIDATES, dtype=torch.int64)
    person = inputs.person(PERSON, {})
    whole_batch = inputs.beside([person], [CANDIDATES], candidates, clock.now_us())
    newest = {name: column.last(able.recent_count) for name, column in whole_batch.slots.items() if name == "history"}
    short_batch = type(whole_batch)(size=CANDIDATES, slots={**whole_batch.slots, **newest})

    def kept() -> torch.Tensor:
        return able.score_condensed(short_batch, parts.sums.of(parameters, [PERSON]), owners)

    roads: dict[str, Callable[[], object]] = {
        "kept": kept,
        "slate": lambda: parts.recommender.answer([Ask(PERSON, items=rows.tolist())]),
    }
    if length <= WHOLE_LENGTH_MAX:
        roads |= {"whole": lambda: sdim.score(whole_batch), "din": lambda: din.score(whole_batch)}
    with torch.inference_mode():
        first, truth = kept(), sdim.score(whole_batch.take(torch.arange(2)))
        taken: dict[str, list[float]] = {}
        for name, road in roads.items():
            road()
            taken[name] = [milliseconds(road) for _ in range(REPEATS[name])]
        assert torch.equal(first, kept())
        adds = []
        for _ in range(ADDS):
            act(1)
            adds.append(milliseconds(lambda: parts.sums.of(parameters, [PERSON])))
    for _ in range(2):
        parts.sums._people.clear()
        renew.append(milliseconds(lambda: parts.sums.of(parameters, [PERSON])))
    taken |= {"renew": renew, "add": adds}
    parts.state.close()
    log.close()
    return {
        "length": length,
        **{f"{name}_ms": median(some) for name, some in taken.items()},
        **{f"{name}_ms_p90": float(np.percentile(some, 90)) for name, some in taken.items()},
        "sums_bytes": 4 * int(np.prod(able.condensed_shape or ())),
        "logit_gap": float((first[:2] - truth).abs().max()),
        "checksum": float(first.sum()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", default="100,1000,10000,100000")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    results = []
    for length in map(int, options.lengths.split(",")):
        with tempfile.TemporaryDirectory() as folder:
            results.append(measured(length, Path(folder)))
        print("  ".join(f"{key} {value:,.4g}" for key, value in results[-1].items() if "p90" not in key), flush=True)
    result = {
        "what": "a ranking pass over 100 candidates, by the length of the past; one thread",
        "command": "python benchmarks/serving/long_past.py",
        "program": program(),
        "machine": machine(),
        "candidates": CANDIDATES,
        "width": DIM - 1,
        "lengths": results,
    }
    if options.out is not None:
        options.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()

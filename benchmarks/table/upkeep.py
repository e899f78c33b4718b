"""How long a batch waits for expiry and eviction: `python benchmarks/table/upkeep.py [--rows N] [--out FILE]`.

A table of that many rows learns batches of Zipf ids among which a stated number is new, so that each batch brings that
many rows too many. After each, a turn of upkeep (`Table.maintain`). In the expiry run all rows of the first fill pass
their time at once, so that the sweep meets nothing but rows to remove; in the one that lowers a capacity, a quarter of
the rows is too many at once. Printed: the longest turn, in the processor's time and on the wall (which other programs
disturb), beside the step's median.
"""

import argparse
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from report import add_out, begin_report, write_report

from dolmen.embedding import AdaGrad, Capacity, RowRules, Table
from dolmen.features import Eviction
from dolmen.features.fids import pack_fids

DIM, BATCH, SEED = 16, 8192, 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--batches", type=int, default=300)
    parser.add_argument("--new", type=int, nargs="+", default=[512, 4096], help="ids of a batch that are new")
    add_out(parser)
    options = parser.parse_args()
    report = begin_report(options, seed=SEED, rows=options.rows, dim=DIM, batch=BATCH, runs=[])
    for new in options.new:
        for eviction in Eviction:
            half_life_us = options.batches // 4 if eviction is Eviction.SCORE else 0
            rules = RowRules(capacity=options.rows, eviction=eviction, half_life_us=half_life_us)
            report["runs"].append(measure(f"evict {eviction}", rules, options.rows, options.batches, new))
        rules = RowRules(capacity=options.rows)
        report["runs"].append(
            measure(
                "evict lru, 7 of 8 rows another slot's",
                rules,
                options.rows,
                options.batches,
                new,
                between=7 * options.rows,
            )
        )
        bound = Capacity(options.rows)
        report["runs"].append(measure("evict of table", RowRules(), options.rows, options.batches, new, bound))
    rules = RowRules(expire_after_us=options.batches // 2)
    report["runs"].append(measure("expire all at once", rules, options.rows, options.batches, 512))
    lowered = Capacity(options.rows * 3 // 4)
    report["runs"].append(measure("lower a capacity", RowRules(), options.rows, options.batches, 512, lowered))
    write_report(report, options.out)


def measure(
    name: str,
    rules: RowRules,
    rows: int,
    batches: int,
    new: int,
    capacity: Capacity | None = None,
    between: int = 0,
) -> dict[str, Any]:
    rng = np.random.default_rng(SEED)
    table = Table(DIM, optimizer=AdaGrad(), seed=SEED, rules={0: rules})
    middle = pack_fids(1, np.arange(between))  # One cluster of another slot's rows in the midst of this one's.
    filled = np.concatenate([np.arange(rows // 2), middle, np.arange(rows // 2, rows)])
    for begin in range(0, len(filled), BATCH):
        table.lookup_or_insert(filled[begin : begin + BATCH], 0)
        table.maintain()
    table.capacity = capacity
    gradients = rng.normal(size=(BATCH, DIM)).astype(np.float32)
    steps, turns, walls, gone = [], [], [], 0
    for number in range(1, batches + 1):
        old = rng.zipf(1.05, size=BATCH - new) % rows
        fids = np.concatenate([old, np.arange(new) + rows + number * new])
        steps.append(seconds(lambda fids=fids, now=number: learn(table, fids, gradients, now)))
        if rules.expire_after_us and number == rules.expire_after_us:
            table.begin_expiry(number)
        done = []
        begun = time.perf_counter()
        turns.append(seconds(lambda done=done: done.append(table.maintain())))
        walls.append(time.perf_counter() - begun)
        gone += done[0].expired + done[0].evicted
        if number % 20 == 0:
            table.forget_epochs(table.advance_epoch())
    run = {
        "name": name,
        "new_ids": new,
        "left": gone,
        "rows_at_end": len(table),
        "step_ms_median": 1e3 * float(np.median(steps)),
        "turn_ms_median": 1e3 * float(np.median(turns)),
        "turn_ms_p99": 1e3 * float(np.quantile(turns, 0.99)),
        "turn_ms_max": 1e3 * max(turns),
        "turn_wall_ms_median": 1e3 * float(np.median(walls)),
        "turn_wall_ms_max": 1e3 * max(walls),
        "lookup_checksum": float(table.lookup(np.arange(1000)).sum()),
    }
    print(
        f"  {name:38}{new:>6} new{gone:>10,} left; step {run['step_ms_median']:6.2f} ms, turn median "
        f"{run['turn_ms_median']:5.2f}, p99 {run['turn_ms_p99']:5.2f}, longest {run['turn_ms_max']:5.2f} ms; "
        f"on the wall {run['turn_wall_ms_median']:5.2f}, longest {run['turn_wall_ms_max']:5.2f} ms"
    )
    return run


def learn(table: Table, fids: Any, gradients: Any, now_us: int) -> None:
    table.lookup_or_insert(fids, now_us)
    table.apply_gradients(fids, gradients)


def seconds(work: Callable[[], object]) -> float:
    begun = time.thread_time()
    work()
    return time.thread_time() - begun


if __name__ == "__main__":
    sys.exit(main())

"""What a second thread gains when it shares a batch: `python benchmarks/table/threads.py [--out FILE]`.

One table of a million rows with AdaGrad; look-ups, look-ups that may insert, and steps of 65,536 ids, by one thread and
by two in turns, on the wall. Both give the same bits. Printed: the gain of each pair of turns, its median and spread.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
from report import add_out, begin_report, write_report

from dolmen.embedding import AdaGrad, Table

BATCH, ROWS, SEED = 65_536, 1_000_000, 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dims", type=int, nargs="+", default=[16, 64])
    parser.add_argument("--repeats", type=int, default=15)
    add_out(parser)
    options = parser.parse_args()
    report = begin_report(seed=SEED, rows=ROWS, batch=BATCH, repeats=options.repeats, runs=[])
    rng = np.random.default_rng(SEED)
    for dim in options.dims:
        table = Table(dim, optimizer=AdaGrad(), seed=SEED)
        for begin in range(0, ROWS, BATCH):
            table.lookup_or_insert(np.arange(begin, min(begin + BATCH, ROWS)), now_us=1)
        fids = rng.integers(0, ROWS, BATCH)
        out = np.empty((BATCH, dim), dtype=np.float32)
        gradients = np.full((BATCH, dim), 1e-4, dtype=np.float32)
        calls: dict[str, Callable[[], object]] = {
            "look-up": lambda table=table, fids=fids, out=out: table.lookup(fids, out),
            "look-up or insert": lambda table=table, fids=fids: table.lookup_or_insert(fids, 2),
            "update": lambda table=table, fids=fids, gradients=gradients: table.apply_gradients(fids, gradients),
        }
        for name, call in calls.items():
            milliseconds: dict[int, list[float]] = {1: [], 2: []}
            for repeat in range(options.repeats + 1):  # The first warms up.
                for count, taken in milliseconds.items():
                    table.threads = count
                    begun = time.perf_counter()
                    for _ in range(4):
                        call()
                    if repeat > 0:
                        taken.append(round(250 * (time.perf_counter() - begun), 4))
            gains = [one / two for one, two in zip(milliseconds[1], milliseconds[2], strict=True)]
            run = {"dim": dim, "call": name, "one_ms": milliseconds[1], "two_ms": milliseconds[2]}
            run["gain"] = statistics.median(gains)
            report["runs"].append(run)
            print(
                f"  dim {dim:>3} {name:18}{statistics.median(milliseconds[1]):7.2f} ms by one thread, "
                f"{statistics.median(milliseconds[2]):7.2f} by two: {run['gain']:.2f} times as fast "
                f"({min(gains):.2f} to {max(gains):.2f})"
            )
    write_report(report, options.out)


if __name__ == "__main__":
    main()

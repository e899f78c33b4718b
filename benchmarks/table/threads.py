"""What a second thread gains when it shares a batch: `python benchmarks/table/threads.py [--out FILE]`.

One table of a million rows with AdaGrad; look-ups, look-ups that may insert, and steps of 65,536 ids, by one thread and
by two in turns, on the wall. Both give the same bits. Printed: the gain of each pair of turns, its median and spread.

Then the same beside the bound's loop (`table_speed.cpp`), whose threads share each batch as the table's do: look-ups
and steps of uniform and Zipf ids, as a share of the bound with as many threads.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from report import add_out, begin_report, write_report
from run import build, measure

from dolmen.embedding import AdaGrad, Table

BATCH, ROWS, SEED = 65_536, 1_000_000, 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dims", type=int, nargs="+", default=[16, 64])
    parser.add_argument("--repeats", type=int, default=15)
    add_out(parser)
    options = parser.parse_args()
    report = begin_report(options, seed=SEED, rows=ROWS, batch=BATCH, repeats=options.repeats)
    report["runs"] = gains(options.dims, options.repeats)
    report["beside_bound"] = shares_of_bound(options.dims, options.repeats)
    write_report(report, options.out)


def gains(dims: list[int], repeats: int) -> list[dict[str, Any]]:
    """The table's public calls by one thread and by two, in milliseconds."""
    runs: list[dict[str, Any]] = []
    rng = np.random.default_rng(SEED)
    for dim in dims:
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
            for repeat in range(repeats + 1):  # The first warms up.
                for count, taken in milliseconds.items():
                    table.threads = count
                    begun = time.perf_counter()
                    for _ in range(4):
                        call()
                    if repeat > 0:
                        taken.append(round(250 * (time.perf_counter() - begun), 4))
            each = [one / two for one, two in zip(milliseconds[1], milliseconds[2], strict=True)]
            run = {"dim": dim, "call": name, "one_ms": milliseconds[1], "two_ms": milliseconds[2]}
            run["gain"] = statistics.median(each)
            runs.append(run)
            print(
                f"  dim {dim:>3} {name:18}{statistics.median(milliseconds[1]):7.2f} ms by one thread, "
                f"{statistics.median(milliseconds[2]):7.2f} by two: {run['gain']:.2f} times as fast "
                f"({min(each):.2f} to {max(each):.2f})"
            )
    return runs


def shares_of_bound(dims: list[int], repeats: int) -> list[dict[str, Any]]:
    """Keys a second of the bound's loop and of the table, by one thread and by two that share each batch."""
    runs: list[dict[str, Any]] = []
    with TemporaryDirectory() as folder:
        program = build(Path(folder))
        for dim in dims:
            for run in measure(program, "threads", ROWS, dim, BATCH, repeats):
                runs.append(run)
                rates = {name: statistics.median(values) / 1e6 for name, values in run["keys_per_second"].items()}
                for kind in ("lookup", "update"):
                    ours, bound = rates[f"table_{kind}"], rates[f"bound_{kind}"]
                    print(
                        f"  dim {dim:>3} {run['ids']:8}{kind:7}{run['threads']} thread(s): "
                        f"{ours:6.1f} M/s, bound {bound:6.1f}: {ours / bound:.2f} of it"
                    )
    return runs


if __name__ == "__main__":
    main()

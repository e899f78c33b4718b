"""Saving and loading a table beside `cp` of the same bytes: `python benchmarks/table/files.py [--rows N] [--out FILE]`.

Save, load and cp take turns; each is told in GB/s of the files' bytes. `cp` alone leaves its copy in the page cache, as
our save does not, so `cp` followed by `sync` is the fair bound of a save; a load reads from the page cache, as `cp`.
Then a writer learns in batches, first alone, then while saves go on beside it: its longest call is the pause.
"""

import argparse
import shutil
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from report import add_out, begin_report, write_report

from dolmen.embedding import AdaGrad, Table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--dim", type=int, default=32)
    parser.add_argument("--batch", type=int, default=4096)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--writer-seconds", type=float, default=5.0)
    parser.add_argument("--folder", type=Path, help="where to write (default: the system's temporary folder)")
    add_out(parser)
    options = parser.parse_args()
    table = Table(options.dim, optimizer=AdaGrad(learning_rate=0.05), seed=1)
    for begin in range(0, options.rows, 65_536):
        table.lookup_or_insert(np.arange(begin, min(begin + 65_536, options.rows)) * 7, now_us=1)
    report = begin_report(options, seed=1, rows=options.rows, dim=options.dim, optimizer="adagrad", batch=options.batch)
    with TemporaryDirectory(dir=options.folder) as folder:
        report |= speeds(table, Path(folder), options.repeats)
        report["longest_call_ms"] = pauses(table, Path(folder), options.batch, options.writer_seconds)
    show(report)
    write_report(report, options.out)


def speeds(table: Table, folder: Path, repeats: int) -> dict[str, Any]:
    """GB/s of each, every repeat."""
    saved, copied = folder / "saved", folder / "copied"
    seconds: dict[str, list[float]] = {"save": [], "cp": [], "cp and sync": [], "load": []}

    def sync_after_cp() -> None:
        subprocess.run(["cp", "-r", saved, copied], check=True)
        subprocess.run(["sync", *copied.iterdir()], check=True)

    for _ in range(repeats):
        shutil.rmtree(saved, ignore_errors=True)
        seconds["save"].append(timed(lambda: table.save(saved)))
        seconds["cp"].append(timed(lambda: subprocess.run(["cp", "-r", saved, copied], check=True)))
        shutil.rmtree(copied)
        seconds["cp and sync"].append(timed(sync_after_cp))
        shutil.rmtree(copied)
        seconds["load"].append(timed(lambda: Table.load(saved)))
    size = sum(path.stat().st_size for path in saved.iterdir())
    assert len(Table.load(saved)) == len(table)
    rates = {name: [round(size / one / 1e9, 3) for one in each] for name, each in seconds.items()}
    return {"bytes": size, "files": len(list(saved.iterdir())), "gigabytes_per_second": rates}


def pauses(table: Table, folder: Path, batch: int, seconds: float) -> dict[str, Any]:
    """How long one call of a writer takes at most, alone and beside saves; and the 99.9th percentile."""
    random = np.random.default_rng(1)
    ids = [random.integers(0, len(table), batch) * 7 for _ in range(64)]
    grads = np.full((batch, table.dim), 0.01, dtype=np.float32)

    def learn(stop: Callable[[], bool]) -> list[float]:
        took, number = [], 0
        while not stop():
            number += 1
            start = time.perf_counter()
            table.lookup_or_insert(ids[number % 64], now_us=number)
            middle = time.perf_counter()
            table.apply_gradients(ids[number % 64], grads)
            took += [middle - start, time.perf_counter() - middle]
        return took

    end = time.perf_counter() + seconds
    alone = learn(lambda: time.perf_counter() > end)
    count, instants = 0, []
    is_over = threading.Event()

    def save() -> None:
        nonlocal count
        end = time.perf_counter() + seconds
        while time.perf_counter() < end or count == 0:
            table.save(folder / f"beside-{count}")
            shutil.rmtree(folder / f"beside-{count}")
            count += 1
        is_over.set()

    saver = threading.Thread(target=save)
    saver.start()
    beside = learn(is_over.is_set)
    saver.join()
    for _ in range(20):  # What the instant itself costs whoever takes it, with nobody beside it.
        start = time.perf_counter()
        instant = table.instant()
        instants.append(time.perf_counter() - start)
        instant.close()
    return {
        "alone": told(alone),
        "beside saves": told(beside) | {"saves": count},
        "taking an instant": {"max": round(max(instants) * 1e3, 3), "p50": round(statistics.median(instants) * 1e3, 3)},
    }


def told(took: list[float]) -> dict[str, Any]:
    return {
        "calls": len(took),
        "p50": round(float(np.quantile(took, 0.5)) * 1e3, 3),
        "p999": round(float(np.quantile(took, 0.999)) * 1e3, 3),
        "max": round(max(took) * 1e3, 3),
    }


def timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def show(report: dict[str, Any]) -> None:
    print(f"{report['machine']}, commit {report['commit']}: {report['rows']:,} rows, {report['bytes'] / 1e6:.0f} MB")
    medians = {name: statistics.median(rates) for name, rates in report["gigabytes_per_second"].items()}
    bounds = {"save": "cp and sync", "load": "cp"}
    for name, rates in report["gigabytes_per_second"].items():
        ratio = f"   {medians[name] / medians[bounds[name]]:5.2f} of {bounds[name]}" if name in bounds else ""
        print(f"  {name:14}{medians[name]:6.2f} GB/s  ({min(rates):.2f} to {max(rates):.2f}){ratio}")
    for name, one in report["longest_call_ms"].items():
        print(f"  writer {name:18}" + "   ".join(f"{key} {value}" for key, value in one.items()) + "   (ms)")


if __name__ == "__main__":
    sys.exit(main())

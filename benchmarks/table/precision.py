"""What narrow vectors save and cost: `python benchmarks/table/precision.py [--rows N] [--out FILE]`.

A serving table of normal values is filled in each precision. Printed: bytes a row (of the vector, and of all that the
table holds), the error of a value as a share of the root mean square of its row (mean, and the largest), of inner
products between rows, and look-ups of uniform ids per second, the precisions by turns, beside float32.
"""

import argparse
import statistics
import sys
import time
from typing import Any

import numpy as np
from report import add_out, begin_report, write_report

from dolmen.embedding import SGD, Precision, Table

SEED = 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--dims", type=int, nargs="+", default=[16, 64])
    parser.add_argument("--batch", type=int, default=8192)
    parser.add_argument("--repeats", type=int, default=15)
    add_out(parser)
    options = parser.parse_args()
    report = begin_report(options, seed=SEED, rows=options.rows, batch=options.batch, runs=[])
    for dim in options.dims:
        report["runs"] += measure(options.rows, dim, options.batch, options.repeats)
    write_report(report, options.out)


def measure(rows: int, dim: int, batch: int, repeats: int) -> list[dict[str, Any]]:
    rng = np.random.default_rng(SEED)
    vectors = rng.normal(scale=0.1, size=(rows, dim)).astype(np.float32)
    fids = np.arange(rows)
    tables = {one: Table(dim, optimizer=SGD(), precision=one) for one in Precision}
    for table in tables.values():
        table.assign(fids, vectors)
    batches = [rng.integers(0, rows, batch) for _ in range(100)]
    out = np.empty((batch, dim), dtype=np.float32)
    rates: dict[Precision, list[float]] = {one: [] for one in Precision}
    for _ in range(repeats):
        for one, table in tables.items():
            begun = time.perf_counter()
            for ids in batches:
                table.lookup(ids, out)
            rates[one].append(len(batches) * batch / (time.perf_counter() - begun))
    runs = []
    exact = statistics.median(rates[Precision.FLOAT32])
    size = np.sqrt((vectors**2).mean(axis=1, keepdims=True))
    products = (vectors[:-1] * vectors[1:]).sum(axis=1)
    lengths = np.linalg.norm(vectors, axis=1)
    for one, table in tables.items():
        found = table.lookup(fids)
        off = np.abs(found - vectors) / size
        off_products = np.abs((found[:-1] * found[1:]).sum(axis=1) - products) / (lengths[:-1] * lengths[1:])
        memory = table.memory()
        runs.append(
            {
                "dim": dim,
                "precision": str(one),
                "vector_bytes": vector_bytes(one, dim),
                "bytes_per_row": memory.total_bytes / rows,
                "error_mean": float(off.mean()),
                "error_max": float(off.max()),
                "product_error_mean": float(off_products.mean()),
                "product_error_max": float(off_products.max()),
                "lookups_per_second": rates[one],
                "speed_beside_float32": statistics.median(rates[one]) / exact,
                "checksum": float(found.sum(dtype=np.float64)),
            }
        )
        show(runs[-1])
    return runs


def show(run: dict[str, Any]) -> None:
    speeds = run["lookups_per_second"]
    print(
        f"  dim {run['dim']:>3} {run['precision']:9}{run['vector_bytes']:>5} B a vector"
        f"{run['bytes_per_row']:>7.1f} B a row, error mean {run['error_mean']:.1e} max {run['error_max']:.1e}, "
        f"of products {run['product_error_mean']:.1e} {run['product_error_max']:.1e}; "
        f"{statistics.median(speeds) / 1e6:6.1f} M look-ups/s ({min(speeds) / 1e6:.1f} to {max(speeds) / 1e6:.1f}), "
        f"{run['speed_beside_float32']:.2f} of float32"
    )


def vector_bytes(precision: Precision, dim: int) -> int:
    """In whole words of four bytes."""
    words = {
        Precision.FLOAT32: dim,
        Precision.FLOAT16: -(-dim // 2),
        Precision.BFLOAT16: -(-dim // 2),
        Precision.INT8: 1 - (-dim // 4),
    }
    return 4 * words[precision]


if __name__ == "__main__":
    sys.exit(main())

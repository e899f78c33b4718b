"""Graph against exact search: how fast, how right, and what updates do to both.

    python benchmarks/serving/index.py [--sizes 1000,10000,100000] [--dim 32] [--k 100] [--repeats 5]

Vectors of length 1 around 50 centres, as towers make them. Exact and graph search answer the same queries in turn
(A B A B); then every vector is replaced twice, in random order, and recall is measured again.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import time
from pathlib import Path
from statistics import median

import numpy as np
import usearch

from dolmen.indexes import ExactIndex, GraphIndex, Index


def vectors_of(generator: np.random.Generator, count: int, dim: int) -> np.ndarray:
    centres = np.random.default_rng(0).standard_normal((50, dim))
    rows = centres[generator.integers(50, size=count)] + generator.standard_normal((count, dim)) * 0.7
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def searched_us(index: Index, queries: np.ndarray, k: int) -> float:
    started = time.perf_counter()
    for query in queries:
        index.search(query[None], k)
    return (time.perf_counter() - started) / len(queries) * 1e6


def recall_of(graph: GraphIndex, exact: ExactIndex, queries: np.ndarray, k: int) -> float:
    ours, truth = graph.search(queries, k)[0], exact.search(queries, k)[0]
    return float(np.mean([len(np.intersect1d(a, b)) / k for a, b in zip(ours, truth, strict=True)]))


def measure(size: int, dim: int, k: int, repeats: int) -> dict[str, float]:
    generator = np.random.default_rng(1)
    graph, exact = GraphIndex(dim), ExactIndex(dim)
    rows, queries = vectors_of(generator, size, dim), vectors_of(generator, 100, dim)
    started = time.perf_counter()
    graph.upsert(np.arange(size), rows)
    built_us = (time.perf_counter() - started) / size * 1e6
    exact.upsert(np.arange(size), rows)
    graph_us, exact_us = [], []
    for _ in range(repeats):
        exact_us.append(searched_us(exact, queries, k))
        graph_us.append(searched_us(graph, queries, k))
    fresh = recall_of(graph, exact, queries, k)
    for _ in range(2):
        order = generator.permutation(size)
        for ids in np.array_split(order, max(1, size // 1000)):
            moved = vectors_of(generator, len(ids), dim)
            graph.upsert(ids, moved)
            exact.upsert(ids, moved)
    worn = recall_of(graph, exact, queries, k)
    graph.rebuild()
    return {
        "size": size,
        "exact_us": median(exact_us),
        "exact_us_spread": max(exact_us) - min(exact_us),
        "graph_us": median(graph_us),
        "graph_us_spread": max(graph_us) - min(graph_us),
        "link_us": built_us,
        "recall": fresh,
        "recall_after_replacing_all_twice": worn,
        "recall_rebuilt": recall_of(graph, exact, queries, k),
        "checksum": float(np.abs(graph.search(queries, k)[1]).sum()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="1000,10000,100000")
    parser.add_argument("--dim", type=int, default=32)
    parser.add_argument("--k", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path, help="also write the results here")
    chosen = parser.parse_args()
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    results = {
        "machine": {"system": platform.platform(), "cores": os.cpu_count(), "load": os.getloadavg()[0]},
        "commit": commit.stdout.strip(),
        "usearch": usearch.__version__,
        "dim": chosen.dim,
        "k": chosen.k,
        "rows": [measure(int(size), chosen.dim, chosen.k, chosen.repeats) for size in chosen.sizes.split(",")],
    }
    print(json.dumps(results, indent=1))
    print(f"\n{'size':>8} {'exact':>10} {'graph':>10} {'link':>8} {'recall':>7} {'worn':>7} {'rebuilt':>7}")
    for row in results["rows"]:
        print(
            f"{row['size']:>8} {row['exact_us']:>7.0f} us {row['graph_us']:>7.0f} us {row['link_us']:>5.0f} us"
            f" {row['recall']:>7.3f} {row['recall_after_replacing_all_twice']:>7.3f} {row['recall_rebuilt']:>7.3f}"
        )
    if chosen.json is not None:
        chosen.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()

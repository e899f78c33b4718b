"""The table's speed beside the physical bound: `python benchmarks/table/run.py [--out FOLDER]`.

Builds `table_speed.cpp` with the core's sources, then measures three things and writes `table.json`, `table.md`'s table
to the screen, and the figure `table.svg`:

- speed: keys per second of processor time, as a share of the bound (one random index line, then the row);
- growth: the longest call while a table grows from empty, and the memory of a row;
- the large table: 100 million rows of dim 8 with row-wise AdaGrad.

`--only` picks among them; a part that is left out keeps what the file held, with the commit that measured it. `--only`
alone measures nothing, and shows the tables of what the file holds.
"""

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import matplotlib
from matplotlib.figure import Figure
from report import ROOT, source

CORE = ROOT / "src/dolmen/_core"
BOUNDS = {"table_lookup": "bound_lookup", "gather": "bound_lookup", "table_update": "bound_update"}
TARGETS = {"table_lookup": 0.8, "table_update": 0.7}
LADDERS = {  # from the bound to the table: each does all that the one before it does, and something more
    "look-up": {
        "bound_lookup": "the bound",
        "lookup_spread": "rows with their states between them",
        "lookup_keyed": "the line's five FIDs compared",
        "lookup_hashed": "the FID hashed",
        "table_lookup": "the table",
    },
    "update": {
        "bound_update": "the bound",
        "update_adagrad": "AdaGrad's square root and division",
        "update_stamped": "the line's FIDs compared, its stamp written",
        "table_update": "the table",
    },
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000_000, 20_000_000])
    parser.add_argument("--dims", type=int, nargs="+", default=[8, 16, 32, 64, 128])
    parser.add_argument("--batch", type=int, default=65_536)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--memory-gib", type=float, default=20.0, help="skip what would need more")
    parser.add_argument("--only", nargs="*", choices=["speed", "growth", "large"], default=["speed", "growth", "large"])
    parser.add_argument("--out", type=Path, default=ROOT / "docs/results", help="folder of table.json and table.svg")
    parser.add_argument("--program", type=Path, help="a table_speed that was built before, from these sources")
    options = parser.parse_args()

    options.out.mkdir(parents=True, exist_ok=True)
    target = options.out / "table.json"
    report: dict[str, Any] = json.loads(target.read_text()) if target.exists() else {}
    made_by = {**source(options, program="PROGRAM"), "seed": 1}
    print(f"{made_by['machine']}, commit {made_by['commit']}, seed 1, {options.repeats} repeats")
    with TemporaryDirectory() as folder:
        program = options.program or (build(Path(folder)) if options.only else Path())
        if "speed" in options.only:
            old = report.get("speed", {}).get("runs", [])
            runs = [run for run in old if run["rows"] not in options.rows or run["dim"] not in options.dims]
            for rows in options.rows:
                for dim in options.dims:
                    if rows * dim * 4 * 4.5 > options.memory_gib * 2**30:  # table and bound: rows and states each
                        print(f"\n{rows:,} rows, dim {dim}: skipped, needs more than {options.memory_gib:g} GiB")
                        continue
                    for run in measure(program, "speed", rows, dim, options.batch, options.repeats):
                        runs.append(run)
                        show(run)
            runs.sort(key=lambda run: (run["rows"], run["dim"], run["ids"], run["threads"]))
            report["speed"] = {**made_by, "runs": runs}
        if "growth" in options.only:
            report["growth"] = {**made_by, "runs": measure(program, "growth", 20_000_000, 16, "adagrad", 256)}
            print(json.dumps(report["growth"]["runs"], indent=1))
        if "large" in options.only:
            report["large"] = {**made_by, "runs": measure(program, "growth", 100_000_000, 8, "rowwise_adagrad", 65_536)}
            print(json.dumps(report["large"]["runs"], indent=1))
    target.write_text(json.dumps(report, indent=1) + "\n")
    runs = report.get("speed", {}).get("runs", [])
    draw(runs, options.out / "table.svg")
    print("\n" + as_markdown(runs))
    for rows in sorted({run["rows"] for run in runs}):
        print(f"\n{rows:,} rows:\n\n" + ladders(runs, rows))


def measure(program: Path, *settings: object) -> list[dict[str, Any]]:
    output = subprocess.run([program, *map(str, settings)], check=True, capture_output=True, text=True)
    return [json.loads(line) for line in output.stdout.splitlines()]


def build(folder: Path) -> Path:
    program = folder / "table_speed"
    sources = [path for path in CORE.glob("*.cpp") if path.name != "module.cpp"]
    flags = ["-std=c++20", "-O3", "-ffp-contract=off", "-fno-math-errno", "-pthread", f"-I{CORE}"]
    command = ["g++", *flags, Path(__file__).with_name("table_speed.cpp"), *sources, "-o", program]
    subprocess.run(command, check=True)
    return program


def ratio(run: dict[str, Any], name: str) -> float | None:
    """Median keys/s of a contender as a share of its bound's, in the same run; None where it did not run."""
    rates = run["keys_per_second"]
    if name not in rates:
        return None
    return statistics.median(rates[name]) / statistics.median(rates[BOUNDS[name]])


def show(run: dict[str, Any]) -> None:
    print(
        f"\n{run['rows']:,} rows, dim {run['dim']}, {run['ids']} ids, batches of {run['batch']:,}, "
        f"{run['threads']} thread(s); index {run['index_bytes_per_row']} B, rows {run['row_bytes_per_row']} B a row; "
        f"checksum {run['checksum']}"
    )
    for name, rates in run["keys_per_second"].items():
        share = f"   {ratio(run, name):5.2f} of {BOUNDS[name]}" if name in BOUNDS else ""
        median = statistics.median(rates)
        print(f"  {name:24}{median / 1e6:8.2f} M/s  ({min(rates) / 1e6:.2f} to {max(rates) / 1e6:.2f}){share}")


def as_markdown(runs: list[dict[str, Any]]) -> str:
    lines = [
        "| rows | dim | ids | threads | look-up M/s | share of bound | update M/s | share of bound | gather M/s |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for run in runs:
        rates = {name: statistics.median(values) / 1e6 for name, values in run["keys_per_second"].items()}
        update = f"{rates['table_update']:.1f} | {ratio(run, 'table_update'):.2f}" if "table_update" in rates else "|"
        lines.append(
            f"| {run['rows']:,} | {run['dim']} | {run['ids']} | {run['threads']} | {rates['table_lookup']:.1f} | "
            f"{ratio(run, 'table_lookup'):.2f} | {update} | {rates['gather']:.1f} |"
        )
    return "\n".join(lines)


def ladders(runs: list[dict[str, Any]], rows: int) -> str:
    """Nanoseconds a key (median, one thread, so many rows) as what the table does is added to the bound."""
    runs = [run for run in runs if run["rows"] == rows and run["threads"] == 1 and run["dim"] >= 16]
    heads = [f"{run['dim']}, {run['ids']}" for run in runs]
    lines = ["| ns a key | " + " | ".join(heads) + " |", "| --- |" + " --- |" * len(heads)]
    for name, ladder in LADDERS.items():
        for contender, told in ladder.items():
            times = [1e9 / statistics.median(run["keys_per_second"][contender]) for run in runs]
            lines.append(f"| {name}: {told} | " + " | ".join(f"{time:.0f}" for time in times) + " |")
    return "\n".join(lines)


def draw(runs: list[dict[str, Any]], path: Path) -> None:
    matplotlib.rcParams["svg.hashsalt"] = "table"  # the same picture from the same figures
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    titles = {"table_lookup": "look-up", "table_update": "fused AdaGrad update"}
    for panel, (name, title) in zip(panels, titles.items(), strict=True):
        series: dict[str, list[tuple[int, float]]] = {}
        for run in runs:
            share = ratio(run, name)
            if share is not None and run["threads"] == 1:
                series.setdefault(f"{run['rows'] // 1_000_000} M rows, {run['ids']}", []).append((run["dim"], share))
        for label, points in series.items():
            panel.plot(*zip(*sorted(points), strict=True), marker="o", label=label)
        panel.axhline(TARGETS[name], color="grey", linestyle="--", linewidth=1)
        panel.set_xscale("log", base=2)
        panel.set_xticks([8, 16, 32, 64, 128], ["8", "16", "32", "64", "128"])
        panel.set(title=title, xlabel="dim", ylim=(0, 1.2))
    panels[0].set_ylabel("share of the physical bound, 1 thread")
    panels[1].legend(fontsize=8)
    figure.savefig(path, metadata={"Date": None})


if __name__ == "__main__":
    sys.exit(main())

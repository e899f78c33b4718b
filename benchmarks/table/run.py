"""The table's speed beside the physical bound: `python benchmarks/table/run.py [--rows N] [--dims 16 32] [--out FILE]`.

Builds `table_speed.cpp` with the core's sources and prints one line a contender: median and spread of keys per second
of processor time, and the ratio to the bound (one random index line, then the row). The JSON keeps every repeat.
"""

import argparse
import datetime
import json
import platform
import statistics
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
CORE = ROOT / "src/dolmen/_core"
BOUNDS = {"table_lookup": "bound_lookup", "gather": "bound_lookup", "table_update": "bound_update"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--dims", type=int, nargs="+", default=[16, 32])
    parser.add_argument("--batch", type=int, default=65_536)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--ids", nargs="+", choices=["uniform", "zipf"], default=["uniform", "zipf"])
    parser.add_argument("--threads", type=int, nargs="+", default=[1])
    parser.add_argument("--out", type=Path, help="write the JSON here, too")
    options = parser.parse_args()

    report: dict[str, Any] = {"machine": machine(), "commit": commit(), "date": str(datetime.date.today()), "runs": []}
    print(f"{report['machine']}, commit {report['commit']}, seed 1, {options.repeats} repeats")
    with TemporaryDirectory() as folder:
        program = build(Path(folder))
        for dim in options.dims:
            for ids in options.ids:
                for threads in options.threads:
                    settings = [options.rows, dim, options.batch, options.repeats, ids, threads]
                    output = subprocess.run([program, *map(str, settings)], check=True, capture_output=True, text=True)
                    run = json.loads(output.stdout)
                    report["runs"].append(run)
                    show(run)
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(report, indent=1) + "\n")


def build(folder: Path) -> Path:
    program = folder / "table_speed"
    sources = [path for path in CORE.glob("*.cpp") if path.name != "module.cpp"]
    flags = ["-std=c++20", "-O3", "-ffp-contract=off", "-fno-math-errno", "-pthread", f"-I{CORE}"]
    command = ["g++", *flags, Path(__file__).with_name("table_speed.cpp"), *sources, "-o", program]
    subprocess.run(command, check=True)
    return program


def show(run: dict[str, Any]) -> None:
    print(
        f"\n{run['rows']:,} rows, dim {run['dim']}, {run['ids']} ids, batches of {run['batch']:,}, "
        f"{run['threads']} thread(s); index {run['index_bytes_per_row']} B, rows {run['row_bytes_per_row']} B a row; "
        f"checksum {run['checksum']}"
    )
    medians = {name: statistics.median(rates) for name, rates in run["keys_per_second"].items()}
    for name, rates in run["keys_per_second"].items():
        bound = BOUNDS.get(name)
        ratio = f"   {medians[name] / medians[bound]:5.2f} of {bound}" if bound in medians else ""
        print(f"  {name:24}{medians[name] / 1e6:8.2f} M/s  ({min(rates) / 1e6:.2f} to {max(rates) / 1e6:.2f}){ratio}")


def machine() -> str:
    text = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    names = [line.split(":", 1)[1].strip() for line in text.splitlines() if line.startswith("model name")]
    return f"{names[0] if names else platform.processor()} x {len(names)}, {platform.system()} {platform.machine()}"


def commit() -> str:
    command = ["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


if __name__ == "__main__":
    sys.exit(main())

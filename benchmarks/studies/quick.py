"""What the quick form of each study takes, as the gate runs it: at most a minute each is what they promise.

    python benchmarks/studies/quick.py [--out FILE]

Each runs once in a process of its own, start and reading of the data included. ``cpu_seconds`` is what it used of the
processor, and what is promised: other work on the machine stretches it less than ``seconds``, which are by the clock.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

from dolmen import studies
from dolmen.provenance import command, machine, program

CPU_SECONDS_MAX = 60.0


def measured(name: str) -> dict[str, float | bool | str]:
    """Run one; a guard that does not hold is an exit status other than 0."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.perf_counter()
    done = subprocess.run([sys.executable, "-m", "dolmen", "reproduce", name, "--quick"], check=False)
    seconds, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"study": name, "seconds": round(seconds, 1), "cpu_seconds": round(cpu, 1), "holds": done.returncode == 0}


def main() -> int:
    """Measure all; 1 if one takes more than a minute of the processor or does not hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    found = [measured(name) for name in studies.names()]
    total, cpu_total = (round(sum(float(one[what]) for one in found), 1) for what in ("seconds", "cpu_seconds"))
    told = {
        "command": command(arguments),
        "program": program(),
        "machine": machine(),
        "seeds": {name: sorted({cell.seed for cell in studies.study(name).quick.cells()}) for name in studies.names()},
        "cpu_seconds_max": CPU_SECONDS_MAX,
        "seconds_total": total,
        "cpu_seconds_total": cpu_total,
        "studies": found,
    }
    text = json.dumps(told, indent=1) + "\n"
    sys.stdout.write(text)
    if arguments.out is not None:
        arguments.out.write_text(text, encoding="utf-8")
    return 1 if any(not one["holds"] or float(one["cpu_seconds"]) > CPU_SECONDS_MAX for one in found) else 0


if __name__ == "__main__":
    sys.exit(main())

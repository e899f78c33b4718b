"""A study that measures nothing: its figures follow from case, arm and seed, so what becomes of them can be checked."""

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from dolmen.errors import DataError
from dolmen.studies import Above, Cell, Chart, Claim, Part, Plan, Setting, Study

ARMS = {"plain": "the baseline", "better": "the method"}


def figures_of(cell: Cell) -> dict[str, float]:
    return {"auc": 0.6 + 0.1 * (cell.arm == "better") + 0.001 * cell.seed, "rows": 10.0 * (cell.seed + 1)}


def run(cell: Cell, setting: Setting) -> Mapping[str, float]:
    """``runs``: a file that tells how often it ran; ``block_at``: a cell at which it says so and waits to be killed."""
    runs = setting.settings.get("runs")
    if runs is not None:
        with Path(runs).open("a") as file:
            file.write(f"{cell.case} {cell.arm} {cell.seed}\n")
    if os.environ.get("BLOCK_AT") == f"{cell.arm}-{cell.seed}":
        print("reached", flush=True)  # noqa: T201 - the parent waits for it
        os.read(0, 1)
    if cell.case == "absent":
        raise DataError("absent is not on this machine\nlooked in: nowhere")
    return {**figures_of(cell), "rate": setting.prepared.get("rate", 0.0)}


def claim(name: str = "better") -> Claim:
    return Claim(
        name=name,
        statement="It is better.",
        paper="0.70 against 0.60",
        rule=Above(arm="better", others=("plain",), figure="auc"),
    )


def toy(**changed: object) -> Study:
    plan = Plan(parts=(Part(case="films", arms=tuple(ARMS), seed_count=3),), minutes=1)
    study = Study(
        name="toy",
        title="A toy",
        paper="Nobody, 2026",
        module=__name__,
        claims=(claim(),),
        guards=(claim("guard"),),
        data=("films",),
        protocol=("Nothing is trained.",),
        arms=ARMS,
        figures={"auc": "AUC", "rows": "rows", "rate": "learning rate"},
        chart=Chart(figure="auc", lines={"plain": ("plain",), "both": ("plain", "better")}),
        full=plan,
        quick=replace(plan, minutes=0.1),
        run=run,
    )
    return replace(study, **changed)

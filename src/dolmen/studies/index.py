"""The page that lists every report of a folder: which claims of which paper hold here."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any, Final

from dolmen.studies.registry import names, study
from dolmen.studies.verdicts import reported

__all__ = ["index_page", "write_index"]

_HEAD: Final = """# Studies

Papers put to the test. Each page is written by `dolmen reproduce NAME`, as is this one. It says by a rule whether a
claim holds here, and of each rule whether it stood already when the cells that it judges were run.
[Reproduce a paper](../../how-to/studies.md) tells how that works.

| study | paper | claims |
| --- | --- | --- |
"""


def index_page(folder: Path) -> str:
    """The page, from the JSON reports in ``folder`` and the studies as they are now."""
    rows = []
    for path in sorted(folder.glob("*.json")):
        report = json.loads(path.read_text(encoding="utf-8"))
        rows.append(f"| [{report['title']}]({path.stem}.md) | {report['paper']} | {_verdicts(report, path.stem)} |\n")
    return _HEAD + "".join(rows)


def write_index(folder: Path) -> Path:
    """Write ``README.md``. Returns it."""
    page = folder / "README.md"
    page.write_text(index_page(folder), encoding="utf-8")
    return page


def _verdicts(report: dict[str, Any], name: str) -> str:
    """Such as "holds: 2, partly: 1", the most frequent first; and whether that is all there is to judge."""
    counts = Counter(claim["verdict"] for claim in report["claims"])
    told = ", ".join(f"{verdict}: {count}" for verdict, count in counts.most_common())
    if name in names():
        found = reported(report)
        marks = [*found.on_study(study(name)), *found.believed()]
    else:  # a study of somebody's own, whose plan is not here
        is_partial = any(report.get(what) for what in ("open_counts", "stale_counts", "missing"))
        marks = ["part of the plan was not run"] if is_partial else []
    return f"{told} ({'; '.join(marks)})" if marks else told

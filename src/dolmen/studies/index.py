"""The page that lists every report of a folder: which claims of which paper hold here."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any, Final

__all__ = ["write_index"]

_HEAD: Final = """# Studies

Papers put to the test. Each page is written by `dolmen reproduce NAME`, as is this one. It says by a rule whether a
claim holds here, and of each rule whether it stood already when the cells that it judges were run.
[Reproduce a paper](../../how-to/studies.md) tells how that works.

| study | paper | claims |
| --- | --- | --- |
"""


def write_index(folder: Path) -> Path:
    """Write ``README.md`` from the JSON reports in ``folder``. Returns it."""
    rows = []
    for path in sorted(folder.glob("*.json")):
        report = json.loads(path.read_text(encoding="utf-8"))
        rows.append(f"| [{report['title']}]({path.stem}.md) | {report['paper']} | {_verdicts(report)} |\n")
    page = folder / "README.md"
    page.write_text(_HEAD + "".join(rows), encoding="utf-8")
    return page


def _verdicts(report: dict[str, Any]) -> str:
    """Such as "holds: 2, partly: 1", the most frequent first; and whether that is all there is to judge."""
    counts = Counter(claim["verdict"] for claim in report["claims"])
    told = ", ".join(f"{verdict}: {count}" for verdict, count in counts.most_common())
    is_partial = report.get("open_counts") or report.get("missing")
    return f"{told} (so far: part of the plan was not run)" if is_partial else told

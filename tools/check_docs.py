"""Checks the documents: each relative link leads to a file, each heading link to a heading."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
LINK: Final = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
CODE: Final = re.compile(r"```.*?```|`[^`\n]*`", re.DOTALL)


def anchors(text: str) -> set[str]:
    """The names by which the headings of a document are linked."""
    headings = re.findall(r"^#+\s+(.*)$", CODE.sub(lambda match: match[0].strip("`"), text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-") for heading in headings}


def broken_links(document: Path) -> list[str]:
    """Each link of ``document`` that leads nowhere, with the reason."""
    problems = []
    for target in LINK.findall(CODE.sub("", document.read_text())):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        linked = (document.parent / path).resolve() if path else document
        name = document.relative_to(ROOT)
        if not linked.exists():
            problems.append(f"{name}: {target}: there is no such file")
        elif anchor and linked.suffix == ".md" and anchor not in anchors(linked.read_text()):
            problems.append(f"{name}: {target}: there is no such heading")
    return problems


def main() -> int:
    """Check every Markdown file; print what is wrong; 1 if anything is."""
    documents = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "benchmarks").rglob("*.md")]
    problems = [problem for document in sorted(documents) for problem in broken_links(document)]
    for problem in problems:
        sys.stdout.write(f"{problem}\n")
    sys.stdout.write(f"{len(documents)} documents, {len(problems)} broken links\n")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())

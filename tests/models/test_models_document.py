"""The examples of docs/concepts/models.md run, one after the other, and its table names every model."""

import re
from pathlib import Path

from dolmen.models import entry, names

PAGE = Path(__file__).parents[2] / "docs" / "concepts" / "models.md"


def test_the_examples_on_the_page_run() -> None:
    code = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert len(code) == 7
    exec(compile("\n".join(code), PAGE.name, "exec"), {"__name__": "page"})


def test_the_page_names_every_model_and_what_it_does() -> None:
    text = PAGE.read_text()
    for name in names():
        assert f"| `{name}` | {entry(name).title[0].lower() + entry(name).title[1:]} |" in text

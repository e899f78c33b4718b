"""The examples of docs/concepts/features.md run, one after the other, as a reader would try them."""

import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "concepts" / "features.md"


def test_the_examples_on_the_page_run(capsys: pytest.CaptureFixture[str]) -> None:
    code = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert len(code) == 4
    exec(compile("\n".join(code), PAGE.name, "exec"), {"__name__": "page"})
    assert capsys.readouterr().out == "row 0: genres takes a list of values, got 'drama'; send ['drama']\n"

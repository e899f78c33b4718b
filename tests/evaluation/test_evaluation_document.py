import doctest
from pathlib import Path

import dolmen.evaluation

PAGE = Path(__file__).resolve().parents[2] / "docs" / "concepts" / "evaluation.md"


def test_the_examples_run() -> None:
    assert doctest.testfile(str(PAGE), module_relative=False).failed == 0


def test_the_page_names_everything_public() -> None:
    text = PAGE.read_text(encoding="utf-8")
    inner = {"Candidates", "CatalogueRanking", "Comparison", "GroupAUC", "Needs", "Split", "SplitRule", "Weighting"}
    for name in set(dolmen.evaluation.__all__) - inner:
        assert name in text, f"{name} is not described"

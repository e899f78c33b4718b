"""A model in a user's own file: named module:Class, checked, trained, kept and loaded; nothing else is touched."""

import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from dolmen import new_trainer
from dolmen.embedding import Embed
from dolmen.errors import ConfigError
from dolmen.features import Schema
from dolmen.models import build, describe, entry
from dolmen.testing import example_batch, example_schema
from dolmen.training import load_snapshot

MakeEmbed = Callable[[Schema], Embed]

PAGE = (Path(__file__).parents[2] / "docs" / "how-to" / "write-a-model.md").read_text()


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The working folder of somebody who has saved the page's model there."""
    (source,) = re.findall(r"```python file=taste.py\n(.*?)```", PAGE, re.DOTALL)
    (tmp_path / "taste.py").write_text(source)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [one for one in sys.path if one])
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if name in {"taste", "broken", "empty"}:
            del sys.modules[name]


def test_the_file_is_no_longer_than_it_says() -> None:
    (source,) = re.findall(r"```python file=taste.py\n(.*?)```", PAGE, re.DOTALL)
    assert len([line for line in source.splitlines() if line.strip()]) <= 60


def test_it_answers_every_question_as_the_page_asks_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend("")
    programs = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    exec(compile(programs[0], "write-a-model.md", "exec"), {})


@pytest.mark.data
def test_it_learns_films_as_the_page_says() -> None:
    program = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)[1]
    names: dict[str, Any] = {}
    exec(compile(program, "write-a-model.md", "exec"), names)
    assert names["report"].epochs[-1].validation.auc > 0.65
    assert load_snapshot(Path("snapshots")).manifest.model == "taste:Taste"


def test_a_snapshot_of_it_is_loaded_by_its_name(own_folder: Path) -> None:
    schema = example_schema()
    trainer = new_trainer(schema, "taste:Taste", {"rank": 3})
    batch = example_batch(schema, 32)
    for _ in range(3):
        trainer.step(batch)
    path = trainer.save(own_folder / "snapshots")
    loaded = load_snapshot(path)
    assert loaded.manifest.model == "taste:Taste"
    assert loaded.manifest.model_options["rank"] == 3
    learned: Any = trainer.model.eval()  # it declares that it scores, and so can the one that is loaded
    again: Any = loaded.parameters.model
    assert torch.equal(again.score(batch), learned.score(batch))


def test_its_entry_tells_what_file_and_class_say(make_embed: MakeEmbed) -> None:
    one = entry("taste:Taste")
    assert (one.job, one.source[:18]) == ("ranking", "made up for this p")
    model = build("joint", {"ranker": "taste:Taste", "ranker_options": {"rank": 2}}, make_embed(example_schema()))
    assert describe(model)["options"]["ranker"] == "taste:Taste"
    with pytest.raises(ConfigError, match="unknown setting 'rnak'; did you mean 'rank'"):
        build("taste:Taste", {"rnak": 2}, make_embed(example_schema()))


def test_what_is_no_model_is_told_what_it_lacks(own_folder: Path) -> None:
    with pytest.raises(ConfigError, match="there is no module 'tast'; start dolmen in its folder, or install it"):
        entry("tast:Taste")
    with pytest.raises(ConfigError, match="taste has no 'Tast'; did you mean 'Taste'"):
        entry("taste:Tast")
    with pytest.raises(ConfigError, match=r"taste has no 'Model'; known are Taste$"):
        entry("taste:Model")
    for slip in ("./taste.py:Taste", ":Taste", "taste:", "taste:Taste:more"):
        with pytest.raises(ConfigError, match=f"'{re.escape(slip)}' is not of the form module:Class"):
            entry(slip)
    with pytest.raises(ConfigError, match=r"a model is a torch.nn.Module that declares its abilities"):
        entry("taste:TasteConfig")
    (own_folder / "broken.py").write_text("import no_such_library\n")
    with pytest.raises(ModuleNotFoundError, match="no_such_library"):
        entry("broken:Model")
    (own_folder / "empty.py").write_text(
        "from torch import nn\n\nclass Model(nn.Module):\n    abilities = frozenset()\n"
    )
    with pytest.raises(ConfigError, match="must take `config`, annotated with the dataclass of its options"):
        entry("empty:Model")

    class Local(nn.Module):
        abilities = frozenset()

    local: Any = Local()
    with pytest.raises(ConfigError, match="Local cannot be imported by name, so its snapshot could not be loaded"):
        describe(local)

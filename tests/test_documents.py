"""The programs in the documents run as they stand there."""

import re
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits

from dolmen import datasets
from dolmen.client import Client
from dolmen.cluster import Config
from dolmen.embedding import AdaGrad, Embed, Embeddings
from dolmen.errors import DataError
from dolmen.evaluation import auc
from dolmen.features import Batch, Label, Schema, Side, Slot
from dolmen.serving import ServeSettings, create_app, run_server

ROOT = Path(__file__).resolve().parent.parent


def programs_of(name: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (ROOT / name).read_text(), re.DOTALL)


def run_program(source: str, name: str) -> dict[str, Any]:
    names: dict[str, Any] = {}
    exec(compile(source, name, "exec"), names)
    return names


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    """A server with a small catalogue."""
    schema = Schema(
        Slot("user"),
        Slot("item"),
        Slot("category", of=Side.ITEM, many=True),
        Slot("history", table="item", of=Side.USER, many=True, ordered=True, max_len=50),
        Slot("device", of=Side.REQUEST),
        Label("click"),
    )
    settings = ServeSettings(
        schema=schema,
        log_folder=tmp_path / "log",
        snapshot_folder=tmp_path / "snapshots",
        state_folder=tmp_path / "serving",
        port=0,
    )
    stop, told = threading.Event(), threading.Event()
    addresses: list[str] = []

    def listening(found: str) -> None:
        addresses.append(found)
        told.set()

    server = threading.Thread(
        target=run_server, args=(create_app(settings), settings, stop), kwargs={"listening": listening}
    )
    server.start()
    try:
        assert told.wait(30)
        yield addresses[0]
    finally:
        stop.set()
        server.join(30)


def test_the_shop_of_the_readme_and_of_the_how_to_runs(address: str) -> None:
    items = [f"sku-{number}" for number in range(2, 12)]
    with Client(address) as shop:
        shop.add_items([{"id": item, "attributes": {"title": "Pan"}} for item in items])
    names = ("docs/how-to/your-own-data.md", "README.md")
    programs = {name: next(one for one in programs_of(name) if "Client(" in one) for name in names}
    for name, program in programs.items():
        assert "http://127.0.0.1:8080" in program
        run_program(program.replace("http://127.0.0.1:8080", address), name)
    with Client(address) as shop:
        shop.send([{"user": "anna", "item": item, "kind": "click"} for item in ["sku-1", *items]])
        assert shop.recommend("anna").items == []
    for name, program in programs.items():
        run_program(program.replace("http://127.0.0.1:8080", address), f"{name}, when nothing is left to show")


def test_the_configuration_of_the_how_to_is_valid(tmp_path: Path) -> None:
    text = re.findall(r"```toml\n(.*?)```", (ROOT / "docs/how-to/your-own-data.md").read_text(), re.DOTALL)[0]
    path = tmp_path / "dolmen.toml"
    path.write_text(text)
    config = Config.from_toml(path)
    assert config.join.window == "30m"
    assert list(config.schema.slots) == ["user", "item", "category", "history", "device"]


def test_the_table_of_the_concepts_runs() -> None:
    names = run_program(programs_of("docs/concepts/table.md")[0], "table.md")
    assert len(names["table"]) == 2


def test_the_loop_of_ones_own_runs_from_top_to_bottom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)  # asked anew, so that what the page saves leaves with the test
    page = "docs/how-to/your-own-loop.md"
    names = run_program("".join(programs_of(page)), page)
    folder, serving, learned = names["folder"], names["serving"], names["embeddings"]
    assert isinstance(folder, Path)
    assert folder.is_relative_to(tmp_path)
    assert isinstance(serving, Embeddings)
    assert isinstance(learned, Embeddings)
    assert len(serving) == len(learned) > 0


@pytest.mark.data
def test_what_the_loop_of_ones_own_says_of_means_and_sums_is_so() -> None:
    try:
        films = datasets.load("movielens-100k", download=False)
    except DataError as problem:
        pytest.skip(f"movielens-100k is missing: {problem}")
    label, width = films.schema.first_label, 2 * films.schema.slot("user").dim

    def auc_after(reduction: str, optimizer: AdaGrad) -> float:
        torch.manual_seed(1)
        embed = Embed(Embeddings(films.schema, optimizer=optimizer, seed=1))
        layers = nn.Sequential(nn.Linear(width, 32), nn.ReLU(), nn.Linear(32, 1))
        adam = torch.optim.Adam(layers.parameters())

        def logits(batch: Batch) -> torch.Tensor:
            return layers(embed(batch, ["user", "item"]).flatten(1)).squeeze(1)

        for step, batch in enumerate(films.batches(1024, "train")):
            with embed.recording(now_us=step) as tape:
                loss = binary_cross_entropy_with_logits(logits(batch), batch.labels[label], reduction=reduction)
                adam.zero_grad()
                torch.autograd.backward(loss)
                adam.step()
                tape.apply()
        with torch.no_grad():
            judged = [(logits(batch), batch.labels[label]) for batch in films.batches(4096, "validation")]
        scores, labels = (torch.cat(some).numpy() for some in zip(*judged, strict=True))
        return auc(scores, labels)

    page = (ROOT / "docs/how-to/your-own-loop.md").read_text()
    told = re.findall(r"([\d.]+) under the (mean|sum)", page)
    small = AdaGrad(learning_rate=0.1, initial_accumulator=0.1 / 1024**2)
    kinds = [AdaGrad(learning_rate=0.1), AdaGrad(learning_rate=0.1), small]
    found = [auc_after(reduction, kind) for (_, reduction), kind in zip(told, kinds, strict=True)]
    # Sums of floats are taken in another order elsewhere, which moves an AUC by far less than what is told here.
    assert found == pytest.approx([float(figure) for figure, _ in told], abs=0.01)


@pytest.mark.data
def test_the_batch_training_of_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    try:
        datasets.load("movielens-100k", download=False)
    except DataError as problem:
        pytest.skip(f"movielens-100k is missing: {problem}")
    monkeypatch.chdir(tmp_path)
    program = next(one for one in programs_of("README.md") if "new_trainer" in one)
    names = run_program(program, "README.md")
    # Ranking by chance has an AUC of 0.5; popularity alone reaches about 0.6 on these people.
    assert names["report"].epochs[-1].validation.auc > 0.6
    assert any((tmp_path / "snapshots").glob("*/manifest.json"))

"""The whole road in one process: server, joiner and trainer on one log; a click comes back as learned parameters."""

from __future__ import annotations

import re
import threading
import tomllib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from dolmen.events import EmbeddedLog, JoinConfig, Joiner, Topic, decode_examples
from dolmen.features import Label, Schema, Slot, encode_values
from dolmen.training import TrainerSettings, run_trainer

Serve = Callable[..., Any]


@pytest.fixture
def learning(settings: Any, tmp_path: Any) -> Iterator[Callable[..., None]]:
    """Starts joiner and trainer, with options of the joint model besides and another schema; they end with the test."""
    stop = threading.Event()
    threads: list[threading.Thread] = []
    log = EmbeddedLog(settings.log_folder)

    def start(options: Mapping[str, Any] | None = None, schema: Schema = settings.schema) -> None:
        trainer = TrainerSettings(
            folder=settings.snapshot_folder.parent,
            schema=schema,
            model_options={
                "ranker_options": {"hidden": [8]},
                "retriever_options": {"hidden": [8], "dim": 8},
                **(options if options is not None else {}),
            },
        )
        joiner = Joiner(schema, log, tmp_path / "join", JoinConfig(window="1s"))
        threads.append(threading.Thread(target=joiner.run, args=(stop,)))
        threads.append(threading.Thread(target=run_trainer, args=(trainer, log, stop)))
        for thread in threads:
            thread.start()

    yield start
    stop.set()
    for thread in threads:
        thread.join(30)
    log.close()


@pytest.mark.e2e
def test_a_click_comes_back_as_learned_parameters(
    serve: Serve, learning: Callable[..., None], wait: Callable[..., Any]
) -> None:
    served = serve(model_from_version=0)
    served.add_items(range(50))
    learning()
    wait(lambda: served.get("/readyz").json()["version"] == 0)
    for number in range(10):
        slate = served.recommend(number, 5)
        clicked = served.click(number, slate["items"][0]["item"], request_id=slate["request_id"])
    goal = clicked["positions"]["actions/0"]

    def has_learned() -> Any:
        parameters = served.recommend("observer", 1)["parameters"]
        return parameters if parameters["positions"].get("actions/0", 0) >= goal else None

    parameters = wait(has_learned)
    assert parameters["version"] > 0
    assert parameters["staleness_seconds"] < 20
    wait(lambda: not served.recommend("observer", 1)["parameters"]["stale"])
    status = wait(lambda: _with_stages(served))
    assert all(stage["alive"] for stage in status["stages"].values())
    assert status["now"]["table_rows"] > 0
    assert status["now"]["examples_total"] >= 10


@pytest.mark.e2e
def test_a_model_of_somebody_elses_file_learns_from_the_stream_and_ranks(
    serve: Serve,
    learning: Callable[..., None],
    wait: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    page = (Path(__file__).parents[2] / "docs" / "how-to" / "write-a-model.md").read_text()
    (source,) = re.findall(r"```python file=taste.py\n(.*?)```", page, re.DOTALL)
    (tmp_path / "taste.py").write_text(source)
    monkeypatch.chdir(tmp_path)
    (toml,) = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    served = serve(model_from_version=0)
    served.add_items(range(50))
    learning(tomllib.loads(toml)["model"]["options"])
    wait(lambda: served.get("/readyz").json()["version"] == 0)
    for number in range(10):
        slate = served.recommend(number, 5)
        served.click(number, slate["items"][0]["item"], request_id=slate["request_id"])

    def is_learned() -> bool:
        slate = served.recommend("observer", 1)
        return slate["ranked_by"] == "model" and slate["parameters"]["version"] > 0

    wait(is_learned)


@pytest.mark.e2e
@pytest.mark.parametrize(
    "line",
    [
        'options = { retriever = "sasrec", retriever_options = { only_last = true } }',
        'options = { retriever = "bert4rec", retriever_options = { last_only_rate = 1.0 } }',
        'options = { retriever = "ssl_two_tower", retriever_options = { towers = { dim = 8 } } }',
    ],
    ids=["sasrec", "bert4rec", "ssl_two_tower"],
)
def test_one_line_puts_another_retriever_into_the_loop(
    serve: Serve, learning: Callable[..., None], wait: Callable[..., Any], line: str
) -> None:
    served = serve(model_from_version=0, explore_share=0.0, popular_count=0, candidate_count=5)
    served.add_items(range(20))
    learning(tomllib.loads(line)["options"])
    wait(lambda: served.get("/readyz").json()["version"] == 0)
    for number in range(8):
        slate = served.post("/v1/rank", {"user": number, "items": [1, 2, 3, 4, 5]}).json()
        for item in (1, 2):  # everybody takes 2 after 1
            clicked = served.click(number, item, request_id=slate["request_id"])
    goal = clicked["positions"]["actions/0"]

    def found() -> Any:
        slate = served.recommend("observer", 5)
        has_learned = slate["parameters"]["positions"].get("actions/0", 0) >= goal and slate["ranked_by"] == "model"
        return slate["items"] if has_learned and len(slate["items"]) == 5 else None

    # The index alone proposes here: popular items and new ones are left out.
    assert len({one["item"] for one in wait(found)}) == 5
    wait(lambda: served.get("/v1/status").json()["stages"]["serve"]["figures"]["indexed_item_count"] == 20)


@pytest.mark.e2e
def test_a_graph_model_meets_an_items_audience_as_an_attribute_of_the_item(
    serve: Serve,
    learning: Callable[..., None],
    wait: Callable[..., Any],
    log: EmbeddedLog,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    page = (Path(__file__).parents[2] / "docs" / "how-to" / "graph-model.md").read_text()
    (source,) = re.findall(r"```python file=neighbours.py\n(.*?)```", page, re.DOTALL)
    (tmp_path / "neighbours.py").write_text(source)
    monkeypatch.chdir(tmp_path)
    (toml,) = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    told = tomllib.loads(toml)
    (audience,) = told["schema"]["slot"]
    schema = Schema(
        Slot("user", dim=8),
        Slot("item", dim=8),
        Slot("history", dim=8, table="item", many=True, ordered=True, max_len=10, of="user"),
        Slot(**audience, dim=8),
        Label("click"),
    )
    served = serve(schema=schema, model_from_version=0, explore_share=0.0, popular_count=0, candidate_count=5)

    def tell(item: int, people: list[str]) -> None:
        answer = served.post("/v1/items", {"items": [{"id": item, "attributes": {"audience": people}}]})
        assert answer.status_code == 202, answer.text

    for item in range(10):
        tell(item, [])
    learning({"retriever_options": {}, **told["model"]["options"]}, schema)
    wait(lambda: served.get("/readyz").json()["version"] == 0)
    people = [f"early {number}" for number in range(8)]
    for number, person in enumerate(people):
        tell(1, people[:number])
        slate = served.post("/v1/rank", {"user": person, "items": [1, 2, 3]}).json()
        clicked = served.click(person, 1, request_id=slate["request_id"])
    goal = clicked["positions"]["actions/0"]
    wait(lambda: served.recommend("observer", 1)["parameters"]["positions"].get("actions/0", 0) >= goal)

    # What was learned of a choice is the audience as it was served: who chose before, and not who chose.
    learned = [
        decode_examples(schema, record.value).batch for record in log.read(Topic.EXAMPLES, 0, 0, max_records=1000)
    ]
    chosen = [batch.take((batch.labels["click"] > 0).nonzero().squeeze(1)) for batch in learned]
    met = {
        user: audience
        for batch in chosen
        for [user], audience in zip(batch.slot("user").to_lists(), batch.slot("audience").to_lists(), strict=True)
    }
    fids = encode_values(schema.slot_number("user"), people).tolist()
    assert met == {fid: fids[:number] for number, fid in enumerate(fids)}

    # An item that nobody was shown, and of which no row exists, is found by whom it is said to stand beside.
    tell(100, people)

    def nearest() -> int | None:
        found = served.get("/v1/items/100/similar", count=1).json().get("items")
        return found[0]["item"] if found and found[0]["similarity"] > 0 else None

    wait(lambda: nearest() == 1)


def _with_stages(served: Any) -> Any:
    status = served.get("/v1/status").json()
    if set(status["stages"]) == {"serve", "join", "train"} and (status["now"]["examples_total"] or 0) >= 10:
        return status
    return None

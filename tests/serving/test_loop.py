"""The whole road in one process: server, joiner and trainer on one log; a click comes back as learned parameters."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from dolmen.events import EmbeddedLog, JoinConfig, Joiner
from dolmen.training import TrainerSettings, run_trainer

Serve = Callable[..., Any]


@pytest.fixture
def learning(settings: Any, tmp_path: Any) -> Iterator[Callable[[], None]]:
    """Starts joiner and trainer; they stop with the test."""
    stop = threading.Event()
    threads: list[threading.Thread] = []
    log = EmbeddedLog(settings.log_folder)
    trainer = TrainerSettings(
        folder=settings.snapshot_folder.parent,
        schema=settings.schema,
        model_options={"ranker_options": {"hidden": [8]}, "retriever_options": {"hidden": [8], "dim": 8}},
    )

    def start() -> None:
        joiner = Joiner(settings.schema, log, tmp_path / "join", JoinConfig(window="1s"))
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
    serve: Serve, learning: Callable[[], None], wait: Callable[..., Any]
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


def _with_stages(served: Any) -> Any:
    status = served.get("/v1/status").json()
    if set(status["stages"]) == {"serve", "join", "train"} and (status["now"]["examples_total"] or 0) >= 10:
        return status
    return None

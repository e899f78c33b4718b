"""What an import costs: a process loads no more than its work needs, and every name of a face is there."""

import importlib
import subprocess
import sys
import textwrap

import pytest

# What `dolmen up`, `dolmen demo` and `dolmen join` do before and while they work, in a process of its own.
_WITHOUT_TORCH = """
    import sys
    from pathlib import Path
    from dolmen import datasets
    from dolmen.cluster import Config, Supervisor, inspect_path, run_up, stages
    from dolmen.demo import DemoOptions, run_demo
    from dolmen.demo.setup import configuration
    from dolmen.events import Action, Features, Impression, Joiner, Topic, encode

    folder = Path(sys.argv[1])
    dataset = datasets.load("world")
    (folder / "dolmen.toml").write_text(configuration(DemoOptions(data="world", port=0), dataset))
    config = Config.from_toml(folder / "dolmen.toml")
    stages.stages_of(folder / "dolmen.toml")
    with config.open_log() as log:
        shown = Impression("r", 1, user=1, version=0, surface="", shared=Features(), items=[2])
        log.append(Topic.IMPRESSIONS, [encode(shown)])
        log.append(Topic.ACTIONS, [encode(Action(None, "r", user=1, item=2, kind="click"))])
        joiner = Joiner(config.schema, log, config.join_folder, config.join)
        joiner.step()
        assert joiner.figures()["examples"] == 1, joiner.figures()
        joiner.close()
    inspect_path(folder)
    next(dataset.slates())
    print(*sorted({"torch", "fastapi"} & set(sys.modules)))
"""


def test_supervisor_demo_and_joiner_work_without_loading_torch(tmp_path) -> None:
    program = [sys.executable, "-c", textwrap.dedent(_WITHOUT_TORCH), str(tmp_path)]
    ended = subprocess.run(program, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout.split()) == (0, []), ended.stderr + ended.stdout


@pytest.mark.parametrize(
    "folder",
    [
        "",
        ".cluster",
        ".datasets",
        ".embedding",
        ".evaluation",
        ".events",
        ".features",
        ".models",
        ".serving",
        ".training",
    ],
)
def test_every_name_that_a_folder_promises_is_there(folder: str) -> None:
    face = importlib.import_module(f"dolmen{folder}")
    assert face.__all__
    assert {name for name in face.__all__ if not hasattr(face, name)} == set()

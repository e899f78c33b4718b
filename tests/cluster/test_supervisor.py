"""The supervisor with real processes: each death is met with a restart, each stop leaves nothing behind."""

import fcntl
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from dolmen.cluster.lifetime import hold_folder
from dolmen.cluster.supervisor import Death, RestartPolicy, Stage, Supervisor
from dolmen.errors import CONFIG_STATUS, ConfigError, StageError
from dolmen.events import EmbeddedLog, Topic

QUICK = RestartPolicy(wait_seconds_min=0.05, wait_seconds_max=0.4, settled_seconds=5.0, grace_seconds=5.0)

SLEEPER = """
import signal, sys, threading
from dolmen.cluster.lifetime import stop_with_parent
stop = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: stop.set())
stop_with_parent(stop.set)
open(sys.argv[1], "a").write("up\\n")
stop.wait()
open(sys.argv[1], "a").write("down\\n")
"""


PLAIN = """
import sys
open(sys.argv[1], "a").write("up\\n")
open(sys.argv[2]).read()
open(sys.argv[1], "a").write("down\\n")
"""
"""Knows nothing of dolmen, so starts at once; ends when its pipe is written, whatever happens to its supervisor."""


def plain(name: str, notes: Path, may_end: Path) -> Stage:
    os.mkfifo(may_end)
    return Stage(name=name, command=[sys.executable, "-c", PLAIN, str(notes), str(may_end)])


def sleeper(name: str, notes: Path) -> Stage:
    return Stage(name=name, command=[sys.executable, "-c", SLEEPER, str(notes)])


def lines_of(path: Path) -> list[str]:
    return path.read_text().split() if path.exists() else []


def await_lines(path: Path, count: int, seconds: float = 60.0) -> list[str]:
    """Wait until ``path`` has ``count`` lines."""
    tick = threading.Event()
    for _ in range(int(seconds / 0.02)):
        if len(lines_of(path)) >= count:
            return lines_of(path)
        tick.wait(0.02)
    raise AssertionError(f"{path.name} has {lines_of(path)}, not {count} lines")


@pytest.mark.fault
def test_a_killed_stage_is_restarted_while_the_others_go_on(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    with Supervisor([sleeper("first", first), sleeper("second", second)], policy=QUICK) as supervisor:
        await_lines(first, 1)
        await_lines(second, 1)
        ids = supervisor.process_ids()
        os.kill(ids["first"], signal.SIGKILL)
        await_lines(first, 2)
        assert supervisor.process_ids()["second"] == ids["second"]
        assert supervisor.process_ids()["first"] != ids["first"]
        assert supervisor.restart_counts() == {"first": 1, "second": 0}
    assert lines_of(first) == ["up", "up", "down"]
    assert lines_of(second) == ["up", "down"]


@pytest.mark.fault
def test_the_wait_before_a_restart_doubles_while_a_stage_keeps_dying(tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    command = [sys.executable, "-c", f"import time; open({str(notes)!r}, 'a').write(str(time.monotonic()) + '\\n')"]
    with Supervisor([Stage(name="dying", command=command)], policy=QUICK):
        await_lines(notes, 5)
    starts = [float(line) for line in lines_of(notes)][:5]
    gaps = [later - earlier for earlier, later in itertools.pairwise(starts)]
    # Waits of 0.05, 0.1, 0.2 and 0.4 seconds are lower bounds; a slow machine only makes the gaps longer.
    assert all(gap >= wait for gap, wait in zip(gaps, [0.05, 0.1, 0.2, 0.4], strict=True)), gaps


@pytest.mark.fault
@pytest.mark.parametrize("kind", ["wait", "log"])
def test_a_stage_whose_threads_cannot_be_started_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    notes, start, refused = tmp_path / "notes", threading.Thread.start, list[str]()

    def refusing(thread: threading.Thread) -> None:
        if thread.name == f"{kind} first" and not refused:
            refused.append(thread.name)
            raise RuntimeError("can't start new thread")
        start(thread)

    with Supervisor([sleeper("first", notes)], policy=QUICK, log_folder=tmp_path) as supervisor:
        await_lines(notes, 1)
        monkeypatch.setattr(threading.Thread, "start", refusing)
        os.kill(supervisor.process_ids()["first"], signal.SIGKILL)
        lines = await_lines(notes, 2)
        assert refused
        assert supervisor.restart_counts() == {"first": 1}
    assert [*lines, "down"] == lines_of(notes)


def test_a_stage_that_cannot_use_its_configuration_is_not_started_again(tmp_path: Path) -> None:
    """It would die of the same mistake for ever, and hide what it said behind its restarts."""
    notes, beside = tmp_path / "notes", tmp_path / "beside"
    program = (
        f"import sys; open({str(notes)!r}, 'a').write('up\\n')\n"
        "print('error: join.window must be above 0', file=sys.stderr)\n"
        f"sys.exit({CONFIG_STATUS})"
    )
    failed = threading.Event()
    stages = [Stage(name="join", command=[sys.executable, "-c", program]), plain("beside", beside, tmp_path / "never")]
    with Supervisor(stages, policy=QUICK, log_folder=tmp_path / "logs", failed=failed.set) as supervisor:
        assert failed.wait(60)
        await_lines(beside, 1)
        assert supervisor.restart_counts() == {"join": 0, "beside": 0}
        assert "beside" in supervisor.process_ids()
    assert str(supervisor.failure) == "join cannot run with this configuration: join.window must be above 0"
    assert lines_of(notes) == ["up"]


def test_a_stage_that_dies_again_and_again_is_given_up_with_its_last_words(tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    program = f"open({str(notes)!r}, 'a').write('up\\n')\nraise RuntimeError('boom in my loss')"
    failed = threading.Event()
    deaths: list[Death] = []
    with Supervisor(
        [Stage(name="train", command=[sys.executable, "-c", program])],
        policy=replace(QUICK, deaths_max=3, settled_seconds=3600.0),
        log_folder=tmp_path / "logs",
        failed=failed.set,
        died=deaths.append,
    ) as supervisor:
        assert failed.wait(60)
        assert supervisor.restart_counts() == {"train": 2}
    assert isinstance(supervisor.failure, StageError)
    assert str(supervisor.failure) == (
        "train died 3 times in a row, each time within 3600 seconds of its start; it ended with exit 1: RuntimeError:"
        " boom in my loss"
    )
    assert [(one.name, one.count, one.said) for one in deaths] == [
        ("train", count, "RuntimeError: boom in my loss") for count in (1, 2)
    ]
    assert lines_of(notes) == ["up"] * 3


def test_deaths_of_a_stage_that_had_settled_are_not_counted_together(tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    program = f"open({str(notes)!r}, 'a').write('up\\n')"
    policy = RestartPolicy(wait_seconds_min=0.01, wait_seconds_max=0.02, settled_seconds=0.0, deaths_max=2)
    stage = Stage(name="short", command=[sys.executable, "-c", program])
    with Supervisor([stage], policy=policy, log_folder=tmp_path / "logs") as supervisor:
        await_lines(notes, 5)
        assert supervisor.failure is None


@pytest.mark.timeout(240)
def test_up_tells_in_the_status_which_stage_keeps_dying(tmp_path: Path) -> None:
    """The joiner cannot make its folder, and is started again all the same."""
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "join").write_text("a file")
    command = _up_command(tmp_path, port=0)
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            said = next(line for line in process.stderr if "stage keeps dying" in line)
        finally:
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=120)
    assert "join" in said
    with EmbeddedLog(tmp_path / "state" / "log") as log:
        records = [json.loads(record.value) for record in log.read(Topic.STATUS, 0, 0, max_records=10_000)]
    first, *later = [one for one in records if one["stage"] == "up"]
    assert first["figures"] == {"deaths": {}}, "what an earlier run told of deaths is taken back"
    told = [one["figures"]["deaths"]["join"] for one in later]
    assert [one["count"] for one in told][:2] == [1, 2]
    assert first["time_us"] < told[0]["time_us"] < told[1]["time_us"] <= later[1]["time_us"]
    assert told[0]["status"] == "exit 1"


@pytest.mark.timeout(240)  # five processes start, four with torch
def test_up_ends_with_the_mistake_that_only_a_stage_finds(tmp_path: Path) -> None:
    """Whether the trainer's folder is free is known to the trainer."""
    lock = tmp_path / "state" / "trainer" / "trainer.lock"
    lock.parent.mkdir(parents=True)
    with lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        ended = _up(tmp_path, port=0)
    assert ended.returncode == CONFIG_STATUS
    assert "error: train cannot run with this configuration" in ended.stderr
    assert "another trainer" in ended.stderr
    stages = [line for line in ended.stderr.splitlines() if "joiner" in line or "trainer ready" in line]
    assert not any(line.startswith("{") for line in stages), "--log-format holds for the stages too"


@pytest.mark.timeout(240)  # two processes start, one with torch
def test_up_names_file_and_mend_of_a_models_option_before_anything_is_served(tmp_path: Path) -> None:
    ended = _up(tmp_path, port=0, more="[model]\noptions = { ranker_options = { hiden = [8] } }\n")
    assert ended.returncode == CONFIG_STATUS
    told = "model.options.ranker_options: unknown setting 'hiden'; did you mean 'hidden'?"
    assert ended.stderr == f"error: {tmp_path}/dolmen.toml: {told}\n"
    assert not (tmp_path / "state").exists()


def test_up_refuses_a_port_in_use_before_any_process_is_started(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        ended = _up(tmp_path, port=port)
    assert ended.returncode == CONFIG_STATUS
    assert f"another process uses port {port}; stop that one, or choose another port with serving.port" in ended.stderr
    assert "stage started" not in ended.stderr


def _up_command(folder: Path, *, port: int, more: str = "") -> list[str]:
    (folder / "dolmen.toml").write_text(
        '[[schema.slot]]\nname = "user"\nof = "user"\n[[schema.slot]]\nname = "item"\nof = "item"\n'
        f'[[schema.label]]\nname = "click"\n{more}[serving]\nport = {port}\n'
    )
    return [sys.executable, "-m", "dolmen", "up", "--config", str(folder / "dolmen.toml"), "--log-format", "text"]


def _up(folder: Path, *, port: int, more: str = "") -> subprocess.CompletedProcess[str]:
    command = _up_command(folder, port=port, more=more)
    return subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)


@pytest.mark.fault
def test_the_folder_stays_held_while_stages_of_a_killed_supervisor_finish(tmp_path: Path) -> None:
    """Else `demo --fresh` could delete the state under them."""
    state, notes, may_end = tmp_path / "state", tmp_path / "notes", tmp_path / "may-end"
    program = f"""
import sys, threading
from pathlib import Path
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_supervisor import plain
from dolmen.cluster.lifetime import hold_folder
from dolmen.cluster.supervisor import Supervisor
with hold_folder(Path({str(state)!r})) as held:
    supervisor = Supervisor([plain("slow", Path({str(notes)!r}), Path({str(may_end)!r}))], held=[held])
    supervisor.start()
    print(supervisor.process_ids()["slow"], flush=True)
    threading.Event().wait()
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        await_lines(notes, 1)
        parent.kill()
    with pytest.raises(ConfigError, match="in use by another dolmen"), hold_folder(state):
        raise AssertionError("held twice")
    may_end.write_bytes(b"")
    psutil.wait_procs([child], timeout=30)
    with hold_folder(state):
        assert lines_of(notes) == ["up", "down"]


@pytest.mark.fault
def test_stages_stop_by_themselves_when_the_supervisor_is_killed(tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    program = f"""
import sys, threading
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_supervisor import sleeper
from pathlib import Path
from dolmen.cluster.supervisor import Supervisor
from dolmen.telemetry import set_up_logs
set_up_logs("test")
supervisor = Supervisor([sleeper("only", Path({str(notes)!r}))])
supervisor.start()
print(supervisor.process_ids()["only"], flush=True)
threading.Event().wait()
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        await_lines(notes, 1)
        parent.kill()
    await_lines(notes, 2)
    assert lines_of(notes) == ["up", "down"]
    psutil.wait_procs([child], timeout=30)
    assert not child.is_running()


def test_a_stage_that_ignores_the_polite_signal_is_ended_after_the_grace(tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    program = "import signal, sys, threading; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    program += f"open({str(notes)!r}, 'a').write('up\\n')\nthreading.Event().wait()"
    policy = RestartPolicy(wait_seconds_min=0.05, wait_seconds_max=0.4, settled_seconds=5.0, grace_seconds=0.2)
    with Supervisor([Stage(name="deaf", command=[sys.executable, "-c", program])], policy=policy) as supervisor:
        await_lines(notes, 1)
        pid = supervisor.process_ids()["deaf"]
    assert not psutil.pid_exists(pid)


def test_output_of_each_stage_goes_to_its_own_file(tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    stage = Stage(name="talker", command=[sys.executable, "-c", f"print('hello', flush=True); {SLEEPER}", str(notes)])
    with Supervisor([stage], policy=QUICK, log_folder=tmp_path / "logs"):
        await_lines(notes, 1)
    assert (tmp_path / "logs" / "talker.log").read_text() == "hello\n"


def test_output_of_a_stage_is_bounded_while_it_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dolmen.cluster.supervisor._LOG_BYTES_MAX", 10_000)
    notes, folder = tmp_path / "notes", tmp_path / "logs"
    talk = "for number in range(2000): print(f'line {number:05d} 100 %d', flush=True)\n"
    os.mkfifo(tmp_path / "never")
    stage = Stage(name="talker", command=[sys.executable, "-c", talk + PLAIN, str(notes), str(tmp_path / "never")])
    with Supervisor([stage], policy=QUICK, log_folder=folder) as supervisor:
        await_lines(notes, 1)
        assert supervisor.restart_counts() == {"talker": 0}
    assert {path.name for path in folder.iterdir()} == {"talker.log", "talker.log.1"}
    assert all(path.stat().st_size <= 10_000 and path.stat().st_mode & 0o077 == 0 for path in folder.iterdir())
    assert (folder / "talker.log").read_text().splitlines()[-1] == "line 01999 100 %d"


def test_a_state_folder_has_one_holder_and_no_lock_file(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    with hold_folder(folder), pytest.raises(ConfigError, match="in use by another dolmen"), hold_folder(folder):
        raise AssertionError("two holders")
    with hold_folder(folder):
        assert list(folder.iterdir()) == []


def test_a_policy_with_no_wait_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match="wait_seconds_min must be above 0"):
        RestartPolicy(wait_seconds_min=0.0)

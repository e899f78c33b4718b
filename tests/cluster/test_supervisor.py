"""The supervisor with real processes: each death is met with a restart, each stop leaves nothing behind."""

import itertools
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import psutil
import pytest

from dolmen.cluster.lifetime import hold_folder
from dolmen.cluster.supervisor import RestartPolicy, Stage, Supervisor
from dolmen.errors import ConfigError

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


def sleeper(name: str, notes: Path) -> Stage:
    return Stage(name=name, command=[sys.executable, "-c", SLEEPER, str(notes)])


def lines_of(path: Path) -> list[str]:
    return path.read_text().split() if path.exists() else []


def await_lines(path: Path, count: int, seconds: float = 20.0) -> list[str]:
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
    psutil.wait_procs([child], timeout=10)
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


def test_a_state_folder_has_one_holder_and_no_lock_file(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    with hold_folder(folder), pytest.raises(ConfigError, match="in use by another dolmen"), hold_folder(folder):
        raise AssertionError("two holders")
    with hold_folder(folder):
        assert list(folder.iterdir()) == []


def test_a_policy_with_no_wait_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match="wait_seconds_min must be above 0"):
        RestartPolicy(wait_seconds_min=0.0)

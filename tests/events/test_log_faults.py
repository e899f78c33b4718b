"""The log while processes are killed, forked and starved of disk."""

import multiprocessing
import os
import random
import resource
import signal
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

from dolmen.errors import LogError
from dolmen.events import EmbeddedLog, Store

pytestmark = pytest.mark.fault

# A fork server has everything imported, so that a fresh process costs milliseconds, and has no threads to fork over.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["dolmen.events", "dolmen.events.joiner"])


def start(work: Callable[..., object], *arguments: object) -> BaseProcess:
    process = PROCESSES.Process(target=work, args=arguments)
    process.start()
    return process


def value_of(producer: str, sequence: int, place: int) -> bytes:
    head = f"{producer} {sequence} {place} ".encode()
    return head + b"%" * (37 * sequence % 3000)


def produce(folder: Path, producer: str, first_sequence: int, acks: Connection) -> None:
    """Append three records at a time, telling each acknowledged sequence, until killed."""
    log = EmbeddedLog(folder, map_size=1 << 16)
    sequence = first_sequence
    while True:
        log.append(
            "t", [value_of(producer, sequence, place) for place in range(3)], producer=producer, sequence=sequence
        )
        acks.send(sequence)
        sequence += 1


def drained(acks: Connection, last: int) -> int:
    try:
        while acks.poll():
            last = acks.recv()
    except EOFError:
        pass
    return last


def test_two_producers_killed_at_random_lose_and_double_nothing(tmp_path: Path) -> None:
    """Each restarts after its last acknowledged sequence: what was written but not acknowledged comes again."""
    odds = random.Random(5)
    acked = {"p": -1, "q": -1}
    for _ in range(6):
        running = {}
        for producer, last in acked.items():
            here, there = PROCESSES.Pipe(duplex=False)
            running[producer] = (start(produce, tmp_path, producer, last + 1, there), here)
            there.close()
        assert all(here.poll(60) for _, here in running.values())  # both are writing
        time.sleep(odds.uniform(0.0, 0.15))
        for producer, (process, here) in running.items():
            process.kill()
            process.join()
            acked[producer] = drained(here, acked[producer])
    log = EmbeddedLog(tmp_path)
    first, end = log.bounds("t")
    records = log.read("t", 0, first, max_records=1 << 30, max_bytes=1 << 30)
    assert [record.offset for record in records] == list(range(end))
    for producer, last in acked.items():
        found = [record.value for record in records if record.value.startswith(f"{producer} ".encode())]
        written = len(found) // 3
        assert written in (last + 1, last + 2)  # at most one append was on disk and not acknowledged
        assert found == [value_of(producer, sequence, place) for sequence in range(written) for place in range(3)]
    log.close()


def hold_a_read(folder: Path, ready: Connection) -> None:
    def work(_: object) -> None:
        ready.send(True)
        time.sleep(600)

    Store(folder).read(work)


def test_killed_reader_does_not_keep_space_from_being_used_again(tmp_path: Path) -> None:
    folder = tmp_path / "t" / "0"
    log = EmbeddedLog(tmp_path, map_size=1 << 20)
    log.append("t", [b"x"])
    here, there = PROCESSES.Pipe(duplex=False)
    process = start(hold_a_read, folder, there)
    assert here.recv()
    process.kill()
    process.join()
    for _ in range(200):  # 20 MB through a topic that keeps one record
        end = log.append("t", [b"x" * (100 << 10)]).next_offset
        log.truncate("t", 0, end - 1)
    assert (folder / "data.mdb").stat().st_size < 4 << 20
    log.close()


def append_until_full(folder: Path, told: Connection) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (2 << 20, 2 << 20))  # a file of 2 MiB is all this disk can take
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    log = EmbeddedLog(folder)
    count = 0
    try:
        while True:
            log.append("t", [b"x" * (50 << 10)] * 3)
            count += 3
    except LogError as problem:
        told.send((count, str(problem), problem.retry, log.bounds("t"), len(log.read("t", 0, 0))))


def test_full_disk_is_an_error_and_nothing_half_applied(tmp_path: Path) -> None:
    here, there = PROCESSES.Pipe(duplex=False)
    process = start(append_until_full, tmp_path, there)
    count, message, retry, bounds, readable = here.recv()
    process.join()
    assert count > 0
    assert str(tmp_path) in message
    assert retry is True
    assert (bounds, readable) == ((0, count), count)
    with EmbeddedLog(tmp_path) as log:  # there is room again
        assert log.append("t", [b"y"]).first_offset == count


@pytest.fixture
def forked() -> Iterator[list[int]]:
    children: list[int] = []
    yield children
    for child in children:
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_forked_child_uses_the_log_of_its_parent(tmp_path: Path, forked: list[int]) -> None:
    log = EmbeddedLog(tmp_path)
    log.append("t", [b"parent"])
    log.wait({("t", 0): 1}, wait_seconds=0.001)
    child = os.fork()
    if child == 0:
        try:
            assert log.read("t", 0, 0)[0].value == b"parent"
            log.append("t", [b"child"])
            os._exit(0)
        finally:
            os._exit(1)
    forked.append(child)
    assert log.read("t", 0, 1, wait_seconds=10)[0].value == b"child"
    assert log.append("t", [b"parent again"]).first_offset == 2
    log.close()

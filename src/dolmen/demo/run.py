"""``dolmen demo``: the whole loop on one machine, fed by a replay of real events through its own public API."""

from __future__ import annotations

import itertools
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, final

import psutil
import pyarrow.compute as pc
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from dolmen import datasets
from dolmen.client import Client
from dolmen.cluster import Config, RestartPolicy, Supervisor
from dolmen.cluster.lifetime import hold_folder, stop_on_signals
from dolmen.cluster.stages import STAGES, stages_of
from dolmen.cluster.supervisor import Death
from dolmen.datasets import Dataset
from dolmen.demo.catalogue import Catalogue
from dolmen.demo.freshness import Freshness
from dolmen.demo.prober import Prober
from dolmen.demo.replay import Replay
from dolmen.demo.report import DemoReport, Measured, make_report
from dolmen.demo.setup import DemoNotes, DemoOptions, configuration, with_port
from dolmen.errors import DataError, NotReadyError, RemoteError
from dolmen.serving import check_address
from dolmen.telemetry import LogFormat, set_up_logs
from dolmen.unfinished import require_file, require_folder

__all__ = ["run_demo"]

_READY_SECONDS: Final = 60.0  # since a stage was started last
_DRAIN_SECONDS: Final = 60.0
_NOTE_SECONDS: Final = 1.0
_LOGS: Final = "logs"
_ATTEMPTS_MAX: Final = 20  # of each request of the replay: half a minute, in which a killed server is back anywhere
# While nobody can look: at the start, and without a page to the end. A trainer that dies within this time has written
# no snapshot, so its next life begins where this one did.
_UNWATCHED: Final = RestartPolicy(settled_seconds=60.0, deaths_max=4)


def run_demo(options: DemoOptions, *, temporary: bool = False) -> int:
    """Run it; the exit status.

    Args:
        options: from the command line.
        temporary: use a new folder rather than ``options.state``, and delete it afterwards unless something went wrong.

    Raises:
        DolmenError: something is missing or in use; the message says what and the mend.
    """
    if options.report_path is not None:
        require_file(options.report_path, "--report")
    stop = stop_on_signals()
    started = time.monotonic()
    dataset = datasets.load(options.data)
    _check_replayable(dataset)
    with ExitStack() as stack:
        if temporary:
            folder = stack.enter_context(_TemporaryFolder())
            options = replace(options, state=folder.path)
        else:
            folder = None
            require_folder(options.state, "--state")
        demo = _Demo(options, dataset, stop, started)
        held = stack.enter_context(hold_folder(options.state))
        demo.prepare(stack, held)
        status = demo.run()
        if folder is not None and (status == 1 or demo.has_seen_death):
            folder.keep()
        return status


@final
class _TemporaryFolder:
    """A new folder that is deleted after its block, unless it is to be kept, or the block ends with an error and stages
    have run: what they said in it tells why. The terminal says where it is then.
    """

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="dolmen-demo-"))
        self._is_kept = False

    def __enter__(self) -> _TemporaryFolder:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        have_run = any((self.path / _LOGS / f"{name}.log").exists() for name in STAGES)
        if not self._is_kept and (kind is None or not have_run):
            shutil.rmtree(self.path)
        else:
            Console().print(f"What this run wrote is kept in {self.path}", markup=False, soft_wrap=True)

    def keep(self) -> None:
        """Do not delete it."""
        self._is_kept = True


@final
class _Demo:
    """One run, from an empty folder (or where an earlier run stopped) to the report."""

    def __init__(self, options: DemoOptions, dataset: Dataset, stop: threading.Event, started: float) -> None:
        self._options, self._dataset, self._stop, self._started = options, dataset, stop, started
        self.has_seen_death = False
        self._console = Console()
        self._log_folder = options.state / _LOGS

    def prepare(self, stack: ExitStack, held: int) -> None:
        """Write the configuration and start the stages, which inherit ``held``; ``stack`` stops them."""
        self._console.print(f"[bold]{self._dataset!r}[/bold]", highlight=False, soft_wrap=True)
        if pc.min(self._dataset.interactions[self._dataset.label]).as_py() > 0:
            told = "Every one of its examples was acted on, and nothing was passed over: there is no AUC to tell."
            self._console.print(told, soft_wrap=True)
        self._notes = DemoNotes(self._options)
        # Of a run that goes on, too, the plan is that of the first; how much of it is left is told to the replay.
        self._options = replace(self._options, event_count=self._notes.event_count, rate=self._notes.events_per_second)
        self._log_folder.mkdir(exist_ok=True)
        lines = stack.enter_context((self._log_folder / "demo.log").open("a"))
        set_up_logs("demo", form=LogFormat.JSON, stream=lines)
        config_path = self._options.state / "dolmen.toml"
        if self._notes.is_new:
            text = configuration(self._options, self._dataset)
            self._notes.save(0)  # from here on the folder is a demo's
            config_path.write_text(text)
        else:
            config_path.write_text(with_port(config_path.read_text(), self._options.port))
            self._console.print(
                f"Going on in {self._options.state}/ after slate {self._notes.slate_count_done:,}; --fresh starts anew",
                soft_wrap=True,
            )
        config = Config.from_toml(config_path)
        check_address(config.serving, port_name="--port")
        self._supervisor = stack.enter_context(
            Supervisor(
                stages_of(config_path),
                policy=_UNWATCHED,
                log_folder=self._log_folder,
                held=[held],
                failed=self._stop.set,
                died=self._tell_death,
            )
        )
        self._client = stack.enter_context(Client(f"http://127.0.0.1:{config.serving.port}"))

    def run(self) -> int:
        """Replay, report; then, unless headless, stay until stopped. Returns the exit status.

        Raises:
            ConfigError: a stage cannot run with this configuration.
            StageError: a stage died again and again, before there was a page to see it on.
        """
        try:
            status = self._run()
        except RemoteError:
            if self._supervisor.failure is None:
                raise
        if self._supervisor.failure is not None:
            raise self._supervisor.failure
        return status

    def _tell_death(self, death: Death) -> None:
        self.has_seen_death = True
        told = f"{death.name} died ({death.status}: {death.said}) and is started again"
        log = f"{self._log_folder}/{death.name}.log has all that it said"
        self._console.print(f"{told}; {log}", markup=False, soft_wrap=True)

    def _run(self) -> int:
        with self._console.status("Starting serve, join and train…"):
            self._await_ready()
            if not self._options.headless:
                self._supervisor.policy = RestartPolicy()
            if not self._stop.is_set():
                self._catalogue = Catalogue(self._client, self._dataset)
                self._catalogue.add_users()
                self._catalogue.move_to(self._next_time_us())
        if not self._stop.is_set() and not self._options.headless and self._left() == 0:
            self._console.print("This demo was replayed to its end by an earlier run; --fresh begins anew.")
        elif not self._stop.is_set():
            report = self._replay()
            if self._supervisor.failure is None:
                self._tell(report)
            if self._options.headless and not self._stop.is_set():
                return 0 if report.accounts_close else 1
        if not self._stop.is_set():
            self._console.print(f"\nEverything is replayed; the page stays: {self._client.address}     (Ctrl-C stops)")
            self._stop.wait()
            self._console.print("Stopping; the next start shows the page again.")
            return 0
        if self._supervisor.failure is None:  # else nothing ran that could be gone on from
            self._console.print("Stopping; the next start goes on from here.")
        return 130 if self._options.headless else 0

    def _next_time_us(self) -> int:
        """When the next slate was shown; the data's end if none is left."""
        left = itertools.islice(self._dataset.slates(), self._notes.slate_count_done, None)
        return next((slate.time_us for slate in left), 1 << 62)

    def _await_ready(self) -> None:
        restarts, since = 0, time.monotonic()
        while not self._is_ours() and not self._stop.wait(0.1):
            now = sum(self._supervisor.restart_counts().values())
            if now != restarts:
                restarts, since = now, time.monotonic()
            if time.monotonic() - since > _READY_SECONDS:
                raise NotReadyError(
                    f"the stages did not get ready; what they say is in {self._log_folder}/*.log (is another server on"
                    f" {self._client.address}? --port names another port)"
                )

    def _is_ours(self) -> bool:
        """Whether the server that answers is the one that was started here, and ready: a stranger gets no events."""
        if not self._client.is_ready():
            return False
        try:
            told = self._client.status()["stages"].get("serve")
        except RemoteError:
            return False
        return told is not None and told["pid"] == self._supervisor.process_ids().get("serve")

    def _await_figures(self) -> dict[str, Any]:
        """The status once all stages of this run have told and what earlier runs left is learned: a start for counts.

        What a stage told before it was started anew is not how things stand now.
        """

        def is_told(status: dict[str, Any]) -> bool:
            ids = self._supervisor.process_ids()
            told = {name: one["pid"] for name, one in status["stages"].items()}
            return all(told.get(name) == ids.get(name) for name in STAGES) and _is_drained(status)

        return self._await_status(is_told)

    def _await_status(self, holds: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """The first status that ``holds``, or the last one when time runs out: then the accounts say what is left.

        A server that was killed a moment ago is waited for.
        """
        deadline = time.monotonic() + _DRAIN_SECONDS
        while not self._stop.wait(0.1) and time.monotonic() < deadline:
            try:
                status = self._client.status()
            except RemoteError:
                continue
            if holds(status):
                return status
        return self._client.status()

    def _replay(self) -> DemoReport:
        options, client = self._options, self._client
        if not options.headless:
            self._console.print(f"\n  Watch it learn: [bold cyan]{client.address}[/bold cyan]     (Ctrl-C stops)\n")
        freshness = Freshness()
        before = self._await_figures()
        left = self._left()
        people = self._dataset.users["id"].to_pylist()
        with (
            Client(client.address, attempts_max=_ATTEMPTS_MAX) as shop,
            Prober(client.address, people, freshness, seed=options.seed) as prober,
        ):
            replay = Replay(
                shop,
                self._dataset.slates(),
                freshness,
                events_per_second=options.events_per_second,
                event_count=left,
                slate_count_done=self._notes.slate_count_done,
                before_slate=lambda slate: self._catalogue.move_to(slate.time_us),
            )
            self._watch(replay, left)
            after = client.status() if self._stop.is_set() else self._drain()
        return make_report(
            options,
            self._dataset,
            Measured(replay.figures, prober, freshness, before, after),
            resident_bytes=_resident_bytes(self._supervisor),
            restarts=self._supervisor.restart_counts(),
            wall_seconds=time.monotonic() - self._started,
            stopped=self._stop.is_set(),
        )

    def _left(self) -> int:
        """How many items are still to be shown."""
        done = sum(len(one.items) for one in itertools.islice(self._dataset.slates(), self._notes.slate_count_done))
        count = self._options.event_count
        return max((min(count, len(self._dataset)) if count is not None else len(self._dataset)) - done, 0)

    def _watch(self, replay: Replay, left: int) -> None:
        """Run the replay to its end (or until told to stop), show how it goes and note how far it got."""
        replay.start()
        with _shown(self._console, replay, self._client, left) as show:
            while not replay.join(_NOTE_SECONDS):
                show()
                self._notes.save(replay.slate_count_done)
                if self._stop.is_set():
                    replay.stop()
            show()
        self._notes.save(replay.slate_count_done)

    def _drain(self) -> dict[str, Any]:
        """Wait until everything that was acknowledged is joined and learned; the status then, or when time ran out.

        What the joiner told before the last event was sent knows nothing of it.
        """
        sent_us = time.time_ns() // 1_000

        def is_told(status: dict[str, Any]) -> bool:
            told_us = status["time_us"] - status["stages"]["join"]["age_seconds"] * 1e6
            return told_us >= sent_us and _is_drained(status)

        return self._await_status(is_told)

    def _tell(self, report: DemoReport) -> None:
        path = self._options.report_path
        self._console.print(report.table())
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(report.to_json())
            self._console.print(f"report: {path}", soft_wrap=True)


def _check_replayable(dataset: Dataset) -> None:
    """Refuse a data set without slates before anything is written.

    Raises:
        DataError: nothing of it can happen again.
    """
    mend = "; --data world or movielens-100k, for example, can be replayed"
    if "item" not in dataset.schema.slots:
        raise DataError(f"{dataset.info.name}: its examples name no item, so there is nothing to show{mend}")
    try:
        next(dataset.slates(), None)
    except DataError as problem:
        raise DataError(f"{problem}{mend}") from None


@contextmanager
def _shown(console: Console, replay: Replay, client: Client, total: int) -> Iterator[Callable[[], None]]:
    """A progress bar with the figures of the loop beside it; yields the function that renews it."""
    columns = (
        TextColumn("replay"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[now]}"),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("replay", total=total, now="")

        def show() -> None:
            try:
                now = client.status()["now"]
            except RemoteError:
                now = {}
            parts = [
                _shown_figure(now, "examples_per_second", "{:,.0f} examples/s"),
                _shown_figure(now, "staleness_seconds", "stale {:.2f} s"),
                _shown_figure(now, "auc_online", "AUC {:.3f}"),
                _shown_figure(now, "auc_frozen", "frozen {:.3f}"),
            ]
            done = replay.figures.impressions_acknowledged
            progress.update(task, completed=done, now="  ".join(part for part in parts if part))

        yield show


def _shown_figure(now: dict[str, Any], name: str, form: str) -> str:
    value = now.get(name)
    return form.format(value) if isinstance(value, (int, float)) else ""


def _is_drained(status: dict[str, Any]) -> bool:
    join, train = _figures(status, "join"), _figures(status, "train")
    return join.get("slates_unread") == join.get("actions_unread") == join.get("items_waiting") == 0 and join.get(
        "examples"
    ) == train.get("examples_total")


def _figures(status: dict[str, Any], stage: str) -> dict[str, Any]:
    figures: dict[str, Any] = status["stages"].get(stage, {}).get("figures") or {}
    return figures


def _resident_bytes(supervisor: Supervisor) -> dict[str, int]:
    found = {}
    for name, pid in supervisor.process_ids().items():
        try:
            found[name] = int(psutil.Process(pid).memory_info().rss)
        except psutil.NoSuchProcess:
            continue
    return found

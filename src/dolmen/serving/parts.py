"""The parts of a server, put together: who knows whom, in which order they start, and what happens once a second."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any, Final, final

import psutil

from dolmen.clock import Clock
from dolmen.errors import LogError
from dolmen.events import Group, Log, Topic, check_identity
from dolmen.serving.actions import Actions
from dolmen.serving.behaviour_sums import BehaviourSums
from dolmen.serving.behaviours import PEOPLE_TABLE, Behaviours
from dolmen.serving.catalogue import ITEMS_TABLE, USERS_TABLE, Catalogue
from dolmen.serving.exposure import COUNTS_TABLE, TOTALS_TABLE, Exposure
from dolmen.serving.ingest import Writer
from dolmen.serving.inputs import Inputs
from dolmen.serving.latency import LatencyWindow
from dolmen.serving.metrics import Metrics
from dolmen.serving.recommender import Recommender
from dolmen.serving.replica import Replica
from dolmen.serving.scoring import Scoring
from dolmen.serving.settings import ServeSettings
from dolmen.serving.shelf import Shelf
from dolmen.serving.stage_metrics import stage_readings
from dolmen.serving.state import State
from dolmen.serving.status import StatusBoard
from dolmen.serving.worker import Worker
from dolmen.telemetry import logger

__all__ = ["Parts"]

_log = logger(__name__)
_TICK_SECONDS: Final = 1.0
_COMMIT_SECONDS: Final = 60.0  # retention thinks in hours, and each commit is a forced write
_RECOMMEND_ROUTE: Final = "/v1/recommend"


@final
class Parts:
    """Everything behind the API. ``start`` and ``stop`` once each; between them any thread may call any part."""

    def __init__(self, settings: ServeSettings, log: Log, clock: Clock) -> None:
        self.settings, self.log, self.clock = settings, log, clock
        tables = [PEOPLE_TABLE, ITEMS_TABLE, USERS_TABLE, COUNTS_TABLE, TOTALS_TABLE]
        self.state = State(settings.state_folder, tables)
        self._check_log()
        self.catalogue = Catalogue(settings, log, self.state)
        self.behaviours = Behaviours(settings, self.state)
        self.sums = BehaviourSums(settings, clock, self.behaviours, Inputs(settings, self.catalogue, self.behaviours))
        self.exposure = Exposure(settings, log, self.state, self.catalogue)
        self.acted = Actions(settings, log, self.state, self.behaviours, self.exposure)
        self.shelf = Shelf(settings, self.catalogue)
        self.replica = Replica(settings, log, self.shelf.learned)
        self.recommender = Recommender(
            settings,
            clock,
            catalogue=self.catalogue,
            behaviours=self.behaviours,
            sums=self.sums,
            exposure=self.exposure,
            replica=self.replica,
            shelf=self.shelf,
        )
        bytes_max = settings.log_queue_bytes_max
        self.impressions = Writer(log, Topic.IMPRESSIONS, self.exposure.shown_tail.wrote, bytes_max=bytes_max)
        self.actions = Writer(log, Topic.ACTIONS, self.acted.tail.wrote, bytes_max=bytes_max)
        self.changes = Writer(log, Topic.CATALOGUE, self.catalogue.tail.wrote, bytes_max=bytes_max)
        self.board = StatusBoard(settings, clock, log, pid=os.getpid(), own=self._figures)
        self.scoring = Scoring(settings, clock, self.recommender, self.impressions, self.board.is_stale)
        self.metrics = Metrics(self._readings)
        self.recommend_latency = LatencyWindow()
        self.is_ready = False
        self._process = psutil.Process()
        self._rates = _Rates()
        self._request_count = 0
        self._keeper = Worker("keeper", self._keep)
        # In the order of the data's flow: who makes work for others stops first.
        self._workers = (
            self._keeper,
            *(writer.worker for writer in (self.impressions, self.actions, self.changes)),
            *(part.worker for part in (self.replica, self.shelf, self.sums)),
        )

    def _check_log(self) -> None:
        """What is known of people and counts is of one log: another one's events must not be added to it."""
        topics = (Topic.CATALOGUE, Topic.IMPRESSIONS, Topic.ACTIONS)
        folder = self.settings.state_folder
        with ExitStack() as on_failure:
            on_failure.callback(self.state.close)
            check_identity(
                self.log,
                folder,
                has_read=any(position > 0 for topic in topics for position in self.state.positions(topic).values()),
                mend=f"move {folder} away: it is then made anew from this log",
            )
            on_failure.pop_all()

    def on_fault(self, told: Callable[[str], None]) -> None:
        """``told`` hears the name of a part whose thread a fault of ours ended, in that thread. Before ``start``."""
        for worker in self._workers:
            worker.on_fault = told

    async def start(self) -> None:
        """Apply what is in the log beyond the state, then start every thread."""
        await asyncio.to_thread(self._recover)
        for worker in reversed(self._workers):
            worker.start()
        self.scoring.start()
        self.is_ready = True

    async def stop(self) -> None:
        """Finish what waits, write the state, and end every thread."""
        self.is_ready = False
        self.scoring.stop()
        await asyncio.to_thread(self._stop)

    def timed(self, route: str, status: int, seconds: float) -> None:
        """A request was answered."""
        self.metrics.observe(route, status, seconds)
        self._request_count += 1
        if route == _RECOMMEND_ROUTE and status == 200:
            self.recommend_latency.add(seconds)

    def dead_threads(self) -> list[str]:
        """The parts whose thread has ended though it should not."""
        return [worker.name for worker in self._workers if not worker.is_alive]

    def _recover(self) -> None:
        started = time.perf_counter()
        count = sum(tail.recover() for tail in self._tails())
        self.save()
        self.board.tick()
        _log.info(
            "state recovered",
            items=len(self.catalogue),
            records=count,
            seconds=round(time.perf_counter() - started, 3),
        )

    def _stop(self) -> None:
        for worker in self._workers:
            worker.stop()
        self.save()
        self.commit()
        self.state.close()

    def save(self) -> None:
        """Put what changed on disk. A failure is told and tried again with the next call."""
        try:
            self.state.save(self.acted, self.catalogue)  # counts are of the catalogue's items
        except LogError as problem:
            _log.error("state not written", problem=str(problem))

    def commit(self) -> None:
        """Tell the log what is in the state on disk, so that retention may delete it there."""
        positions: dict[tuple[str, int], int] = {
            (topic, partition): offset
            for topic in (Topic.IMPRESSIONS, Topic.ACTIONS)
            for partition, offset in self.state.positions(topic).items()
        }
        try:
            self.log.commit(Group.SERVER, positions)
        except LogError as problem:
            _log.error("positions not committed", problem=str(problem))

    def _keep(self) -> None:
        due = time.monotonic() + _TICK_SECONDS
        commit_due = time.monotonic() + _COMMIT_SECONDS
        while not self._keeper.rest(max(0.0, due - time.monotonic())):
            due = max(due + _TICK_SECONDS, time.monotonic())
            for tail in self._tails():
                try:
                    tail.catch_up()  # what other servers wrote
                except LogError as problem:
                    _log.error("log not read", topic=tail.topic, problem=str(problem))
                except Exception:  # a fault of ours: what was applied must be saved all the same
                    _log.exception("log not applied", topic=tail.topic)
            try:
                self.catalogue.forget_removed(self.exposure.forget)
                self.behaviours.sweep(self.clock.now_us())
                self.save()
                self.board.tick()
                if time.monotonic() >= commit_due:
                    commit_due = time.monotonic() + _COMMIT_SECONDS
                    self.commit()
                    self.catalogue.compact()
            except Exception:  # a fault of ours: saving must be tried again, or a restart would take ever longer
                _log.exception("keeper failed")

    def _tails(self) -> tuple[Any, ...]:
        # The catalogue first: counts are kept by its rows.
        return self.catalogue.tail, self.exposure.shown_tail, self.acted.tail

    def _staleness_seconds(self) -> float | None:
        parameters = self.replica.parameters
        if parameters is None or parameters.newest_event_time_us <= 0:
            return None
        return max(0, self.clock.now_us() - parameters.newest_event_time_us) / 1e6

    def _figures(self) -> dict[str, Any]:
        """What the status says of this server."""
        parameters = self.replica.parameters
        action_count = sum(
            self.log.bounds(Topic.ACTIONS, partition)[1] for partition in range(self.log.partitions(Topic.ACTIONS))
        )
        rates = self._rates.of(
            {
                "requests": self._request_count,
                "recommendations": self.scoring.recommend_count,
                "slates": self.scoring.slate_count,
                "impressions": self.scoring.shown_count,
                "actions": self.actions.written_count,
            }
        )
        return {
            **{f"{name}_per_second": rate for name, rate in rates.items()},
            "events_per_second": rates["impressions"] + rates["actions"],
            "events_total": self.exposure.shown_count + action_count,
            "staleness_seconds": self._staleness_seconds(),
            "version": parameters.version if parameters is not None else None,
            "recommend_p50_ms": self.recommend_latency.percentile_ms(50),
            "recommend_p99_ms": self.recommend_latency.percentile_ms(99),
            "memory_bytes": self._process.memory_info().rss,
            "item_count": len(self.catalogue),
            "indexed_item_count": len(self.shelf),
            "waiting_requests": self.scoring.waiting_count,
            "refused_total": self.scoring.refused_count,
            "popularity_slates_total": self.recommender.fallback_count,
            "replica_problem": self.replica.problem,
            "bootstraps_total": self.replica.bootstrap_count,
            "deltas_total": self.replica.delta_count,
        }

    def _readings(self) -> dict[str, float | None]:
        """What the parts count, for Prometheus."""
        parameters = self.replica.parameters
        writers = (self.impressions, self.actions, self.changes)
        return {
            "dolmen_replica_staleness_seconds": self._staleness_seconds(),
            "dolmen_replica_version": parameters.version if parameters is not None else None,
            "dolmen_replica_rows_count": len(parameters.embeddings) if parameters is not None else None,
            "dolmen_replica_bootstraps_total": self.replica.bootstrap_count,
            "dolmen_replica_deltas_total": self.replica.delta_count,
            "dolmen_replica_vectors_bytes_total": self.replica.delta_bytes,
            "dolmen_serve_slates_total": self.scoring.slate_count,
            "dolmen_serve_shown_items_total": self.scoring.shown_count,
            "dolmen_serve_scoring_passes_total": self.scoring.pass_count,
            "dolmen_serve_popularity_slates_total": self.recommender.fallback_count,
            "dolmen_serve_broken_scores_total": self.recommender.broken_score_count,
            "dolmen_serve_refused_total": self.scoring.refused_count,
            "dolmen_serve_waiting_requests_count": self.scoring.waiting_count,
            "dolmen_ingest_actions_total": self.actions.written_count,
            "dolmen_ingest_appends_total": sum(writer.append_count for writer in writers),
            "dolmen_ingest_failed_events_total": sum(writer.failed_count for writer in writers),
            "dolmen_ingest_waiting_bytes": sum(writer.waiting_bytes for writer in writers),
            "dolmen_catalogue_items_count": len(self.catalogue),
            "dolmen_index_items_count": len(self.shelf),
            "dolmen_index_encoded_items_total": self.shelf.encoded_count,
            "dolmen_index_linked_items_total": self.shelf.linked_count,
            "dolmen_behaviour_sums_people_count": len(self.sums),
            "dolmen_behaviour_sums_added_total": self.sums.added_count,
            "dolmen_behaviour_sums_renewed_total": self.sums.renewed_count,
            "dolmen_state_bad_records_total": sum(tail.bad_count for tail in self._tails()) + self.board.bad_count,
            "dolmen_state_set_aside_records_total": sum(tail.aside_count for tail in self._tails()),
            "dolmen_state_lost_records_total": sum(tail.lost_count for tail in self._tails()),
            **stage_readings(self.board),
        }


@final
class _Rates:
    """Turns counts that grow into rates since the last call."""

    def __init__(self) -> None:
        self._at = time.monotonic()
        self._counts: dict[str, int] = {}

    def of(self, counts: Mapping[str, int]) -> dict[str, float]:
        now = time.monotonic()
        seconds = max(now - self._at, 1e-3)
        rates = {name: (count - self._counts.get(name, 0)) / seconds for name, count in counts.items()}
        self._at, self._counts = now, dict(counts)
        return rates

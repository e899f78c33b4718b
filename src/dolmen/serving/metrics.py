"""Metrics for Prometheus. Requests are observed as they happen; what the parts count is read when somebody asks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Final, final

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from dolmen.serving.stage_metrics import MEANINGS as STAGE_MEANINGS

__all__ = ["Metrics", "Reading"]

_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)

Reading = Callable[[], Mapping[str, float | None]]
"""The parts' figures by metric name; names that end in ``_total`` are counters, ``None`` is left out."""

_MEANINGS: Final = {
    "dolmen_replica_staleness_seconds": "Event time of the newest example the parameters include, against now.",
    "dolmen_replica_version": "Records that the served parameters have learned from.",
    "dolmen_replica_rows_count": "Rows in the served tables.",
    "dolmen_replica_bootstraps_total": "Times a snapshot was loaded.",
    "dolmen_replica_deltas_total": "Deltas applied.",
    "dolmen_replica_vectors_bytes_total": "Bytes of vectors that deltas brought.",
    "dolmen_serve_slates_total": "Slates answered, each with its impression in the log.",
    "dolmen_serve_shown_items_total": "Items shown on those slates.",
    "dolmen_serve_scoring_passes_total": "Passes of the models, each for all that waited.",
    "dolmen_serve_popularity_slates_total": "Slates ranked by popularity, for want of a trained model.",
    "dolmen_serve_broken_scores_total": "Passes whose scores were not finite, so that popularity ranked instead.",
    "dolmen_serve_refused_total": "Requests refused because too many were waiting.",
    "dolmen_serve_waiting_requests_count": "Requests that wait for scoring.",
    "dolmen_ingest_actions_total": "Actions written to the log.",
    "dolmen_ingest_appends_total": "Appends to the log; events per append say how many shared a write.",
    "dolmen_ingest_failed_events_total": "Events that the log did not take.",
    "dolmen_ingest_waiting_bytes": "Events that wait for the disk.",
    "dolmen_catalogue_items_count": "Items that can be shown.",
    "dolmen_index_items_count": "Items that retrieval can find.",
    "dolmen_index_encoded_items_total": "Item vectors computed.",
    "dolmen_behaviour_sums_people_count": "People whose past is kept as sums, for a model that condenses it.",
    "dolmen_behaviour_sums_added_total": "Behaviours added to such sums.",
    "dolmen_behaviour_sums_renewed_total": "Times that a person's sums were made anew from the history.",
    "dolmen_index_linked_items_total": "Item vectors that moved far enough to be put into the index.",
    "dolmen_state_bad_records_total": "Records of the log that could not be read and were passed over.",
    "dolmen_state_set_aside_records_total": "Records that could not be applied, kept in the state folder's set-aside.",
    "dolmen_state_lost_records_total": "Records that retention deleted before this server read them.",
    **STAGE_MEANINGS,
}


@final
class Metrics(Collector):
    """The registry of one server."""

    def __init__(self, reading: Reading) -> None:
        self._reading = reading
        self._registry = CollectorRegistry(auto_describe=False)
        self._requests = Counter(
            "dolmen_serve_requests_total", "Requests by route and status.", ["route", "status"], registry=self._registry
        )
        self._seconds = Histogram(
            "dolmen_serve_request_seconds",
            "How long requests took, by route.",
            ["route"],
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._registry.register(self)

    def observe(self, route: str, status: int, seconds: float) -> None:
        """One request was answered."""
        self._requests.labels(route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def collect(self) -> Iterator[Metric]:
        """What the parts say now."""
        for name, value in self._reading().items():
            if value is None:
                continue
            meaning = _MEANINGS[name]
            if name.endswith("_total"):
                yield CounterMetricFamily(name.removesuffix("_total"), meaning, value=value)
            else:
                yield GaugeMetricFamily(name, meaning, value=value)

    def text(self) -> bytes:
        """All metrics in Prometheus's text format."""
        return generate_latest(self._registry)

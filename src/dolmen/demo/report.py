"""The demo's report: what was sent, what became of it, how good and how fresh the answers were."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final, final

from rich.table import Table as TextTable

from dolmen.datasets import Dataset
from dolmen.demo.freshness import Freshness, Percentiles
from dolmen.demo.prober import PROBES_PER_SECOND, Prober
from dolmen.demo.replay import ReplayFigures
from dolmen.demo.setup import DemoOptions
from dolmen.provenance import machine, program

__all__ = ["DemoReport", "Measured", "make_report"]

_COURSES: Final = {"online": "served_since", "before_learning": "online_since", "frozen": "frozen"}
"""Our names for the trainer's courses. All are judged on the same examples: those after the freeze, the second half."""
_OF_ACKNOWLEDGED: Final = (
    "every acknowledged impression was joined",
    "every acknowledged action was joined or is unread",
)
"""Accounts between the replay and the stages: only they can tell somebody else's events."""
_MEASURES: Final = ("auc", "log_loss", "calibration_ratio")


@final
@dataclass(frozen=True)
class Account:
    """Two ways to count the same.

    ``unsure``: events that were sent and not acknowledged, so that the log may have them; ``None`` where other people
    send events too, and nobody knows how many.
    """

    counted: int
    expected: int
    unsure: int | None = 0

    @property
    def closes(self) -> bool:
        """Whether both agree, up to what nobody can know."""
        return self.counted >= self.expected and not self.is_over

    @property
    def is_over(self) -> bool:
        """Whether more was counted than was sent."""
        return self.unsure is not None and self.counted > self.expected + self.unsure


@final
@dataclass(frozen=True, kw_only=True)
class DemoReport:
    """Everything that a run shows; ``to_json`` is what ``--report`` writes.

    ``events``: counts from the replay (sent, acknowledged), the joiner (joined, waiting, unread) and the trainer
    (trained). ``accounts``: sums that must be equal, by what they say; ``accounts_close``: all are; ``None`` where
    the run was ``stopped`` before all that it sent was learned, so that they need not be yet. ``progressive``:
    AUC, log loss and calibration over the second half, of what the online model answered when each slate was shown
    (``online``), of its parameters just before they learned each example (``before_learning``), and of the copy that
    stopped learning at half time (``frozen``).
    """

    dataset: str
    simulated: bool
    seed: int
    stopped: bool
    events: Mapping[str, int | None]
    accounts: Mapping[str, Account]
    progressive: Mapping[str, Mapping[str, float | None]]
    staleness_seconds: Percentiles
    recommend_latency_ms: Percentiles
    events_per_second: float
    items_shown_per_second: float
    table_rows: int | None
    resident_bytes: Mapping[str, int]
    restarts: Mapping[str, int]
    failures: Mapping[str, Any]
    wall_seconds: float
    replay_seconds: float
    settings: Mapping[str, Any]

    @property
    def accounts_close(self) -> bool | None:
        """Whether each event is accounted for, exactly once; ``None`` where nobody waited to see."""
        return None if self.stopped else all(one.closes for one in self.accounts.values())

    @property
    def of_others(self) -> tuple[int, int]:
        """How many items shown, and how many actions, were joined that this run did not send: somebody else's."""
        shown, actions = (self.accounts[name].counted for name in _OF_ACKNOWLEDGED)
        return (
            max(0, shown - int(self.events["impressions_sent"] or 0)),
            max(0, actions - int(self.events["actions_sent"] or 0)),
        )

    def to_json(self) -> str:
        """The report as JSON, with the program, commit and machine beside it."""
        told = {"accounts_close": self.accounts_close, **asdict(self)}
        return json.dumps({"program": program(), "machine": machine(), **told}, indent=2) + "\n"

    def table(self) -> TextTable:
        """The report for people."""
        table = TextTable(show_header=False, box=None, title=f"demo: {self.dataset}", title_justify="left")
        late = f" ({_count(self.events['positives_late'])} of them late)" if self.events["positives_late"] else ""
        events, verdicts = self.events, {True: "accounts close", False: "ACCOUNTS DO NOT CLOSE", None: "stopped early"}
        rows = {
            "sent": f"{events['impressions_sent']:,} items shown, {events['actions_sent']:,} actions",
            "acknowledged": f"{events['impressions_acknowledged']:,} and {events['actions_acknowledged']:,}",
            "became": (
                f"{_count(events['positives'])} positives{late}, {_count(events['negatives_kept'])} negatives kept,"
                f" {_count(events['negatives_dropped'])} dropped, {_count(events['waiting'])} waiting"
                f" ({verdicts[self.accounts_close]})"
            ),
            "trained": f"{_count(events['trained'])} examples",
            **{
                f"AUC {name}": f"{_figure(course.get('auc'))}   log loss {_figure(course.get('log_loss'))}"
                for name, course in self.progressive.items()
            },
            "staleness": _percentiles(self.staleness_seconds, "s"),
            "recommend": _percentiles(self.recommend_latency_ms, "ms"),
            "rate": f"{self.events_per_second:,.0f} events/s ({self.items_shown_per_second:,.0f} items shown/s)",
            "table": f"{_count(self.table_rows)} rows",
            "memory": ", ".join(f"{name} {size >> 20:,} MiB" for name, size in self.resident_bytes.items()),
            "time": f"{self.wall_seconds:.1f} s",
        }
        for key, value in rows.items():
            table.add_row(f"[bold]{key}[/bold]", value)
        if self.stopped:
            told = "before all that was sent was learned: what is on its way is in the log, and the next start goes on"
            table.add_row("[bold]stopped[/bold]", told)
            return table
        for name, one in self.accounts.items():
            if not one.closes:
                told = f"{name}: counted {one.counted:,}, expected {one.expected:,}"
                table.add_row("[bold]does not close[/bold]", told)
        shown, actions = self.of_others
        if shown or actions:
            mend = "" if self.accounts_close else "; let nobody else use the server, and run it again"
            table.add_row(
                "[bold]not alone[/bold]",
                f"somebody else sent events to this server during the run ({shown:,} items shown, {actions:,} actions),"
                f" so its figures are not of the replay alone{mend}",
            )
        if not self.accounts_close:
            table.add_row("[bold]exit status[/bold]", "1 without a page, since an account does not close")
        return table


@final
@dataclass(frozen=True)
class Measured:
    """What a run saw: from outside (replay, prober, freshness), and the stages' own figures before and after."""

    sent: ReplayFigures
    prober: Prober
    freshness: Freshness
    before: Mapping[str, Any]
    after: Mapping[str, Any]

    def figures(self, stage: str) -> Mapping[str, Any]:
        """What a stage said last."""
        return self.after["stages"].get(stage, {}).get("figures") or {}

    def grown(self, stage: str, name: str) -> int:
        """By how much a stage's count grew in this run."""
        earlier = self.before["stages"].get(stage, {}).get("figures") or {}
        return int(self.figures(stage).get(name) or 0) - int(earlier.get(name) or 0)


def make_report(
    options: DemoOptions,
    dataset: Dataset,
    measured: Measured,
    *,
    resident_bytes: Mapping[str, int],
    restarts: Mapping[str, int],
    wall_seconds: float,
    stopped: bool,
) -> DemoReport:
    """Put the figures together; nothing is measured here. ``stopped``: before the stages had done all of it."""
    sent, prober, join, train = measured.sent, measured.prober, measured.figures("join"), measured.figures("train")
    latency = prober.latency_seconds()
    events = {
        "impressions_sent": sent.impressions_sent,
        "impressions_acknowledged": sent.impressions_acknowledged,
        "actions_sent": sent.actions_sent,
        "actions_acknowledged": sent.actions_acknowledged,
        "impressions_joined": measured.grown("join", "items_shown"),
        # A retry whose first try had reached the log is there twice, and counts once.
        "actions_joined": measured.grown("join", "actions_read") - measured.grown("join", "actions_duplicate"),
        "positives": measured.grown("join", "positives") + measured.grown("join", "positives_late"),
        "positives_late": measured.grown("join", "positives_late"),
        "negatives_kept": measured.grown("join", "negatives_kept"),
        "negatives_dropped": measured.grown("join", "negatives_dropped"),
        "waiting": int(join.get("items_waiting") or 0) + int(join.get("actions_waiting") or 0),
        "slates_unread": int(join.get("slates_unread") or 0),
        "actions_unread": int(join.get("actions_unread") or 0),
        "examples": measured.grown("join", "examples"),
        "trained": measured.grown("train", "examples_total") - measured.grown("train", "examples_refused_total"),
    }
    return DemoReport(
        dataset=dataset.info.name,
        simulated=dataset.info.simulated,
        seed=options.seed,
        stopped=stopped,
        events=events,
        accounts=_accounts(events, join, is_alone=options.headless),
        progressive={
            name: {measure: train.get(f"{measure}_{course}") for measure in _MEASURES}
            | {"count": train.get(f"judged_{course}_total")}
            for name, course in _COURSES.items()
        },
        staleness_seconds=measured.freshness.percentiles(),
        recommend_latency_ms=latency.scaled(1e3),
        events_per_second=(sent.impressions_acknowledged + sent.actions_acknowledged) / sent.seconds,
        items_shown_per_second=sent.impressions_acknowledged / sent.seconds,
        table_rows=train.get("table_rows"),
        resident_bytes=resident_bytes,
        restarts=restarts,
        failures={
            "replay": sent.failures,
            "recommend": prober.failure_count,
            "first": sent.first_failure or prober.first_failure,
        },
        wall_seconds=wall_seconds,
        replay_seconds=sent.seconds,
        settings={"events_per_second_max": options.events_per_second, "probes_per_second": PROBES_PER_SECOND},
    )


def _accounts(events: Mapping[str, int], join: Mapping[str, Any], *, is_alone: bool) -> dict[str, Account]:
    """What must be equal, in the replay's books, the joiner's and the trainer's.

    The joiner reads in order, so what is unread is a count of records, and every other record has exactly one fate.
    With a page, visitors may act too: ``is_alone`` is false.
    """

    def total(*names: str) -> int:
        return sum(int(join.get(name) or 0) for name in names)

    def unsure(what: str) -> int | None:
        return events[f"{what}_sent"] - events[f"{what}_acknowledged"] if is_alone else None

    fates = ("duplicate", "other", "unattributed", "unmatched", "waiting", "expired", "bad")
    joined = ("positives", "positives_again", "positives_late")
    return {
        _OF_ACKNOWLEDGED[0]: Account(
            events["impressions_joined"], events["impressions_acknowledged"], unsure("impressions")
        ),
        "no slate is unread": Account(events["slates_unread"], 0),
        _OF_ACKNOWLEDGED[1]: Account(
            events["actions_joined"] + events["actions_unread"], events["actions_acknowledged"], unsure("actions")
        ),
        "every item shown has one fate": Account(
            total("positives", "negatives_kept", "negatives_dropped", "items_waiting"), total("items_shown")
        ),
        "every action read has one fate": Account(
            total(*joined, *(f"actions_{fate}" for fate in fates)), total("actions_read")
        ),
        "every example was learned": Account(events["trained"], events["examples"]),
    }


def _count(count: int | None) -> str:
    return "?" if count is None else f"{count:,}"


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _percentiles(found: Percentiles, unit: str) -> str:
    if found.p50 is None or found.p99 is None or found.max is None:
        return "not measured"
    return (
        f"p50 {found.p50:.3g} {unit}, p99 {found.p99:.3g} {unit}, max {found.max:.3g} {unit} ({found.count:,} measured)"
    )

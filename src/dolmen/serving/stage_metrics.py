"""What joiner and trainer tell of themselves, as metrics: one place to scrape for the whole loop.

Both tell their figures on the log's topic ``status`` once a second, and the server reads them anyway. While one is down
its figures stay as it told them last, and their age grows.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Protocol

__all__ = ["MEANINGS", "Told", "stage_readings"]

_JOINER: Final = {
    "slates_shown": ("slates_shown_total", "Slates taken in."),
    "slates_duplicate": ("slates_duplicate_total", "Slates whose request id was known."),
    "slates_bad": ("slates_bad_total", "Slates that could not be read."),
    "slates_unlearned": ("slates_unlearned_total", "Slates that nobody will act on: probes and tests."),
    "items_shown": ("items_shown_total", "Items on the slates taken in."),
    "items_waiting": ("items_waiting_count", "Items whose window is open."),
    "positives": ("positives_total", "Items whose first action came in time."),
    "positives_again": ("positives_again_total", "Further examples of those, by an action of another kind."),
    "positives_late": ("positives_late_total", "Examples of items that had left as negatives."),
    "negatives_kept": ("negatives_kept_total", "Items without an action that became examples."),
    "negatives_dropped": ("negatives_dropped_total", "Items without an action that sampling dropped."),
    "actions_read": ("actions_read_total", "Actions taken in."),
    "actions_duplicate": ("actions_duplicate_total", "Actions that were known."),
    "actions_other": ("actions_other_total", "Actions of a kind that no label asks for."),
    "actions_unattributed": ("actions_unattributed_total", "Actions without a request id."),
    "actions_unmatched": ("actions_unmatched_total", "Actions on items that their slate did not show."),
    "actions_waiting": ("actions_waiting_count", "Actions that wait for their slate."),
    "actions_expired": ("actions_expired_total", "Actions whose slate never came."),
    "actions_bad": ("actions_bad_total", "Actions that could not be read."),
    "records_gone": ("records_gone_total", "Records that retention deleted before they were read."),
    "examples": ("examples_total", "Examples made."),
    "batches": ("batches_total", "Records of examples made; each is one training step."),
    "slates_unread": ("slates_unread_count", "Slates in the log that are not taken in yet."),
    "actions_unread": ("actions_unread_count", "Actions that were acknowledged and not joined yet."),
    "state_bytes": ("state_bytes", "Size of the joiner's state on disk."),
    "memory_bytes": ("memory_bytes", "Resident memory of the joiner."),
}
_TRAINER: Final = {
    "examples_total": ("examples_total", "Examples seen: learned, or refused."),
    "examples_refused_total": ("examples_refused_total", "Examples seen and not learned: refused."),
    "records_total": ("records_total", "Records of examples learned: training steps."),
    "records_bad_total": ("records_bad_total", "Records that could not be learned and were passed over."),
    "records_gone_total": ("records_gone_total", "Records that retention deleted before they were learned."),
    "steps_refused_total": ("steps_refused_total", "Steps whose loss or gradient was not finite."),
    "backlog_records": ("backlog_records_count", "Records of examples that are not learned yet."),
    "lag_seconds": ("lag_seconds", "Age of the record that was learned last, while others wait."),
    "version": ("version", "Records that the parameters have learned from."),
    "published_version": ("published_version", "Version of the newest delta."),
    "snapshot_version": ("snapshot_version", "Version of the newest snapshot."),
    "snapshot_seconds": ("snapshot_seconds", "How long the newest snapshot took to write."),
    "deltas_total": ("deltas_total", "Deltas published."),
    "delta_rows_total": ("delta_rows_total", "Rows that deltas carried."),
    "delta_bytes_total": ("delta_bytes_total", "Bytes of deltas."),
    "table_rows": ("table_rows_count", "Rows in the tables."),
    "table_bytes": ("table_bytes", "Memory of the tables."),
    "memory_bytes": ("memory_bytes", "Resident memory of the trainer."),
    "auc_online": ("auc_online_ratio", "Progressive AUC of the parameters just before they learn."),
    "auc_frozen": ("auc_frozen_ratio", "The same of the copy that stopped learning."),
    "log_loss_online": ("log_loss_online_ratio", "Progressive log loss of the parameters just before they learn."),
}
_STAGES: Final = {"join": ("joiner", _JOINER), "train": ("trainer", _TRAINER)}
_AGE: Final = "status_age_seconds"

MEANINGS: Final[Mapping[str, str]] = {
    **{f"dolmen_{part}_{name}": meaning for part, told in _STAGES.values() for name, meaning in told.values()},
    **{f"dolmen_{part}_{_AGE}": f"Since the {part} last told its figures." for part, _ in _STAGES.values()},
}
"""What each of these metrics says."""


class Told(Protocol):
    """Where the figures are: ``StatusBoard`` is one."""

    def figures_of(self, stage: str) -> Mapping[str, Any]:
        """What a stage told last; empty where it never did."""
        ...

    def age_seconds_of(self, stage: str) -> float | None:
        """How long ago that was; ``None`` where it never did."""
        ...


def stage_readings(board: Told) -> dict[str, float | None]:
    """Figures of joiner and trainer by metric name; ``None`` for those that were not told."""
    readings: dict[str, float | None] = {}
    for stage, (part, told) in _STAGES.items():
        figures = board.figures_of(stage)
        readings |= {f"dolmen_{part}_{name}": _number(figures.get(key)) for key, (name, _) in told.items()}
        readings[f"dolmen_{part}_{_AGE}"] = board.age_seconds_of(stage)
    return readings


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None

"""Progressive evaluation: predict first, learn after, on the same stream; so every example is a test example once.

Five courses are judged side by side:

- ``served``: the probabilities that people were answered with, before anybody acted on them, which is what counts;
- ``online``: the trainer's own parameters just before they learn the example. By then they have learned from slates
  that were shown later, and of a slate the clicks before what was passed over: where a person's evening passes within
  a second, as in a replay, this is no fair course (see docs/concepts/training-and-sync.md);
- ``frozen``: a copy that stopped learning at some moment, which shows what learning on is worth;
- ``online_since``, ``served_since``: those courses over exactly the examples that the frozen one was judged on.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, final

import numpy as np
import torch
from numpy.typing import NDArray

from dolmen.compute import ON_CPU, Compute
from dolmen.evaluation import Progressive
from dolmen.features import Batch, Schema
from dolmen.models import Model, scorer
from dolmen.training.mode import set_mode

__all__ = ["Judge"]

_COURSES: Final = ("served", "online", "frozen", "online_since", "served_since")


@final
class Judge:
    """Judges the probabilities of ``label`` (the schema's first if ``None``), which are made on ``compute``."""

    def __init__(self, schema: Schema, label: str | None = None, compute: Compute = ON_CPU) -> None:
        self._compute = compute
        self.label = label if label is not None else next(iter(schema.labels))
        self.courses = {name: Progressive() for name in _COURSES}
        self.frozen: Model | None = None

    @property
    def auc(self) -> float:
        """Of the online course so far; NaN until both labels were seen."""
        return self.courses["online"].auc

    def see(self, model: Model, batch: Batch) -> None:
        """Judge everybody on ``batch``, which is in main memory; ``model`` has not learned it yet.

        Examples that weigh 0 are passed over: nobody was asked about them. So are those whose label or weight is no
        number: nobody can be judged by them, and the step that learns them refuses them and says so.
        """
        labels = batch.labels[self.label].numpy()
        weights = (batch.weights / batch.sampling_rates).numpy()
        online, served = self._probabilities(model, batch), batch.served_probabilities.numpy()
        frozen = self._probabilities(self.frozen, batch) if self.frozen is not None else None
        is_sound = np.isfinite(labels) & np.isfinite(weights) & (weights != 0)
        if not is_sound.all():
            labels, weights, online, served = (column[is_sound] for column in (labels, weights, online, served))
            frozen = frozen[is_sound] if frozen is not None else None
        self.courses["online"].update(online, labels, weights)
        if frozen is not None:
            self.courses["frozen"].update(frozen, labels, weights)
            self.courses["online_since"].update(online, labels, weights)
            self.courses["served_since"].update(served, labels, weights)
        self.courses["served"].update(served, labels, weights)  # NaN: not served

    def _probabilities(self, model: Model, batch: Batch) -> NDArray[np.float32]:
        able = scorer(model)
        set_mode(able, is_training=False)
        with torch.no_grad(), self._compute.running():
            logits = able.score(batch.to(str(self._compute.device)))
        probabilities: NDArray[np.float32] = logits.float().sigmoid().cpu().numpy()
        return probabilities

    def restart(self) -> None:
        """Forget what was seen."""
        self.courses = {name: Progressive() for name in _COURSES}

    def figures(self) -> dict[str, float]:
        """For people: such as ``auc_online`` over the whole stream, and ``auc_online_recent`` over its newest part."""
        figures: dict[str, float] = {}
        for name, course in self.courses.items():
            total, recent = course.total(), course.recent()
            figures[f"judged_{name}_total"] = total.pop("count")
            del recent["count"]
            figures |= {f"{figure}_{name}": value for figure, value in total.items()}
            figures |= {f"{figure}_{name}_recent": value for figure, value in recent.items()}
        return figures

    def state_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return {name: course.state_dict() for name, course in self.courses.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse of ``state_dict``."""
        for name, course in self.courses.items():
            course.load_state_dict(state[name])

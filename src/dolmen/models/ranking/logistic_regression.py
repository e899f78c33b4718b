"""Logistic regression: one weight for each id and each dense feature, added up. What everything else must beat.

Source: H. B. McMahan et al., "Ad Click Prediction: a View from the Trenches", KDD 2013, section 3.
Departs from the paper: weights follow the table's optimiser rather than FTRL, and none is driven to zero; a slot with
many values counts as their mean.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

from torch import Tensor, nn

from dolmen.embedding import Embed
from dolmen.features import Batch
from dolmen.models.config import not_empty
from dolmen.models.contract import Ability
from dolmen.models.layers.losses import chosen_label, log_loss
from dolmen.models.layers.rows import LinearPart, chosen_fields

__all__ = ["LogisticRegression", "LogisticRegressionConfig"]


@final
@dataclass(frozen=True, kw_only=True)
class LogisticRegressionConfig:
    """Options of ``LogisticRegression``.

    Args:
        slots: which to read; ``None``: all of the schema.
        dense: which dense features to read; ``None``: all of the schema.
        label: what to predict; ``None``: the schema's first label.
    """

    slots: tuple[str, ...] | None = None
    dense: tuple[str, ...] | None = None
    label: str | None = None

    def __post_init__(self) -> None:
        not_empty(self, "slots")


@final
class LogisticRegression(nn.Module):
    """Can: ``Scores``. Reads column 0 of each row, the linear weight of its id, and no more.

    Source: McMahan et al., KDD 2013.
    """

    abilities: ClassVar[frozenset[Ability]] = frozenset({Ability.SCORES})

    def __init__(self, config: LogisticRegressionConfig, embed: Embed) -> None:
        super().__init__()
        self.config = config
        self.slots, self.dense = chosen_fields(embed.schema, config.slots, config.dense)
        self.label = chosen_label(embed.schema, config.label)
        self.linear = LinearPart(embed, self.slots, self.dense)

    def forward(self, batch: Batch) -> Tensor:
        """Logits of the label, (batch,)."""
        logits: Tensor = self.linear(batch)
        return logits

    def score(self, batch: Batch) -> Tensor:
        """What ranking sorts by, (batch,): the logits."""
        logits: Tensor = self(batch)
        return logits

    def loss(self, batch: Batch) -> Tensor:
        """Log loss of the label, a scalar."""
        return log_loss(self(batch), batch, self.label)

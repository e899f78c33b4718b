"""Average pooling: the base model that DIN is measured against. The past is one mean vector, whoever the candidate is.

Source: the base model (Embedding & MLP) of G. Zhou et al., "Deep Interest Network for Click-Through Rate Prediction",
KDD 2018, section 4.2; all but the pooling is as in ``din.py``, so that a difference between the two is the attention's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

from torch import Tensor, nn

from dolmen.embedding import Embed
from dolmen.features import Batch
from dolmen.models.contract import Ability
from dolmen.models.layers.behaviours import BehaviourFields, ClickTower, TowerConfig, averaged

__all__ = ["AveragePooling", "AveragePoolingConfig"]


@final
@dataclass(frozen=True, kw_only=True)
class AveragePoolingConfig(TowerConfig):
    """Options of ``AveragePooling``: those of ``TowerConfig``."""


@final
class AveragePooling(nn.Module):
    """Can: ``Scores``. Source: Zhou et al., KDD 2018, section 4.2."""

    abilities: ClassVar[frozenset[Ability]] = frozenset({Ability.SCORES})

    def __init__(self, config: AveragePoolingConfig, embed: Embed) -> None:
        super().__init__()
        self.config = config
        self.fields = BehaviourFields(embed, config)
        self.slots, self.dense = self.fields.slots, self.fields.dense
        self.tower = ClickTower(config, self.fields, interest_count=1)

    def forward(self, batch: Batch) -> Tensor:
        """Logits of the label, (batch,)."""
        logits: Tensor = self.tower(batch, self.fields.candidates(batch), [averaged(self.fields.past(batch))])
        return logits

    def score(self, batch: Batch) -> Tensor:
        """What ranking sorts by, (batch,): the logits."""
        logits: Tensor = self(batch)
        return logits

    def loss(self, batch: Batch) -> Tensor:
        """Log loss of the label; while learning, plus the mini-batch aware decay. A scalar."""
        return self.tower.loss(self(batch), batch)

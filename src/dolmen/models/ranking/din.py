"""DIN: what a person did, weighed by the candidate before it is summed, so that one person has many interests.

Source: G. Zhou et al., "Deep Interest Network for Click-Through Rate Prediction", KDD 2018 (arXiv 1706.06978): local
activation unit (section 4.3), Dice (5.2), mini-batch aware regularisation (5.1); inputs of the unit, input
normalisation and item bias as in the authors' code.
Departs from the paper:

- Rows follow the table's optimiser rather than SGD. The regulariser is a part of the loss, so with AdaGrad or Adam its
  pull is scaled by the optimiser, as the rest of a row's gradient is; it is not decoupled from it. n_j is the table's
  running count.
- Unless ``batch_moments`` is set, moments are those of a window of the stream. The network's inputs are normalised by
  them without the learned scale and shift of batch normalisation.
- The unit's activation is the network's, Dice if nothing else is chosen; its moments are then taken over behaviours, so
  a long past counts more in them than a short one.
- ``share`` weights are ours.

Departs from the authors' code: ``softmax`` does not divide by the root of the width before, no layer stands between the
pooled interest and the network, and the unit has one hidden layer, as in the paper's figure, rather than two with the
logistic function.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar, final

from torch import Tensor, nn

from dolmen.embedding import Embed
from dolmen.features import Batch
from dolmen.models.config import at_least, not_empty
from dolmen.models.contract import Ability
from dolmen.models.layers.activations import activations
from dolmen.models.layers.attention import ActivationUnit, softmax_of_each
from dolmen.models.layers.behaviours import BehaviourFields, ClickTower, Past, TowerConfig, Weighed, pooled

__all__ = ["DIN", "DINConfig", "Weighing"]


class Weighing(StrEnum):
    """What the activation unit's number a says of a behaviour, in a past of T."""

    FREE = "free"  # a: the paper's sum
    SHARE = "share"  # (1 + a) / T, a being 0 at first: the mean, until something better is learned
    SOFTMAX = "softmax"  # exp(a) over its sum: the authors' code, which divides a by the root of the width first


@final
@dataclass(frozen=True, kw_only=True)
class DINConfig(TowerConfig):
    """Options of ``DIN``: those of ``TowerConfig`` and

    Args:
        attention_hidden: widths of the activation unit's hidden layers.
        weighing: of the behaviours. The paper's weights are ``free``: their sum tells how strong an interest is, and
            grows with the past. ``share`` are as free, but over the past's length, and begin as its mean. ``softmax``
            are of the sum 1, as in the authors' code, but for its division by the root of the width.
    """

    attention_hidden: tuple[int, ...] = (36,)
    weighing: Weighing = Weighing.FREE

    def __post_init__(self) -> None:
        super().__post_init__()
        not_empty(self, "attention_hidden")
        at_least(self, 1, "attention_hidden")


@final
class DIN(nn.Module):
    """Can: ``Scores``, and ``Weighs`` behaviours.

    Column 0 of a candidate's row is its bias; vectors of candidate and past are the same rows.
    Source: Zhou et al., KDD 2018.
    """

    abilities: ClassVar[frozenset[Ability]] = frozenset({Ability.SCORES, Ability.WEIGHS})

    def __init__(self, config: DINConfig, embed: Embed) -> None:
        super().__init__()
        self.config = config
        self.fields = BehaviourFields(embed, config)
        self.slots, self.dense = self.fields.slots, self.fields.dense
        chosen = activations(config.activation, config.window, of_batch=config.batch_moments)
        self.unit = ActivationUnit(
            self.fields.width,
            config.attention_hidden,
            chosen,
            starts_at_zero=config.weighing is Weighing.SHARE,
        )
        self.tower = ClickTower(config, self.fields, interest_count=1)

    def weights(self, candidates: Tensor, past: Past) -> Tensor:
        """What each behaviour counts for its example's candidate, (total,)."""
        told: Tensor = self.unit(candidates, past)
        match self.config.weighing:
            case Weighing.FREE:
                return told
            case Weighing.SHARE:
                return (1 + told) / past.lengths.index_select(0, past.owners)
            case Weighing.SOFTMAX:
                return softmax_of_each(told, past)

    def weighed(self, batch: Batch) -> Weighed:
        """What the activation unit says of each behaviour, as ``weighing`` has it.

        Strengths are |w_i| |e_i v|, or |w_i| |e_i| without ``product``: free weights may be below 0, and are compared
        by their size.
        """
        candidates, past = self.fields.candidates(batch), self.fields.past(batch)
        return self.tower.weighed(candidates, past, self.weights(candidates, past))

    def forward(self, batch: Batch) -> Tensor:
        """Logits of the label, (batch,). Without a past the interest is the zero vector."""
        candidates, past = self.fields.candidates(batch), self.fields.past(batch)
        interest = pooled(past, self.weights(candidates, past))
        logits: Tensor = self.tower(batch, candidates, [interest])
        return logits

    def score(self, batch: Batch) -> Tensor:
        """What ranking sorts by, (batch,): the logits."""
        logits: Tensor = self(batch)
        return logits

    def loss(self, batch: Batch) -> Tensor:
        """Log loss of the label; while learning, plus the mini-batch aware decay. A scalar."""
        return self.tower.loss(self(batch), batch)

"""What models that rank by behaviour have in common: how they read candidate and past, and how they end.

A behaviour is an item that the person acted on, described by one or several slots (the item, its category), and the
candidate is described by the slots whose rows those share. Behaviours stand in one flat tensor without padding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn

from dolmen.embedding import Embed
from dolmen.errors import SchemaError
from dolmen.features import Batch
from dolmen.models.config import at_least, not_empty
from dolmen.models.layers.activations import Activation, activations
from dolmen.models.layers.losses import chosen_label, log_loss
from dolmen.models.layers.mlp import MLP
from dolmen.models.layers.moments import Normalized
from dolmen.models.layers.rows import dense_columns, input_width, slot_vectors, split_rows

__all__ = ["BehaviourFields", "ClickTower", "Past", "TowerConfig", "Weighed", "averaged", "occurring_decay", "pooled"]


@dataclass(frozen=True, kw_only=True)
class TowerConfig:
    """Options that every model of this kind has.

    Args:
        history: the ordered slots that tell the past; each shares the rows of the candidate's slot beside it. Several
            must go together value by value, so that the n-th of each is of the n-th behaviour. ``None``: the schema's
            ordered slots that hold items.
        others: further slots, pooled; ``None``: all that are left.
        dense: which dense features to read; ``None``: all of the schema.
        label: what to predict; ``None``: the schema's first label.
        hidden: widths of the last network's hidden layers (paper: 200, 80).
        product: hand the network each interest times the candidate as well, as the code of both DIN's and TIN's authors
            does. In DIN's paper it is not there.
        activation: between the network's layers.
        window: rows that moments (of ``dice`` and of the network's inputs) reach back.
        batch_moments: in training take the batch's own moments, as papers do; for batches of hundreds and more.
        decay: weight of the mini-batch aware L2 of the vectors, for each example. The paper's 0.01 goes with the mean
            over a batch of 32, so it is 0.32 here.
        decay_sights_min: an id counts as seen at least this often there.
    """

    history: tuple[str, ...] | None = None
    others: tuple[str, ...] | None = None
    dense: tuple[str, ...] | None = None
    label: str | None = None
    hidden: tuple[int, ...] = (200, 80)
    product: bool = True
    activation: Activation = Activation.DICE
    window: int = 2000
    batch_moments: bool = False
    decay: float = 0.0
    decay_sights_min: float = 10.0

    def __post_init__(self) -> None:
        not_empty(self, "history")
        at_least(self, 1, "hidden", "window", "decay_sights_min")
        at_least(self, 0, "decay")


@final
@dataclass(frozen=True)
class Past:
    """Behaviours of a batch, oldest first. ``vectors``: (total, width). ``owners``: the example of each, (total,).

    ``offsets``: where each example's begin, and the end, (batch + 1,).
    """

    vectors: Tensor
    owners: Tensor
    offsets: Tensor

    @property
    def size(self) -> int:
        """How many examples."""
        return len(self.offsets) - 1

    @property
    def lengths(self) -> Tensor:
        """How many behaviours each example has, (batch,)."""
        return self.offsets.diff()

    @property
    def positions(self) -> Tensor:
        """Counted back from the candidate: 1 is the newest, (total,)."""
        return self.offsets[1:].index_select(0, self.owners) - torch.arange(len(self.owners))

    @property
    def shares(self) -> Tensor:
        """One over the length of its past, for each behaviour, (total,): what each counts in a mean."""
        return 1 / self.lengths.index_select(0, self.owners)

    def newest(self, count: int) -> Past:
        """Of each example its newest ``count``."""
        if self.size == 0 or int(self.lengths.max()) <= count:
            return self
        kept = (self.positions <= count).nonzero().squeeze(1)
        offsets = torch.zeros_like(self.offsets)
        torch.cumsum(self.lengths.clamp(max=count), dim=0, out=offsets[1:])
        return Past(self.vectors.index_select(0, kept), self.owners.index_select(0, kept), offsets)


@final
@dataclass(frozen=True)
class Weighed:
    """What a model makes of a past for its candidates.

    ``weights``: what each behaviour counts, (total,). ``values``: what that multiplies, (total, width): the behaviour,
    or its product with the candidate where the network is handed that.
    """

    past: Past
    weights: Tensor
    values: Tensor

    @property
    def strengths(self) -> Tensor:
        """How much each behaviour brings in: its weight, without the sign, times the length of its value, (total,).

        Source: H. Zhou et al., "Temporal Interest Network", WWW 2024, section 3: the correlation that a model learned.
        """
        lengths: Tensor = torch.linalg.vector_norm(self.values, dim=1)
        return self.weights.abs() * lengths


@final
class BehaviourFields:
    """Which slots are candidate, past and the rest, and how they are read.

    Args:
        embed: the look-up.
        config: which slots.
        aside: slots that the model reads by itself: they are never among the others.

    Raises:
        SchemaError: there is no history, or a slot cannot be one; the message says what is needed.
    """

    def __init__(self, embed: Embed, config: TowerConfig, *, aside: tuple[str, ...] = ()) -> None:
        schema = embed.schema
        sources = schema.history_slots
        history, others = config.history, config.others
        if history is None:
            history = tuple(name for name, source in sources.items() if source == "item" and schema.slot(name).ordered)
        if not history:
            raise SchemaError(
                "a model that ranks by behaviour needs a history; add such as "
                'Slot("history", table="item", many=True, ordered=True, of="user")'
            )
        for name in history:
            if name not in sources or not schema.slot(name).ordered:
                raise SchemaError(
                    f"slot {name!r} is no history: it needs many=True, ordered=True, of='user' and the table of a slot "
                    "of the item's"
                )
        self._check_together(embed, history)
        embed.align(history)
        self.embed, self.history = embed, history
        self.candidate = tuple(sources[name] for name in history)
        taken = {*self.history, *self.candidate, *aside}
        self.others = others if others is not None else tuple(name for name in schema.slots if name not in taken)
        self.dense = config.dense if config.dense is not None else tuple(schema.dense)
        self.slots = tuple(dict.fromkeys((*self.candidate, *self.history, *self.others, *aside)))
        self.width = input_width(schema, self.candidate, ())
        self.context_width = input_width(schema, self.others, self.dense)

    def _check_together(self, embed: Embed, history: tuple[str, ...]) -> None:
        schema, first = embed.schema, history[0]
        for name in history if len(history) > 1 else ():
            length, source = schema.slot(name).max_len, schema.history_slots[name]
            if length != schema.slot(first).max_len:
                raise SchemaError(
                    f"slots {first!r} and {name!r} tell of the same behaviours, so they need one max_len, "
                    f"got {schema.slot(first).max_len} and {length}"
                )
            if schema.slot(source).many:
                raise SchemaError(
                    f"slot {name!r} cannot stand beside another in a history: an item has many values of {source!r}, "
                    "and each behaviour needs one; leave it out, and it is pooled among the others"
                )

    def candidates(self, batch: Batch) -> Tensor:
        """The candidate of each example, (batch, width)."""
        vectors = slot_vectors(self.embed, batch, self.candidate)
        return vectors[0] if len(vectors) == 1 else torch.cat(vectors, dim=1)

    def item_bias(self, batch: Batch) -> Tensor:
        """The linear weight of each candidate, (batch,): how much it is liked whoever looks."""
        linear, _ = split_rows(self.embed(batch, self.candidate[:1]))
        return linear.squeeze(1)

    def past(self, batch: Batch) -> Past:
        """The behaviours.

        Raises:
            SchemaError: the history slots do not go together.
        """
        offsets = self.embed.offsets(batch, self.history)
        read = [self.embed.values(batch, name) for name in self.history]
        vectors = [split_rows(rows)[1] for rows, _ in read]
        return Past(vectors[0] if len(vectors) == 1 else torch.cat(vectors, dim=1), read[0][1], offsets)

    def context(self, batch: Batch) -> Tensor:
        """Everything else side by side, (batch, context_width)."""
        return torch.cat([*slot_vectors(self.embed, batch, self.others), dense_columns(batch, self.dense)], dim=1)


def pooled(past: Past, weights: Tensor | None = None) -> Tensor:
    """The sum of each example's behaviours, times ``weights`` (total,), (batch, width); zeros where there is none."""
    vectors = past.vectors if weights is None else past.vectors * weights.unsqueeze(1)
    return vectors.new_zeros(past.size, vectors.shape[1]).index_add(0, past.owners, vectors)


def averaged(past: Past) -> Tensor:
    """The mean of each example's behaviours, (batch, width); zeros where there is none."""
    return pooled(past) / past.lengths.clamp(min=1).unsqueeze(1)


def occurring_decay(embed: Embed, batch: Batch, slots: Sequence[str], sights_min: float) -> Tensor:
    """Mini-batch aware L2: half the squared length of each occurring id's vector over its count of sights, a scalar.

    Source: G. Zhou et al., KDD 2018, section 5.1, equations 4 to 7: the L2 norm of the whole dictionary, written as a
    sum over samples in which each id takes part as often as it occurs. Its gradient is alpha_mj w_j / n_j, over the ids
    that the batch holds and no other. n_j is the table's running count, at least ``sights_min``: on a stream nobody
    knows the final one, and a new id would be decayed away by its first sights.

    Departs from the paper: it is a term of the loss, so the row's optimiser scales its gradient with the rest (the
    paper has SGD, which does not). It is not decoupled decay.
    """
    by_dim: dict[int, list[str]] = {}
    for name in slots:
        by_dim.setdefault(embed.schema.slot(name).dim, []).append(name)
    total = torch.zeros(())
    for names in by_dim.values():
        rows, sights = embed.occurring(batch, names)
        total = total + (split_rows(rows)[1].square().sum(dim=1) / sights.clamp(min=sights_min)).sum() / 2
    return total


@final
class ClickTower(nn.Module):
    """From what a model found in the past to a logit: normalised, through a network, plus the candidate's own bias.

    Source: the last layers of G. Zhou et al., KDD 2018, figure 2, with the input normalisation and the bias of each
    item that the authors' code has. Input: each interest, the candidate, each interest times the candidate, the rest.

    Args:
        config: see ``TowerConfig``.
        fields: what is read.
        interest_count: how many interests ``forward`` gets, each as wide as a candidate.
    """

    def __init__(self, config: TowerConfig, fields: BehaviourFields, interest_count: int) -> None:
        super().__init__()
        width_in = ((2 if config.product else 1) * interest_count + 1) * fields.width + fields.context_width
        of_batch = config.batch_moments
        self.config, self.fields = config, fields
        self.label = chosen_label(fields.embed.schema, config.label)
        self.bias = nn.Parameter(torch.zeros(()))
        self.normalized = Normalized(width_in, config.window, of_batch=of_batch)
        chosen = activations(config.activation, config.window, of_batch=of_batch)
        self.layers = MLP(width_in, config.hidden, 1, activation=chosen)

    def forward(self, batch: Batch, candidates: Tensor, interests: Sequence[Tensor]) -> Tensor:
        """Logits, (batch,)."""
        products = [interest * candidates for interest in interests] if self.config.product else []
        inputs = torch.cat([*interests, candidates, *products, self.fields.context(batch)], dim=1)
        logits: Tensor = self.bias + self.layers(self.normalized(inputs)).squeeze(1) + self.fields.item_bias(batch)
        return logits

    def weighed(self, candidates: Tensor, past: Past, weights: Tensor) -> Weighed:
        """What ``weights`` (total,) bring into the network: products with candidates (batch, width) by ``product``."""
        values = past.vectors
        if self.config.product:
            values = values * candidates.index_select(0, past.owners)
        return Weighed(past, weights, values)

    def loss(self, logits: Tensor, batch: Batch) -> Tensor:
        """Log loss of the label; while learning, plus the mini-batch aware decay. A scalar."""
        loss = log_loss(logits, batch, self.label)
        if not self.training or self.config.decay == 0:
            return loss
        held_down = occurring_decay(self.fields.embed, batch, self.fields.slots, self.config.decay_sights_min)
        return loss + self.config.decay * held_down / max(1, batch.size)

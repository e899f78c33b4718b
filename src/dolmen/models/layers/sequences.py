"""How models of sequences read people's runs of items, and what they all answer for: the next item.

An example is about one item, and its history is what came before. Where its label is 1, history and item together are
a run to learn from, whether the example came from the joiner or is a whole sequence of a data set
(``Dataset.sequence_batches``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final, final

import torch
from torch import Tensor, nn

from dolmen.embedding import Embed
from dolmen.errors import ConfigError, SchemaError
from dolmen.features import Batch
from dolmen.models.config import at_least
from dolmen.models.contract import Ability
from dolmen.models.layers.catalogue import catalogue_loss, with_bias
from dolmen.models.layers.losses import chosen_label, example_weights
from dolmen.models.layers.packed import Packed
from dolmen.models.layers.rows import split_rows

__all__ = ["NOTHING", "Runs", "SequenceConfig", "SequenceFields", "SequenceModel", "check_rates"]

NOTHING: Final = -1
"""Stands for the FID of a token that is no item. No FID is negative."""


@dataclass(frozen=True, kw_only=True)
class SequenceConfig:
    """Options that every model of this kind has.

    Args:
        history: the ordered slot that tells what came before; ``None``: the schema's first that holds items.
        label: an example is learned from where this label is 1; ``None``: the schema's first label.
        length: how many of the newest items of a history are read.
        negatives: learn by a softmax over this many drawn items; ``None``: over every item that has a row, which is
            exact and costs as much as there are items.
    """

    history: str | None = None
    label: str | None = None
    length: int = 50
    negatives: int | None = None

    def __post_init__(self) -> None:
        at_least(self, 1, "length")
        if self.negatives is not None:
            at_least(self, 1, "negatives")


def check_rates(config: object, *names: str) -> None:
    """Check that these options are at least 0 and below 1."""
    for name in names:
        value = getattr(config, name)
        if not 0 <= value < 1:
            raise ConfigError(f"{type(config).__name__}.{name} must be at least 0 and below 1, got {value}")


@final
@dataclass(frozen=True, eq=False)
class Runs:
    """Items in the order in which people acted on them, the shortest run first.

    Args:
        vectors: of the tokens, (total, width).
        fids: the item of each, (total,); ``NOTHING`` where the token is none.
        packed: which tokens belong together.
        examples: the example of each run, (runs,).
    """

    vectors: Tensor
    fids: Tensor
    packed: Packed
    examples: Tensor

    def by_example(self, of_runs: Tensor) -> Tensor:
        """What is told of each run, (runs, ...), in the order of examples. Each example must have a run."""
        return torch.zeros_like(of_runs).index_copy(0, self.examples, of_runs)


@final
class SequenceFields:
    """Which slots hold the past and the item, and how they are read, queried and learned.

    Args:
        embed: the look-up.
        config: which slots.

    Raises:
        SchemaError: there is no history, or a slot cannot be one; the message says what is needed.
    """

    def __init__(self, embed: Embed, config: SequenceConfig) -> None:
        schema = embed.schema
        sources = {name: source for name, source in schema.history_slots.items() if schema.slot(name).ordered}
        history = config.history
        if history is None:
            history = next((name for name, source in sources.items() if not schema.slot(source).many), None)
        if history is None or history not in sources or schema.slot(sources[history]).many:
            told = "the schema has no history of items" if history is None else f"slot {history!r} is no history"
            raise SchemaError(
                f"{told}, and a model of sequences needs one; add such as "
                'Slot("history", table="item", many=True, ordered=True, of="user")'
            )
        self.embed, self.config = embed, config
        self.history, self.item = history, sources[history]
        if schema.slot(self.item).dim < 2:
            raise SchemaError(f"slot {self.item!r}: dim must be at least 2 here (a bias, then a vector), got 1")
        self.slots = (self.history, self.item)
        self.row_dim = schema.slot(self.item).dim
        self.width = self.row_dim - 1
        self.label = chosen_label(schema, config.label)

    def items(self, batch: Batch) -> Tensor:
        """The item's row, (batch, row_dim): its bias, then its vector. Zeros where it has none."""
        return self.embed(batch, [self.item])[:, 0]

    def learned(self, batch: Batch) -> Tensor:
        """The examples to learn from, (runs,): those with the label and an item."""
        is_chosen = batch.labels[self.label] > 0.5
        return (is_chosen & (batch.slot(self.item).lengths > 0)).nonzero().squeeze(1)

    def runs(
        self,
        batch: Batch,
        examples: Tensor,
        *,
        before: Tensor | None = None,
        after: Tensor | None = None,
        with_item: bool = False,
    ) -> Runs:
        """One run for each of ``examples``: the newest ``length`` items of its history.

        Args:
            batch: whose examples.
            examples: which, each once.
            before: a vector (width,) that is put in front of each run.
            after: a vector (width,) that is put behind each run.
            with_item: put the example's item behind its history.
        """
        history = batch.slot(self.history)
        # The whole column is read, though only some of it is used: a model beside this one shares the look-up.
        columns = [(split_rows(self.embed.values(batch, self.history)[0])[1], history.values)]
        past = history.lengths[examples].clamp(max=self.config.length)
        order = past.argsort(stable=True)
        examples, past = examples[order], past[order]
        stretches = [(history.offsets[1:][examples] - past, past)]  # first and count of each run, in all columns
        end = len(history.values)
        for vector in (before, after):
            if vector is not None:
                columns.append((vector.unsqueeze(0), torch.full((1,), NOTHING)))
                one = (torch.full_like(past, end), torch.ones_like(past))
                stretches = [one, *stretches] if vector is before else [*stretches, one]
                end += 1
        if with_item:
            item = batch.slot(self.item)
            columns.append((split_rows(self.embed.values(batch, self.item)[0])[1], item.values))
            stretches.append((end + item.offsets[:-1][examples], item.lengths[examples]))
        packed = Packed(torch.stack([count for _, count in stretches]).sum(dim=0))
        places = _joined(packed, stretches)
        vectors, fids = (torch.cat(parts) for parts in zip(*columns, strict=True))
        return Runs(vectors.index_select(0, places), fids[places], packed, examples)

    def queries(self, runs: Runs, states: Tensor) -> Tensor:
        """From the state of each run, (runs, width), what is asked of the index, (batch, 1, row_dim)."""
        return runs.by_example(with_bias(states)).unsqueeze(1)

    def loss(self, batch: Batch, states: Tensor, targets: Tensor, examples: Tensor) -> Tensor:
        """-log P(target) summed over targets / the number of examples, a scalar.

        Args:
            batch: what is learned.
            states: what is known where each target is asked for, (count, width).
            targets: FIDs, (count,).
            examples: the example that each belongs to, (count,); its weight counts.
        """
        weights = example_weights(batch)[examples]
        total = catalogue_loss(self.embed, self.item, states, targets, weights, negatives=self.config.negatives)
        return total / max(1, batch.size)


class SequenceModel(nn.Module):
    """What every model of sequences is: it retrieves, by the item's own row. ``queries`` and ``loss`` are the model's.

    Args:
        config: which slots.
        embed: the look-up.
    """

    abilities: ClassVar[frozenset[Ability]] = frozenset({Ability.RETRIEVES})

    def __init__(self, config: SequenceConfig, embed: Embed) -> None:
        super().__init__()
        self.fields = SequenceFields(embed, config)
        self.slots, self.dense = self.fields.slots, ()
        self.query_slots, self.item_slots = (self.fields.history,), (self.fields.item,)

    @property
    def vector_dim(self) -> int:
        """Width of the vectors: that of a row."""
        return self.fields.row_dim

    def items(self, batch: Batch) -> Tensor:
        """The item's row, (batch, row_dim)."""
        return self.fields.items(batch)


def _joined(packed: Packed, stretches: list[tuple[Tensor, Tensor]]) -> Tensor:
    """For each token of all runs its place in the columns, (total,): each run's stretches (first, count), in order."""
    firsts = torch.stack([first for first, _ in stretches], dim=1).flatten()
    counts = torch.stack([count for _, count in stretches], dim=1).flatten()
    ends = counts.cumsum(0)
    return torch.arange(len(packed.owners)) + torch.repeat_interleave(firsts - (ends - counts), counts)

"""What dolmen asks of a model: a small contract that every model keeps, and abilities that each one declares.

A model is a ``torch.nn.Module`` with a ``loss``. What it can do besides stands in its ``abilities``: trainer, ranker
and index ask for the ability, never for a class. ``scorer``, ``retriever`` and so on give the model typed as what it
can do.

Rules that all keep, and ``dolmen.testing.check_model`` checks:

- Vectors come from the look-up (``Embed``) that the model is given; ids and tables are not the model's business.
- Column 0 of a row is the linear weight of its id, the other columns are its vector (``layers.rows``). So models that
  share a table do not pull one weight in two directions.
- ``loss`` is the sum over the batch's examples divided by their number, and an example without a say counts 0; a
  batch without any gives a finite 0. The trainer relies on it to make a row's step independent of the batch's size.
- ``loss`` undoes negative sampling (``layers.losses``), so that ``score`` is the logit of what happens in the world,
  not in the sample. Nobody corrects it later.
- Data that a model cannot take is a ``SchemaError``, and an example without any value is none. Slots that must go
  together value by value are named to the look-up when the model is built (``Embed.align``): then nothing has moved.
- In training mode ``loss`` may move buffers (a ring of recent items); in evaluation mode nothing changes anything.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import Any, ClassVar, Protocol, Self, cast

from torch import Tensor, nn

from dolmen.errors import ConfigError
from dolmen.features import Batch
from dolmen.models.layers.behaviours import Weighed

__all__ = [
    "Ability",
    "Condenses",
    "Decides",
    "Encodes",
    "Forecasts",
    "Generates",
    "Model",
    "Retrieves",
    "Scores",
    "Weighs",
    "condenser",
    "decider",
    "encoder",
    "forecaster",
    "generator",
    "retriever",
    "scorer",
    "weigher",
]


class Ability(StrEnum):
    """What a model can do besides learn; each is the protocol of the same name."""

    SCORES = "Scores"
    CONDENSES = "Condenses"
    WEIGHS = "Weighs"
    RETRIEVES = "Retrieves"
    ENCODES = "Encodes"
    GENERATES = "Generates"
    DECIDES = "Decides"
    FORECASTS = "Forecasts"


class _Module(Protocol):
    """What the stages use of ``torch.nn.Module``."""

    training: bool

    def parameters(self, recurse: bool = True) -> Iterator[nn.Parameter]: ...
    def named_parameters(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, nn.Parameter]]: ...
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any: ...
    def train(self, mode: bool = True) -> Self: ...
    def eval(self) -> Self: ...
    def to(self, device: str) -> Self: ...
    def zero_grad(self, set_to_none: bool = True) -> None: ...


class Model(_Module, Protocol):
    """What the trainer needs: a ``torch.nn.Module`` that names what it reads and has a loss."""

    abilities: ClassVar[frozenset[Ability]]

    @property
    def config(self) -> Any:
        """Its options: a frozen dataclass that ``models.config`` writes and reads."""
        ...

    @property
    def slots(self) -> tuple[str, ...]:
        """Every slot that the model reads."""
        ...

    @property
    def dense(self) -> tuple[str, ...]:
        """Every dense feature that the model reads."""
        ...

    def loss(self, batch: Batch) -> Tensor:
        """What learning makes small: sum over examples / their number, a scalar."""
        ...


class Scores(Model, Protocol):
    """Ranks: says how likely each example's action is."""

    def score(self, batch: Batch) -> Tensor:
        """Logits, shape (batch,)."""
        ...


class Condenses(Scores, Protocol):
    """Ranks by sums over a person's past that can be kept while it grows: scoring then costs the same for any past."""

    @property
    def past_slots(self) -> tuple[str, ...]:
        """The slots that tell the past, the n-th value of each being of the n-th behaviour."""
        ...

    @property
    def recent_count(self) -> int:
        """How many of the newest behaviours ``score_condensed`` reads one by one."""
        ...

    @property
    def condensed_shape(self) -> tuple[int, ...] | None:
        """Of one person's sums; ``None`` where the model's options leave nothing to condense."""
        ...

    def condense(self, batch: Batch, before: Tensor | None = None) -> Tensor:
        """The sums of each example's past, (batch, *condensed_shape). Reads ``past_slots`` only, and nothing learns.

        ``before``: the sums of what came before this past, left as they are. Those of the whole are then the same, bit
        for bit, as if it were read at once.
        """
        ...

    def score_condensed(self, batch: Batch, sums: Tensor, owners: Tensor) -> Tensor:
        """Logits, (batch,), as ``score`` gives them, where ``past_slots`` hold the newest behaviours alone.

        Args:
            batch: at least the ``recent_count`` newest behaviours of each example's past, and all other slots.
            sums: (people, *condensed_shape), over the whole past.
            owners: whose past each example's is, (batch,).
        """
        ...


class Weighs(Scores, Protocol):
    """Ranks by a person's past, and tells what each behaviour of it counts for the candidate."""

    def weighed(self, batch: Batch) -> Weighed:
        """The past of each example, weighed. Reads what ``score`` reads, and nothing learns."""
        ...


class Retrieves(Model, Protocol):
    """Finds candidates: people and items as vectors whose inner product says who likes what."""

    @property
    def query_slots(self) -> tuple[str, ...]:
        """The slots that ``queries`` reads."""
        ...

    @property
    def item_slots(self) -> tuple[str, ...]:
        """The slots that ``items`` reads."""
        ...

    @property
    def vector_dim(self) -> int:
        """Width d of the vectors."""
        ...

    def queries(self, batch: Batch) -> Tensor:
        """Shape (batch, k, d), k interests for each example. Reads the query side only."""
        ...

    def items(self, batch: Batch) -> Tensor:
        """Shape (n, d), one vector for each item of ``batch``. Reads the item side only."""
        ...


class Encodes(Model, Protocol):
    """Turns content into vectors, so that what nobody has met yet has a place."""

    def encode(self, content: Batch) -> Tensor:
        """Shape (n, d)."""
        ...


class Generates(Model, Protocol):
    """Writes what to show: item ids or text, token by token."""

    def generate(self, context: Batch, *, count: int) -> Tensor:
        """Token ids, shape (batch, count, length), best first."""
        ...


class Decides(Model, Protocol):
    """Chooses an action: a price, a size, a segment."""

    def decide(self, context: Batch) -> tuple[Tensor, Tensor]:
        """Index of the action (batch,) and its expected value (batch,)."""
        ...


class Forecasts(Model, Protocol):
    """Continues a series."""

    def forecast(self, series: Tensor, horizon: int) -> Tensor:
        """From (batch, length) the next ``horizon`` values, shape (batch, horizon)."""
        ...


def scorer(model: Model) -> Scores:
    """The model as a ranker. Raises ``ConfigError`` where it does not declare that; so do all but ``condenser``."""
    return cast("Scores", _able(model, Ability.SCORES))


def condenser(model: Model) -> Condenses | None:
    """The model as one that condenses a past; ``None`` where it does not declare that, or its options rule it out."""
    if Ability.CONDENSES not in model.abilities:
        return None
    able = cast("Condenses", model)
    return able if able.condensed_shape is not None else None


def weigher(model: Model) -> Weighs:
    """The model as one that tells what behaviours count."""
    return cast("Weighs", _able(model, Ability.WEIGHS))


def retriever(model: Model) -> Retrieves:
    """The model as a finder of candidates."""
    return cast("Retrieves", _able(model, Ability.RETRIEVES))


def encoder(model: Model) -> Encodes:
    """The model as an encoder of content."""
    return cast("Encodes", _able(model, Ability.ENCODES))


def generator(model: Model) -> Generates:
    """The model as a generator."""
    return cast("Generates", _able(model, Ability.GENERATES))


def decider(model: Model) -> Decides:
    """The model as a decision maker."""
    return cast("Decides", _able(model, Ability.DECIDES))


def forecaster(model: Model) -> Forecasts:
    """The model as a forecaster."""
    return cast("Forecasts", _able(model, Ability.FORECASTS))


def _able(model: Model, ability: Ability) -> Model:
    if ability not in model.abilities:
        can = ", ".join(sorted(model.abilities)) or "nothing but learn"
        raise ConfigError(f"{type(model).__name__} does not declare {ability.value} (it can: {can}); take another")
    return model

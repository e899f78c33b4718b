"""Every model by its name: what it does, who wrote it up, and how to make one.

A new model of ours is one file, one entry here and its name in ``jobs``. A user's own needs no line: where a name
stands, ``module:Class`` names it, and Python imports it (the folder in which dolmen was started counts, too).
"""

from __future__ import annotations

import importlib
import json
import re
import sys
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final, final

import torch
from torch import nn

from dolmen.embedding import Embed
from dolmen.errors import ConfigError
from dolmen.models.contract import Ability, Model, retriever, scorer
from dolmen.models.jobs import Job, check_name
from dolmen.models.joint import Joint, JointConfig
from dolmen.models.ranking.average_pooling import AveragePooling
from dolmen.models.ranking.deepfm import DeepFM
from dolmen.models.ranking.din import DIN
from dolmen.models.ranking.logistic_regression import LogisticRegression
from dolmen.models.ranking.pnn import PNN
from dolmen.models.ranking.sdim import SDIM
from dolmen.models.ranking.tin import TIN
from dolmen.models.ranking.wide_deep import WideDeep
from dolmen.models.retrieval.ssl_two_tower import SSLTwoTower
from dolmen.models.retrieval.two_tower import TwoTower
from dolmen.models.sequence.bert4rec import BERT4Rec
from dolmen.models.sequence.gru4rec import GRU4Rec
from dolmen.models.sequence.sasrec import SASRec
from dolmen.seeds import derive_seed
from dolmen.settings import read_settings, suggestion, write_settings

__all__ = ["Entry", "build", "describe", "entry", "names"]

_NO_MEMORY: Final = re.compile("can't allocate memory|not enough memory|out of memory|size calculation overflowed")
"""What torch says where a tensor is too large: its errors have no type of their own on a CPU."""


@final
@dataclass(frozen=True)
class Entry:
    """One model.

    Args:
        name: what configurations call it.
        job: what it is for.
        title: one line for people.
        source: the paper.
        model: its class.
        reads: what its examples must hold, for people.
        factory: from options and look-up to a model; its class if ``None``.
    """

    name: str
    job: Job
    title: str
    source: str
    model: type[Any]
    reads: str = "any slots"
    factory: Callable[[Any, Embed], Model] | None = None

    @property
    def config(self) -> type[Any]:
        """The class of its options."""
        return _config_of(self.model)

    @property
    def make(self) -> Callable[[Any, Embed], Model]:
        """From options and look-up to a model."""
        return self.factory if self.factory is not None else self.model

    def made(self, options: Mapping[str, Any], embed: Embed, section: str) -> Model:
        """One with these options, which ``section`` of a configuration told.

        Raises:
            ConfigError: an unknown option (the message offers the nearest), a value that cannot be used, or sizes of
                layers that do not fit into memory.
            SchemaError: the options name a slot, dense feature or label that the schema does not have.
        """
        config = read_settings(self.config, options, section)
        try:
            return self.make(config, embed)
        except (MemoryError, RuntimeError) as problem:
            if not isinstance(problem, MemoryError) and not _NO_MEMORY.search(str(problem)):
                raise
            raise ConfigError(
                f"{section}: the layers of {self.name!r} do not fit into memory with {_sizes(config)}; choose smaller"
                " ones"
            ) from problem

    @property
    def measured(self) -> str:
        """A figure and the study that found it; empty where there is none."""
        return _measured().get(self.name, "")

    @property
    def abilities(self) -> frozenset[Ability]:
        """What the model declares that it can do."""
        declared: frozenset[Ability] = self.model.abilities
        return declared


def _sizes(config: Any) -> str:
    """The options that are whole numbers, or several, for a message."""
    values = {one.name: getattr(config, one.name) for one in fields(config)}
    counts = {
        name: value
        for name, value in values.items()
        if (parts := value if isinstance(value, tuple) else (value,)) and all(type(one) is int for one in parts)
    }
    return ", ".join(f"{name}={value}" for name, value in counts.items()) or "these options"


@cache
def _measured() -> dict[str, str]:
    """What the studies' reports said of our models when this was released; ``tools/write_reference.py`` writes it."""
    told: dict[str, str] = json.loads(Path(__file__).with_name("measured.json").read_text(encoding="utf-8"))
    return told


def names() -> list[str]:
    """The names of all models, in order."""
    return sorted(_MODELS)


def entry(name: str) -> Entry:
    """The model called ``name``: one of ours, or ``module:Class``, which is imported.

    Raises:
        ConfigError: there is none; the message offers the nearest, or says what the class lacks.
    """
    check_name(name, "model.name")
    if ":" in name:
        return _own(name)
    return _MODELS[name]


def build(name: str, options: Mapping[str, Any], embed: Embed, *, seed: int = 0) -> Model:
    """The model called ``name`` with these options, over the vectors of ``embed``.

    The same seed gives the same start values, whatever was drawn before; the global random state is left as it was.

    Raises:
        ConfigError: an unknown name or option (the message offers the nearest), or a value that cannot be used.
        SchemaError: the options name a slot, dense feature or label that the schema does not have.
    """
    one = entry(name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "model", name))
        return one.made(options, embed, "model.options")


def describe(model: Model) -> dict[str, Any]:
    """The name and every option of a model that ``build`` made: what a snapshot keeps to build it again."""
    for name, one in _MODELS.items():
        if type(model) is one.model:
            return {"name": name, "options": write_settings(model.config)}
    kind = type(model)
    name = f"{kind.__module__}:{kind.__qualname__}"
    if kind.__module__ == "__main__" or "<locals>" in name:
        raise ConfigError(
            f"{kind.__name__} cannot be imported by name, so its snapshot could not be loaded again; move it to the "
            "top level of a module of its own"
        )
    if entry(name).model is not kind:
        raise ConfigError(f"{name} names another class now than this model's; load the module once only")
    return {"name": name, "options": write_settings(model.config)}


def _own(name: str) -> Entry:
    """A user's model, with what its class and docstring say of it."""
    module_name, _, class_name = name.partition(":")
    kind: Any = _imported(name, module_name)
    for part in class_name.split("."):
        if not hasattr(kind, part):
            near = suggestion(part, _models_in(kind))
            raise ConfigError(f"model.name {name!r}: {module_name} has no {class_name!r}{near}")
        kind = getattr(kind, part)
    if not (
        isinstance(kind, type) and issubclass(kind, nn.Module) and isinstance(getattr(kind, "abilities", 0), frozenset)
    ):
        raise ConfigError(
            f"model.name {name!r}: a model is a torch.nn.Module that declares its abilities (a frozenset)"
        )
    _config_of(kind)
    told = f"{kind.__doc__ or ''}\n{sys.modules[kind.__module__].__doc__ or ''}"
    source = re.search(r"Source:\s*(.+)", told)
    title = next((line.strip() for line in told.splitlines() if line.strip()), class_name)
    made: Any = kind  # What is asked of its instances, `check_model` asks.
    return Entry(
        name=name,
        job=_job_of(made.abilities),
        title=title,
        source=source.group(1) if source is not None else "",
        model=made,
    )


def _models_in(place: Any) -> list[str]:
    """The names of models in a module, or of classes in a class."""
    return [name for name, one in vars(place).items() if isinstance(one, type) and issubclass(one, nn.Module)]


def _config_of(model: type[Any]) -> type[Any]:
    """The class of a model's options: what its ``config`` is annotated with."""
    name = f"{model.__module__}:{model.__qualname__}"
    try:
        config = typing.get_type_hints(model.__init__).get("config")
    except NameError as problem:
        raise ConfigError(
            f"model.name {name!r}: an annotation of {model.__name__}.__init__ is unknown: {problem}"
        ) from None
    if not (isinstance(config, type) and is_dataclass(config)):
        raise ConfigError(
            f"model.name {name!r}: {model.__name__}.__init__ must take `config`, annotated with the dataclass of its "
            "options"
        )
    return config


def _imported(name: str, module_name: str) -> Any:
    if "" not in sys.path:
        # As `python -m` has it; a script that pip installed starts without the folder that it is run in.
        sys.path.append("")
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as problem:
        if problem.name is None or not f"{module_name}.".startswith(f"{problem.name}."):
            raise  # it is there, and what it imports is not
        raise ConfigError(
            f"model.name {name!r}: there is no module {module_name!r}; start dolmen in its folder, or install it"
        ) from None


def _job_of(abilities: frozenset[Ability]) -> Job:
    if {Ability.SCORES, Ability.RETRIEVES} <= abilities:
        return Job.JOINT
    return Job.RETRIEVAL if Ability.RETRIEVES in abilities else Job.RANKING


def _make_joint(config: JointConfig, embed: Embed) -> Model:
    parts = {}
    for part, name, options in (
        ("ranker", config.ranker, config.ranker_options),
        ("retriever", config.retriever, config.retriever_options),
    ):
        parts[part] = entry(name).made(options, embed, f"model.options.{part}_options")
    return Joint(config, scorer(parts["ranker"]), retriever(parts["retriever"]))


_BEHAVIOURS: Final = (
    "a history (an ordered slot with the rows of the item's), the candidate, other slots, dense features"
)
_RUNS: Final = "a history of items (an ordered slot with the rows of the item's) and the item that came next"

_MODELS: Final = {
    one.name: one
    for one in (
        Entry(
            name="deepfm",
            job=Job.RANKING,
            title="A factorization machine and a deep network over the same vectors",
            source='Guo et al., "DeepFM", IJCAI 2017',
            model=DeepFM,
            reads="slots of one dim, dense features",
        ),
        Entry(
            name="logistic_regression",
            job=Job.RANKING,
            title="One weight for each id, added up",
            source='McMahan et al., "Ad Click Prediction", KDD 2013',
            model=LogisticRegression,
            reads="any slots, dense features",
        ),
        Entry(
            name="wide_deep",
            job=Job.RANKING,
            title="A linear model that remembers beside a network that generalises",
            source='Cheng et al., "Wide & Deep", DLRS 2016',
            model=WideDeep,
            reads="any slots, dense features",
        ),
        Entry(
            name="pnn",
            job=Job.RANKING,
            title="The inner product of every pair of slots, into a network",
            source='Qu et al., "Product-based Neural Networks", ICDM 2016',
            model=PNN,
            reads="slots of one dim, dense features",
        ),
        Entry(
            name="average_pooling",
            job=Job.RANKING,
            title="The past as one mean vector, into a network",
            source='Zhou et al., "Deep Interest Network", KDD 2018, base model',
            model=AveragePooling,
            reads=_BEHAVIOURS,
        ),
        Entry(
            name="din",
            job=Job.RANKING,
            title="The past weighed by the candidate before it is summed",
            source='Zhou et al., "Deep Interest Network", KDD 2018',
            model=DIN,
            reads=_BEHAVIOURS,
        ),
        Entry(
            name="sdim",
            job=Job.RANKING,
            title="A long past hashed into buckets, of which a candidate reads its own",
            source='Cao et al., "Sampling Is All You Need", CIKM 2022',
            model=SDIM,
            reads=_BEHAVIOURS,
        ),
        Entry(
            name="tin",
            job=Job.RANKING,
            title="What a person did and when, as seen from the candidate",
            source='Zhou et al., "Temporal Interest Network", WWW 2024',
            model=TIN,
            reads=f"{_BEHAVIOURS}; ages of the history, if there are",
        ),
        Entry(
            name="two_tower",
            job=Job.RETRIEVAL,
            title="Person and item as vectors, learned by a softmax over sampled items",
            source='Yi et al., "Sampling-Bias-Corrected Neural Modeling", RecSys 2019',
            model=TwoTower,
            reads="slots of the person and of the item, dense features",
        ),
        Entry(
            name="ssl_two_tower",
            job=Job.RETRIEVAL,
            title="Two towers that also learn that two partial views of an item are one item",
            source='Yao et al., "Self-supervised Learning for Large-scale Item Recommendations", CIKM 2021',
            model=SSLTwoTower,
            reads="slots of the person and of the item, at least two of the item beside its id; dense features",
        ),
        Entry(
            name="bert4rec",
            job=Job.SEQUENCE,
            title="Items of the past hidden and told from both sides; at the end hides the next one",
            source='Sun et al., "BERT4Rec", CIKM 2019',
            model=BERT4Rec,
            reads=_RUNS,
        ),
        Entry(
            name="sasrec",
            job=Job.SEQUENCE,
            title="At each place attention over what came before tells what comes next",
            source='Kang and McAuley, "Self-Attentive Sequential Recommendation", ICDM 2018',
            model=SASRec,
            reads=_RUNS,
        ),
        Entry(
            name="gru4rec",
            job=Job.SEQUENCE,
            title="A recurrent network reads the past and tells what comes next",
            source='Hidasi et al., "Session-based Recommendations with Recurrent Neural Networks", ICLR 2016',
            model=GRU4Rec,
            reads=_RUNS,
        ),
        Entry(
            name="joint",
            job=Job.JOINT,
            title="A ranker and a retriever learned as one model, on the same rows",
            source="the sum of its parts",
            model=Joint,
            factory=_make_joint,
            reads="what its parts read",
        ),
    )
}

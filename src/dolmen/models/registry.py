"""Every model by its name: what it does, who wrote it up, and how to make one.

A new model is one file and one line here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, final

import torch

from dolmen.embedding import Embed
from dolmen.errors import ConfigError
from dolmen.models.contract import Ability, Model, retriever, scorer
from dolmen.models.joint import Joint, JointConfig
from dolmen.models.ranking.average_pooling import AveragePooling, AveragePoolingConfig
from dolmen.models.ranking.deepfm import DeepFM, DeepFMConfig
from dolmen.models.ranking.din import DIN, DINConfig
from dolmen.models.ranking.logistic_regression import LogisticRegression, LogisticRegressionConfig
from dolmen.models.ranking.pnn import PNN, PNNConfig
from dolmen.models.ranking.sdim import SDIM, SDIMConfig
from dolmen.models.ranking.tin import TIN, TINConfig
from dolmen.models.ranking.wide_deep import WideDeep, WideDeepConfig
from dolmen.models.retrieval.two_tower import TwoTower, TwoTowerConfig
from dolmen.seeds import derive_seed
from dolmen.settings import read_settings, suggestion, write_settings

__all__ = ["Entry", "Job", "build", "describe", "entry", "names"]


class Job(StrEnum):
    """What a model is for; also the folder it stands in."""

    RANKING = "ranking"
    RETRIEVAL = "retrieval"
    JOINT = "joint"


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
        config: the class of its options.
        make: from options and look-up to a model.
    """

    name: str
    job: Job
    title: str
    source: str
    model: type[Any]
    config: type[Any]
    make: Callable[[Any, Embed], Model]

    @property
    def abilities(self) -> frozenset[Ability]:
        """What the model declares that it can do."""
        declared: frozenset[Ability] = self.model.abilities
        return declared


def names() -> list[str]:
    """The names of all models, in order."""
    return sorted(_MODELS)


def entry(name: str) -> Entry:
    """The model called ``name``.

    Raises:
        ConfigError: there is none; the message offers the nearest.
    """
    if name not in _MODELS:
        raise ConfigError(f"model.name: there is no model {name!r}{suggestion(name, _MODELS)}")
    return _MODELS[name]


def build(name: str, options: Mapping[str, Any], embed: Embed, *, seed: int = 0) -> Model:
    """The model called ``name`` with these options, over the vectors of ``embed``.

    The same seed gives the same start values, whatever was drawn before; the global random state is left as it was.

    Raises:
        ConfigError: an unknown name or option (the message offers the nearest), or a value that cannot be used.
        SchemaError: the options name a slot, dense feature or label that the schema does not have.
    """
    one = entry(name)
    config = read_settings(one.config, options, f"model.{name}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "model", name))
        return one.make(config, embed)


def describe(model: Model) -> dict[str, Any]:
    """The name and every option of a model that ``build`` made: what a snapshot keeps to build it again."""
    for name, one in _MODELS.items():
        if type(model) is one.model:
            return {"name": name, "options": write_settings(model.config)}
    raise ConfigError(f"{type(model).__name__} is not in the registry; its snapshot could not be loaded again")


def _make_joint(config: JointConfig, embed: Embed) -> Model:
    parts = {}
    for part, name, options in (
        ("ranker", config.ranker, config.ranker_options),
        ("retriever", config.retriever, config.retriever_options),
    ):
        one = entry(name)
        parts[part] = one.make(read_settings(one.config, options, f"model.joint.{part}_options"), embed)
    return Joint(config, scorer(parts["ranker"]), retriever(parts["retriever"]))


_MODELS: Final = {
    one.name: one
    for one in (
        Entry(
            name="deepfm",
            job=Job.RANKING,
            title="A factorization machine and a deep network over the same vectors",
            source='Guo et al., "DeepFM", IJCAI 2017',
            model=DeepFM,
            config=DeepFMConfig,
            make=DeepFM,
        ),
        Entry(
            name="logistic_regression",
            job=Job.RANKING,
            title="One weight for each id, added up",
            source='McMahan et al., "Ad Click Prediction", KDD 2013',
            model=LogisticRegression,
            config=LogisticRegressionConfig,
            make=LogisticRegression,
        ),
        Entry(
            name="wide_deep",
            job=Job.RANKING,
            title="A linear model that remembers beside a network that generalises",
            source='Cheng et al., "Wide & Deep", DLRS 2016',
            model=WideDeep,
            config=WideDeepConfig,
            make=WideDeep,
        ),
        Entry(
            name="pnn",
            job=Job.RANKING,
            title="The inner product of every pair of slots, into a network",
            source='Qu et al., "Product-based Neural Networks", ICDM 2016',
            model=PNN,
            config=PNNConfig,
            make=PNN,
        ),
        Entry(
            name="average_pooling",
            job=Job.RANKING,
            title="The past as one mean vector, into a network",
            source='Zhou et al., "Deep Interest Network", KDD 2018, base model',
            model=AveragePooling,
            config=AveragePoolingConfig,
            make=AveragePooling,
        ),
        Entry(
            name="din",
            job=Job.RANKING,
            title="The past weighed by the candidate before it is summed",
            source='Zhou et al., "Deep Interest Network", KDD 2018',
            model=DIN,
            config=DINConfig,
            make=DIN,
        ),
        Entry(
            name="sdim",
            job=Job.RANKING,
            title="A long past hashed into buckets, of which a candidate reads its own",
            source='Cao et al., "Sampling Is All You Need", CIKM 2022',
            model=SDIM,
            config=SDIMConfig,
            make=SDIM,
        ),
        Entry(
            name="tin",
            job=Job.RANKING,
            title="What a person did and when, as seen from the candidate",
            source='Zhou et al., "Temporal Interest Network", WWW 2024',
            model=TIN,
            config=TINConfig,
            make=TIN,
        ),
        Entry(
            name="two_tower",
            job=Job.RETRIEVAL,
            title="Person and item as vectors, learned by a softmax over sampled items",
            source='Yi et al., "Sampling-Bias-Corrected Neural Modeling", RecSys 2019',
            model=TwoTower,
            config=TwoTowerConfig,
            make=TwoTower,
        ),
        Entry(
            name="joint",
            job=Job.JOINT,
            title="A ranker and a retriever learned as one model, on the same rows",
            source="the sum of its parts",
            model=Joint,
            config=JointConfig,
            make=_make_joint,
        ),
    )
}

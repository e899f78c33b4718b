"""What the machinery under all models computes, as a checksum: it, and not the machinery's code, decides cells.

Table, look-up and trainer change often, and hardly ever in what they compute: a new kind of expiry, a log line, a
faster search. They promise that the same calls give the same bytes. So a probe of fixed examples is learned through
them, and a cell is stale where other parameters come out of it than before.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar, Final, final

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dolmen._core import hash_into_buckets, read_buckets
from dolmen.devices import Device
from dolmen.embedding import AdaGrad, Adam, Embed, Embeddings, Optimizer
from dolmen.features import Batch, Jagged, Label, Schema, Side, Slot, encode_array, pack_fids
from dolmen.models import Ability
from dolmen.models.layers.losses import log_loss
from dolmen.seeds import generator
from dolmen.training import TrainConfig, Trainer

__all__ = ["BESIDE", "MACHINERY", "UNPROBED", "machinery_fingerprint"]

MACHINERY: Final = (
    "dolmen._core",
    *(
        f"dolmen.embedding.{name}"
        for name in (
            "forks",
            "instant",
            "lookup",
            "optimizers",
            "precision",
            "rows",
            "store",
            "store_file",
            "table",
            "table_file",
        )
    ),
    "dolmen.training.adam",
    "dolmen.training.trainer",
)
"""What the probe stands for. Its code is not read."""

UNPROBED: Final[Mapping[str, str]] = {
    "NativeAllRows": "a table makes it of its rows, to be written or read elsewhere; no figure is of what it holds",
    "checksum": "it tells whether a file is whole",
}
"""What of the core the probe does not call, and why."""

BESIDE: Final = (
    "dolmen.compute",
    "dolmen.embedding.policies",
    "dolmen.features.fids",
    "dolmen.models.registry:describe",
    "dolmen.training.fit:fit",
    "dolmen.training.judge",
    "dolmen.training.meeting:silent_examples",
    "dolmen.training.mode",
)
"""What the machinery calls and the probe does not show. Its code is read of each study that reaches the machinery."""

_STEPS: Final = 6
_EXAMPLES: Final = 300
_IDS: Final = 5000  # enough for the table to grow on the way, and for ids that come once and again
_LENGTH: Final = 40
_WIDTH: Final = 17
_ROUNDS: Final = 4
_BITS: Final = 3
_SCHEMA: Final = Schema(
    Slot("item", dim=17),
    Slot("brand", dim=9, of=Side.ITEM),
    Slot("history", dim=17, table="item", many=True, ordered=True, of=Side.USER),
    Label("click"),
)


@lru_cache(maxsize=2)
def machinery_fingerprint(device: Device) -> str:
    """As 16 hex digits."""
    digest = hashlib.blake2b(digest_size=8)
    digest.update(encode_array(_SCHEMA.slot_number("brand"), pa.array(["a", "brand", "of w\u00f6rds"])).tobytes())
    for optimizer in (AdaGrad(learning_rate=0.05), Adam(learning_rate=0.001)):
        for array in _learned(optimizer, device):
            digest.update(array.detach().cpu().numpy().tobytes())
    for hashed in _hashed():
        digest.update(hashed.tobytes())
    return digest.hexdigest()


def _learned(optimizer: Optimizer, device: Device) -> Iterable[Tensor]:
    """Losses, rows and layers after some steps, one of which is taken back."""
    config = TrainConfig(evaluate_every=0, seed=1, device=device, weight_decay=0.01, warmup_steps=2, decay_steps=4)
    embed = Embed(Embeddings(_SCHEMA, optimizer=optimizer, seed=config.seed, capacity=config.capacity))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        model = _Probe(_ProbeConfig(), embed)
    trainer = Trainer(model, embed, config)
    batches = [_batch(number) for number in range(_STEPS)]
    losses = [trainer.step(batch).loss for batch in batches[:-1]]
    kept = trainer.keep()
    trainer.step(batches[-1])
    trainer.restore(kept)
    losses.append(trainer.step(batches[-1]).loss)
    yield torch.tensor(losses, dtype=torch.float64)
    for slot in ("item", "brand"):
        live = embed.live(slot)
        yield from (live, embed.sights(slot, live), embed.peek(slot, live))
    yield from trainer.model.state_dict().values()
    with trainer.parameters().computing():
        yield model(batches[0].to(str(device)))


def _hashed() -> Iterable[NDArray[Any]]:
    """In which buckets the core puts vectors, and what it reads of the sums there."""
    draw = generator(0, "machinery", "buckets")
    vectors = draw.standard_normal((_EXAMPLES, _WIDTH), dtype=np.float32)
    buckets = np.empty((_EXAMPLES, _ROUNDS), dtype=np.int64)
    hash_into_buckets(vectors, draw.standard_normal((_WIDTH, _ROUNDS * _BITS)), _BITS, buckets)
    yield buckets
    people = 2
    sums = draw.standard_normal((people, _ROUNDS, 1 << _BITS, _WIDTH), dtype=np.float32)
    sums[0, 0] = 0  # nothing fell there
    read = np.empty_like(vectors)
    read_buckets(sums, draw.integers(0, people, _EXAMPLES), buckets, 1e-6, read)
    yield read


def _batch(number: int) -> Batch:
    draw = generator(0, "machinery", number)
    lengths = draw.integers(0, _LENGTH, _EXAMPLES)
    ends = np.concatenate([[0], np.cumsum(lengths)])

    def fids(slot: str, count: int, ids: int) -> Tensor:
        places = (ids * draw.random(count) ** 3).astype(np.int64)  # a few come often
        return torch.from_numpy(pack_fids(_SCHEMA.slot_number(slot), places))

    return Batch(
        size=_EXAMPLES,
        slots={
            "item": Jagged.single(fids("item", _EXAMPLES, _IDS)),
            "brand": Jagged.single(fids("brand", _EXAMPLES, _IDS // 10)),
            "history": Jagged(fids("item", int(ends[-1]), _IDS), torch.from_numpy(ends)),
        },
        labels={"click": torch.from_numpy(draw.integers(0, 2, _EXAMPLES).astype(np.float32))},
    )


@final
@dataclass(frozen=True)
class _ProbeConfig:
    """No options."""


@final
class _Probe(nn.Module):
    """Reads rows in each way in which models read them; of no use otherwise."""

    abilities: ClassVar[frozenset[Ability]] = frozenset()
    slots, dense = ("item", "brand", "history"), ()

    def __init__(self, config: _ProbeConfig, embed: Embed) -> None:
        super().__init__()
        self.config, self.embed = config, embed
        self.layers = nn.Sequential(nn.Linear(17, 16), nn.Dropout(0.2), nn.Linear(16, 17))

    def forward(self, batch: Batch) -> Tensor:
        pooled = self.embed(batch, ["item", "history"])
        rows, owners = self.embed.values(batch, "history")
        summed = rows.new_zeros(batch.size, rows.shape[1]).index_add(0, owners, rows)
        met = (self.layers(pooled[:, 1] + summed) * pooled[:, 0]).sum(dim=1)
        logits: Tensor = met + self.embed(batch, ["brand"]).sum(dim=(1, 2))
        return logits

    def loss(self, batch: Batch) -> Tensor:
        some = self.embed.live("item")[::7]
        spread = self.embed.peek("item", some).square().mean() if len(some) else torch.zeros(())
        rows, sights = self.embed.occurring(batch, ["item", "history"])
        held_down = (rows.square().sum(dim=1) / sights.clamp(min=2)).sum() / batch.size
        loss: Tensor = log_loss(self(batch), batch, "click") + 0.1 * spread + 0.01 * held_down
        return loss

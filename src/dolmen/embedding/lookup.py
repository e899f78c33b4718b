"""The look-up: where a batch's ids become vectors, and gradients find their way back to the rows.

A model is handed an ``Embed`` and asks it for slots. Outside ``recording`` that is a plain read: nothing is inserted,
nothing has a gradient. Inside, ids that are new get rows, what was read is kept, and ``Tape.apply`` sends the gradients
home. Training and serving thus share extraction, look-up and pooling, and cannot drift apart. Where a slot has a policy
(``policies``), its ids are read and learned through the rows that the policy names.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, final, get_args

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from dolmen._core import pool_rows
from dolmen.embedding.policies import RowPolicy, policies_of
from dolmen.embedding.store import Embeddings
from dolmen.embedding.table import as_fids
from dolmen.errors import SchemaError
from dolmen.features import Batch, Jagged, Schema, Spread
from dolmen.settings import suggestion

__all__ = ["Embed", "Pooling", "Tape", "pool"]

Pooling = Literal["mean", "sum"]
"""How many rows become one vector."""


@dataclass(frozen=True)
class _Read:
    """Rows of one slot of one batch: ``rows`` (total, dim) is a leaf of the graph, one row for each of ``fids``.

    ``merged``: a vector for each FID of the batch, which is ``rows`` itself unless the slot has a policy.
    """

    slot: str
    jagged: Jagged  # held, so that its identity names this read for as long as the tape lives
    fids: Tensor
    rows: Tensor
    merged: Tensor


@final
class Tape:
    """What a training step read. Made by ``Embed.recording``; ``apply`` is called once, after ``loss.backward()``.

    Without that call the gradients are dropped: ids that were new keep the rows that they got, and nothing is learned.
    """

    def __init__(self, embed: Embed, now_us: int) -> None:
        self._embed, self._now_us, self._device = embed, now_us, embed.device
        self._embeddings, self._policies = embed.embeddings, embed._policies
        self._reads: dict[tuple[int, str], _Read] = {}
        self._is_begun = self._is_applied = False
        self._ready: dict[int, tuple[Tensor, Tensor]] | None = None  # Once they were checked: from then on none counts.

    def __enter__(self) -> Tape:
        if self._is_begun:
            raise RuntimeError("this tape was recorded on already; call embed.recording(now_us) for each step")
        self._embed._begin(self, self._now_us)
        self._is_begun = True
        return self

    def __exit__(self, *_: object) -> None:
        self._embed._end(self)

    def apply(self, scale: float = 1.0) -> int:
        """Send every gradient to its table: one optimiser step for each row that got one. Returns how many rows.

        Gradients of the same id are summed first, whichever slot or batch they come through.

        Args:
            scale: factor on the optimiser's learning rate.

        Raises:
            RuntimeError: the tape was applied before; its gradients were computed at rows that are gone. A ``backward``
                that comes later raises it too. Or nothing was recorded on it, for want of ``with``.
            TypeError, ValueError: ``scale`` is no number, or out of range.
            ValueError: a gradient cannot be learned, see ``check``; no row of any table was changed then.
        """
        if self._is_applied:
            raise RuntimeError("this tape was applied already; record each step on its own tape")
        ready = self._checked(scale)
        self._is_applied, self._ready = True, {}
        self._reads.clear()
        return sum(
            self._embeddings.tables[dim].apply_gradients(fids, grads, scale, is_checked=True)
            for dim, (fids, grads) in ready.items()
        )

    def check(self, scale: float = 1.0) -> None:
        """Whether every gradient can be learned; ``apply`` asks too, so this is for who moves other things first.

        Call it after the last ``backward``: one that comes later is a ``RuntimeError``.

        Raises:
            ValueError: one is NaN, infinite, or too large for float32 sums; the message names its FID and place among
                the gradients of its width. Or ``scale``, the one that ``apply`` will be given, is out of range.
            TypeError: ``scale`` is no number.
        """
        self._checked(scale)

    def _checked(self, scale: float) -> dict[int, tuple[Tensor, Tensor]]:
        """By width: FIDs and their gradients, of rows that got one."""
        for table in self._embeddings.tables.values():
            table.require_scale(scale, "scale")
        if self._ready is not None:
            return self._ready
        if not self._is_begun:
            raise RuntimeError("nothing was recorded on this tape; write: with embed.recording(now_us) as tape")
        by_dim: dict[int, list[tuple[Tensor, Tensor]]] = {}
        for read in self._reads.values():
            if read.rows.grad is not None and len(read.rows) > 0:
                by_dim.setdefault(read.rows.shape[1], []).append((read.fids, read.rows.grad.cpu()))
        ready = {}
        for dim, parts in by_dim.items():
            fids, grads = torch.cat([fids for fids, _ in parts]), torch.cat([grads for _, grads in parts])
            # Rows that were read but had no say in the loss are not touched: an optimiser with momentum would move
            # them, and each would travel in the next delta.
            is_moving = torch.from_numpy(self._embeddings.tables[dim].find_moving(fids.numpy(), grads.numpy()))
            ready[dim] = (fids, grads) if is_moving.all() else (fids[is_moving], grads[is_moving])
        self._ready = ready
        for read in self._reads.values():
            _close(read.rows)
        return ready

    def gradients(self) -> dict[str, tuple[Tensor, Tensor]]:
        """For each slot that got gradients: its FIDs (total,) and their gradients (total, dim), duplicates unsummed.

        Of a slot with a policy: the policy's keys.
        """
        parts: dict[str, list[tuple[Tensor, Tensor]]] = {}
        for read in self._reads.values():
            if read.rows.grad is not None:
                parts.setdefault(read.slot, []).append((read.fids, read.rows.grad))
        return {
            slot: (torch.cat([fids for fids, _ in some]), torch.cat([grads for _, grads in some]))
            for slot, some in parts.items()
        }

    def _read(self, names: Sequence[str], columns: Sequence[Jagged]) -> list[Tensor]:
        """The leaves of these slots; those not read before come from the table in one call."""
        new = [(n, c) for n, c in zip(names, columns, strict=True) if (id(c), n) not in self._reads]
        if new:
            for name, column in new:  # All of them before the first is seen.
                self._embeddings.require_own(name, column)
                column.require_within(self._embeddings.schema.slot(name))
            fids = [_keys(self._policies, name, column.values) for name, column in new]
            rows = torch.from_numpy(
                self._embeddings.table_of(new[0][0]).lookup_or_insert(torch.cat(fids), self._now_us)
            )
            for (name, column), keys, part in zip(new, fids, torch.split(rows, list(map(len, fids))), strict=True):
                leaf = self._leaf(part.detach())
                self._reads[id(column), name] = _Read(name, column, keys, leaf, _merge(self._policies, name, leaf))
        return [self._reads[id(column), name].merged for name, column in zip(names, columns, strict=True)]

    def _leaf(self, rows: Tensor) -> Tensor:
        leaf = rows.to(self._device).requires_grad_()
        if self._ready is not None:
            _close(leaf)
        return leaf

    def _peek(self, slot: str, fids: Tensor) -> Tensor:
        """A leaf over rows that are read and not seen."""
        column = Jagged.single(fids)
        self._embeddings.require_own(slot, column)  # Gradients move what is read.
        keys = _keys(self._policies, slot, fids)
        leaf = self._leaf(self._embeddings.lookup(slot, keys))
        merged = _merge(self._policies, slot, leaf)
        self._reads[id(column), slot] = _Read(slot, column, keys, leaf, merged)
        return merged


def _close(leaf: Tensor) -> None:
    """Let no gradient come to it any more."""
    register: Callable[[Callable[[Tensor], Tensor]], object] = leaf.register_hook  # which torch leaves untyped
    register(_refuse_late)


def _refuse_late(_: Tensor) -> Tensor:
    raise RuntimeError(
        "backward() came after the tape's gradients were taken, and would be lost; call apply() (and check()) after "
        "the last backward(), or record another step"
    )


@final
class Embed:
    """Vectors for the slots of a batch, from ``embeddings``.

    Plain reads may come from any number of threads, also while one of them records: the tape is that thread's alone.

    Attributes:
        device: where vectors go, and where gradients come from, as torch calls it. The tables stay in main memory.
    """

    def __init__(self, embeddings: Embeddings) -> None:
        if not isinstance(embeddings, Embeddings):
            raise TypeError(f"embeddings must be Embeddings, got {embeddings!r:.80}; write Embed(Embeddings(schema))")
        self.embeddings = embeddings
        self.device = "cpu"
        self._policies = policies_of(embeddings.schema)
        self._recorded: dict[str, tuple[int, Tape]] = {}  # By which thread, while one does.
        self._aligned: list[tuple[str, ...]] = []

    @property
    def schema(self) -> Schema:
        """What the batches hold."""
        return self.embeddings.schema

    @property
    def _tape(self) -> Tape | None:
        """What this thread records on."""
        recorded = self._recorded.get("by")
        return recorded[1] if recorded is not None and recorded[0] == threading.get_ident() else None

    def align(self, slots: Sequence[str]) -> None:
        """Say, when a model is built, that ``slots`` go together value by value: as many of each in every example."""
        _require_list(slots)
        if len(slots) > 1 and tuple(slots) not in self._aligned:
            self._aligned.append(tuple(slots))

    def check(self, batch: Batch) -> None:
        """Whether slots that go together (``align``) do so in ``batch``. Reads no row.

        Raises:
            SchemaError: some do not; the message names them, and the first example where.
        """
        for slots in self._aligned:
            self.offsets(batch, slots)

    def offsets(self, batch: Batch, slots: Sequence[str]) -> Tensor:
        """Where the values of each example begin in every one of ``slots``, and the end, (batch + 1,).

        Raises:
            SchemaError: the slots do not go together value by value.
        """
        columns = _columns(batch, slots)
        first = columns[0].offsets
        for name, column in zip(slots[1:], columns[1:], strict=True):
            others = column.offsets
            if not torch.equal(others, first):
                row = int((others.diff() != first.diff()).nonzero()[0])
                counts = f"{int(first.diff()[row])} and {int(others.diff()[row])}"
                raise SchemaError(
                    f"slots {slots[0]!r} and {name!r} have different counts of values (example {row}: {counts}), and "
                    f"they go together value by value: leave {name!r} out of the history, or fill what is missing"
                )
        return first

    def __call__(
        self,
        batch: Batch,
        slots: Sequence[str],
        pooling: Pooling = "mean",
        *,
        weights: Mapping[str, Tensor] | None = None,
    ) -> Tensor:
        """One vector for each slot of each example, shape (batch, slot, dim). An empty slot gives zeros.

        Ids without a row (new, not yet admitted, expired) count as rows of zeros. All slots are read in one call.

        Args:
            batch: whose ids are looked up.
            slots: which, in the order of the result.
            pooling: how the rows of one example's slot become one; see ``pool``.
            weights: by slot, what each of its values counts, float32 (total,) in their order; 1 where it has none. They
                get gradients if they ask for them.

        Raises:
            SchemaError: an unknown slot, no slot, slots of different ``dim`` (ask for those one by one), or weights
                that are not one for each value of a slot that is asked for.
            ValueError: an unknown ``pooling``.
            TypeError: ``batch`` is none, ``slots`` is one name instead of a list, or weights are not float32 tensors by
                slot.
        """
        if pooling not in get_args(Pooling):
            raise ValueError(f"pooling must be one of {', '.join(get_args(Pooling))}, got {pooling!r}")
        dim = self.dim(slots)
        columns = _columns(batch, slots)
        joined = None if weights is None else _joined_weights(slots, columns, weights)
        if joined is None and self._tape is None:
            return self._pooled_to_read(slots, columns, pooling)
        rows = self._rows(slots, columns)
        merged = rows[0] if len(rows) == 1 else torch.cat(rows)
        if joined is None and all(column.is_single for column in columns):
            return merged.view(len(slots), batch.size, dim).transpose(0, 1)
        lengths = torch.cat([column.lengths for column in columns])
        return pool(merged, lengths, pooling, joined).view(len(slots), batch.size, dim).transpose(0, 1)

    def sequence(self, batch: Batch, slot: str) -> tuple[Tensor, Tensor]:
        """The rows of one slot in order: vectors (batch, length, dim) and a mask (batch, length), true where real.

        ``length`` is that of the longest row in the batch, at least 1; shorter ones end in zeros. Where the slot is
        ordered, the oldest stands first.
        """
        [column] = _columns(batch, [slot])
        rows = self._rows([slot], [column])[0]
        lengths = column.lengths
        length = max(1, column.longest)
        owners = torch.repeat_interleave(lengths)
        places = owners * length + torch.arange(len(owners), device=owners.device) - column.offsets[owners]
        padded = rows.new_zeros(batch.size * length, rows.shape[1]).index_copy(0, places, rows)
        mask = torch.arange(length, device=lengths.device).unsqueeze(0) < lengths.unsqueeze(1)
        return padded.view(batch.size, length, rows.shape[1]), mask

    def values(self, batch: Batch, slot: str) -> tuple[Tensor, Tensor]:
        """The rows of one slot without padding: vectors (total, dim) and the example of each (total,), in order.

        What ``sequence`` gives, for work that is done on each value alone: nothing is computed for the padding.
        """
        [column] = _columns(batch, [slot])
        return self._rows([slot], [column])[0], torch.repeat_interleave(column.lengths)

    def occurring(self, batch: Batch, slots: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Each id that occurs in ``slots`` of ``batch``, once: its row (count, dim) and how often it was seen (count,).

        Sights are float32 and count this batch while recording; 0 where the id has no row. A gradient reaches the row
        as any other does.

        Raises:
            SchemaError: an unknown slot, no slot, or slots of different ``dim``.
        """
        self.dim(slots)
        columns = _columns(batch, slots)
        rows = self._rows(slots, columns)
        merged = rows[0] if len(rows) == 1 else torch.cat(rows)
        values = torch.cat([column.values for column in columns]).cpu().numpy()
        _, first = np.unique(values, return_index=True)
        # By a policy an id's vector is made of several rows; the least seen of them tells how rare it may be.
        sights = torch.cat([self.sights(name, column.values) for name, column in zip(slots, columns, strict=True)])
        places = torch.from_numpy(first).to(self.device)
        return merged.index_select(0, places), sights.index_select(0, places)

    def frequencies(self, batch: Batch, slot: str) -> Tensor:
        """How common each example's id is: its share of all sights of its slot's rows, shape (batch,).

        0 where the id has no row or the slot is empty. Slots that share rows share their counts, and so do ids whose
        slot has a policy: of several rows, the rarest tells.

        Raises:
            SchemaError: the slot takes many values.
        """
        if self.schema.slot(slot).many:
            raise SchemaError(f"frequencies of {slot!r}: one value an example is needed, and the slot takes many")
        [column] = _columns(batch, [slot])
        table = self.embeddings.table_of(slot)
        total = max(1, table.total_count(self.schema.slot_number(slot)))
        shares = torch.zeros(batch.size, device="cpu")
        width = self._policies[slot].width if slot in self._policies else 1  # each sight counts once in each row
        counts = torch.from_numpy(table.counts(_keys(self._policies, slot, column.values)))
        shares[column.lengths.cpu() > 0] = width * counts.view(-1, width).amin(dim=1).to(torch.float32) / total
        return shares.to(self.device)

    def live(self, slot: str) -> Tensor:
        """The FIDs of every id that has a row in the table of ``slot``, ascending: its catalogue as of now, (count,).

        Raises:
            SchemaError: the slot has a policy, so a row does not belong to one id.
        """
        if slot in self._policies:
            raise SchemaError(
                f"the ids of {slot!r} share rows (policy {str(self.schema.owner(slot).policy)!r}), so they cannot be "
                "listed; a model over the whole catalogue needs policy='collisionless'"
            )
        fids = self.embeddings.table_of(slot).fids(self.schema.slot_number(slot))
        return torch.from_numpy(fids).to(self.device)

    def peek(self, slot: str, fids: Tensor | NDArray[np.int64]) -> Tensor:
        """The rows of ``fids`` that nobody saw, such as the candidates of a softmax, (count, dim).

        They count no sight and make no row, so ages and admission know of what happened only. While recording, a
        gradient reaches them as any other does. ``fids`` may be an array, as ``encode_values`` gives it.
        """
        fids = _tensor(fids)
        if self._tape is not None:
            return self._tape._peek(slot, fids)
        rows = self.embeddings.lookup(slot, _keys(self._policies, slot, fids)).to(self.device)
        return _merge(self._policies, slot, rows)

    def sights(self, slot: str, fids: Tensor | NDArray[np.int64]) -> Tensor:
        """How often each id was seen, by its row's count, float32 (count,); 0 without a row.

        Of a slot with a policy: the least count of the id's rows.
        """
        width = _width(self._policies, slot)
        counts = self.embeddings.table_of(slot).counts(_keys(self._policies, slot, _tensor(fids)))
        return torch.from_numpy(counts.reshape(-1, width).min(axis=1)).to(self.device, torch.float32)

    def dim(self, slots: Sequence[str]) -> int:
        """The width that all of ``slots`` share.

        Raises:
            SchemaError: an unknown slot, no slot, or slots of different ``dim``.
            TypeError: ``slots`` is one name instead of a list.
        """
        _require_list(slots)
        if not slots:
            raise SchemaError(f"slots must name at least one, got none; the schema has {', '.join(self.schema.slots)}")
        dims = {name: self.schema.slot(name).dim for name in slots}
        if len(set(dims.values())) != 1:
            told = ", ".join(f"{name} {dim}" for name, dim in dims.items())
            raise SchemaError(f"slots that are read together need one dim, got {told}; give them one, or read apart")
        return next(iter(dims.values()))

    def recording(self, now_us: int) -> Tape:
        """Within, look-ups give new ids their rows and keep what they read on the tape, once for each slot of a batch.

        One step of learning::

            with embed.recording(now_us) as tape:
                loss = model.loss(batch)
                loss.backward()
                tape.apply()

        Args:
            now_us: the data's time, by which rows age; event time, so that replaying old events wipes nothing.

        Raises:
            RuntimeError: already recording, the embeddings are for serving, which never inserts, or gradients are off.
        """
        return Tape(self, now_us)

    def _begin(self, tape: Tape, now_us: int) -> None:
        if self.embeddings.is_for_serving:
            raise RuntimeError("these embeddings are for serving and never learn; train on Embeddings(schema)")
        if not torch.is_grad_enabled():
            raise RuntimeError("no gradient is computed here (torch.no_grad, torch.inference_mode); record outside")
        self.embeddings.require_time(now_us)
        # One call, so of two threads that come at once the second finds the first.
        if self._recorded.setdefault("by", (threading.get_ident(), tape))[1] is not tape:
            raise RuntimeError("this Embed is recording already; a step ends before the next begins")

    def _end(self, tape: Tape) -> None:
        if self._recorded["by"][1] is tape:
            del self._recorded["by"]

    def _pooled_to_read(self, slots: Sequence[str], columns: Sequence[Jagged], pooling: Pooling) -> Tensor:
        """As ``pool``, of all columns' bags, where nothing will ask for a gradient, shape (batch, slot, dim).

        A few native calls instead of ten, and none for an example whose bag another one has too.
        """
        held = [column.rows if isinstance(column, Spread) else column for column in columns]
        is_shared = any(isinstance(column, Spread) for column in columns)
        rows = self._rows(slots, held)
        merged = rows[0] if len(rows) == 1 else torch.cat(rows)
        by_slot = (len(columns), columns[0].size, merged.shape[1])
        if not is_shared and all(column.is_single for column in columns):
            return merged.view(by_slot).transpose(0, 1)
        lengths = np.concatenate([_here(column.lengths).numpy() for column in held])
        pooled = np.empty((len(lengths), merged.shape[1]), dtype=np.float32)
        pool_rows(_here(merged).numpy(), lengths, is_mean=pooling == "mean", out=pooled)
        if not is_shared:
            return torch.from_numpy(pooled).to(self.device).view(by_slot).transpose(0, 1)
        places = np.empty((columns[0].size, len(columns)), dtype=np.int64)
        start = 0
        for number, (column, one) in enumerate(zip(columns, held, strict=True)):
            owners = _here(column.owners).numpy() if isinstance(column, Spread) else np.arange(one.size)
            np.add(owners, start, out=places[:, number])
            start += one.size
        return torch.from_numpy(pooled[places]).to(self.device)

    def _rows(self, slots: Sequence[str], columns: Sequence[Jagged]) -> list[Tensor]:
        if self._tape is not None:
            return self._tape._read(slots, columns)
        fids = [_keys(self._policies, name, column.values) for name, column in zip(slots, columns, strict=True)]
        rows = self.embeddings.lookup(slots[0], fids[0] if len(fids) == 1 else torch.cat(fids)).to(self.device)
        if not self._policies:
            return [rows]
        parts = torch.split(rows, list(map(len, fids)))
        return [_merge(self._policies, name, part) for name, part in zip(slots, parts, strict=True)]


def _require_list(slots: Sequence[str]) -> None:
    if isinstance(slots, str):
        raise TypeError(f"slots must be a list of names, got {slots!r}; write [{slots!r}]")


def _columns(batch: Batch, slots: Sequence[str]) -> list[Jagged]:
    """The ids of these slots."""
    if not isinstance(batch, Batch):
        raise TypeError(
            f"batch must be a Batch, got {batch!r:.80}; extract_rows(schema, rows) makes one of dicts, and "
            "Batch(size, slots) of ids that are encoded"
        )
    return [batch.slot(name) for name in slots]


def _keys(policies: Mapping[str, RowPolicy], slot: str, fids: Tensor) -> Tensor:
    """The FIDs whose rows make up the vectors of ``fids``: themselves, unless the slot has a policy. In main memory."""
    policy = policies.get(slot)
    return _here(fids) if policy is None else policy.keys(_here(fids))


def _tensor(fids: Tensor | ArrayLike) -> Tensor:
    return fids if isinstance(fids, Tensor) else torch.from_numpy(as_fids(fids))


def _here(tensor: Tensor) -> Tensor:
    """In main memory. Where it is there, no call of torch, of which each lets other threads have the interpreter."""
    return tensor if tensor.is_cpu else tensor.cpu()


def _width(policies: Mapping[str, RowPolicy], slot: str) -> int:
    """How many keys each FID has."""
    policy = policies.get(slot)
    return 1 if policy is None else policy.width


def _merge(policies: Mapping[str, RowPolicy], slot: str, rows: Tensor) -> Tensor:
    """One vector for each FID, from the rows of its keys."""
    width = _width(policies, slot)
    return rows if width == 1 else rows.view(-1, width, rows.shape[1]).sum(dim=1)


def pool(rows: Tensor, lengths: Tensor, pooling: Pooling, weights: Tensor | None = None) -> Tensor:
    """Many rows into one for each bag, shape (bag, dim): ``rows`` (total, dim) are the bags' rows, one after the other.

    ``sum`` adds ``weight * row``; ``mean`` divides that by the sum of the bag's weights. A bag without rows, or whose
    weights sum to 0 (its mean is not defined), gives zeros.

    >>> pool(torch.tensor([[1.0], [3.0], [5.0]]), torch.tensor([2, 0, 1]), "mean").tolist()
    [[2.0], [0.0], [5.0]]
    """
    bags = torch.repeat_interleave(lengths)
    pooled = rows.new_zeros(len(lengths), rows.shape[1])
    if weights is None:
        pooled = pooled.index_add(0, bags, rows)
        return pooled / lengths.clamp(min=1).unsqueeze(1) if pooling == "mean" else pooled
    pooled = pooled.index_add(0, bags, rows * weights.unsqueeze(1))
    if pooling == "sum":
        return pooled
    totals = weights.new_zeros(len(lengths)).index_add(0, bags, weights)
    is_defined = (totals != 0).unsqueeze(1)
    # The inner choice keeps the gradient of the division finite where the outer one hides its value.
    return torch.where(is_defined, pooled / torch.where(is_defined, totals.unsqueeze(1), 1.0), 0.0)


def _joined_weights(slots: Sequence[str], columns: Sequence[Jagged], weights: Mapping[str, Tensor]) -> Tensor | None:
    """Of all values, in their order; ``None`` where no slot has any."""
    if not isinstance(weights, Mapping):
        raise TypeError(f"weights must be tensors by slot, got {type(weights).__name__}; write {{slot: tensor}}")
    if not weights:
        return None
    foreign = [name for name in weights if name not in slots]
    if foreign:
        mend = suggestion(foreign[0], slots)
        raise SchemaError(f"weights of {foreign[0]!r}, which is not among the slots asked for{mend}")
    parts: list[Tensor] = []
    for name, column in zip(slots, columns, strict=True):
        part = weights.get(name)
        if part is None:
            part = torch.ones(len(column.values), device=column.values.device)
        if not isinstance(part, Tensor) or part.dtype != torch.float32:
            came = f"a tensor of {part.dtype}" if isinstance(part, Tensor) else type(part).__name__
            mend = "torch.as_tensor(..., dtype=torch.float32) makes one"
            raise TypeError(f"weights of {name!r} must be a float32 tensor, got {came}; {mend}")
        if part.shape != column.values.shape:
            raise SchemaError(
                f"weights of {name!r} have the shape {tuple(part.shape)}, its values {tuple(column.values.shape)};"
                " give one for each value"
            )
        parts.append(part)
    return torch.cat(parts)

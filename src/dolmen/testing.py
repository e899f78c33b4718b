"""The questions that every model must answer, ours and our users': ``check_model(MyModel, MyConfig())``.

It makes small random data from the schema, trains the model on real tables, and tells everything that is wrong at once.
A model that must skip a question says so on its own class, with the reason::

    skipped_checks: ClassVar[Mapping[str, str]] = {"overfits_a_batch": "it has no trainable part"}
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any, Final, TypeVar, final

import numpy as np
import torch
from torch import Tensor
from torch.autograd import backward

from dolmen.clock import TIME_US_MIN
from dolmen.embedding import AdaGrad, Embed, Embeddings
from dolmen.features import Batch, Dense, Jagged, Label, Schema, Side, Slot, extract_rows
from dolmen.models.contract import Ability, Model, condenser, decider, encoder, retriever, scorer, weigher
from dolmen.seeds import derive_seed, generator
from dolmen.settings import read_settings, write_settings

__all__ = ["CHECKS", "check_answers", "check_model", "example_batch", "example_schema"]

ConfigT = TypeVar("ConfigT")

_ID_COUNT: Final = 40  # few enough that ids meet again within a batch
_BATCH: Final = 32
_WARM_UP_STEPS: Final = 4
_OVERFIT_STEPS: Final = 150
_OVERFIT_SHARE: Final = 0.25  # of the first loss; memorising 32 examples with as many free rows goes far below
_METHODS: Final = {
    Ability.SCORES: ("score",),
    Ability.WEIGHS: ("weighed",),
    Ability.CONDENSES: ("past_slots", "recent_count", "condensed_shape", "condense", "score_condensed"),
    Ability.RETRIEVES: ("queries", "items", "query_slots", "item_slots", "vector_dim"),
    Ability.ENCODES: ("encode",),
    Ability.GENERATES: ("generate",),
    Ability.DECIDES: ("decide",),
    Ability.FORECASTS: ("forecast",),
}


def check_model(
    make: Callable[[ConfigT, Embed], Model], config: ConfigT, schema: Schema | None = None, *, seed: int = 0
) -> None:
    """Ask a model everything in ``CHECKS``.

    Args:
        make: the model's class, or what makes one from options and look-up.
        config: options to check it with.
        schema: what its examples look like; ``example_schema()`` if ``None``.
        seed: of the data and of the model's start values.

    Raises:
        AssertionError: at least one check failed; the message lists each by name.
        RuntimeError: Python was told to leave assertions out, and the checks are made of them.
    """
    if not __debug__:
        raise RuntimeError("check_model needs assertions; run Python without -O and without PYTHONOPTIMIZE")
    bench = _Bench(make, config, schema if schema is not None else example_schema(), seed)
    kind = type(bench.model()[0])
    skipped: Mapping[str, str] = getattr(kind, "skipped_checks", {})
    failures = [f"skipped_checks: {name!r} is no check" for name in skipped if name not in CHECKS]
    failures += [f"skipped_checks: {name} needs a reason" for name, reason in skipped.items() if not reason.strip()]
    for name, check in CHECKS.items():
        if name in skipped:
            continue
        try:
            check(bench)
        except Exception as problem:  # a check that cannot even run has failed
            failures.append(f"{name}: {problem or type(problem).__name__}")
    if failures:
        raise AssertionError(f"{kind.__name__} fails {len(failures)} checks:\n- " + "\n- ".join(failures))


def example_schema() -> Schema:
    """A small schema with every kind of field: what a shop has."""
    return Schema(
        Slot("user", dim=8),
        Slot("item", dim=8),
        Slot("genres", dim=8, many=True, of=Side.ITEM),
        Slot("history", dim=8, table="item", many=True, ordered=True, max_len=6, of=Side.USER),
        Dense("age", of=Side.USER),
        Dense("price", of=Side.ITEM),
        Label("click"),
    )


def example_batch(schema: Schema, size: int, *, seed: int = 0, first_id: int = 0) -> Batch:
    """Random examples of ``schema``, oldest first: few ids, so that they meet again, and now and then an empty slot.

    Args:
        schema: what the examples look like.
        size: how many.
        seed: of the draw.
        first_id: the lowest id; another range gives ids that no other batch has.
    """
    random = generator(seed, "example_batch", size)
    rows: list[dict[str, Any]] = []
    for place in range(size):
        row: dict[str, Any] = {}
        for slot in schema.slots.values():
            count = int(random.integers(0, min(slot.max_len or 5, 5) + 1)) if slot.many else 1
            ids = (first_id + random.integers(0, _ID_COUNT, count)).tolist()
            row[slot.name] = ids if slot.many else ids[0]
        row |= {name: float(random.normal()) for name in schema.dense}
        row |= {name: float(place % 2) for name in schema.labels}
        rows.append(row)
    batch = extract_rows(schema, rows, with_labels=True)
    return replace(batch, event_times_us=torch.arange(1, size + 1))


def check_answers(model: Model, batch: Batch) -> None:
    """Whether what the model's abilities say about ``batch``, and its loss, have the shapes that are asked of them and
    are finite. The model's mode is left as it is, and nothing is learned. Python's ``-O`` does not silence it.

    Raises:
        AssertionError: one has another shape, or holds what is no number; the message says which, and the mend.
    """
    for name, output in _outputs(model, batch).items():
        _check_shape(model, name, output, batch.size)
        if not bool(torch.isfinite(output).all()):
            raise AssertionError(f"{name} is not finite: {_broken(output)} among its values")
    with torch.no_grad():
        loss = model.loss(batch)
    if loss.ndim != 0:
        raise AssertionError(f"the loss has shape {tuple(loss.shape)}, and a scalar is needed: the mean over examples")
    if not bool(torch.isfinite(loss)):
        raise AssertionError(f"the loss is {loss.item()}, and must be finite")


def _check_shape(model: Model, name: str, output: Tensor, size: int) -> None:
    shape, mend = tuple(output.shape), ""
    match name:
        case "queries":
            dim = retriever(model).vector_dim
            is_right = output.ndim == 3 and shape[0] == size and shape[2] == dim
            expected = f"({size}, k, {dim})"
        case "items":
            expected = f"({size}, {retriever(model).vector_dim})"
            is_right = shape == (size, retriever(model).vector_dim)
        case "encode":
            is_right, expected = output.ndim == 2 and shape[0] == size, f"({size}, d)"
        case _:
            is_right, expected = shape == (size,), f"({size},)"
            mend = "; squeeze(-1) drops the last dimension" if shape == (size, 1) else ""
    if not is_right:
        raise AssertionError(f"{name} has shape {shape}, and {expected} is needed{mend}")


def _broken(output: Tensor) -> float:
    return output[~torch.isfinite(output)][0].item()


@final
class _Bench:
    """Makes models and data for the checks; each model has tables of its own."""

    def __init__(self, make: Callable[[Any, Embed], Model], config: Any, schema: Schema, seed: int) -> None:
        self.make, self.config, self.schema, self.seed = make, config, schema, seed

    def model(self, seed: int | None = None) -> tuple[Model, Embed]:
        """An untrained model, in evaluation mode."""
        chosen = seed if seed is not None else self.seed
        embed = Embed(Embeddings(self.schema, optimizer=AdaGrad(learning_rate=0.1), seed=chosen))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(chosen, "check_model"))
            model = self.make(self.config, embed)
        return model.eval(), embed

    def batch(self, size: int = _BATCH, *, name: str = "", first_id: int = 0) -> Batch:
        return example_batch(self.schema, size, seed=derive_seed(self.seed, name), first_id=first_id)

    def trained(self, seed: int | None = None) -> tuple[Model, Embed]:
        """A model that learned a little, so that its rows and layers are no longer those of the beginning."""
        model, embed = self.model(seed)
        for _ in self.train(model, embed, [self.batch(name=f"warm-up {step}") for step in range(_WARM_UP_STEPS)]):
            pass
        return model, embed

    def train(self, model: Model, embed: Embed, batches: list[Batch]) -> Iterator[float]:
        """One step on each batch; the loss before it."""
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        for step, batch in enumerate(batches, start=1):
            torch.manual_seed(derive_seed(self.seed, "step", step))
            model.train()
            with embed.recording(now_us=TIME_US_MIN + step) as tape:
                loss = model.loss(batch)
                optimizer.zero_grad()
                backward(loss * batch.size)
                optimizer.step()
                tape.apply()
            model.eval()
            yield loss.item()


def _abilities_are_there(bench: _Bench) -> None:
    model, _ = bench.model()
    for ability in model.abilities:
        if ability is Ability.CONDENSES and condenser(model) is None:
            continue
        for name in _METHODS[ability]:
            assert hasattr(model, name), f"{ability.value} is declared and {name} is missing"
    for name in ("config", "slots", "dense"):
        assert hasattr(model, name), f"{name} is missing"


def _names_its_source(bench: _Bench) -> None:
    kind = type(bench.model()[0])
    told = f"{getattr(sys.modules.get(kind.__module__), '__doc__', None)}\n{kind.__doc__}"
    assert "Source:" in told, 'neither the module nor the class says "Source: ..." in its docstring'


def _answers_have_their_shapes(bench: _Bench) -> None:
    model, _ = bench.trained()
    check_answers(model, bench.batch())


def _one_row_alone_scores_as_in_a_batch(bench: _Bench) -> None:
    model, _ = bench.trained()
    batch = bench.batch()
    together = _outputs(model, batch)
    for row in range(0, batch.size, 5):
        for name, alone in _outputs(model, batch.take(torch.tensor([row]))).items():
            _assert_close(alone, together[name][row : row + 1], f"{name} of row {row} depends on its batch")


def _order_of_rows_does_not_matter(bench: _Bench) -> None:
    model, _ = bench.trained()
    batch = bench.batch()
    order = torch.from_numpy(generator(bench.seed, "order").permutation(batch.size))
    mixed = batch.take(order)
    for name, expected in _outputs(model, batch).items():
        _assert_close(_outputs(model, mixed)[name], expected[order], f"{name} depends on the order of rows")
    with torch.no_grad():
        _assert_close(model.loss(mixed), model.loss(batch), "the loss depends on the order of rows")


def _empty_slots_and_unseen_ids_work(bench: _Bench) -> None:
    batch = bench.batch()
    zeros = {name: torch.zeros(batch.size) for name in bench.schema.labels}
    cases = {
        "empty slots": replace(batch, slots={name: Jagged.empty(batch.size) for name in batch.slots}),
        "unseen ids": bench.batch(first_id=1_000_000),
        "no positive": replace(batch, labels=zeros),
        "one example": batch.take(torch.tensor([1])),
        "no example": batch.take(torch.empty(0, dtype=torch.int64)),
    }
    for case, examples in cases.items():
        model, embed = bench.trained()
        for name, output in _outputs(model, examples).items():
            assert len(output) == examples.size, f"{case}: {name} has shape {tuple(output.shape)}"
            assert bool(torch.isfinite(output).all()), f"{case}: {name} is not finite"
        with embed.recording(now_us=TIME_US_MIN) as tape:
            loss = model.train().loss(examples)
            assert loss.ndim == 0, f"{case}: the loss has shape {tuple(loss.shape)}, a scalar is needed"
            assert bool(torch.isfinite(loss)), f"{case}: the loss is {loss.item()}"
            assert loss.requires_grad, f"{case}: the loss is not connected to the parameters"
            backward(loss)
            tape.apply()
        grads = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
        assert all(bool(torch.isfinite(grad).all()) for grad in grads), f"{case}: a gradient is not finite"


def _declared_slots_get_gradients_and_no_other_is_read(bench: _Bench) -> None:
    model, embed = bench.trained()
    whole = bench.batch()
    # What is not there cannot be read: a look at another slot is an error, and a default in its place another result.
    declared = replace(
        whole,
        slots={name: whole.slots[name] for name in model.slots},
        dense={name: whole.dense[name] for name in model.dense},
    )
    expected = _outputs(model, whole)
    for name, output in _outputs(model, declared).items():
        _assert_close(output, expected[name], f"{name} reads more than slots and dense declare")
    with embed.recording(now_us=TIME_US_MIN) as tape:
        backward(model.train().loss(declared))
        gradients = tape.gradients()
    for name in model.slots:
        assert name in gradients, f"slot {name} is declared and not read"
        assert bool(gradients[name][1].any()), f"slot {name} gets no gradient"
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, f"parameter {name} gets no gradient"


def _nothing_looks_into_the_future(bench: _Bench) -> None:
    model, _ = bench.trained()
    batch = bench.batch()
    expected = _outputs(model, batch)
    flipped = replace(
        batch,
        labels={name: 1 - column for name, column in batch.labels.items()},
        served_probabilities=torch.full((batch.size,), 0.5),
    )
    for name, output in _outputs(model, flipped).items():
        _assert_close(output, expected[name], f"{name} depends on labels, which come after it")
    half = batch.size // 2
    other = bench.batch(name="another future")
    late = replace(other.take(torch.arange(half, batch.size)), event_times_us=batch.event_times_us[half:])
    for name, output in _outputs(model, Batch.concat([batch.take(torch.arange(half)), late])).items():
        _assert_close(output[:half], expected[name][:half], f"{name} depends on later examples")


def _scoring_changes_nothing(bench: _Bench) -> None:
    model, embed = bench.trained()
    batch, strangers = bench.batch(), bench.batch(first_id=1_000_000)
    state, epoch, rows = _copied(model), embed.embeddings.advance_epoch(), len(embed.embeddings)
    random_state = torch.get_rng_state()
    first = _outputs(model, batch)
    _outputs(model, strangers)
    with torch.no_grad():
        model.loss(batch)
    for name, output in _outputs(model, batch).items():
        assert torch.equal(output, first[name]), f"{name} gives something else the second time"
    assert len(embed.embeddings) == rows, f"scoring made {len(embed.embeddings) - rows} rows"
    assert all(len(delta.fids) == 0 for delta in embed.embeddings.delta_since(epoch).values()), "scoring changed rows"
    _assert_same_state(model, state, "scoring, or the loss in evaluation mode, changed")
    assert torch.equal(torch.get_rng_state(), random_state), "scoring draws random numbers"


def _a_condensed_past_scores_as_the_whole(bench: _Bench) -> None:
    model, _ = bench.trained()
    able = condenser(model)
    if able is None:
        return
    batch, later = bench.batch(), bench.batch(name="later")
    owners, pasts = torch.arange(batch.size), able.past_slots
    newest = {name: batch.slot(name).last(able.recent_count) for name in pasts}
    with torch.no_grad():
        sums = able.condense(_only(batch, pasts))
        assert tuple(sums.shape) == (batch.size, *(able.condensed_shape or ())), (
            f"condense gives the shape {tuple(sums.shape)}, condensed_shape is {able.condensed_shape}"
        )
        condensed = able.score_condensed(replace(batch, slots={**batch.slots, **newest}), sums.flip(0), owners.flip(0))
        _assert_close(condensed, able.score(batch), "score_condensed is not score")
        both = replace(
            batch,
            slots={name: _after(batch.slot(name), later.slot(name)) for name in pasts},
        )
        together = able.condense(_only(later, pasts), sums)
        assert torch.equal(together, able.condense(both)), "the sums of a past depend on the parts in which it came"


def _same_seed_same_result(bench: _Bench) -> None:
    (one, one_embed), (other, other_embed) = bench.trained(), bench.trained()
    _assert_same_state(other, _copied(one), "two runs with one seed differ in")
    for dim, delta in one_embed.embeddings.delta_since(0).items():
        twin = other_embed.embeddings.delta_since(0)[dim]
        order, twin_order = np.argsort(delta.fids), np.argsort(twin.fids)
        is_same = np.array_equal(delta.fids[order], twin.fids[twin_order]) and np.array_equal(
            delta.vectors[order], twin.vectors[twin_order]
        )
        assert is_same, f"two runs with one seed differ in rows of dim {dim}"


def _config_and_state_survive_a_round_trip(bench: _Bench) -> None:
    model, embed = bench.trained()
    config = model.config
    written = json.loads(json.dumps(write_settings(config)))
    assert read_settings(type(config), written, "config") == config, (
        f"the config {config} comes back from {written} as another"
    )
    twin, twin_embed = bench.model(seed=bench.seed + 1)
    twin.load_state_dict(_copied(model))
    twin_embed.embeddings = embed.embeddings.clone()
    batches = [bench.batch(name=f"later {step}") for step in range(3)]
    for name, output in _outputs(twin, batches[0]).items():
        assert torch.equal(output, _outputs(model, batches[0])[name]), f"{name} differs after a round trip"
    losses, twin_losses = list(bench.train(model, embed, batches)), list(bench.train(twin, twin_embed, batches))
    assert losses == twin_losses, f"learning goes on otherwise after a round trip: {twin_losses}, was {losses}"
    _assert_same_state(twin, _copied(model), "learning on after a round trip differs in")


def _overfits_a_batch(bench: _Bench) -> None:
    model, embed = bench.model()
    losses = list(bench.train(model, embed, [bench.batch()] * _OVERFIT_STEPS))
    highest, last = max(losses[:10]), losses[-1]
    assert last < _OVERFIT_SHARE * highest, f"the loss of one batch went from {highest:.4f} to {last:.4f} only"


CHECKS: Final[Mapping[str, Callable[[_Bench], None]]] = {
    check.__name__.removeprefix("_"): check
    for check in (
        _abilities_are_there,
        _names_its_source,
        _answers_have_their_shapes,
        _one_row_alone_scores_as_in_a_batch,
        _order_of_rows_does_not_matter,
        _empty_slots_and_unseen_ids_work,
        _declared_slots_get_gradients_and_no_other_is_read,
        _nothing_looks_into_the_future,
        _scoring_changes_nothing,
        _a_condensed_past_scores_as_the_whole,
        _same_seed_same_result,
        _config_and_state_survive_a_round_trip,
        _overfits_a_batch,
    )
}
"""Every question, by name."""


def _outputs(model: Model, batch: Batch) -> dict[str, Tensor]:
    """What a model's abilities say about ``batch``, one row for each example. Each side is shown its own slots only."""
    outputs: dict[str, Tensor] = {}
    with torch.no_grad():
        if Ability.SCORES in model.abilities:
            outputs["score"] = scorer(model).score(batch)
        if Ability.WEIGHS in model.abilities:
            told = weigher(model).weighed(batch)
            outputs["weighed.strengths"] = told.strengths.new_zeros(batch.size).index_add(
                0, told.past.owners, told.strengths
            )
        if Ability.RETRIEVES in model.abilities:
            able = retriever(model)
            outputs["queries"] = able.queries(_only(batch, able.query_slots))
            outputs["items"] = able.items(_only(batch, able.item_slots))
        if Ability.ENCODES in model.abilities:
            outputs["encode"] = encoder(model).encode(batch)
        if Ability.DECIDES in model.abilities:
            outputs["decide.action"], outputs["decide.value"] = decider(model).decide(batch)
    return outputs


def _only(batch: Batch, slots: tuple[str, ...]) -> Batch:
    return replace(batch, slots={name: batch.slots[name] for name in slots}, labels={})


def _after(one: Jagged, other: Jagged) -> Jagged:
    """Each row of ``one``, and behind it that of ``other``."""
    return Jagged.from_lists([a + b for a, b in zip(one.to_lists(), other.to_lists(), strict=True)])


def _copied(model: Model) -> dict[str, Any]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def _assert_same_state(model: Model, expected: Mapping[str, Any], told: str) -> None:
    state = model.state_dict()
    assert list(state) == list(expected), f"{told} the names of its state"
    for name, value in state.items():
        assert torch.equal(value, expected[name]), f"{told} {name}"


def _assert_close(actual: Tensor, expected: Tensor, told: str) -> None:
    """Equal but for rounding: sums over a batch may run in another order."""
    assert actual.shape == expected.shape, f"{told}: shape {tuple(actual.shape)}, was {tuple(expected.shape)}"
    gap = float((actual - expected).abs().max()) if actual.numel() else 0.0
    allowed = 1e-4 * max(1.0, float(expected.abs().max()) if expected.numel() else 1.0)
    assert gap <= allowed, f"{told}: differs by {gap:.3g}"

"""The look-up: pooling against a naive twin, gradients that find their rows, recording and its limits."""

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dolmen._core import pool_rows
from dolmen.embedding import SGD, AdaGrad, Adam, Embed, Embeddings
from dolmen.embedding.lookup import Pooling, pool
from dolmen.errors import SchemaError
from dolmen.features import Batch, Jagged, Label, Schema, Side, Slot, Spread, extract_rows, pack_fids

DIM = 3
SCHEMA = Schema(
    Slot("user", dim=DIM),
    Slot("item", dim=DIM),
    Slot("tags", dim=DIM, many=True),
    Slot("history", dim=DIM, table="item", many=True, ordered=True, of=Side.USER),
    Slot("wide", dim=5),
    Slot("rare", dim=DIM, admit_after=3),
    Label("click"),
)
NAMES = tuple(SCHEMA.slots)
POOLED = ("user", "item", "tags", "history")


def fids_of(slot: str, values: list[int]) -> list[int]:
    return pack_fids(SCHEMA.slot_number(slot), np.array(values, dtype=np.int64)).tolist()


def batch_of(**slots: list[list[int]]) -> Batch:
    size = len(next(iter(slots.values())))
    rows = {name: slots.get(name, [[]] * size) for name in NAMES}
    return Batch(
        size=size, slots={name: Jagged.from_lists([fids_of(name, row) for row in some]) for name, some in rows.items()}
    )


def filled(rate: float = 1.0) -> Embed:
    """Rows 0..9 of every slot but ``rare``, at their start values; gradients are subtracted times ``rate``."""
    embed = Embed(Embeddings(SCHEMA, optimizer=SGD(learning_rate=rate), seed=3))
    for name in NAMES:
        if name != "rare":
            embed.embeddings.lookup_or_insert(name, torch.tensor(fids_of(name, list(range(10)))), now_us=1)
    return embed


def row_of(embed: Embed, slot: str, value: int) -> np.ndarray:
    return embed.embeddings.lookup(slot, torch.tensor(fids_of(slot, [value])))[0].numpy()


ROWS = st.lists(st.lists(st.integers(0, 14), max_size=4), min_size=0, max_size=5)


@pytest.mark.property
@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(*[st.lists(st.integers(0, 14), max_size=4)] * len(POOLED)), max_size=5), st.booleans())
def test_pooling_equals_a_loop_over_rows(rows: list[tuple[list[int], ...]], is_mean: bool) -> None:
    embed = filled()
    batch = batch_of(**{name: [row[place] for row in rows] for place, name in enumerate(POOLED)})
    actual = embed(batch, POOLED, "mean" if is_mean else "sum")
    assert actual.shape == (len(rows), len(POOLED), DIM)
    for i, row in enumerate(rows):
        for j, (name, values) in enumerate(zip(POOLED, row, strict=True)):
            expected = sum((row_of(embed, name, value) for value in values), np.zeros(DIM, dtype=np.float32))
            if is_mean:
                expected = expected / max(1, len(values))
            np.testing.assert_allclose(actual[i, j].numpy(), expected, atol=1e-6)


@pytest.mark.property
@settings(max_examples=60, deadline=None)
@given(ROWS)
def test_sequence_is_every_row_in_its_order_then_zeros(rows: list[list[int]]) -> None:
    embed = filled()
    vectors, mask = embed.sequence(batch_of(history=rows) if rows else batch_of(user=[]), "history")
    length = max([1, *map(len, rows)])
    assert vectors.shape == (len(rows), length, DIM)
    assert mask.tolist() == [[place < len(row) for place in range(length)] for row in rows]
    for i, row in enumerate(rows):
        for j in range(length):
            expected = row_of(embed, "history", row[j]) if j < len(row) else np.zeros(DIM)
            np.testing.assert_array_equal(vectors[i, j].numpy(), expected)


def test_what_a_look_up_makes_lies_where_its_batch_does() -> None:
    embed, batch = filled(), batch_of(user=[[1], [2]], tags=[[1, 3], []], history=[[1], [2, 3]])
    weights = {"tags": torch.tensor([0.5, 2.0])}

    def read() -> list[torch.Tensor]:
        pooled, weighted = embed(batch, POOLED), embed(batch, ["user", "tags"], weights=weights)
        seen = [*embed.sequence(batch, "history"), *embed.values(batch, "tags"), *embed.occurring(batch, ["tags"])]
        return [pooled, weighted, *seen, embed.frequencies(batch, "user"), embed.live("user")]

    expected = read()
    with torch.device("meta"):  # where tensors land of which nobody says where: as if the batch were elsewhere
        found = read()
        with embed.recording(now_us=2) as tape:
            learning = read()
            learning[0].sum().backward()
            tape.apply()
    for tensors in (found, learning):
        assert [one.device.type for one in tensors] == ["cpu"] * len(expected)
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


def test_reading_inserts_nothing_and_unknown_ids_read_as_zeros() -> None:
    embed = filled()
    rows = len(embed.embeddings)
    vectors = embed(batch_of(user=[[3], [99]]), ["user"])
    assert vectors[0].any()
    assert not vectors[1].any()
    assert not vectors.requires_grad
    assert len(embed.embeddings) == rows


def test_recording_inserts_and_what_it_reads_has_gradients() -> None:
    embed = filled()
    rows = len(embed.embeddings)
    with embed.recording(now_us=2) as tape:
        vectors = embed(batch_of(user=[[3], [99]]), ["user"])
        assert vectors[1].any()
        assert vectors.requires_grad
        torch.autograd.backward(vectors.sum())
        assert tape.apply() == 2
    assert len(embed.embeddings) == rows + 1


@pytest.mark.parametrize("pooling", ["mean", "sum"])
def test_gradients_equal_those_of_a_dense_embedding(pooling: str) -> None:
    # torch's own embedding and autograd are the naive twin; SGD with rate 1 shows the gradient as the row's change.
    embed = filled()
    random = np.random.default_rng(0)
    most = {name: 3 if SCHEMA.slot(name).many else 1 for name in POOLED}
    lists = {
        name: [random.integers(0, 10, random.integers(0, most[name] + 1)).tolist() for _ in range(6)] for name in POOLED
    }
    weights = torch.tensor(random.normal(size=(6, len(POOLED), DIM)), dtype=torch.float32)
    tables = {name: np.stack([row_of(embed, name, value) for value in range(10)]) for name in ("user", "item", "tags")}
    twins = {name: torch.tensor(rows, requires_grad=True) for name, rows in tables.items()}
    pooled = []
    for name in POOLED:
        twin = twins[SCHEMA.owner(name).name]
        rows = [twin[row].sum(dim=0) / (max(1, len(row)) if pooling == "mean" else 1) for row in lists[name]]
        pooled.append(torch.stack(rows))
    torch.autograd.backward((torch.stack(pooled, dim=1).tanh() * weights).sum())
    with embed.recording(now_us=2) as tape:
        torch.autograd.backward((embed(batch_of(**lists), POOLED, pooling).tanh() * weights).sum())
        tape.apply()
    for name, rows in tables.items():
        change = np.stack([row_of(embed, name, value) for value in range(10)]) - rows
        np.testing.assert_allclose(change, -twins[name].grad.numpy(), atol=1e-6)


def test_gradients_equal_differences_of_the_loss() -> None:
    # For a quadratic loss a central difference has no error but rounding, whatever its width.
    embed = filled()
    batch = batch_of(item=[[1], [2], [1]], history=[[2, 1], [], [1, 1, 3]])
    target = torch.linspace(-1, 1, 3 * 2 * DIM).view(3, 2, DIM)

    def loss() -> torch.Tensor:
        vectors, _ = embed.sequence(batch, "history")
        return (embed(batch, ["item", "history"]) - target).square().sum() + vectors.square().sum()

    with embed.recording(now_us=2) as tape:
        torch.autograd.backward(loss())
        found = {}
        for fids, grads in tape.gradients().values():
            for fid, grad in zip(fids.tolist(), grads, strict=True):
                found[fid] = found.get(fid, 0) + grad.numpy()
    table, width = embed.embeddings.tables[DIM], 0.5
    assert set(found) == set(fids_of("item", [1, 2, 3]))
    for fid, gradient in found.items():
        start = table.lookup(np.array([fid]))
        for column in range(DIM):
            ends = []
            for sign in (1, -1):
                moved = start.copy()
                moved[0, column] += sign * width
                table.assign(np.array([fid]), moved)
                ends.append(loss().item())
            table.assign(np.array([fid]), start)
            assert (ends[0] - ends[1]) / (2 * width) == pytest.approx(gradient[column], abs=1e-4)


def test_ids_that_meet_through_several_slots_take_one_step() -> None:
    embed = filled()
    before = row_of(embed, "item", 4)
    with embed.recording(now_us=2) as tape:
        torch.autograd.backward(embed(batch_of(item=[[4], [4]], history=[[4], []]), ["item", "history"], "sum").sum())
        assert tape.apply(scale=0.5) == 1
    np.testing.assert_allclose(row_of(embed, "item", 4), before - 0.5 * 3, atol=1e-6)


def test_two_models_share_one_reading_of_a_batch() -> None:
    embed = filled()
    batch = batch_of(user=[[1]], item=[[2]])
    table, number = embed.embeddings.tables[DIM], SCHEMA.slot_number("user")
    sights = table.total_count(number)
    with embed.recording(now_us=2) as tape:
        one = embed(batch, ["user", "item"])
        other = embed(batch, ["user"])
        assert table.total_count(number) == sights + 1
        before = row_of(embed, "user", 1)
        torch.autograd.backward(one.sum() + 2 * other.sum())
        tape.apply()
    np.testing.assert_allclose(row_of(embed, "user", 1), before - 3, atol=1e-6)


def test_rows_without_a_say_in_the_loss_are_not_touched() -> None:
    # With Adam a step of gradient zero would still move a row by its momentum, and ship it in the next delta.
    embed = Embed(Embeddings(SCHEMA, optimizer=Adam(), seed=1))
    for step in (1, 2):
        epoch = embed.embeddings.advance_epoch()
        with embed.recording(now_us=step) as tape:
            vectors = embed(batch_of(user=[[1], [2]]), ["user"])
            torch.autograd.backward((vectors.sum(dim=2).squeeze(1) * torch.tensor([1.0, 2.0 - step])).sum())
            tape.apply()
    assert embed.embeddings.delta_since(epoch)[DIM].fids.tolist() == fids_of("user", [1])


def test_an_id_reads_as_zeros_until_it_is_admitted() -> None:
    embed = filled()
    batch = batch_of(rare=[[7]])
    for sight in (1, 2, 3):
        with embed.recording(now_us=sight) as tape:
            vectors = embed(batch, ["rare"])
            torch.autograd.backward(vectors.sum())
            assert tape.apply() == (1 if sight == 3 else 0)
        assert bool(vectors.any()) == (sight == 3)


def test_frequencies_are_shares_of_all_sights_of_the_slot() -> None:
    embed = Embed(Embeddings(SCHEMA))
    with embed.recording(now_us=1):
        embed(batch_of(item=[[1], [1], [1], [2]]), ["item"])
    assert embed.frequencies(batch_of(item=[[2], [1], [5], []]), "item").tolist() == [0.25, 0.75, 0.0, 0.0]
    with pytest.raises(SchemaError, match="frequencies of 'tags': one value an example is needed"):
        embed.frequencies(batch_of(tags=[[1]]), "tags")


def test_slots_of_different_width_are_read_apart() -> None:
    embed = filled()
    batch = batch_of(user=[[1]], wide=[[1]])
    with pytest.raises(SchemaError, match="need one dim, got user 3, wide 5"):
        embed(batch, ["user", "wide"])
    with pytest.raises(SchemaError, match="got none"):
        embed(batch, [])
    unknown: Any = "avg"
    with pytest.raises(ValueError, match="pooling must be one of mean, sum, got 'avg'"):
        embed(batch, ["user"], unknown)
    with embed.recording(now_us=2) as tape:
        torch.autograd.backward(embed(batch, ["user"]).sum() + embed(batch, ["wide"]).sum())
        assert tape.apply() == 2


def test_a_tape_is_applied_once_and_recordings_do_not_nest() -> None:
    embed = filled()
    with embed.recording(now_us=1) as tape:
        with pytest.raises(RuntimeError, match="recording already"), embed.recording(now_us=1):
            pass
        tape.apply()
        with pytest.raises(RuntimeError, match="applied already"):
            tape.apply()
    with embed.recording(now_us=2):
        pass


def test_a_step_that_fails_leaves_the_look_up_ready_for_the_next() -> None:
    embed = filled()
    before = row_of(embed, "user", 1)

    def step() -> None:
        with embed.recording(now_us=1):
            embed(batch_of(user=[[1]]), ["user"])
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        step()
    np.testing.assert_array_equal(row_of(embed, "user", 1), before)
    assert not embed(batch_of(user=[[1]]), ["user"]).requires_grad


def test_embeddings_for_serving_never_record() -> None:
    embed = Embed(Embeddings.for_serving(SCHEMA))
    with pytest.raises(RuntimeError, match="for serving and never learn"), embed.recording(now_us=1):
        pass


def test_an_empty_batch_gives_empty_vectors() -> None:
    embed = filled()
    with embed.recording(now_us=1) as tape:
        vectors = embed(batch_of(user=[]), ["user", "history"])
        assert vectors.shape == (0, 2, DIM)
        torch.autograd.backward(vectors.sum())
        assert tape.apply() == 0


@pytest.mark.parametrize("pooling", ["mean", "sum"])
@pytest.mark.parametrize("is_weighted", [True, False], ids=["weighted", "plain"])
def test_gradients_of_pooling_are_those_of_its_formula(pooling: Pooling, is_weighted: bool) -> None:
    # In float64, where torch's own check of derivatives by differences is sharp. Bags of no, one and several rows.
    random = torch.Generator().manual_seed(5)
    lengths = torch.tensor([2, 0, 1, 4])
    rows = torch.randn(7, 3, dtype=torch.float64, generator=random, requires_grad=True)
    if is_weighted:
        weights = (torch.rand(7, dtype=torch.float64, generator=random) + 0.5).requires_grad_()
        assert torch.autograd.gradcheck(lambda r, w: pool(r, lengths, pooling, w), (rows, weights))
    else:
        assert torch.autograd.gradcheck(lambda r: pool(r, lengths, pooling), (rows,))


@pytest.mark.parametrize("pooling", ["mean", "sum"])
def test_serving_pools_to_the_bits_that_training_does(pooling: Pooling) -> None:
    """One is the core's loop, the other is torch's with a gradient; a model must not see the difference."""
    embed = filled()
    random = np.random.default_rng(7)
    tags = [random.integers(0, 10, random.integers(0, 30)).tolist() for _ in range(40)]
    batch = batch_of(user=[[one % 10] for one in range(40)], tags=tags)
    read = embed(batch, ["user", "tags"], pooling)
    with embed.recording(now_us=1):
        learned = embed(batch, ["user", "tags"], pooling)
    np.testing.assert_array_equal(read.numpy(), learned.detach().numpy())


@pytest.mark.parametrize("pooling", ["mean", "sum"])
def test_rows_that_examples_share_give_the_bits_of_rows_laid_out(pooling: Pooling) -> None:
    """A person's side of a slate is read and pooled once; that must not be seen in any vector."""
    embed = filled()
    people = batch_of(user=[[3], [14], [5]], history=[[1, 2, 11], [], [4] * 30], wide=[[1], [2], []])
    items = batch_of(item=[[one] for one in (7, 8, 9, 1, 12)], tags=[[1, 2], [], [3], [3, 3], [14]])
    owners = torch.tensor([0, 0, 2, 1, 2])
    shared = ("user", "history", "wide")
    slate = Batch(size=5, slots={**items.slots, **{one: Spread(people.slot(one), owners) for one in shared}})
    laid_out = Batch(size=5, slots={**items.slots, **{one: people.slot(one).take(owners) for one in shared}})
    for slots in (POOLED, ("wide",), ("item",)):
        np.testing.assert_array_equal(embed(slate, slots, pooling).numpy(), embed(laid_out, slots, pooling).numpy())
    for of_slate, of_laid_out in zip(
        embed.sequence(slate, "history"), embed.sequence(laid_out, "history"), strict=True
    ):
        np.testing.assert_array_equal(of_slate.numpy(), of_laid_out.numpy())


@pytest.mark.parametrize("lengths", [[1, 1], [4], [2, 2, -1], [3, 1]])
def test_pooling_refuses_lengths_that_do_not_fit_the_rows(lengths: list[int]) -> None:
    rows, out = np.ones((3, 2), dtype=np.float32), np.empty((len(lengths), 2), dtype=np.float32)
    with pytest.raises(ValueError, match="sum to the rows' count"):
        pool_rows(rows, np.array(lengths), is_mean=True, out=out)


@pytest.mark.parametrize("pooling", ["mean", "sum"])
def test_weighted_pooling_equals_a_loop_over_rows(pooling: Pooling) -> None:
    embed = filled()
    lists = {"user": [[1], [2], [3]], "tags": [[1, 2, 3], [], [4, 4]]}
    weights = torch.tensor([0.5, -2.0, 3.0, 1.0, 0.25])
    actual = embed(batch_of(**lists), ["user", "tags"], pooling, weights={"tags": weights})
    place = 0
    for i, values in enumerate(lists["tags"]):
        mine = weights[place : place + len(values)].numpy()
        place += len(values)
        expected = sum((w * row_of(embed, "tags", v) for w, v in zip(mine, values, strict=True)), np.zeros(DIM))
        if pooling == "mean" and len(values):
            expected = expected / mine.sum()
        np.testing.assert_allclose(actual[i, 1].numpy(), expected, atol=1e-6)
        np.testing.assert_array_equal(actual[i, 0].numpy(), row_of(embed, "user", lists["user"][i][0]))


def test_weights_that_sum_to_nothing_give_zeros_and_finite_gradients() -> None:
    embed = filled()
    weights = torch.tensor([1.0, -1.0], requires_grad=True)
    with embed.recording(now_us=2) as tape:
        vectors = embed(batch_of(tags=[[1, 2]]), ["tags"], "mean", weights={"tags": weights})
        assert not vectors.any()
        torch.autograd.backward(vectors.sum())
        assert weights.grad is not None
        assert torch.isfinite(weights.grad).all()
        assert tape.apply() == 0


def test_learned_weights_and_rows_get_their_gradients() -> None:
    embed = filled()
    before = {value: row_of(embed, "tags", value) for value in (1, 2)}
    weights = torch.tensor([0.5, 2.0], requires_grad=True)
    with embed.recording(now_us=2) as tape:
        torch.autograd.backward(embed(batch_of(tags=[[1, 2]]), ["tags"], "sum", weights={"tags": weights}).sum())
        tape.apply()
    np.testing.assert_allclose(weights.grad, [before[1].sum(), before[2].sum()], atol=1e-6)
    np.testing.assert_allclose(row_of(embed, "tags", 2), before[2] - 2.0, atol=1e-6)


def test_weights_that_do_not_fit_are_refused_before_anything_is_read() -> None:
    embed = filled()
    rows = len(embed.embeddings)
    with embed.recording(now_us=2):
        with pytest.raises(SchemaError, match=r"weights of 'tags' have the shape \(1,\), its values \(2,\)"):
            embed(batch_of(tags=[[98, 99]]), ["tags"], weights={"tags": torch.ones(1)})
        with pytest.raises(
            SchemaError, match="weights of 'user', which is not among the slots asked for; known are tags"
        ):
            embed(batch_of(tags=[[98, 99]]), ["tags"], weights={"user": torch.ones(1)})
    assert len(embed.embeddings) == rows


def test_the_catalogue_is_every_row_of_the_slot_and_no_other() -> None:
    embed = filled()
    assert embed.live("item").tolist() == fids_of("item", list(range(10)))
    assert embed.live("history").tolist() == embed.live("item").tolist()  # shared rows: one catalogue
    assert embed.live("rare").tolist() == []
    embed.embeddings.table_of("item").erase(np.array(fids_of("item", [3, 5])))
    assert embed.live("item").tolist() == fids_of("item", [0, 1, 2, 4, 6, 7, 8, 9])


def test_what_is_peeked_at_counts_no_sight_makes_no_row_and_learns() -> None:
    embed = filled()
    fids = torch.tensor(fids_of("item", [1, 2, 77]))
    before, sights, size = row_of(embed, "item", 1), embed.sights("item", fids), len(embed.embeddings)
    with embed.recording(now_us=2) as tape:
        rows = embed.peek("item", fids)
        both = embed(batch_of(item=[[1]]), ["item"])  # seen, and peeked at: one step by the sum of both gradients
        (rows.sum() + both.sum()).backward()
        assert tape.apply() == 2
    assert sights.tolist() == [2, 2, 0]  # as an item, and in a history
    assert embed.sights("item", fids).tolist() == [3, 2, 0]
    assert len(embed.embeddings) == size
    assert np.allclose(row_of(embed, "item", 1), before - 2, atol=1e-6)
    assert not row_of(embed, "item", 77).any()
    assert torch.equal(embed.peek("item", fids)[2], torch.zeros(DIM))


def test_adagrad_under_a_mean_with_a_smaller_accumulator_learns_as_under_a_sum() -> None:
    # Dividing by four changes no digit of a float, so the rows are the same bits.
    def learn(reduce: str, accumulator: float) -> torch.Tensor:
        optimizer = AdaGrad(learning_rate=0.1, initial_accumulator=accumulator, epsilon=0.0)
        embed = Embed(Embeddings(SCHEMA, optimizer=optimizer, seed=3))
        batch = batch_of(item=[[1], [2], [1], [3]])
        for step in range(3):
            with embed.recording(now_us=step) as tape:
                losses = (embed(batch, ["item"]) - 1.0).square().sum(dim=(1, 2))
                torch.autograd.backward(getattr(losses, reduce)())
                assert tape.apply() == 3
        return embed(batch, ["item"])

    assert torch.equal(learn("sum", 0.1), learn("mean", 0.1 / 4**2))
    assert not torch.equal(learn("sum", 0.1), learn("mean", 0.1))


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")  # the compiler looks at it
def test_a_model_compiled_around_a_disabled_look_up_learns_the_same() -> None:
    # Rows live outside of torch, and reading may insert, so the compiled graph breaks at the look-up.
    def learn(is_compiled: bool) -> tuple[torch.Tensor, int]:
        embed, layer = filled(), torch.nn.Linear(2 * DIM, 1)
        torch.nn.init.constant_(layer.weight, 0.5)
        torch.nn.init.zeros_(layer.bias)
        look_up = torch.compiler.disable(embed.__call__) if is_compiled else embed

        def forward(batch: Batch) -> torch.Tensor:
            return layer(look_up(batch, ["user", "item"]).flatten(1)).tanh()

        model = torch.compile(forward, backend="eager") if is_compiled else forward
        for step in range(3):
            with embed.recording(now_us=2 + step) as tape:
                torch.autograd.backward(model(batch_of(user=[[1], [20 + step]], item=[[2], [1]])).sum())
                tape.apply()
        return model(batch_of(user=[[1], [20]], item=[[2], [30]])), len(embed.embeddings)

    (plain, plain_rows), (compiled, compiled_rows) = learn(False), learn(True)
    assert torch.equal(compiled, plain)
    assert compiled_rows == plain_rows


def test_peeking_at_ids_of_another_slot_is_refused_while_recording() -> None:
    embed = Embed(Embeddings(Schema(Slot("user", dim=4), Slot("item", dim=4))))
    item = extract_rows(embed.schema, [{"user": 1, "item": 2}]).slot("item").values
    with embed.recording(0), pytest.raises(SchemaError, match="fids of 'user' must have its slot number 1, got"):
        embed.peek("user", item)
    assert embed.peek("item", item).shape == (1, 4)


def test_another_thread_reads_while_one_records() -> None:
    embed = Embed(Embeddings(Schema(Slot("user", dim=4))))
    batch = extract_rows(embed.schema, [{"user": 1}])
    unseen = extract_rows(embed.schema, [{"user": 2}])
    read: list[torch.Tensor] = []
    with embed.recording(0) as tape:
        embed(batch, ["user"]).sum().backward()
        thread = threading.Thread(target=lambda: read.append(embed(unseen, ["user"])))
        thread.start()
        thread.join()
        assert not read[0].requires_grad
        assert tape.apply() == 1
    assert embed.embeddings.rows_by_slot() == {"user": 1}
    assert embed.embeddings.tables[4].counts(unseen.slot("user").values).tolist() == [0]


def test_of_two_threads_that_begin_at_once_one_is_refused() -> None:
    embed = Embed(Embeddings(Schema(Slot("user", dim=4))))
    together, refused = threading.Barrier(2), []

    def record() -> None:
        for _ in range(300):
            together.wait()
            try:
                with embed.recording(0) as tape:
                    assert embed._tape is tape
                    together.wait()
            except RuntimeError:
                refused.append(1)
                together.wait()

    threads = [threading.Thread(target=record) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(refused) == 300
    with embed.recording(0):
        pass


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_nothing_is_recorded_where_no_gradient_is_computed(mode: Callable[[], AbstractContextManager[None]]) -> None:
    embed = Embed(Embeddings(Schema(Slot("user", dim=4))))
    with mode(), pytest.raises(RuntimeError, match="no gradient is computed here"), embed.recording(0):
        pass

"""BERT4Rec, SASRec and GRU4Rec against their losses written as loops, and the layers that they stand on."""

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from dolmen.embedding import Embed
from dolmen.errors import ConfigError, SchemaError
from dolmen.features import Batch, Label, Policy, Schema, Side, Slot, extract_rows
from dolmen.models import Model, build, retriever
from dolmen.models.layers import catalogue
from dolmen.models.layers.dropout import Dropout
from dolmen.models.layers.packed import Packed
from dolmen.models.layers.transformer import Attention, TransformerLayer
from dolmen.models.sequence.bert4rec import BERT4Rec, BERT4RecConfig, masked_places
from dolmen.testing import _Bench, _overfits_a_batch, example_schema

MakeEmbed = Callable[[Schema], Embed]
NAMES = ("bert4rec", "sasrec", "gru4rec")
STILL = {"dropout": 0.0}  # nothing is drawn but masks
PASTS = [[], [1], [2, 3], [4, 5, 6, 1], [3, 2, 1, 4, 5, 2, 6, 1]]


def schema_of(dim: int = 7, **item: object) -> Schema:
    return Schema(
        Slot("item", dim=dim, **item),
        Slot("history", dim=dim, table="item", many=True, ordered=True, of=Side.USER),
        Label("click"),
    )


def batch_of(schema: Schema, pasts: list[list[int]], items: list[int]) -> Batch:
    rows = [{"item": item, "history": past, "click": 1} for past, item in zip(pasts, items, strict=True)]
    return replace(extract_rows(schema, rows, with_labels=True), event_times_us=torch.arange(1, len(rows) + 1))


def seen(embed: Embed, batch: Batch, scale: float = 1.0) -> None:
    """Give every id of the batch a row of some size."""
    fids = np.unique(torch.cat([batch.slot("item").values, batch.slot("history").values]).numpy())
    table = embed.embeddings.table_of("item")
    table.assign(fids, scale * np.random.default_rng(0).normal(size=(len(fids), table.dim)).astype(np.float32))


def log_chances(model: Model, embed: Embed, batch: Batch) -> Tensor:
    """Of every live item, ascending by FID, to come next: (batch, items)."""
    with torch.no_grad():
        queries = retriever(model).queries(batch)[:, 0]
        return torch.log_softmax(queries @ embed.peek("item", embed.live("item")).T, dim=1)


@pytest.mark.parametrize("name", NAMES)
def test_a_judged_loss_is_that_of_the_next_item_over_all_that_have_a_row(name: str, make_embed: MakeEmbed) -> None:
    schema = schema_of()
    embed = make_embed(schema)
    model = build(name, {}, embed).eval()
    batch = batch_of(schema, PASTS, [5, 4, 3, 2, 1])
    seen(embed, batch)
    batch = replace(batch, weights=torch.linspace(0.5, 2, 5), sampling_rates=torch.linspace(0.2, 1, 5))
    chances = log_chances(model, embed, batch)[range(5), torch.tensor([5, 4, 3, 2, 1]) - 1]
    expected = -(chances * batch.weights / batch.sampling_rates).sum().item() / 5
    with torch.no_grad():
        assert model.loss(batch).item() == pytest.approx(expected, rel=1e-5)
        beside = batch_of(schema, [[1, 2]], [3])
        ignored = replace(beside, labels={"click": torch.zeros(1)})
        both = Batch.concat([batch, ignored])
        assert model.loss(both).item() == pytest.approx(expected * 5 / 6, rel=1e-5)  # an example without a say counts 0


@pytest.mark.parametrize("name", ["sasrec", "gru4rec"])
def test_every_place_is_learned_as_if_its_run_ended_there(name: str, make_embed: MakeEmbed) -> None:
    schema = schema_of()
    embed = make_embed(schema)
    model = build(name, STILL, embed)
    runs = [[3], [1, 2], [4, 5, 6, 1, 3]]
    batch = batch_of(schema, [run[:-1] for run in runs], [run[-1] for run in runs])
    seen(embed, batch)
    expected = 0.0
    for run in runs:
        for place in range(len(run)):
            if place > 0 or len(run) == 1:  # a first item is asked for only where nothing else is
                asked = batch_of(schema, [run[:place]], [run[place]])
                expected -= log_chances(model.eval(), embed, asked)[0, run[place] - 1].item()
    with torch.no_grad():
        assert model.train().loss(batch).item() == pytest.approx(expected / len(runs), rel=1e-4)
    ends = build(name, {**STILL, "only_last": True}, embed)
    ends.load_state_dict(model.state_dict())
    with torch.no_grad():
        assert ends.train().loss(batch).item() == pytest.approx(ends.eval().loss(batch).item(), rel=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_input_and_output_rows_are_one_and_get_both_gradients(name: str, make_embed: MakeEmbed) -> None:
    schema = schema_of()
    embed = make_embed(schema)
    model = build(name, STILL, embed).eval()
    batch = batch_of(schema, PASTS, [6, 1, 1, 3, 1])  # item 1 is asked for, and stands in pasts
    seen(embed, batch, scale=0.5)
    with embed.recording(1) as tape:
        torch.autograd.backward(model.loss(batch))
        told = tape.gradients()
    fids, grads = (torch.cat(parts) for parts in zip(*told.values(), strict=True))
    item = batch.slot("item").values[1:2]
    table = embed.embeddings.table_of("item")
    row = table.lookup(item)
    step = 1e-2  # float32: smaller steps drown in rounding, larger ones in curvature
    for column in range(table.dim):
        losses = []
        for sign in (1, -1):
            moved = row.copy()
            moved[0, column] += sign * step
            table.assign(item, moved)
            with torch.no_grad():
                losses.append(model.loss(batch).item())
        table.assign(item, row)
        expected = (losses[0] - losses[1]) / (2 * step)
        assert grads[fids == item].sum(dim=0)[column].item() == pytest.approx(expected, abs=2e-3, rel=2e-2)


@pytest.mark.parametrize("name", NAMES)
def test_longer_pasts_are_cut_to_the_newest_and_company_changes_nothing(name: str, make_embed: MakeEmbed) -> None:
    schema = schema_of()
    embed = make_embed(schema)
    model = retriever(build(name, {"length": 3}, embed).eval())
    batch = batch_of(schema, PASTS, [1, 2, 3, 4, 5])
    seen(embed, batch)
    with torch.no_grad():
        together = model.queries(batch)
        for place, past in enumerate(PASTS):
            alone = model.queries(batch_of(schema, [past[-3:]], [6]))
            assert torch.allclose(together[place], alone[0], atol=1e-5)


@pytest.mark.parametrize(
    ("name", "negatives"), [("bert4rec", None), ("sasrec", None), ("sasrec", 6), ("gru4rec", None), ("gru4rec", 6)]
)
def test_what_follows_what_is_learned(name: str, negatives: int | None, make_embed: MakeEmbed) -> None:
    # Ten items in a ring: the next one follows from the newest alone, if order is told apart. BERT4Rec learns slowly:
    # of each run it is asked only for what was hidden. From two seeds it came to 0.65 and 0.84.
    schema = schema_of(dim=17)
    embed = make_embed(schema)
    often = {"last_only_rate": 0.5} if name == "bert4rec" else {}
    model = build(name, {**STILL, **often, "negatives": negatives}, embed)
    passes, chance_min = (24, 0.5) if name == "bert4rec" else (6, 0.6)
    random = np.random.default_rng(0)
    starts, lengths = random.integers(0, 10, 200), random.integers(2, 7, 200)
    runs = [[int(start + step) % 10 for step in range(length)] for start, length in zip(starts, lengths, strict=True)]
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    torch.manual_seed(0)
    for _ in range(passes):
        for first in range(0, 200, 20):
            chosen = runs[first : first + 20]
            batch = batch_of(schema, [run[:-1] for run in chosen], [run[-1] for run in chosen])
            with embed.recording(1) as tape:
                optimizer.zero_grad()
                torch.autograd.backward(model.train().loss(batch) * batch.size)
                optimizer.step()
                tape.apply()
    asked = batch_of(schema, [[item, (item + 1) % 10] for item in range(10)], [0] * 10)
    right = log_chances(model.eval(), embed, asked)[range(10), [(item + 2) % 10 for item in range(10)]].exp()
    assert right.mean() > chance_min  # 0.1 by guessing


def test_bert4rec_overfits_a_batch_where_what_is_asked_stays_the_same() -> None:
    # ``check_model`` asks it of every model; here masks are drawn anew at each step, unless only the last is hidden.
    _overfits_a_batch(_Bench(BERT4Rec, BERT4RecConfig(last_only_rate=1.0), example_schema(), 0))


@pytest.mark.property
@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 12), min_size=1, max_size=9), st.booleans(), st.booleans())
def test_a_packed_layer_gives_what_it_gives_each_sequence_alone(
    lengths: list[int], is_causal: bool, norm_first: bool
) -> None:
    torch.manual_seed(len(lengths))
    layer = TransformerLayer(
        6,
        heads=2,
        hidden=8,
        dropout=0.5,
        attention_dropout=0.5,
        activation=torch.nn.GELU(),
        is_causal=is_causal,
        norm_first=norm_first,
    ).eval()
    packed = Packed(torch.tensor(sorted(lengths)))
    tokens = torch.randn(sum(lengths), 6)
    with torch.no_grad():
        together = layer(tokens, packed)
        for start, end in pairwise(packed.offsets.tolist()):
            own = Packed(torch.tensor([end - start]))
            assert torch.allclose(layer(tokens[start:end], own), together[start:end], atol=1e-5)
            later = tokens[start:end].clone()
            later[-1] += torch.randn(6)
            moved = (layer(later, own) - together[start:end]).abs().amax(dim=1)
            if end - start > 1:
                assert (moved[:-1] < 1e-5).all() if is_causal else (moved[:-1] > 0).all()


def test_attention_equals_its_formula() -> None:
    torch.manual_seed(1)
    layer = TransformerLayer(
        5,
        heads=2,
        hidden=3,
        dropout=0.0,
        attention_dropout=0.0,
        activation=torch.nn.ReLU(),
        is_causal=True,
        norm_first=False,
    ).attention
    tokens = torch.randn(4, 5)
    with torch.no_grad():
        queries, keys, values = layer.project(tokens).view(4, 3, 2, 3).unbind(dim=1)  # 5 / 2 heads, rounded up: 3
        expected = torch.zeros(4, 6)
        for place in range(4):
            for head in range(2):
                scores = (keys[: place + 1, head] @ queries[place, head]) / 3**0.5
                expected[place, 3 * head : 3 * head + 3] = scores.softmax(dim=0) @ values[: place + 1, head]
        assert torch.allclose(layer(tokens, Packed(torch.tensor([4]))), layer.join(expected), atol=1e-6)


def test_a_share_of_each_run_is_masked_and_every_place_as_often() -> None:
    torch.manual_seed(0)
    packed = Packed(torch.tensor([1, 2, 5, 10]))
    times, rounds = torch.zeros(18), 2000
    for _ in range(rounds):
        places = masked_places(packed, 0.3)
        assert torch.bincount(packed.owners[places], minlength=4).tolist() == [1, 1, 2, 3]  # round half to even: 1.5
        times.index_add_(0, places, torch.ones(len(places)))
    chances = torch.tensor([1.0, 0.5, 0.4, 0.3]).repeat_interleave(packed.lengths)
    errors = (chances * (1 - chances) / rounds).sqrt()
    assert ((times / rounds - chances).abs() <= 4 * errors).all()  # 18 draws beyond 4 errors: once in 900 seeds


def test_a_hidden_item_does_not_show_through_its_mask(make_embed: MakeEmbed) -> None:
    schema = schema_of()
    embed = make_embed(schema)
    model = build("bert4rec", {**STILL, "attention_dropout": 0.0, "last_only_rate": 1.0}, embed)
    batches = [batch_of(schema, [[1, 2, 3]], [item]) for item in (4, 5)]
    for batch in batches:
        seen(embed, batch)
    with torch.no_grad():
        told = [log_chances(model.eval(), embed, batch)[0] for batch in batches]
        assert torch.equal(*told)
        for batch, item in zip(batches, (4, 5), strict=True):
            assert model.train().loss(batch).item() == pytest.approx(-told[0][item - 1].item(), rel=1e-5)


@pytest.mark.parametrize("chunk", [1, 64, 1 << 20])
@pytest.mark.parametrize("is_drawn", [False, True])
def test_the_chunked_softmax_equals_cross_entropy(monkeypatch: pytest.MonkeyPatch, chunk: int, is_drawn: bool) -> None:
    monkeypatch.setattr(catalogue, "_CHUNK_LOGITS", chunk)
    torch.manual_seed(0)
    queries, rows = torch.randn(7, 4, requires_grad=True), torch.randn(11, 4, requires_grad=True)
    places, weights = torch.randint(0, 11, (7,)), torch.rand(7)
    log_counts = torch.randn(11) if is_drawn else None
    logits = queries @ rows.T
    if log_counts is not None:
        is_right = torch.nn.functional.one_hot(places, 11).bool()
        logits = torch.where(is_right, logits, logits + log_counts)
    losses = torch.nn.functional.cross_entropy(logits, places, reduction="none")
    expected = torch.autograd.grad((losses * weights).sum() * 3, (queries, rows))
    loss = catalogue.softmax_loss(queries, rows, places, weights, log_counts)
    assert loss.item() == pytest.approx((losses * weights).sum().item(), rel=1e-5)
    for actual, wanted in zip(torch.autograd.grad(loss * 3, (queries, rows)), expected, strict=True):
        assert torch.allclose(actual, wanted, atol=1e-5)


def test_drawn_items_stand_for_the_whole_catalogue_on_average(make_embed: MakeEmbed) -> None:
    schema = schema_of()
    embed = make_embed(schema)
    batch = batch_of(schema, [[1] * 50 + [2] * 5, [3, 4]], [5, 6])
    with embed.recording(1):
        embed.values(batch, "history")
        embed.values(batch, "item")
    live, target = embed.live("item"), batch.slot("item").values[:1]
    torch.manual_seed(0)
    rounds, sums = 3000, torch.zeros(2, len(live), dtype=torch.float64)
    for _ in range(rounds):
        candidates, log_counts = catalogue._drawn(embed, "item", live, target, 4)
        stands_for = torch.zeros(len(live), dtype=torch.float64)
        stands_for[torch.isin(live, candidates)] = log_counts.double().exp()
        assert target in candidates
        sums += torch.stack([stands_for, stands_for.square()])
    mean = sums[0] / rounds
    errors = ((sums[1] / rounds - mean.square()) / rounds).sqrt()
    assert ((mean - 1).abs() <= 4 * errors).all()  # unbiased, for common and rare alike


def test_a_schema_or_option_that_cannot_be_used_is_refused_with_the_mend(make_embed: MakeEmbed) -> None:
    bare = Schema(Slot("item", dim=4), Slot("tags", dim=4, many=True), Label("click"))
    for name in NAMES:
        with pytest.raises(SchemaError, match=r'add such as Slot\("history", table="item"'):
            build(name, {}, make_embed(bare))
        with pytest.raises(SchemaError, match="slot 'tags' is no history"):
            build(name, {"history": "tags"}, make_embed(bare))
        with pytest.raises(ConfigError, match="dropout must be at least 0 and below 1, got 1"):
            build(name, {"dropout": 1.0}, make_embed(schema_of()))
        with pytest.raises(ConfigError, match="negatives must be at least 1, got 0"):
            build(name, {"negatives": 0}, make_embed(schema_of()))
    shared = schema_of(policy=Policy.HASHED, policy_rows=8)
    model = build("sasrec", {}, make_embed(shared))
    with pytest.raises(SchemaError, match="the ids of 'item' share rows"):
        model.loss(batch_of(shared, [[1]], [2]))


def test_dropout_drops_at_its_rate_and_keeps_the_mean() -> None:
    torch.manual_seed(0)
    ones = torch.ones(101, 999, requires_grad=True)
    dropped = Dropout(0.2)(ones)
    rate = round(0.2 * 256) / 256
    share, error = (dropped == 0).float().mean().item(), (rate * (1 - rate) / ones.numel()) ** 0.5
    assert abs(share - rate) < 4 * error
    assert dropped.max().item() == pytest.approx(1 / (1 - rate))
    (grads,) = torch.autograd.grad(dropped.sum(), ones)
    assert torch.equal(grads, dropped)  # of ones: what was kept, and as much as it grew
    assert Dropout(0.2).eval()(ones) is ones
    assert Dropout(0.0)(ones) is ones


@pytest.mark.parametrize("is_causal", [False, True])
def test_attention_that_drops_is_on_average_the_one_that_does_not(is_causal: bool) -> None:
    torch.manual_seed(0)
    packed = Packed(torch.tensor([4, 5]))
    layer = Attention(4, 2, 0.3, is_causal=is_causal)
    tokens, rounds = torch.randn(9, 4), 1500
    with torch.no_grad():
        drawn = torch.stack([layer(tokens, packed) for _ in range(rounds)])
        errors = drawn.std(dim=0) / rounds**0.5
        assert ((drawn.mean(dim=0) - layer.eval()(tokens, packed)).abs() <= 4.5 * errors + 1e-6).all()

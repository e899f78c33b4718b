"""Attention over a ragged past against loops over examples, and the mini-batch aware decay against its formula."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dolmen.embedding import Embed
from dolmen.features import Label, Schema, Side, Slot, extract_rows
from dolmen.models.layers.attention import ActivationUnit, attend, attend_by_angle, effective_counts, softmax_of_each
from dolmen.models.layers.behaviours import Past, averaged, occurring_decay, pooled

LENGTHS = [3, 0, 1, 5]


def a_past(width: int = 4, *, requires_grad: bool = False) -> Past:
    torch.manual_seed(0)
    lengths = torch.tensor(LENGTHS)
    offsets = torch.zeros(len(LENGTHS) + 1, dtype=torch.int64)
    offsets[1:] = lengths.cumsum(0)
    vectors = torch.randn(int(offsets[-1]), width, requires_grad=requires_grad)
    return Past(vectors, torch.repeat_interleave(lengths), offsets)


def of_each(values: Tensor) -> list[Tensor]:
    return list(torch.split(values, LENGTHS))


def test_the_activation_unit_is_a_network_over_q_k_their_difference_and_product() -> None:
    past, candidates = a_past(), torch.randn(len(LENGTHS), 4)
    unit = ActivationUnit(4, (6, 5), lambda _: nn.Sigmoid())
    actual = of_each(unit(candidates, past))
    for i, behaviours in enumerate(of_each(past.vectors)):
        for j, k in enumerate(behaviours):
            q = candidates[i]
            hidden = torch.sigmoid(unit.first(torch.cat([q, k, q - k, q * k])))
            assert actual[i][j].item() == pytest.approx(unit.rest(hidden).item(), abs=1e-5)


def test_softmax_is_of_each_past_alone_and_survives_large_scores() -> None:
    past = a_past()
    scores = torch.linspace(-300, 300, sum(LENGTHS))
    for actual, own in zip(of_each(softmax_of_each(scores, past)), of_each(scores), strict=True):
        assert torch.allclose(actual, own.softmax(dim=0))


def test_attention_weighs_by_scaled_inner_products() -> None:
    past, queries = a_past(), torch.randn(len(LENGTHS), 4)
    for i, actual in enumerate(of_each(attend(queries, past, temperature=2.0))):
        expected = (of_each(past.vectors)[i] @ queries[i] / 2).softmax(dim=0)
        assert torch.allclose(actual, expected, atol=1e-6)


def test_attention_by_angle_sees_no_lengths() -> None:
    past, queries = a_past(), torch.randn(len(LENGTHS), 4)
    actual = attend_by_angle(queries, past, temperature=0.5)
    for i, own in enumerate(of_each(actual)):
        cosines = torch.cosine_similarity(of_each(past.vectors)[i], queries[i : i + 1])
        assert torch.allclose(own, (cosines / 0.5).softmax(dim=0), atol=1e-6)
    longer = Past(past.vectors * torch.linspace(0.1, 9, sum(LENGTHS)).unsqueeze(1), past.owners, past.offsets)
    assert torch.allclose(attend_by_angle(3 * queries, longer, temperature=0.5), actual, atol=1e-6)


def test_effective_counts_go_from_one_to_the_whole_past() -> None:
    past = a_past()
    assert torch.allclose(effective_counts(torch.full((sum(LENGTHS),), 0.3), past), torch.tensor([3.0, 0.0, 1.0, 5.0]))
    one_of_each = torch.tensor([0.0, 0.2, 0.0, 7.0, 0.0, 0.0, 0.0, 0.0, 1.0])
    assert torch.allclose(effective_counts(one_of_each, past), torch.tensor([1.0, 0.0, 1.0, 1.0]))
    assert not effective_counts(torch.zeros(sum(LENGTHS)), past).any()
    # 1 and 3 of two: 16 / 10.
    assert effective_counts(torch.tensor([1.0, 3.0, *[0.0] * 7]), past)[0].item() == pytest.approx(1.6)


def test_an_empty_past_pools_to_zeros_and_one_of_one_to_itself() -> None:
    past, queries = a_past(), torch.randn(len(LENGTHS), 4)
    for whole in (pooled(past), averaged(past), pooled(past, attend(queries, past, 1.0))):
        assert not whole[1].any()
        assert torch.allclose(whole[2], past.vectors[3])
    assert torch.allclose(averaged(past)[3], past.vectors[4:].mean(dim=0), atol=1e-6)


def test_the_newest_are_the_last_of_each_past() -> None:
    past = a_past()
    assert past.positions.tolist() == [3, 2, 1, 1, 5, 4, 3, 2, 1]
    newest = past.newest(2)
    assert torch.equal(newest.vectors, past.vectors[[1, 2, 3, 7, 8]])
    assert newest.owners.tolist() == [0, 0, 2, 3, 3]
    assert newest.offsets.tolist() == [0, 2, 2, 3, 5]
    assert past.newest(5) is past


def test_decay_falls_on_ids_of_the_batch_by_how_rare_they_are(make_embed: Callable[[Schema], Embed]) -> None:
    schema = Schema(
        Slot("item", dim=3),
        Slot("history", dim=3, table="item", many=True, ordered=True, of=Side.USER),
        Slot("shop", dim=2),
        Label("click"),
    )
    embed = make_embed(schema)
    rows = [
        {"item": 1, "history": [2, 2, 3], "shop": 7, "click": 1},
        {"item": 2, "history": [], "shop": 7, "click": 0},
    ]
    batch = extract_rows(schema, rows, with_labels=True)
    with embed.recording(1):
        embed(batch, ["item", "history"])
        embed(batch, ["shop"])
    # Counted once more by the second recording: item 1 twice, item 2 six times, item 3 twice, shop 7 four times.
    sights = {("item", 1): 2, ("item", 2): 6, ("item", 3): 2, ("shop", 7): 4}
    least = 3.0
    with embed.recording(2) as tape:
        total = occurring_decay(embed, batch, ("item", "history", "shop"), least)
        total.backward()
        gradients = tape.gradients()
    found: dict[int, np.ndarray] = {}
    for fids, grads in gradients.values():
        for fid, grad in zip(fids.tolist(), grads.numpy(), strict=True):
            found[fid] = found.get(fid, 0) + grad
    expected_total = 0.0
    for (slot, value), count in sights.items():
        fid = extract_rows(schema, [{slot: value}], slots=[slot]).slot(slot).values
        row = embed.embeddings.lookup(slot, fid)[0].numpy()
        expected = row / max(count, least)
        expected[0] = 0  # the linear weight is no part of the vector
        assert found.pop(int(fid)) == pytest.approx(expected, abs=1e-9)
        expected_total += float((row[1:] ** 2).sum()) / max(count, least) / 2
    assert not found
    assert total.item() == pytest.approx(expected_total, rel=1e-5)


def test_an_epoch_of_single_examples_decays_each_id_by_the_whole_norm(make_embed: Callable[[Schema], Embed]) -> None:
    # Paper, equation 4: with batches of one and n_j sights, the shares of all batches sum to the L2 of the dictionary.
    schema = Schema(Slot("item", dim=4), Label("click"))
    embed = make_embed(schema)
    items = [1, 2, 2, 3, 3, 3]
    batches = [extract_rows(schema, [{"item": item, "click": 1}], with_labels=True) for item in items]
    sums: dict[int, np.ndarray] = {}
    for count, item in ((1, 1), (2, 2), (3, 3)):
        for batch in (one for one, its in zip(batches, items, strict=True) if its == item):
            with embed.recording(1) as tape:
                occurring_decay(embed, batch, ("item",), float(count)).backward()
                (fids, grads) = tape.gradients()["item"]
            sums[int(fids[0])] = sums.get(int(fids[0]), 0) + grads[0].numpy()
    for fid, total in sums.items():
        row = embed.embeddings.lookup("item", torch.tensor([fid]))[0].numpy()
        assert total[1:] == pytest.approx(row[1:], abs=1e-7)

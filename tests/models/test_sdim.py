"""SimHash against its laws and a naive twin, and SDIM against what it stands in for."""

from collections.abc import Callable
from math import acos, cos, pi, sin

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from dolmen.embedding import Embed
from dolmen.errors import ConfigError
from dolmen.features import Schema
from dolmen.models import build
from dolmen.models.layers.behaviours import Past, pooled
from dolmen.models.layers.hashing import SimHash, interest_of
from dolmen.models.ranking.sdim import SDIM
from dolmen.testing import example_batch, example_schema

MakeEmbed = Callable[[Schema], Embed]


def past_of(lengths: list[int], width: int, seed: int = 0) -> Past:
    offsets = torch.zeros(len(lengths) + 1, dtype=torch.int64)
    offsets[1:] = torch.tensor(lengths).cumsum(0)
    vectors = torch.randn(int(offsets[-1]), width, generator=torch.Generator().manual_seed(seed))
    return Past(vectors, torch.repeat_interleave(torch.tensor(lengths)), offsets)


def new_hash(width: int, rounds: int, bits: int, seed: int = 0) -> SimHash:
    torch.manual_seed(seed)
    return SimHash(width, rounds, bits)


@pytest.mark.parametrize("bits", [1, 2, 3, 5])
def test_two_vectors_meet_as_often_as_their_angle_says(bits: int) -> None:
    rounds = 20_000
    hash_of = new_hash(2, rounds, bits)
    for angle in (0.2, 1.0, 2.5):
        buckets = hash_of.buckets(torch.tensor([[3.0, 0.0], [0.1 * cos(angle), 0.1 * sin(angle)]]))
        chance = (1 - angle / pi) ** bits
        met = (buckets[0] == buckets[1]).float().mean().item()
        assert met == pytest.approx(chance, abs=4 * (chance * (1 - chance) / rounds) ** 0.5)


@settings(max_examples=25, deadline=None)
@given(
    lengths=st.lists(st.integers(0, 12), min_size=1, max_size=5),
    rounds=st.integers(1, 5),
    bits=st.integers(0, 4),
    seed=st.integers(0, 99),
)
def test_what_is_met_equals_a_loop_over_behaviours_bit_for_bit(
    lengths: list[int], rounds: int, bits: int, seed: int
) -> None:
    hash_of, past = new_hash(3, rounds, bits, seed), past_of(lengths, 3, seed)
    queries = torch.randn(len(lengths), 3, generator=torch.Generator().manual_seed(seed + 1))
    actual = hash_of.met(queries, past)
    of_query, of_past = hash_of.buckets(queries), hash_of.buckets(past.vectors)
    for example, (start, stop) in enumerate(zip(past.offsets[:-1].tolist(), past.offsets[1:].tolist(), strict=True)):
        for hash_round in range(rounds):
            total = torch.zeros(3)
            for j in range(start, stop):
                if of_past[j, hash_round] == of_query[example, hash_round]:
                    total = total + past.vectors[j]
            assert torch.equal(actual[example, hash_round], total)
    # The other road: buckets summed once, then read. The same sums in the same order.
    sums, owners, all_rounds = hash_of.sums(past), torch.arange(past.size), torch.arange(rounds)
    assert torch.equal(sums[owners.unsqueeze(1), all_rounds, of_query], actual)
    for others_sums in (sums.flip(0), sums.flip(0).double()):  # by the core, and as other devices read
        read = hash_of.read(others_sums, owners.flip(0), queries)
        assert torch.allclose(read.float(), interest_of(actual), atol=1e-6)  # a mean in another order


@settings(max_examples=25, deadline=None)
@given(
    count=st.integers(0, 40),
    width=st.integers(1, 70),
    rounds=st.integers(1, 20),
    bits=st.integers(0, 12),
    seed=st.integers(0, 99),
)
def test_the_core_hashes_as_other_devices_do(count: int, width: int, rounds: int, bits: int, seed: int) -> None:
    hash_of = new_hash(width, rounds, bits, seed)
    vectors = torch.randn(count, width, generator=torch.Generator().manual_seed(seed))
    vectors[::5] = 0.0  # on every edge at once
    buckets = hash_of.buckets(vectors)
    assert torch.equal(buckets, hash_of.buckets(vectors.double()))  # which products of matrices hash
    assert torch.equal(buckets, torch.cat([hash_of.buckets(one) for one in vectors.split(1)]))
    assert (buckets[::5] == hash_of.bucket_count - 1).all()


def test_behaviours_added_one_by_one_give_the_bits_of_all_at_once() -> None:
    hash_of, past = new_hash(16, 16, 3), past_of([400, 200], 16)
    # On the edge of two buckets, where rounding decides: in single precision it falls otherwise for one than for many.
    edge = (hash_of.projections[:, 0] / hash_of.projections[:, 0].norm()).float()
    past = Past(past.vectors - (past.vectors @ edge).unsqueeze(1) * edge, past.owners, past.offsets)
    grown = [torch.zeros(1, 16, 8, 16), torch.zeros(1, 16, 8, 16)]
    for vector, owner in zip(past.vectors.split(1), past.owners.tolist(), strict=True):
        grown[owner] = hash_of.sums(Past(vector, torch.tensor([0]), torch.tensor([0, 1])), grown[owner])
    assert torch.equal(torch.cat(grown), hash_of.sums(past))


def test_its_limits_are_mean_pooling_and_looking_up_the_same() -> None:
    past, queries = past_of([9], 5), torch.randn(1, 5)
    everything = interest_of(new_hash(5, 2, 0).met(queries, past))
    assert torch.allclose(everything[0], torch.nn.functional.normalize(past.vectors.sum(dim=0), dim=0), atol=1e-6)
    same = past.vectors[4:5] * 2  # length does not matter
    only_it = interest_of(new_hash(5, 1, 52).met(same, past))
    assert torch.allclose(only_it[0], torch.nn.functional.normalize(past.vectors[4], dim=0), atol=1e-6)


def test_nothing_met_gives_zeros_and_finite_gradients() -> None:
    past = past_of([0, 2], 4)
    vectors = past.vectors.requires_grad_()
    interest = interest_of(new_hash(4, 3, 2).met(torch.zeros(2, 4), past))
    assert not interest[0].any()
    interest.sum().backward()
    assert torch.isfinite(vectors.grad).all()


def expected_weights(query: Tensor, vectors: Tensor, bits: int) -> Tensor:
    cosines = torch.nn.functional.cosine_similarity(vectors, query.unsqueeze(0))
    return torch.tensor([(1 - acos(min(1.0, max(-1.0, one))) / pi) ** bits for one in cosines.tolist()])


def test_the_mean_over_rounds_closes_in_on_its_expectation_with_the_root_of_their_number() -> None:
    past, query = past_of([64], 16), torch.randn(1, 16, generator=torch.Generator().manual_seed(5))
    past = Past(torch.nn.functional.normalize(past.vectors, dim=1), past.owners, past.offsets)
    truth = (expected_weights(query[0], past.vectors, 3).unsqueeze(1) * past.vectors).sum(dim=0)
    errors = []
    for rounds in (8, 32, 128, 512):
        squares = [
            (new_hash(16, rounds, 3, seed).met(query, past).mean(dim=1)[0] - truth).square().mean()
            for seed in range(24)
        ]
        errors.append(torch.stack(squares).mean().sqrt().item())
    slope = np.polyfit(np.log([8, 32, 128, 512]), np.log(errors), 1)[0]
    assert slope == pytest.approx(-0.5, abs=0.1)


def test_three_bits_weigh_as_a_softmax_does() -> None:
    # Card: the total variation distance to exp(q.s / 0.5), normalised, is at most 0.08 over unit vectors in clusters.
    random = torch.Generator().manual_seed(0)
    centres = torch.randn(8, 32, generator=random)
    clustered = centres.repeat_interleave(16, dim=0) + 0.5 * torch.randn(128, 32, generator=random)
    vectors = torch.nn.functional.normalize(clustered, dim=1)
    query = vectors[3]
    softmax = (vectors @ query / 0.5).softmax(dim=0)
    distances = {}
    for bits in (1, 3, 10):
        weights = expected_weights(query, vectors, bits)
        assert torch.equal(weights.argsort(), (vectors @ query).argsort())
        distances[bits] = (weights / weights.sum() - softmax).abs().sum().item() / 2
    assert distances[3] < 0.08
    assert distances[3] < min(distances[1], distances[10])


def test_gradients_reach_the_behaviours_that_were_met_and_no_other() -> None:
    hash_of, past, query = new_hash(4, 2, 3), past_of([12], 4), torch.randn(1, 4)
    vectors = past.vectors.double().requires_grad_()
    hash_of = hash_of.double()
    meets = (hash_of.buckets(vectors) == hash_of.buckets(query.double())).any(dim=1)
    assert 0 < int(meets.sum()) < 12

    def interest(moved: Tensor) -> Tensor:
        return interest_of(hash_of.met(query.double(), Past(moved, past.owners, past.offsets)))

    (grads,) = torch.autograd.grad(interest(vectors).square().sum() + interest(vectors).sum(), vectors)
    assert torch.equal(grads.any(dim=1), meets)
    assert torch.autograd.gradcheck(interest, (vectors,))  # steps of 1e-6 change no sign here


def test_how_the_whole_past_is_read_can_be_chosen(make_embed: MakeEmbed) -> None:
    schema = example_schema()
    embed = make_embed(schema)
    batch = example_batch(schema, 12)
    with embed.recording(1):
        embed(batch, ["item", "history"])
    scores = {}
    for how in ("hashed", "attended", "averaged", "left_out"):
        model = build("sdim", {"long_past": how, "recent": 2}, embed).eval()
        scores[how] = model.score(batch)
        assert scores[how].shape == (12,)
    assert len({tuple(score.tolist()) for score in scores.values()}) == 4


def test_buckets_that_no_machine_holds_are_refused(make_embed: MakeEmbed) -> None:
    with pytest.raises(ConfigError, match=r"model\.options\.bits must be at most 16, got 17: buckets are 2\^bits"):
        build("sdim", {"bits": 17}, make_embed(example_schema()))


@pytest.mark.parametrize("how", ["hashed", "attended", "averaged"])
def test_a_long_interest_is_the_past_summed_by_its_weights(make_embed: MakeEmbed, how: str) -> None:
    schema = example_schema()
    embed = make_embed(schema)
    batch = example_batch(schema, 12)
    with embed.recording(1):
        embed(batch, ["item", "history"])
    model = build("sdim", {"long_past": how}, embed).eval()
    assert isinstance(model, SDIM)
    candidates, past = model.fields.candidates(batch), model.fields.past(batch)
    # Rows begin at a hundredth; sums of a few are compared to what single precision leaves of them.
    (interest,) = model._long(candidates, past)
    assert torch.allclose(pooled(past, model.weights(candidates, past)), interest, atol=1e-6, rtol=1e-4)
    assert interest.abs().max() > 1e-3


def test_projections_are_drawn_once_and_travel_with_the_model(make_embed: MakeEmbed) -> None:
    embed = make_embed(example_schema())
    one, other = build("sdim", {}, embed, seed=1), build("sdim", {}, embed, seed=2)
    assert isinstance(one, SDIM)
    assert isinstance(other, SDIM)
    assert not torch.equal(one.hash.projections, other.hash.projections)
    other.load_state_dict(one.state_dict())
    assert torch.equal(one.hash.projections, other.hash.projections)

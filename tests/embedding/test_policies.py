"""Policies: whose rows make up a vector, and that gradients reach just those."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dolmen.embedding import SGD, Embed, Embeddings
from dolmen.embedding.policies import HashedRows, QuotientRemainderRows, RowPolicy, policies_of
from dolmen.errors import SchemaError
from dolmen.features import Batch, Jagged, Label, Policy, Schema, Side, Slot, pack_fids, slot_numbers, values_of

DIM = 3
SLOTS = (
    Slot("user", dim=DIM),
    Slot("item", dim=DIM, policy=Policy.HASHED, policy_rows=5),
    Slot("tags", dim=DIM, many=True, policy=Policy.QUOTIENT_REMAINDER, policy_rows=8, policy_seed=1),
    Slot("history", dim=DIM, table="item", many=True, ordered=True, of=Side.USER),
)
SCHEMA = Schema(*SLOTS, Label("click"))
KINDS: list[type[RowPolicy]] = [HashedRows, QuotientRemainderRows]


def fids_of(slot: str, values: list[int]) -> torch.Tensor:
    return torch.from_numpy(pack_fids(SCHEMA.slot_number(slot), np.array(values, dtype=np.int64)))


def batch_of(**rows: list[list[int]]) -> Batch:
    size = len(next(iter(rows.values())))
    return Batch(
        size=size,
        slots={
            name: Jagged.from_lists([fids_of(name, row).tolist() for row in rows.get(name, [[]] * size)])
            for name in SCHEMA.slots
        },
    )


@pytest.mark.property
@settings(max_examples=50, deadline=None)
@given(
    st.sampled_from(KINDS),
    st.integers(2, 1000),
    st.integers(0, 2**63 - 1),
    st.lists(st.integers(0, 2**53 - 1), max_size=50),
)
def test_keys_are_rows_of_the_slot_and_follow_from_the_fid(
    kind: type[HashedRows] | type[QuotientRemainderRows], row_count: int, seed: int, values: list[int]
) -> None:
    policy = kind(7, row_count, seed)
    fids = torch.from_numpy(pack_fids(7, np.array(values, dtype=np.int64)))
    keys = policy.keys(fids)
    assert keys.shape == (len(values) * kind.width,)
    assert (slot_numbers(keys.numpy()) == 7).all()
    assert (values_of(keys.numpy()) < row_count).all()
    one_by_one = [policy.keys(fids[place : place + 1]) for place in range(len(values))]
    assert keys.tolist() == [key for part in one_by_one for key in part.tolist()]


def test_as_many_ids_are_lost_as_hashing_evenly_loses() -> None:
    # Monolith hashed 162,541 people into 10^6 rows and was left with 149,970. Evenly hashed, row_count * (1 - e^-load)
    # rows are expected to be in use; the count's deviation is below sqrt(row_count * load^2 / 2) = 115.
    ids = torch.from_numpy(pack_fids(1, np.arange(162_541)))
    for seed in range(3):
        used = len(HashedRows(1, 1_000_000, seed).keys(ids).unique())
        assert used == pytest.approx(1e6 * -math.expm1(-0.162541), abs=5 * 115)


def test_two_ids_rarely_share_both_rows() -> None:
    ids = torch.from_numpy(pack_fids(1, np.arange(10_000)))
    pairs = QuotientRemainderRows(1, 2_000, 0).keys(ids).view(-1, 2)
    assert pairs[:, 0].max() < pairs[:, 1].min()  # halves of their own
    # 10^4 ids among 10^6 pairs of rows: 10^8 / (2 * 10^6) = 50 are expected to be lost, give or take sqrt(50).
    assert 10_000 - len(pairs.unique(dim=0)) == pytest.approx(50, abs=5 * math.sqrt(50))


def test_another_seed_or_slot_shares_other_rows() -> None:
    ids = np.arange(1000)
    rows = [
        values_of(HashedRows(slot, 100, seed).keys(torch.from_numpy(pack_fids(slot, ids))).numpy())
        for slot, seed in ((1, 0), (1, 1), (2, 0))
    ]
    for one, other in ((0, 1), (0, 2), (1, 2)):
        # By chance 10 of 1,000 agree; 10 + 5 deviations are 26.
        assert (rows[one] == rows[other]).sum() < 26


def test_a_slot_that_shares_rows_has_its_owners_policy_and_others_have_none() -> None:
    found = policies_of(SCHEMA)
    assert found == {
        "item": HashedRows(2, 5, 0),
        "history": HashedRows(2, 5, 0),
        "tags": QuotientRemainderRows(3, 8, 1),
    }


@pytest.mark.parametrize("is_recording", [False, True])
def test_vectors_are_sums_of_the_rows_of_their_keys(is_recording: bool) -> None:
    embed = Embed(Embeddings(SCHEMA, optimizer=SGD(learning_rate=1.0), seed=3))
    batch = batch_of(user=[[1], [2]], item=[[11], [12]], tags=[[21, 22, 23], []], history=[[12], [13, 11, 12]])
    with embed.recording(now_us=1):
        embed(batch, list(SCHEMA.slots))
    policies, table = policies_of(SCHEMA), embed.embeddings.tables[DIM]
    if is_recording:
        with embed.recording(now_us=2):
            found = embed(batch, list(SCHEMA.slots), "sum").detach()
    else:
        found = embed(batch, list(SCHEMA.slots), "sum")
    for place, name in enumerate(SCHEMA.slots):
        for row, fids in enumerate(batch.slot(name).to_lists()):
            expected = np.zeros(DIM, dtype=np.float32)
            for fid in fids:
                keys = policies[name].keys(torch.tensor([fid])) if name in policies else torch.tensor([fid])
                expected += table.lookup(keys.numpy()).sum(axis=0)
            np.testing.assert_allclose(found[row, place].numpy(), expected, atol=1e-7)
    assert len(embed.embeddings) <= 2 + 5 + 8


def test_gradients_equal_those_of_dense_tables_that_are_shared() -> None:
    # torch's own autograd over plain matrices is the naive twin; SGD with rate 1 shows the gradient as the change.
    embed = Embed(Embeddings(SCHEMA, optimizer=SGD(learning_rate=1.0), seed=3))
    lists = {
        "item": [[1], [2], [3], [4], [5], [6]],
        "tags": [[1, 2], [], [2, 2, 3], [9], [4, 5, 6, 7], [1]],
        "history": [[6, 1], [2], [], [3, 3], [4], [5]],
    }
    batch = batch_of(user=[[0]] * 6, **lists)
    weights = torch.tensor(np.random.default_rng(0).normal(size=(6, 3, DIM)), dtype=torch.float32)
    table, policies = embed.embeddings.tables[DIM], policies_of(SCHEMA)
    numbers = {name: SCHEMA.slot_number(name) for name in lists}
    with embed.recording(now_us=1):
        embed(batch, list(lists))
    every = {
        number: pack_fids(number, np.arange(count)) for number, count in ((numbers["item"], 5), (numbers["tags"], 8))
    }
    before = {number: table.lookup(fids) for number, fids in every.items()}
    twins = {number: torch.tensor(rows, requires_grad=True) for number, rows in before.items()}
    pooled = []
    for name, rows in lists.items():
        twin = twins[numbers[name]]
        keys = [torch.from_numpy(values_of(policies[name].keys(fids_of(name, row)).numpy())) for row in rows]
        pooled.append(torch.stack([twin[one].sum(dim=0) for one in keys]))
    torch.autograd.backward((torch.stack(pooled, dim=1).tanh() * weights).sum())
    with embed.recording(now_us=2) as tape:
        torch.autograd.backward((embed(batch, list(lists), "sum").tanh() * weights).sum())
        tape.apply()
    for number, fids in every.items():
        change = table.lookup(fids) - before[number]
        np.testing.assert_allclose(change, -twins[number].grad.numpy(), atol=1e-6)


def test_ids_that_share_a_row_share_its_count() -> None:
    embed = Embed(Embeddings(SCHEMA))
    batch = batch_of(user=[[1], [2], [1]], item=[[1], [2], [1]])
    alone = embed.embeddings.schema
    with embed.recording(now_us=1):
        embed(batch, ["user", "item"])
    keys = policies_of(alone)["item"].keys(fids_of("item", [1, 2, 1])).tolist()
    assert embed.frequencies(batch, "user").tolist() == pytest.approx([2 / 3, 1 / 3, 2 / 3])
    assert embed.frequencies(batch, "item").tolist() == pytest.approx([keys.count(key) / 3 for key in keys])


def test_of_two_rows_the_rarer_tells_how_common_an_id_is() -> None:
    schema = Schema(Slot("item", dim=DIM, policy=Policy.QUOTIENT_REMAINDER, policy_rows=2000), Label("click"))
    embed = Embed(Embeddings(schema))
    batch = Batch(size=4, slots={"item": Jagged.single(pack_fids(1, np.array([1, 2, 1, 1])))})
    with embed.recording(now_us=1):
        embed(batch, ["item"])
    assert embed.frequencies(batch, "item").tolist() == pytest.approx([0.75, 0.25, 0.75, 0.75])


def test_the_policy_travels_with_the_schema_into_a_file_and_back(tmp_path: Path) -> None:
    schema = Schema.from_dict(SCHEMA.to_dict())
    assert schema == SCHEMA
    others = [replace(slot, policy_seed=2) if slot.policy_seed else slot for slot in SLOTS]
    assert Schema(*others, Label("click")).fingerprint != SCHEMA.fingerprint
    embed, batch = Embed(Embeddings(schema)), batch_of(user=[[1]], item=[[2]], tags=[[3, 4]], history=[[5]])
    with embed.recording(now_us=1):
        expected = embed(batch, list(schema.slots)).detach()
    embed.embeddings.save(tmp_path)
    loaded = Embed(Embeddings.load(tmp_path, schema))
    np.testing.assert_array_equal(loaded(batch, list(schema.slots)).numpy(), expected.numpy())
    np.testing.assert_array_equal(
        Embed(loaded.embeddings.serving_copy())(batch, list(schema.slots)).numpy(), expected.numpy()
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"policy": "folded"}, "policy must be one of collisionless, hashed, quotient_remainder, got 'folded'"),
        ({"policy": "hashed"}, "policy 'hashed' needs policy_rows of at least 1, got None"),
        ({"policy": "hashed", "policy_rows": 0}, "at least 1, got 0"),
        ({"policy": "quotient_remainder", "policy_rows": 1}, "at least 2, got 1"),
        ({"policy_rows": 10}, "policy_rows and policy_seed need a policy that shares rows"),
        ({"policy_seed": 1}, "policy_rows and policy_seed need a policy that shares rows"),
        ({"policy": "hashed", "policy_rows": 2, "policy_seed": -1}, "policy_seed must be 0 or more, got -1"),
    ],
)
def test_a_policy_that_cannot_be_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(SchemaError, match=message):
        Slot("item", **options)


def test_only_the_owner_of_rows_may_say_whose_they_are() -> None:
    history = Slot("history", table="item", many=True, policy=Policy.HASHED, policy_rows=3)
    with pytest.raises(SchemaError, match=r"shares the rows of 'item', .* move policy and policy_rows to 'item'"):
        Schema(Slot("item"), history)

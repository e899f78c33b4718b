"""What cannot be learned is refused by name, before anything has changed."""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from dolmen.clock import TIME_US_MAX
from dolmen.embedding.lookup import Embed, Tape
from dolmen.embedding.optimizers import SGD, AdaGrad, Adam, AMSGrad, RMSProp, optimizer_from_dict
from dolmen.embedding.rows import Capacity, Delta, PendingCounts, RowChunk, RowRules
from dolmen.embedding.store import Embeddings
from dolmen.embedding.table import Table
from dolmen.errors import ConfigError, SchemaError
from dolmen.features import Batch, Jagged, Schema, Slot, extract_rows

f32 = np.float32
FIDS = np.array([(3 << 53) + 5, 7, 7])


SHOP = Schema(Slot("user", dim=2), Slot("tags", dim=2, many=True, max_len=3))
FID_OF_USER, FID_OF_TAG = (1 << 53) + 5, (2 << 53) + 5


def whole(table: Table) -> bytes:
    chunks = list(table.export_chunks())
    return b"".join(each.vectors.tobytes() + each.states.tobytes() + each.fids.tobytes() for each in chunks)


def ones(dim: int = 2) -> NDArray[np.float32]:
    return np.ones((3, dim), f32)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("place", [(0, 0), (1, 16), (2, 32)])
def test_a_gradient_that_is_not_finite_is_refused_by_fid_and_place(bad: float, place: tuple[int, int]) -> None:
    table, grads = Table(33), ones(33)
    table.lookup_or_insert(FIDS, 1)
    before = whole(table)
    grads[place] = bad
    fid = FIDS[place[0]]
    told = rf"grads must be finite, got {bad} at position \({place[0]}, {place[1]}\), of FID {fid} \(slot {fid >> 53}, "
    with pytest.raises(ValueError, match=told):
        table.apply_gradients(FIDS, grads)
    assert whole(table) == before
    assert table.clocks.step_count == 0
    with pytest.raises(ValueError, match="vectors must be finite, got"):
        table.assign(FIDS, grads)
    told = told.replace("grads", "delta.vectors") + ".*; nothing was taken over"
    for call in (table.apply_delta, table.check_delta):
        with pytest.raises(ValueError, match=told):
            call(Delta(FIDS, grads, np.array([7])))
    assert whole(table) == before


def test_gradients_that_could_sum_to_infinity_are_refused() -> None:
    table = Table(2, optimizer=SGD())
    table.lookup_or_insert(FIDS, 1)
    before = whole(table)
    with pytest.raises(ValueError, match=r"grads must be at most .* got 3e\+38 at position \(1, 0\), of FID 7 "):
        table.apply_gradients(FIDS, ones() * np.array([[1], [3e38], [3e38]], f32))
    assert whole(table) == before


def test_a_tape_with_one_bad_gradient_changes_no_table() -> None:
    schema = Schema(Slot("user", dim=2), Slot("item", dim=3))
    embed = Embed(Embeddings(schema))
    batch = extract_rows(schema, [{"user": 1, "item": 2}])
    with embed.recording(1) as tape:
        rows = [embed(batch, [slot]).sum() for slot in ("user", "item")]
        (rows[0] + rows[1] * float("nan")).backward()
        before = [whole(table) for table in embed.embeddings.tables.values()]
        with pytest.raises(ValueError, match=r"grads must be finite, got nan at position \(0, 0\), of FID .*value 2\)"):
            tape.apply()
    assert [whole(table) for table in embed.embeddings.tables.values()] == before


@pytest.mark.parametrize("now_us", [-1, TIME_US_MAX + 1, (1 << 63) - 1])
def test_a_time_that_no_data_has_is_refused_before_it_counts(now_us: int) -> None:
    table = Table(2)
    for call in (lambda: table.lookup_or_insert(FIDS, now_us), lambda: table.expire(now_us)):
        with pytest.raises(ValueError, match=f"now_us must be microseconds since 1970.* got {now_us}"):
            call()
    assert (len(table), table.time_seen_max_us) == (0, 0)
    table.lookup_or_insert(FIDS, TIME_US_MAX)


def chunk(**other: Any) -> RowChunk:
    columns = {
        "fids": np.array([1, 2, 3]),
        "vectors": ones(),
        "states": ones(),
        "last_seen_us": np.array([1, 1, 1]),
        "counts": np.array([1, 1, 1]),
    }
    return RowChunk(**(columns | other))


@pytest.mark.parametrize(
    ("other", "told"),
    [
        ({"fids": np.array([1, 2, 1])}, "rows to restore must be new"),
        ({"fids": np.array([1, 2, 9])}, "rows to restore must be new"),
        ({"row_numbers": np.array([4, 5, 4], np.uint32)}, "rows to restore must be new"),
        ({"last_seen_us": np.array([1, -1, 1])}, "last_seen_us must not be negative, got -1 at position 1"),
        ({"counts": np.array([1, 1, -2])}, "counts must not be negative, got -2 at position 2"),
        (
            {"row_numbers": np.array([4, 2**32 - 1, 5], np.uint32)},
            "row_numbers must be below 4294967295, .* position 1",
        ),
    ],
)
def test_a_chunk_that_does_not_fit_leaves_no_row_behind(other: dict[str, Any], told: str) -> None:
    table = Table(2)
    table.lookup_or_insert(np.array([9]), 1)
    before = whole(table)
    with pytest.raises(ValueError, match=told):
        table.restore_chunk(chunk(**other))
    assert (whole(table), table.slots(), table.total_count(0)) == (before, {0: 1}, 1)
    assert table.delta_since(0).fids.tolist() == [9]
    table.restore_chunk(chunk())
    assert table.slots() == {0: 4}


def test_without_memory_for_a_row_number_no_row_is_left_behind_and_the_process_goes_on() -> None:
    program = """
import resource
import numpy as np
from dolmen.embedding import Table
from dolmen.embedding.rows import RowChunk

table = Table(64)
resource.setrlimit(resource.RLIMIT_AS, (32 << 30, 32 << 30))
rows = np.ones((3, 64), np.float32)
ones, numbers = np.ones(3, np.int64), np.array([0, 1, 4_000_000_000], np.uint32)
try:
    table.restore_chunk(RowChunk(np.arange(3), rows, rows, ones, ones, row_numbers=numbers))
except MemoryError:
    table.assign(np.arange(100_000), np.ones((100_000, 64), np.float32))
    Table(64).assign(np.arange(100_000), np.ones((100_000, 64), np.float32))
    print(len(table))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.stderr) == ("100000\n", "")


@pytest.mark.parametrize("column", ["counts", "last_seen_us"])
def test_pending_counts_below_zero_are_refused(column: str) -> None:
    table = Table(2, rules={0: RowRules(admit_after=9)})
    columns = {"fids": np.array([1, 2]), "counts": np.array([1, 1]), "last_seen_us": np.array([1, 1])}
    columns[column] = np.array([1, -7])
    with pytest.raises(ValueError, match=rf"{column} must not be negative, got -7 at position 1"):
        table.restore_pending(PendingCounts(**columns))
    assert len(table.pending().fids) == 0


@pytest.mark.parametrize(
    ("call", "kind", "told"),
    [
        (lambda: Table(2.5), TypeError, "dim must be a whole number, got 2.5"),
        (lambda: Table(2, seed="a"), TypeError, "seed must be a whole number, got 'a'"),
        (lambda: Table(2, optimizer="adam"), TypeError, "optimizer must be one of .* got 'adam'; optimizer_from_dict"),
        (
            lambda: Table(2, capacity=3),
            TypeError,
            r"capacity must be None or Capacity\(rows\), got 3; write Capacity\(3",
        ),
        (lambda: Table(2, rules=[RowRules()]), TypeError, r"rules must be RowRules by slot number, got \[RowRules"),
        (lambda: Table(2, rules={0: {}}), TypeError, r"rules\[0\] must be RowRules, got {}; write {0: RowRules"),
        (
            lambda: Table(2, rules={"item": RowRules()}),
            TypeError,
            r"slot must be a slot's number, got 'item'; schema.slot_number\('item'\) tells it",
        ),
        (lambda: setattr(Table(2), "threads", "2"), TypeError, r"threads must be a whole number, got '2' \(write 2 wi"),
        (lambda: Table(2, threads=65), ValueError, "threads must be between 1 and 64, got 65"),
        (lambda: Table(2).fids("item"), TypeError, r"slot must be a slot's number, got 'item'; schema.slot_number"),
        (lambda: Table(2).maintain(0), ValueError, "rows_max must be at least 1, got 0"),
        (
            lambda: SGD(learning_rate=10**400),
            ValueError,
            "SGD.learning_rate must be above 0 and at most 1e.06, got a number wi",
        ),
        (
            lambda: SGD(learning_rate="1"),
            TypeError,
            r"SGD.learning_rate must be a number, got '1' \(write 1 without qu",
        ),
        (lambda: SGD(learning_rate=Decimal("0.5")), TypeError, "SGD.learning_rate must be a number, got Decimal"),
        (lambda: Embeddings(SHOP, seed="1"), TypeError, r"seed must be a whole number, got '1' \(write 1 without quot"),
        (lambda: Embeddings(SHOP, threads=0), ValueError, "threads must be between 1 and 64, got 0"),
        (lambda: Embeddings([Slot("user")]), TypeError, r"schema must be a Schema, got \[Slot.*; write Schema"),
        (
            lambda: Embed(SHOP),
            TypeError,
            r"embeddings must be Embeddings, got Schema.*; write Embed\(Embeddings\(schema",
        ),
        (lambda: Table(2, precision="int4"), ValueError, "precision must be one of float32, .*int8, got 'int4'"),
        (lambda: Table(2, initial_range=1e39), ValueError, "initial_range must be 0 or more .*make it inf, got 1e"),
        (lambda: Table(2, initial_range="1"), TypeError, "initial_range must be a number, got '1'"),
        (lambda: Table(2).lookup_or_insert(FIDS, 1.5), TypeError, "now_us must be a whole number .* got 1.5"),
        (lambda: Table(2).lookup(["a"]), ValueError, r"fids must be int64, got <U1; dolmen.features.encode_values"),
        (
            lambda: Table(2).apply_gradients(FIDS, ones(), 1e39),
            ValueError,
            r"learning_rate_scale .* at most 100, got 1e\+39",
        ),
        (lambda: Table(2).delta_since(4), ValueError, "epoch must be between 0 and 0, got 4; it has not begun"),
        (
            lambda: Table(2).apply_delta(Table(3).delta_since(0)),
            ValueError,
            r"delta.vectors must have the shape \(count, 2\), got \(0, 3\); the delta is of another table",
        ),
        (lambda: Capacity(-1), ValueError, "Capacity.row_count must be at least 1, got -1"),
        (lambda: Capacity(1.5), TypeError, "Capacity.row_count must be a whole number, got 1.5"),
        (lambda: Capacity(5, "lri"), ValueError, "Capacity.eviction must be one of lru, lfu, score, got 'lri'"),
        (lambda: RowRules(capacity="9"), TypeError, "RowRules.capacity must be a whole number, got '9'"),
        (lambda: RowRules(admit_after=1.5), TypeError, "RowRules.admit_after must be a whole number, got 1.5"),
        (lambda: RowRules(name=5), TypeError, "RowRules.name must be a text, got 5; it is the slot's name"),
        (lambda: Adam(decoupled="no"), TypeError, "Adam.decoupled must be True or False, got 'no'"),
        (lambda: AMSGrad(decoupled=2), TypeError, "AMSGrad.decoupled must be True or False, got 2"),
        (lambda: AdaGrad(lr=0.1), TypeError, "AdaGrad has no setting 'lr'; write learning_rate="),
        (lambda: Adam(betas=(0.9, 0.99)), TypeError, "Adam has no setting 'betas'; write beta1= and beta2="),
        (lambda: RMSProp(alpha=0.9), TypeError, "RMSProp has no setting 'alpha'; write decay= and learning_rate="),
        (lambda: SGD(weight_deca=0.1), TypeError, "SGD has no setting 'weight_deca'; did you mean 'weight_decay'"),
        (lambda: AdaGrad(0.1), TypeError, r"AdaGrad takes its settings by name, got 0.1; .*AdaGrad\(learning_rate=0.1"),
        (
            lambda: optimizer_from_dict("adam"),
            ConfigError,
            "optimizer must be settings by name, got 'adam'; write {'name': 'adam'}",
        ),
        (lambda: optimizer_from_dict(Adam()), ConfigError, "optimizer must be settings by name, got Adam.*_to_dict"),
        (lambda: Table(2).save(None), TypeError, r"folder must be a path, got None; write Path\(...\)"),
        (lambda: Table.load(5), TypeError, "folder must be a path, got 5"),
        (lambda: Embeddings(SHOP).save(None), TypeError, "folder must be a path, got None"),
        (lambda: Embeddings.load(None, SHOP), TypeError, "folder must be a path, got None"),
        (lambda: Embeddings.load("there", None), TypeError, r"schema must be a Schema, got None; write Schema\(Slot"),
        (lambda: Embeddings.load_for_serving("there", "shop"), TypeError, "schema must be a Schema, got 'shop'"),
        (
            lambda: Embed(Embeddings(SHOP)).recording(1).apply(),
            RuntimeError,
            r"nothing was recorded on this tape; write: with embed.recording\(now_us\) as tape",
        ),
        (lambda: Embed(Embeddings(SHOP)).align("tags"), TypeError, r"slots must be a list .* got 'tags'; write \['ta"),
        (
            lambda: Embed(Embeddings(SHOP))(None, [["user"]]),
            SchemaError,
            r"the schema has no slot \['user'\]; did you mean 'user'",
        ),
        (lambda: RowRules(admission="exct"), ValueError, "RowRules.admission must be one of exact, sketch"),
    ],
)
def test_what_is_of_the_wrong_kind_is_named(call: Callable[[], Any], kind: type[Exception], told: str) -> None:
    with pytest.raises(kind, match=told):
        call()


@pytest.mark.parametrize(
    ("ask", "kind", "told"),
    [
        (
            lambda embed, batch: embed(batch, "user"),
            TypeError,
            r"slots must be a list of names, got 'user'; write \['u",
        ),
        (lambda embed, batch: embed(batch, []), SchemaError, "slots must name at least one, got none; .* has user, ta"),
        (lambda embed, batch: embed(batch, ["usr"]), SchemaError, "no slot 'usr'; did you mean 'user'"),
        (
            lambda embed, batch: embed(batch, ["tags"], weights={"tags": [1.0, 1.0]}),
            TypeError,
            r"weights of 'tags' must be a float32 tensor, got list; torch.as_tensor\(",
        ),
        (
            lambda embed, batch: embed(batch, ["tags"], weights={"tags": torch.ones(2, dtype=torch.int64)}),
            TypeError,
            "weights of 'tags' must be a float32 tensor, got a tensor of torch.int64",
        ),
        (
            lambda embed, batch: embed(batch, ["tags"], weights=torch.ones(2)),
            TypeError,
            "weights must be tensors by slo",
        ),
        (
            lambda embed, batch: embed(batch, ["tags"], weights={"tag": torch.ones(2)}),
            SchemaError,
            "weights of 'tag', which is not among the slots asked for; did you mean 'tags'",
        ),
        *(
            (ask, TypeError, r"batch must be a Batch, got {'user': \[1\]}; extract_rows\(schema, rows\) makes one")
            for ask in (
                lambda embed, _: embed({"user": [1]}, ["user"]),
                lambda embed, _: embed.sequence({"user": [1]}, "user"),
                lambda embed, _: embed.values({"user": [1]}, "user"),
                lambda embed, _: embed.occurring({"user": [1]}, ["user"]),
                lambda embed, _: embed.frequencies({"user": [1]}, "user"),
                lambda embed, _: embed.offsets({"user": [1]}, ["user"]),
            )
        ),
        (
            lambda embed, batch: embed.sequence(batch, ["tags"]),
            SchemaError,
            r"the batch has no slot \['tags'\]; did you mean 'tags'",
        ),
        (
            lambda embed, batch: embed(
                replace(batch, slots={"user": Jagged.from_lists([[FID_OF_USER, FID_OF_USER + 1]])}), ["user"]
            ),
            SchemaError,
            r"slot 'user': row 0 has 2 values, and the schema says one; declare Slot\('user', many=True\), or send one",
        ),
        (
            lambda embed, batch: embed.sequence(
                replace(batch, slots={"tags": Jagged.from_lists([[FID_OF_TAG] * 4])}), "tags"
            ),
            SchemaError,
            r"slot 'tags': row 0 has 4 values, and the schema says 3 at most; Jagged.last\(3\) cuts them",
        ),
    ],
)
def test_what_a_look_up_cannot_mean_is_named_with_its_mend(
    ask: Callable[[Embed, Batch], Any], kind: type[Exception], told: str
) -> None:
    embed = Embed(Embeddings(SHOP))
    batch = extract_rows(SHOP, [{"user": 1, "tags": [1, 2]}])
    with embed.recording(1), pytest.raises(kind, match=told):
        ask(embed, batch)
    assert len(embed.embeddings) == 0


def test_a_tape_is_recorded_on_once() -> None:
    embed = Embed(Embeddings(SHOP))
    tape = embed.recording(1)
    with tape:
        pass
    with pytest.raises(RuntimeError, match=r"this tape was recorded on already; call embed\.recording"), tape:
        pass
    with embed.recording(2):
        pass


def test_what_nobody_saw_may_be_asked_for_by_arrays_too() -> None:
    embed, fids = Embed(Embeddings(SHOP)), np.array([FID_OF_USER, FID_OF_USER + 1])
    embed.embeddings.lookup_or_insert("user", torch.from_numpy(fids[:1]), 1)
    assert embed.peek("user", fids).tolist() == embed.peek("user", torch.from_numpy(fids)).tolist()
    assert embed.sights("user", fids).tolist() == [1, 0]
    with pytest.raises(ValueError, match="fids must be int64, got float64"):
        embed.peek("user", fids / 2)


@pytest.mark.parametrize("take", [lambda tape: tape.apply(), lambda tape: tape.check()], ids=["apply", "check"])
def test_a_backward_whose_gradients_would_be_lost_is_refused(take: Callable[[Tape], Any]) -> None:
    embed = Embed(Embeddings(SHOP))
    batch = extract_rows(SHOP, [{"user": 1, "tags": [1, 2]}])
    with embed.recording(1) as tape:
        loss = embed(batch, ["user"]).sum()
        loss.backward(retain_graph=True)
        take(tape)
        for late in (loss, embed(batch, ["user"]).sum(), embed.peek("tags", batch.slot("tags").values).sum()):
            with pytest.raises(RuntimeError, match=r"backward\(\) came after .* call apply\(\)"):
                late.backward()


def test_a_scale_that_cannot_be_spends_no_tape() -> None:
    embed = Embed(Embeddings(SHOP))
    with embed.recording(1) as tape:
        embed(extract_rows(SHOP, [{"user": 1}]), ["user"]).sum().backward()
        with pytest.raises(TypeError, match="scale must be a number, got None"):
            tape.apply(None)
        assert tape.apply() == 1


def test_nothing_is_looked_up_as_nothing() -> None:
    assert Table(2).lookup([]).shape == (0, 2)
    assert Table(2).lookup(torch.tensor([], dtype=torch.int64)).shape == (0, 2)

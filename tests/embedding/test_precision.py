"""Vectors stored narrower than float32, against NumPy's and torch's own conversions."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from dolmen.embedding import SGD, AdaGrad, Delta, Embeddings, Precision, Table
from dolmen.features import Schema, Slot, encode_values

NONE = np.empty(0, dtype=np.int64)
NARROW = [Precision.FLOAT16, Precision.BFLOAT16, Precision.INT8]
ODD = [0.0, -0.0, np.inf, -np.inf, np.nan, 65504.0, 65519.996, 65520.0, 2.0**-14, 2.0**-24, 2.0**-25, 1e-45, 3.4e38]
# All that float32 can be, and what people store.
NUMBERS = st.one_of(st.sampled_from(ODD), st.floats(width=32), st.floats(-1, 1, width=32))


def int8_rowwise(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """As the core's page says it: a scale of 16 bits for each row, integers in [-127, 127]."""
    found = np.zeros_like(rows)
    for row, out in zip(rows, found, strict=True):
        scale = (np.abs(row).max() / np.float32(127)).astype(np.float32)
        scale = (scale.view(np.uint32) & np.uint32(0xFFFFFF00)).view(np.float32)
        if not np.isfinite(row).all():
            out[:] = np.nan
        elif scale >= np.finfo(np.float32).tiny:
            out[:] = np.rint(row / scale).astype(np.int8).astype(np.float32) * scale
    return found


def staying_finite(rows: NDArray[np.float32], rounded: NDArray[np.float32], largest: float) -> NDArray[np.float32]:
    """Where rounding made a number infinite, the largest one instead."""
    is_beyond = np.isfinite(rows) & np.isinf(rounded)
    return np.where(is_beyond, np.copysign(np.float32(largest), rows), rounded).astype(np.float32)


def expected(rows: NDArray[np.float32], precision: Precision) -> NDArray[np.float32]:
    match precision:
        case Precision.FLOAT16:
            return staying_finite(rows, rows.astype(np.float16).astype(np.float32), 65504.0)
        case Precision.BFLOAT16:
            found = torch.from_numpy(rows).to(torch.bfloat16).to(torch.float32).numpy()
            return staying_finite(rows, found, 2.0**128 - 2.0**120)
        case Precision.INT8:
            return int8_rowwise(rows)
        case Precision.FLOAT32:
            return rows


def stored(rows: NDArray[np.float32], precision: Precision) -> Table:
    table = Table(rows.shape[1], precision=precision)
    # As a table takes another's rows: also infinity and NaN, which `assign` and deltas from outside may not bring.
    table.apply_delta(Delta(np.arange(len(rows)), rows, np.empty(0, dtype=np.int64)), is_finite=True)
    return table


def same(found: NDArray[np.float32], wanted: NDArray[np.float32]) -> bool:
    """Bit for bit, zeros' signs too; only which NaN it is may differ."""
    numbers = ~np.isnan(wanted)
    return np.array_equal(np.isnan(found), ~numbers) and found[numbers].tobytes() == wanted[numbers].tobytes()


@pytest.mark.property
@pytest.mark.parametrize("precision", Precision)
@settings(max_examples=100, deadline=None)
@given(st.integers(1, 20).flatmap(lambda dim: st.lists(st.lists(NUMBERS, min_size=dim, max_size=dim), min_size=1)))
@example([ODD])
@example([[number] for number in ODD])
@pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning", "ignore:invalid value:RuntimeWarning")
def test_a_vector_reads_as_numpy_would_have_rounded_it(precision: Precision, values: list[list[float]]) -> None:
    rows = np.array(values, dtype=np.float32)
    table = stored(rows, precision)
    fids = np.arange(len(rows))
    found = table.lookup(fids)
    wanted = expected(rows, precision)
    if precision is Precision.INT8:  # integers have no negative zero
        wanted = wanted + np.float32(0)
        found = found + np.float32(0)
    assert same(found, wanted)
    # What was read is stored as it is, so files, deltas and copies change nothing.
    again = stored(table.lookup(fids), precision)
    assert same(again.lookup(fids), table.lookup(fids))
    assert same(np.concatenate([chunk.vectors for chunk in table.export_chunks()]), table.lookup(fids))


def test_every_half_reads_as_itself() -> None:
    halves = np.arange(1 << 16).astype(np.uint16).view(np.float16)
    rows = halves.astype(np.float32).reshape(-1, 16)
    assert same(stored(rows, Precision.FLOAT16).lookup(np.arange(len(rows))), rows)


@pytest.mark.parametrize("precision", NARROW)
def test_rows_stay_as_they_are_through_files_copies_and_deltas(precision: Precision, tmp_path: Path) -> None:
    rows = np.random.default_rng(1).normal(size=(3000, 17)).astype(np.float32)
    fids = np.arange(len(rows))
    table = Table(17, precision=precision)
    table.assign(fids, rows)
    wanted = table.lookup(fids)
    table.save(tmp_path / "table")
    loaded = Table.load(tmp_path / "table")
    follower = Table(17, precision=precision)
    follower.apply_delta(table.delta_since(0))
    for other in (loaded, table.clone(), follower):
        assert other.precision is precision
        assert other.lookup(fids).tobytes() == wanted.tobytes()
    loaded.save(tmp_path / "again")
    for path in (tmp_path / "table").iterdir():
        assert (tmp_path / "again" / path.name).read_bytes() == path.read_bytes()
    # A writer that changes a row of an instant saves it first.
    with table.instant() as instant:
        table.assign(fids, -rows)
        assert np.concatenate([chunk.vectors for chunk in instant.chunks()]).tobytes() == wanted.tobytes()


@pytest.mark.parametrize("precision", NARROW)
def test_a_narrow_table_serves_and_never_learns(precision: Precision) -> None:
    with pytest.raises(ValueError, match=f"precision {precision} leaves no room for the state of optimizer adagrad"):
        Table(4, optimizer=AdaGrad(), precision=precision)
    table = Table(4, optimizer=SGD(), precision=precision)
    with pytest.raises(ValueError, match="serves and never learns"):
        table.lookup_or_insert(np.array([1]), 0)
    with pytest.raises(ValueError, match="serves and never learns"):
        table.apply_gradients(np.array([1]), np.ones((1, 4), dtype=np.float32))
    assert len(table) == 0


def test_narrow_embeddings_are_smaller_and_follow_deltas(tmp_path: Path) -> None:
    schema = Schema(Slot("user", dim=64), Slot("item", dim=8))
    trained = Embeddings(schema, seed=3)
    users = torch.from_numpy(encode_values(schema.slot_number("user"), np.arange(20_000)))
    trained.lookup_or_insert("user", users, 1)
    trained.save(tmp_path)
    wide = Embeddings.load_for_serving(tmp_path, schema)
    narrow = Embeddings.load_for_serving(tmp_path, schema, precision=Precision.INT8)
    assert narrow.memory().total_bytes < wide.memory().total_bytes - 20_000 * (64 * 4 - 68) * 0.9
    exact = trained.lookup("user", users).numpy()
    off = np.abs(narrow.lookup("user", users).numpy() - exact)
    assert (off <= np.abs(exact).max(axis=1, keepdims=True) / 253).all()  # half of 1/127, and what rounding adds
    changed = np.full((1, 64), 0.5, dtype=np.float32)
    narrow.apply_delta({64: Delta(users[:1].numpy(), changed, users[1:2].numpy())})
    assert narrow.lookup("user", users[:1]).numpy() == pytest.approx(changed, rel=1e-2)
    assert not narrow.lookup("user", users[1:2]).any()

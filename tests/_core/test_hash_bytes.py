"""XXH64 of ours against the reference implementation's wheel."""

import numpy as np
import pyarrow as pa
import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from dolmen._core import checksum, hash_bytes

VALUE_MASK = (1 << 53) - 1
SEEDS = st.integers(0, (1 << 64) - 1)


@pytest.mark.property
@given(texts=st.lists(st.binary(max_size=300), max_size=8), seed=SEEDS)
def test_equals_the_reference_on_any_bytes(texts: list[bytes], seed: int) -> None:
    data = np.frombuffer(b"".join(texts), dtype=np.uint8)
    offsets = np.concatenate([[0], np.cumsum([len(text) for text in texts])]).astype(np.int64)
    expected = [xxhash.xxh64_intdigest(text, seed) & VALUE_MASK for text in texts]
    assert hash_bytes(data, offsets, seed).tolist() == expected
    assert checksum(data, seed) == xxhash.xxh64_intdigest(data.tobytes(), seed)


def test_equals_the_reference_at_every_length_up_to_several_stripes() -> None:
    data = np.random.default_rng(0).integers(0, 256, 200, dtype=np.uint8)
    for length in range(len(data) + 1):
        assert checksum(data[:length], 1) == xxhash.xxh64_intdigest(data[:length].tobytes(), 1)


def test_hashes_an_arrow_column_where_it_lies() -> None:
    column = pa.array(["", "one", "déjà vu", "x" * 100], pa.large_string())
    _, offsets, data = column.buffers()
    hashed = hash_bytes(np.frombuffer(data, np.uint8), np.frombuffer(offsets, np.int64)[: len(column) + 1], 0)
    assert hashed.tolist() == [xxhash.xxh64_intdigest(text.as_py().encode()) & VALUE_MASK for text in column]


@pytest.mark.parametrize("offsets", [[], [0, 5], [2, 1], [-1, 2]], ids=["none", "beyond", "falling", "negative"])
def test_bad_offsets_are_refused(offsets: list[int]) -> None:
    with pytest.raises(ValueError, match="offsets must"):
        hash_bytes(np.zeros(4, np.uint8), np.array(offsets, dtype=np.int64), 0)

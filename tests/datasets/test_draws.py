import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import ArrayLike

from dolmen.datasets.draws import normals, uniforms

ids = st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=20)
COUNT = 200_000


@pytest.mark.property
@given(st.integers(0, 2**63 - 1), ids, st.integers(-(2**63), 2**63 - 1))
def test_a_number_depends_on_its_ids_alone(seed: int, many: list[int], other: int) -> None:
    together = uniforms(seed, np.array(many), other)

    assert [uniforms(seed, one, other).item() for one in many] == together.tolist()
    assert uniforms(seed, np.array(many)[::-1], other).tolist() == together[::-1].tolist()
    assert ((together >= 0) & (together < 1)).all()
    assert np.isfinite(normals(seed, np.array(many), other)).all()


@pytest.mark.parametrize("columns", [(np.arange(COUNT),), (7, np.arange(COUNT)), (np.arange(COUNT), -1)])
def test_uniforms_are_uniform_and_neighbours_unrelated(columns: tuple[ArrayLike, ...]) -> None:
    drawn = uniforms(1, *columns)
    counts = np.histogram(drawn, bins=100, range=(0, 1))[0]
    expected = COUNT / 100

    assert ((counts - expected) ** 2 / expected).sum() < 99 + 5 * np.sqrt(2 * 99)  # chi squared with 99 degrees
    assert abs(np.corrcoef(drawn[1:], drawn[:-1])[0, 1]) < 5 / np.sqrt(COUNT)


def test_normals_have_the_moments_of_a_standard_normal() -> None:
    drawn = normals(1, np.arange(COUNT))
    # Standard errors of the first four moments of a standard normal: sqrt of 1, 2, 15 and 96 over the count.
    for power, moment, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        assert abs((drawn**power).mean() - moment) < 5 * np.sqrt(variance / COUNT)


@pytest.mark.parametrize("changed", [(2, (0, 1)), (1, (1, 0)), (1, (0,)), (1, (0, 1, 0))])
def test_other_seeds_and_other_ids_give_other_numbers(changed: tuple[int, tuple[int, ...]]) -> None:
    seed, others = changed

    assert uniforms(1, 0, 1) != uniforms(seed, *others)

"""Seeds: repeatable, apart by name."""

from hypothesis import given
from hypothesis import strategies as st

from dolmen.seeds import derive_seed, generator, uniform_of


@given(st.integers(), st.text(), st.text())
def test_a_seed_depends_on_run_and_name_alone(seed: int, first: str, second: str) -> None:
    assert derive_seed(seed, first) == derive_seed(seed, first)
    assert (derive_seed(seed, first) == derive_seed(seed, second)) == (first == second)
    assert 0 <= derive_seed(seed, first) < 1 << 63


def test_parts_draw_different_numbers() -> None:
    assert generator(1, "a").integers(1 << 60) != generator(1, "b").integers(1 << 60)


def test_uniform_numbers_fill_the_unit_interval_evenly() -> None:
    draws = [uniform_of(3, "request", index) for index in range(4000)]
    assert all(0 <= draw < 1 for draw in draws)
    # The mean of n uniform draws has standard deviation sqrt(1/12/n) = 0.0046; four of them bound it.
    assert abs(sum(draws) / len(draws) - 0.5) < 4 * (1 / 12 / 4000) ** 0.5

"""Which events come again, against looking through all that came before."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dolmen.serving.repeats import Repeats

IDS = st.lists(st.sampled_from([None, "a", "b", "c"]), max_size=6)


@pytest.mark.property
@given(count_max=st.integers(0, 5), groups=st.lists(st.tuples(IDS, st.booleans()), max_size=8))
def test_an_event_is_new_unless_one_of_the_newest_before_it_has_its_id(
    count_max: int, groups: list[tuple[list[str | None], bool]]
) -> None:
    repeats, came = Repeats(count_max), list[str | None]()
    for ids, is_applied in groups:
        all_ids = [*came, *ids]
        expected = [
            event_id is None or event_id not in all_ids[max(0, place - count_max) : place]
            for place, event_id in enumerate(all_ids)
        ][len(came) :]
        assert repeats.are_new(ids) == expected
        if is_applied:  # else they are asked about once more, and were not remembered
            repeats.remember(ids)
            came = all_ids
        assert len(repeats._last) <= min(3, count_max)

import pytest

from dolmen import datasets
from dolmen.errors import DataError


def test_every_named_data_set_describes_itself() -> None:
    assert "movielens-100k" in datasets.names()
    for name in datasets.names():
        info = datasets.describe(name)
        assert info.name == name
        assert info.title
        assert info.summary
        assert info.terms
        assert info.simulated or info.source_url.startswith("https://")


def test_an_unknown_name_offers_the_nearest() -> None:
    with pytest.raises(DataError, match=r"no data set 'movielens100k'; did you mean 'movielens-100k'\?"):
        datasets.load("movielens100k")


def test_where_is_nothing_for_what_must_be_downloaded(cut_off: object) -> None:
    assert cut_off
    assert datasets.where("movielens-100k") is None
    with pytest.raises(DataError, match="movielens-100k is not on this machine"):
        datasets.load("movielens-100k", download=False)

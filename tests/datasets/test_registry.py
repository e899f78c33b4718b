import subprocess
import sys
from pathlib import Path

import pytest

from dolmen import datasets
from dolmen.errors import CONFIG_STATUS, DataError


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


def test_a_name_that_is_not_there_ends_a_command_as_any_mistake_of_its_line_does() -> None:
    for arguments in (["data", "show", "nothing"], ["data", "correlation", "world", "nothing"]):
        ended = subprocess.run(
            [sys.executable, "-m", "dolmen", *arguments], capture_output=True, text=True, check=False
        )
        assert ended.returncode == CONFIG_STATUS, ended.stderr
        assert ended.stderr.startswith("error: ")


def test_where_is_nothing_for_what_must_be_downloaded(cut_off: object) -> None:
    assert cut_off
    assert datasets.where("movielens-100k") is None
    with pytest.raises(DataError, match="movielens-100k is not on this machine"):
        datasets.load("movielens-100k", download=False)


def test_a_set_that_nobody_publishes_as_it_is_says_where_it_comes_from_and_which_file_goes_where(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOLMEN_CACHE", str(tmp_path))
    monkeypatch.setattr("dolmen.datasets.sources._beside_checkouts", lambda: iter(()))
    monkeypatch.delenv("DOLMEN_DATA", raising=False)
    source = datasets.describe("gowalla").source_url
    assert (datasets.where("gowalla"), datasets.how_to_get("gowalla")) == (None, f"by hand: {source}")
    assert datasets.how_to_get("movielens-1m") == "to be fetched"
    with pytest.raises(DataError) as refused:
        datasets.load("gowalla")
    assert source in str(refused.value)
    put = f"put train.parquet, valid.parquet, test.parquet (Parquet tables) into {tmp_path / 'gowalla'}"
    assert put in str(refused.value)

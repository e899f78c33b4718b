from pathlib import Path

import pytest

from dolmen import datasets
from dolmen.datasets import Dataset
from dolmen.errors import DataError


@pytest.fixture(scope="session")
def ratings_of_films() -> Dataset:
    """MovieLens 100K, or a skip that says how to get it."""
    try:
        return datasets.load("movielens-100k", download=False)
    except DataError as problem:
        pytest.skip(f"movielens-100k: {problem}")


@pytest.fixture
def cut_off(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine without any data set: an empty cache (returned), no data folder, nothing beside the checkout."""
    monkeypatch.delenv("DOLMEN_DATA", raising=False)
    monkeypatch.setenv("DOLMEN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("dolmen.datasets.sources._beside_checkouts", lambda: iter(()))
    return tmp_path / "cache"

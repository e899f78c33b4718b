"""Settings from plain values: types are kept, mistakes are named."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

import pytest
import tomli_w

from dolmen.errors import ConfigError
from dolmen.settings import NONE, read_settings, write_settings


class Kind(StrEnum):
    GRAPH = "graph"
    EXACT = "exact"


@dataclass(frozen=True, kw_only=True)
class Sample:
    folder: Path
    rate: float = 0.5
    count: int = 3
    kind: Kind = Kind.GRAPH
    widths: tuple[int, ...] = (64,)
    limit: int | None = None
    hide: Mapping[str, str] = field(default_factory=dict)
    longest: float | None = 10.0

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ConfigError(f"sample.count must be at least 1, got {self.count}")


def test_values_of_a_file_become_the_declared_types() -> None:
    values = {"folder": "a/b", "rate": 1, "kind": "exact", "widths": [1, 2], "hide": {"buy": "1d"}}
    sample = read_settings(Sample, values, "sample")
    assert sample == Sample(folder=Path("a/b"), rate=1.0, kind=Kind.EXACT, widths=(1, 2), hide={"buy": "1d"})
    assert isinstance(sample.rate, float)


def test_what_is_written_reads_back_the_same() -> None:
    sample = Sample(folder=Path("x"), widths=(3, 4), limit=None, hide={"a": "1s"})
    assert read_settings(Sample, write_settings(sample), "sample") == sample
    assert "limit" not in write_settings(sample)


def test_none_is_kept_where_the_default_is_something_else() -> None:
    unbounded = Sample(folder=Path("x"), longest=None)  # left out, it would come back as 10
    assert read_settings(Sample, write_settings(unbounded), "sample") == unbounded


def test_toml_says_none_by_a_word_where_another_value_is_the_default() -> None:
    unbounded = Sample(folder=Path("x"), longest=None, limit=None)
    written = tomllib.loads(tomli_w.dumps(write_settings(unbounded, none=NONE)))
    assert written["longest"] == "none"
    assert "limit" not in written
    assert read_settings(Sample, written, "sample") == unbounded
    for name in ("limit", "count"):  # there it is no word for anything
        with pytest.raises(ConfigError, match=f"sample.{name} must be a whole number, got 'none'"):
            read_settings(Sample, {"folder": "x", name: "none"}, "sample")


def test_fields_that_the_program_sets_are_no_settings() -> None:
    assert read_settings(Sample, {}, "sample", folder=Path("f")).folder == Path("f")
    with pytest.raises(ConfigError, match="sample: unknown setting 'folder'"):
        read_settings(Sample, {"folder": "elsewhere"}, "sample", folder=Path("f"))
    assert "folder" not in write_settings(Sample(folder=Path("f")), leave_out=["folder"])


def test_a_secret_of_the_wrong_kind_is_not_repeated_in_the_error() -> None:
    @dataclass(frozen=True)
    class Secret:
        token: str | None = field(default=None, repr=False)

    with pytest.raises(ConfigError, match=r"secret\.token") as caught:
        read_settings(Secret, {"token": 12345678901234567890}, "secret")
    assert "1234567890" not in str(caught.value)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, r"sample\.folder is missing"),
        ({"folder": "f", "rte": 1.0}, r"sample: unknown setting 'rte'; did you mean 'rate'\?"),
        ({"folder": "f", "count": "3"}, r"sample\.count must be a whole number \(write 3 without quotes\), got '3'"),
        ({"folder": "f", "count": True}, r"sample\.count must be a whole number, got true"),
        ({"folder": "f", "widths": [1, "x"]}, r"sample\.widths\[1\] must be a whole number, got 'x'"),
        ({"folder": "f", "kind": "grph"}, r"sample\.kind must be one of 'graph' or 'exact', got 'grph'"),
        ({"folder": "f", "count": 0}, r"sample\.count must be at least 1, got 0"),
    ],
)
def test_a_mistake_is_named_with_place_value_and_mend(values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_settings(Sample, values, "sample")

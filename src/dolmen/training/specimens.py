"""Specimens: records that could not be used, kept for people to look at."""

from __future__ import annotations

from pathlib import Path
from typing import Final, final

__all__ = ["Specimens"]

_COUNT_MAX: Final = 100  # a broken producer fails in one way; more of the same teach nothing
_BYTES_MAX: Final = 1 << 20  # of one record


@final
class Specimens:
    """Keeps the first ``count_max`` bad records in ``folder``: ``<topic>-<offset>.bin`` and, beside it, why, as text.

    Keeping one never fails its caller: a full disk must not stop a stage over a record it passes over anyway.
    """

    def __init__(self, folder: Path | str, *, count_max: int = _COUNT_MAX) -> None:
        self.folder, self._count_max = Path(folder), count_max
        self._count = len(list(self.folder.glob("*.bin"))) if self.folder.is_dir() else 0

    def keep(self, topic: str, offset: int, value: bytes, problem: str) -> None:
        """Keep one record, unless there are enough. The same record again replaces itself."""
        path = self.folder / f"{topic}-{offset:012d}.bin"
        if self._count >= self._count_max and not path.exists():
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            is_new = not path.exists()
            path.write_bytes(value[:_BYTES_MAX])
            path.with_suffix(".txt").write_text(f"{problem}\n")
        except OSError:
            return
        self._count += is_new

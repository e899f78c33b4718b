"""What commands print for people: tables that lose no word, however narrow the terminal is.

A sheet is a table where that can be read, and otherwise one record below the other, each value beside its name.
Where nobody's terminal sets the width (a pipe, a file), nothing is folded, so that a search finds each value whole: a
table then needs a row a line and no more than a page's width.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from typing import Final, final

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

__all__ = ["Sheet", "record", "wide_console"]

_UNBOUNDED: Final = 1 << 16
_PAGE: Final = 120  # characters: of a table where no terminal sets the width
_PROSE: Final = 24  # characters: a column of longer values is wrapped, but never narrower than this
_FRAME: Final = 3  # of each column: its rule and two spaces; one more rule closes the row


def wide_console() -> Console:
    """Standard output, which has no width unless a terminal (or ``COLUMNS``) gives it one."""
    is_bounded = sys.stdout.isatty() or "COLUMNS" in os.environ
    return Console(width=None if is_bounded else _UNBOUNDED)


def record(title: str, values: Mapping[str, str | Text]) -> Table:
    """One thing: its values, each beside its name; long ones are folded."""
    grid = Table(show_header=False, box=None, title=Text(title) if title else None, title_justify="left")
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in values.items():
        grid.add_row(Text(name, style="bold"), _text(value))
    return grid


@final
class Sheet:
    """Many things of one kind, a row each; what rich prints of it depends on the width that there is."""

    def __init__(self, *heads: str, title: str) -> None:
        self._heads, self._title = heads, title
        self._rows: list[list[Text]] = []

    def add_row(self, *cells: str | Text) -> None:
        """A cell for each head. A ``str`` is printed as it is; markup in it means nothing."""
        assert len(cells) == len(self._heads)
        self._rows.append([_text(cell) for cell in cells])

    def __rich_console__(self, _: Console, options: ConsoleOptions) -> RenderResult:
        is_bounded = options.max_width < _UNBOUNDED
        widths = self._widths((options.max_width if is_bounded else _PAGE) - 1 - _FRAME * len(self._heads))
        if widths is not None and not is_bounded and self._is_wrapped(widths):
            widths = None
        if widths is not None:
            yield self._table(widths)
            return
        yield Text(self._title, style="italic")
        for row in self._rows:
            yield Text()
            yield record("", {head: cell for head, cell in zip(self._heads, row, strict=True) if cell.plain})

    def _table(self, widths: Sequence[int]) -> Table:
        table = Table(title=Text(self._title), show_lines=self._is_wrapped(widths))
        for head, width in zip(self._heads, widths, strict=True):
            table.add_column(Text(head), width=width, overflow="fold")
        for row in self._rows:
            table.add_row(*row)
        return table

    def _is_wrapped(self, widths: Sequence[int]) -> bool:
        return any(cell_len(cell.plain) > width for row in self._rows for cell, width in zip(row, widths, strict=True))

    def _widths(self, room: int) -> list[int] | None:
        """Of the columns; ``None`` where a value would have to be broken in a word, or become a thin tower."""
        columns = [[Text(head), *(row[place] for row in self._rows)] for place, head in enumerate(self._heads)]
        wanted = [max(cell_len(line) for cell in column for line in cell.plain.split("\n")) for column in columns]
        needed = [
            max(min(most, _PROSE), *(cell_len(word) for cell in column for word in cell.plain.split()))
            for column, most in zip(columns, wanted, strict=True)
        ]
        left = room - sum(needed)
        if left < 0:
            return None
        asked = max(1, sum(wanted) - sum(needed))
        share = min(1.0, left / asked)
        return [least + int((most - least) * share) for least, most in zip(needed, wanted, strict=True)]


def _text(value: str | Text) -> Text:
    return value if isinstance(value, Text) else Text(value)

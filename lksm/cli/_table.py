"""Tables as text: aligned and plain, or with rich where standard output is a terminal."""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from typing import NamedTuple
from unicodedata import category, east_asian_width

from ._output import printable


class Column(NamedTuple):
    """A heading, and whether what stands under it are numbers."""

    title: str
    is_number: bool = False


def table(columns: Sequence[Column], rows: Sequence[Sequence[object]]) -> str:
    """The rows under their headings, as lines of text; cells are escaped."""
    cells = [[printable(str(cell)) for cell in row] for row in rows]
    if sys.stdout is not None and sys.stdout.isatty():
        return _rich_table(columns, cells)
    return plain_table(columns, cells)


def plain_table(columns: Sequence[Column], cells: Sequence[Sequence[str]]) -> str:
    """Columns two blanks apart, numbers to the right."""

    def padded(cell: str, width: int, column: Column) -> str:
        blanks = " " * (width - _nr_cells(cell))
        return blanks + cell if column.is_number else cell + blanks

    lines = [[column.title for column in columns], *cells]
    widths = [max(map(_nr_cells, texts)) for texts in zip(*lines, strict=True)]
    return "".join(
        "  ".join(
            padded(cell, width, column) for cell, width, column in zip(line, widths, columns, strict=True)
        ).rstrip()
        + "\n"
        for line in lines
    )


def _nr_cells(text: str) -> int:
    """How many letters wide it is on a terminal: some take two cells, and accents of their own none."""
    if text.isascii():
        return len(text)
    return sum(
        0 if category(letter) in ("Mn", "Me") else 2 if east_asian_width(letter) in "WF" else 1
        for letter in text
    )


def _rich_table(columns: Sequence[Column], cells: Sequence[Sequence[str]]) -> str:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    drawn = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    for column in columns:
        drawn.add_column(Text(column.title), justify="right" if column.is_number else "left", overflow="fold")
    for line in cells:
        drawn.add_row(*map(Text, line))
    width = Console(file=sys.stdout).width
    console = Console(file=io.StringIO(), force_terminal=True, width=width)
    with console.capture() as captured:
        console.print(drawn)
    return captured.get()

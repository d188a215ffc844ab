"""Prints tables, paragraphs and JSON: in colour on a terminal, as plain text elsewhere.

rich draws tables on terminals. Without rich, and in files and pipes, the same rows are plain text
at full width; nothing is cut off.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Sequence
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from rich.console import Console


class Cell(NamedTuple):
    """A cell of a table: its text, of one or more lines, and its style for rich."""

    text: str
    style: str = ""


def console() -> Console | None:
    """Return rich's console of the standard output; None for plain text."""
    try:
        from rich.console import Console
    except ImportError:
        return None
    found = Console(highlight=False)
    return found if found.is_terminal else None


def terminal_width() -> int | None:
    """Return the width in columns of the standard output; None if it is no terminal."""
    rich_console = console()
    if rich_console is not None:
        return rich_console.width
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def print_json(value: Any) -> None:
    """Print a value as strict JSON, in which a NaN is an error."""
    print(json.dumps(value, indent=2, allow_nan=False))


def table_width(headers: Sequence[str], rows: Sequence[Sequence[Cell]]) -> int:
    """Return the width of a table in terminal columns."""
    return sum(_column_widths(headers, rows)) + 2 * (len(headers) - 1)


def print_table(headers: Sequence[str], rows: Sequence[Sequence[Cell]]) -> None:
    """Print a table whose columns are as wide as their widest line."""
    rich_console = console()
    if rich_console is None:
        _print_plain(headers, rows)
        return
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), show_edge=False)
    for header in headers:
        table.add_column(header, overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell.text, style=cell.style) for cell in row))
    rich_console.print(table)


def _column_widths(headers: Sequence[str], rows: Sequence[Sequence[Cell]]) -> list[int]:
    return [
        max(len(line) for text in (header, *(row[i].text for row in rows)) for line in _lines(text))
        for i, header in enumerate(headers)
    ]


def _lines(text: str) -> list[str]:
    return text.splitlines() or [""]


def _print_plain(headers: Sequence[str], rows: Sequence[Sequence[Cell]]) -> None:
    widths = _column_widths(headers, rows)

    def write(texts: Sequence[str]) -> None:
        for cells in zip_longest(*map(_lines, texts), fillvalue=""):
            print("  ".join(map(str.ljust, cells, widths)).rstrip())

    write(headers)
    write(["-" * width for width in widths])
    for row in rows:
        write([cell.text for cell in row])


def paragraph(text: str) -> str:
    """Return a text broken into lines for a terminal; unchanged for a file or pipe."""
    import textwrap

    width = terminal_width()
    if width is None:
        return text
    return textwrap.fill(
        text, max(width, 20), break_long_words=False, break_on_hyphens=False, subsequent_indent="  "
    )

"""What every command shares: where lines go, how tables and JSON are printed, how an error ends."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import polars as pl
    from rich.console import Console

__all__ = ["console", "frame_table", "note", "print_json", "table"]


def console(*, stderr: bool = False) -> Console:
    """The terminal: wide enough for a table when the output is a pipe or a file."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    return Console(stderr=stderr, width=None if stream.isatty() else 160, highlight=False, soft_wrap=False)


def note(line: object) -> None:
    """One line about what is going on, on stderr, so that stdout stays clean for pipes."""
    console(stderr=True).print(str(line), style="dim", markup=False, soft_wrap=True)


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]], caption: str | None = None) -> None:
    """Print a table; numbers stand right, None is an empty cell."""
    from rich.table import Table

    shown = Table()
    content = [list(row) for row in rows]
    for index, column in enumerate(columns):
        numeric = any(isinstance(row[index], int | float) for row in content)
        shown.add_column(column, justify="right" if numeric else "left")
    for row in content:
        shown.add_row(*(_cell(value) for value in row))
    # Not the table's own title and caption: those would be folded to the width of the table.
    to = console()
    to.print(title, style="bold", markup=False)
    to.print(shown)
    if caption is not None:
        to.print(caption, style="dim", markup=False)


def frame_table(title: str, frame: pl.DataFrame, caption: str | None = None) -> None:
    """Print a dataframe as a table."""
    table(title, frame.columns, frame.iter_rows(), caption)


def print_json(value: Any) -> None:
    """Print one JSON document on stdout."""
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False, default=str) + "\n")


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:,.4f}"
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    from rich.markup import escape

    return escape(str(value))

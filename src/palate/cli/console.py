"""What every command shares: where lines go, how tables and JSON are printed, how an error ends."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import polars as pl
    from rich.console import Console

    from palate.experiment.tracking import TrackedRun
    from palate.progress import Progress, ProgressEvent

QUIET_SECONDS = 10.0  # between two plain lines of one stage


def console(*, stderr: bool = False) -> Console:
    """The terminal: wide enough for a table when the output is a pipe or a file."""
    from rich.console import Console

    class Lasting(Console):
        def on_broken_pipe(self) -> None:
            # The reader of the notes went away (`palate train ... 2>&1 | head -4`): the work goes on without notes.
            if not stderr:
                super().on_broken_pipe()
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())

    stream = sys.stderr if stderr else sys.stdout
    return Lasting(stderr=stderr, width=None if stream.isatty() else 160, highlight=False, soft_wrap=False)


def note(line: object) -> None:
    """Print one line on stderr, so that stdout holds results only."""
    console(stderr=True).print(str(line), style="dim", markup=False, soft_wrap=True)


@contextmanager
def show_progress() -> Iterator[Progress]:
    """Render progress on stderr: bars with totals on a terminal, plain lines otherwise.

    A plain line is written for each message and for each new stage; a long stage repeats its count every ten seconds.
    """
    terminal = console(stderr=True)
    if not terminal.is_terminal:
        yield _plain_lines()
        return
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (BarColumn(20), TimeElapsedColumn(), TextColumn("{task.description}", markup=False))
    with Progress(*columns, console=terminal, transient=True) as bars:
        rows: dict[str, Any] = {}

        def draw(event: ProgressEvent) -> None:
            if event.done is None and event.total is None:
                bars.console.print(str(event), style="dim", markup=False, soft_wrap=True)
            elif event.stage in rows and event.done is not None and event.done == event.total:
                # Stages are nested (epochs within models): a finished one must not push the others off the screen.
                bars.remove_task(rows.pop(event.stage))
            else:
                if event.stage not in rows:
                    rows[event.stage] = bars.add_task("")
                bars.update(rows[event.stage], completed=event.done or 0, total=event.total, description=str(event))

        yield draw


def show_place(run: TrackedRun) -> None:
    """Say where a tracked run is, if there is one."""
    if run.place:
        note(f"tracked: {run.place}")


def _plain_lines() -> Progress:
    written: dict[str, float] = {}

    def write(event: ProgressEvent) -> None:
        now = time.monotonic()
        if event.message or now - written.get(event.stage, -QUIET_SECONDS) >= QUIET_SECONDS:
            note(event)
            written[event.stage] = now

    return write


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

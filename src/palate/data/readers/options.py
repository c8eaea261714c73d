"""How a file is read, and what every kind of file is once it is opened."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

import polars as pl

from palate.data.columns import listed
from palate.data.dataset import Note
from palate.errors import DataError

SKIP = "_"
POSITION = "position in the line"  # the column of times of the layout "lines"
Shape = Literal["lines", "wide"]


@dataclass(frozen=True)
class ReadOptions:
    """The arguments about a file, see ``read_table`` and ``read_interactions``; None is found."""

    separator: str | None = None
    encoding: str | None = None
    header: bool | None = None
    names: Sequence[str] | None = None
    query: str | None = None
    table: str | None = None
    layout: Shape | None = None
    missing: float | None = None
    # Whether rows are looked for, so that another layout is pointed out.
    interactions: bool = False
    # Names of columns that were asked for: a first line that has one of them is a header.
    chosen: Sequence[str] = ()


class Table(Protocol):
    """A file, or the answer of a database, of which the columns are known and the rows can be read once.

    Args:
        name: its name in messages.
        names: all columns, in order; "_" for one that is not read.
        untyped: whether all values are text, as they are written in the file.
        line: gives the 1-based line of a 0-based row that was read; None where rows are not lines.
    """

    name: str
    names: list[str]
    untyped: bool
    line: Callable[[int], int] | None

    def batches(self, wanted: Sequence[str]) -> Iterator[pl.DataFrame]:
        """The rows with the columns of ``wanted``, in batches of any size."""

    def notes(self) -> list[Note]:
        """Remarks on the rows that were read."""


@dataclass
class FrameTable:
    """A table that is read as a whole."""

    name: str
    frame: pl.DataFrame
    remarks: list[Note] = field(default_factory=list)
    untyped: bool = False
    line: Callable[[int], int] | None = None

    def __post_init__(self) -> None:
        self.names = self.frame.columns

    def batches(self, wanted: Sequence[str]) -> Iterator[pl.DataFrame]:
        """The frame."""
        yield self.frame.select(wanted)

    def notes(self) -> list[Note]:
        """Remarks that were made when the table was read."""
        return self.remarks


def checked_names(names: Sequence[str] | None, found: list[str], source: str) -> list[str]:
    """The given names, else those found; "_" stands for a column that is not read.

    Raises:
        DataError: their number is wrong, or one occurs twice.
    """
    chosen = found if names is None else list(names)
    if len(chosen) != len(found):
        raise DataError(
            f"{source}: {len(chosen)} names for {len(found)} columns: give one name per column, {SKIP} for one to skip"
        )
    twice = [name for name in dict.fromkeys(chosen) if chosen.count(name) > 1 and name != SKIP]
    if twice:
        raise DataError(
            f"{source}: column {listed(twice)} occurs more than once: name all {len(found)} columns with --columns, "
            f"{SKIP} for one to skip (names=[...])"
        )
    return chosen

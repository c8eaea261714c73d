"""What tables are made of: cells of text, grouped columns, and the numbers of a report as cells."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

__all__ = ["Cell", "Column", "Table", "cells", "interval", "measure", "over_seeds", "shown"]


class Cell(NamedTuple):
    """One cell: its text, a smaller second line, whether it is the best of its column, a class for its looks."""

    text: str
    detail: str = ""
    best: bool = False
    kind: str = ""


class Column(NamedTuple):
    """One column: its label, the group it stands under, whether it holds numbers."""

    label: str
    group: str = ""
    number: bool = True


@dataclass(frozen=True)
class Table:
    """A caption, columns, and rows of one cell per column; the first cell of a row is its heading."""

    caption: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    note: str = ""

    @property
    def groups(self) -> list[tuple[str, int]]:
        """Neighboring columns of the same group: (label, how many); empty where no column has a group."""
        runs: list[tuple[str, int]] = []
        for column in self.columns:
            if runs and runs[-1][0] == column.group:
                runs[-1] = (column.group, runs[-1][1] + 1)
            else:
                runs.append((column.group, 1))
        return runs if any(label for label, _ in runs) else []

    @property
    def starts(self) -> tuple[bool, ...]:
        """Which columns are the first of a group."""
        labels = ["", *(column.group for column in self.columns)]
        return tuple(one != before for before, one in pairwise(labels))


def shown(value: float | None, digits: int = 4) -> str:
    """A number as text, with one decimal at most from 100 on; a dash where there is none."""
    if value is None or math.isnan(value):
        return "–"
    digits = digits if abs(value) < 100 else min(digits, 1)
    return f"{round(value, digits) + 0.0:,.{digits}f}"  # 0.0 is added so that nothing reads -0.0000


def measure(report: dict[str, Any] | None, metric: str, k: int | None) -> dict[str, Any] | None:
    """The measure of that name and k in the dictionary of a report, or None."""
    found = () if report is None else report["measures"]
    return next((one for one in found if one["metric"] == metric and one.get("k") == k), None)


def cells(
    found: Sequence[dict[str, Any] | None], *, lower: bool = False, mark: bool = True, digits: int = 4
) -> list[Cell]:
    """One column of measures, the best of them marked."""
    values = [None if one is None else one["value"] for one in found]
    there = [value for value in values if value is not None]
    best = (min if lower else max)(there) if there and mark and len(there) > 1 else None
    return [
        Cell("–") if one is None else Cell(shown(one["value"], digits), interval(one, digits), one["value"] == best)
        for one in found
    ]


def over_seeds(values: Sequence[float | None], digits: int = 4) -> Cell:
    """The mean over seeds, with the lowest and the highest."""
    there = [value for value in values if value is not None]
    if not there:
        return Cell("–")
    return Cell(shown(sum(there) / len(there), digits), f"{shown(min(there), digits)} to {shown(max(there), digits)}")


def interval(one: dict[str, Any], digits: int = 4) -> str:
    """The ends of an interval as text, empty where there are none."""
    if one.get("low") is None or one.get("high") is None:
        return ""
    return f"{shown(one['low'], digits)} to {shown(one['high'], digits)}"

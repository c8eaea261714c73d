"""Parts of tables: cells of text, grouped columns, numbers as cells; the order and the meaning of the metrics."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

ACCURACY = ("NDCG", "HitRate", "Recall", "Precision", "MRR", "MAP")
BEYOND = ("Coverage", "Novelty", "Diversity", "Popularity", "Gini", "Calibration")
RATINGS = ("RMSE", "MAE", "MSE")

BETTER = {
    **dict.fromkeys(ACCURACY, "higher"),
    **dict.fromkeys(RATINGS, "lower"),
    "Coverage": "higher",
    "Novelty": "depends",
    "Diversity": "depends",
    "Popularity": "depends",
    "Gini": "lower",
    "Calibration": "lower",
}

MEANING = {
    "NDCG": "Rank quality of the held-out items in the list. 1 means they fill the first places; an item further down "
    "counts less, an item outside the list counts 0.",
    "HitRate": "The share of users whose list holds at least one of their held-out items.",
    "Recall": "The share of a user's held-out items that are in the list, averaged over users.",
    "Precision": "The share of the places in the list that hold a held-out item. With one held-out item per user and "
    "ten places it cannot exceed 0.1.",
    "MRR": "1 divided by the place of the first held-out item in the list, 0 if there is none: 0.5 is second place.",
    "MAP": "The precision at the place of each held-out item, averaged: it rewards several hits near the top.",
    "Coverage": "The share of the catalog that is in at least one user's list.",
    "Novelty": "Rarity of the listed items, in bits: an item that one user in 8 has interacted with counts 3 bits.",
    "Diversity": "Dissimilarity of the items of one list by their features, such as genres: 0 if all are alike.",
    "Popularity": "Mean number of training rows of the listed items.",
    "Gini": "Inequality of exposure over the catalog: 0 if every item gets as many places, 1 if one item gets all.",
    "Calibration": "Difference between the genres in a list and in the user's own history (Kullback-Leibler "
    "divergence): 0 if they are the same.",
    "RMSE": "The typical error of a predicted rating, in rating points; large errors weigh more.",
    "MAE": "The average error of a predicted rating, in rating points.",
    "MSE": "The average squared error of a predicted rating.",
}


class Cell(NamedTuple):
    """One cell: its text, a smaller second line, whether it is the best of its column, a CSS class."""

    text: str
    detail: str = ""
    best: bool = False
    kind: str = ""


class Column(NamedTuple):
    """One column: its label, its group, whether it holds numbers."""

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
        # Neighbors only: the heading of a group spans columns that stand side by side.
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
    # A single value would be marked without having beaten another.
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
    # The range and not a deviation, which a few seeds do not support.
    return Cell(shown(sum(there) / len(there), digits), f"{shown(min(there), digits)} to {shown(max(there), digits)}")


def interval(one: dict[str, Any], digits: int = 4) -> str:
    """The ends of an interval as text, empty where there are none."""
    if one.get("low") is None or one.get("high") is None:
        return ""
    return f"{shown(one['low'], digits)} to {shown(one['high'], digits)}"

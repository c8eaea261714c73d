"""The kind of feedback in a column of numbers: ratings on a scale, quantities or 0/1 labels, by its name and values.

    labels      only 0 and 1, or -1 and 1
    quantities  a name such as plays, hours or qty; or values that no rating scale has: a heavy tail, or many distinct
                ones beyond 100
    ratings     the rest

A rating scale is bounded and its users fill it: the highest ratings are at most twice or three times the median. Counts
and durations have no upper end: their 99 % quantile is many times the median.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from palate.data.columns import is_weight
from palate.data.dataset import Note
from palate.data.feedback import Kind, codes, zero_code

TAIL = 4.0  # times the median that the 99 % quantile of quantities reaches at least; of ratings it is below 3
BEYOND = 100.0  # the largest end of common rating scales
DISTINCT = 25  # values beyond that end are quantities if there are more distinct ones
PART = 1 << 20  # rows whose values are counted at a time
STEPS = 10  # a scale of so few values is not called heavy-tailed


class Judged(NamedTuple):
    """The kind of a column, and a note where the values spoke against the name or leave doubt."""

    kind: Kind
    notes: list[Note]


def kind_of(name: str, weights: pl.Series, *, explicit: bool | None = None, weight: bool = False) -> Judged:
    """The kind of the feedback in a column.

    Args:
        name: name of the column.
        weights: (N,) its values, finite float32.
        explicit: True: they are ratings; False: they are not; None: decided by name and values.
        weight: whether the column was named as one of quantities.
    """
    counted = _counted(weights)
    values = counted["value"].to_numpy()
    if explicit:
        return Judged("rating", [])
    if len(values) and np.isin(values, (0, 1)).all() and len(values) == 2:
        return Judged("label", [])
    if len(values) < 2:
        return Judged("none" if values.min(initial=1) > 0 else "quantity", [])
    if weight or is_weight(name) or explicit is False:
        return Judged("quantity", [])
    if values[0] == -1 and values[-1] == 1 and len(values) <= 3:
        return Judged("label", [])
    return _by_values(name, values, counted["count"].to_numpy())


def _counted(weights: pl.Series) -> pl.DataFrame:
    """The distinct values in order, and how many rows have each; counted part by part, which takes little memory."""
    starts = range(0, max(len(weights), 1), PART)
    parts = [weights.slice(first, PART).alias("value").value_counts() for first in starts]
    return pl.concat(parts).group_by("value").agg(pl.col("count").sum()).sort("value")


def _by_values(name: str, values: NDArray[np.float32], counts: NDArray[np.integer[Any]]) -> Judged:
    """The kind of a column whose name says rating, or nothing, by its distinct values in order."""
    n_rows, positive = int(counts.sum()), values > 0
    ends = counts[positive].cumsum()
    # Quantiles, so that one wrong value such as 9999 among ratings does not make a tail.
    median, high = values[positive][ends.searchsorted(ends[-1:] * (0.5, 0.99))] if len(ends) else (1.0, 1.0)
    span = f"column {name!r} holds {values[0]:g} to {values[-1]:g}"
    many = len(values) > STEPS and values[-1] > 10
    # One negative value among counts is a code for "unknown"; a scale with negative ratings has more of them.
    if (values < 0).sum() < 2 and ((many and high >= TAIL * median) or (high > BEYOND and len(values) > DISTINCT)):
        why = f"a heavy tail (median {median:g})" if high >= TAIL * median else f"{len(values):,} different values"
        text = (
            f"{span} with {why}: taken as quantities, not ratings; if they are ratings, pass explicit=True (--explicit)"
        )
        return Judged("quantity", [Note(text, n_rows)])
    ones = float(counts[0] / n_rows)
    whole = bool((values == np.floor(values)).all())
    if values[-1] > BEYOND or (values[0] == 1 and whole and len(values) > 2 and ones > 0.5):
        usual = f"{ones:.0%} of them {values[0]:g}" if ones > 0.5 else f"{len(values):,} different values"
        text = f"{span}, {usual}: taken as ratings; if they are quantities, pass weight={name!r} (--weight {name})"
        return Judged("rating", [Note(text, n_rows)])
    return Judged("rating", [])


def suspects(ratings: pl.Series) -> list[Note]:
    """Notes on ratings that look like codes: -1 or 0 alone below a scale, and rare values far from the others."""
    counted = _counted(ratings)
    values, counts = counted["value"].to_numpy(), counted["count"].to_numpy()
    odd = codes(values, counts)
    scale = values[~odd]
    notes = [
        Note(f"rating {value:g} is far from the others ({scale[0]:g} to {scale[-1]:g}), which give the scale; "
             f"sentinels=({value:g},) (--sentinel {value:g}) drops it if it is none", int(rows))
        for value, rows in zip(values[odd], counts[odd], strict=True)
    ]  # fmt: skip
    first = len(scale) >= 4 and scale[0] in (-1, 0) and scale[1] >= 0.5 and scale[-1] <= 10
    if first and (scale[0] == -1 or zero_code(scale, counts[~odd])[0]):
        text = f"rating {scale[0]:g} looks like a sentinel, not a rating; pass sentinels=({scale[0]:g},) "
        notes.append(Note(f"{text}(--sentinel {scale[0]:g}) to drop it", int(counts[~odd][0])))
    return notes[:5]


def as_truth(column: pl.Series) -> pl.Series:
    """Text that is only true and false, or yes and no, as 1 and 0; any other column unchanged."""
    words = {"true": 1, "false": 0, "yes": 1, "no": 0, "t": 1, "f": 0, "y": 1, "n": 0}
    # Most columns are told by their first values, and are not read to the end.
    for part in (column.head(100), column) if column.dtype == pl.String else ():
        folded = part.str.strip_chars().str.to_lowercase()
        if not (folded.is_in(list(words)) | folded.is_null() | (folded == "")).all() or folded.null_count() == len(
            part
        ):
            return column
    if column.dtype != pl.String or not len(column):
        return column
    return folded.replace_strict(words, default=None, return_dtype=pl.Float64).alias(column.name)

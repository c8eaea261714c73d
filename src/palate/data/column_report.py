"""One line about the columns of a source: which were used as what, and which were not.

columns: user=customer_id item=sku weight=qty (quantity) time=event_time (UTC) · not used: price, event (3 values:
view 81 %, cart 12 %, purchase 7 % - use --event event)
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import polars as pl

from palate.data.columns import EVENTS, Columns, one_line, plain, words
from palate.data.events import USUAL
from palate.data.feedback import Feedback

SAMPLE = 50_000  # rows that the shares of values are counted on
FEW = 12  # distinct values of a column whose values are listed
SHOWN = 12  # unused columns named
# Columns about users, items and devices: their values are no event types.
ABOUT = words(
    "country region state city language lang locale gender sex agegroup age device devicetype platform os browser "
    "currency category categoryname brand genre genres color size department channel source medium segment status "
    "store market"
)[0]


def used_columns(columns: Columns, feedback: Feedback, event_weights: Mapping[str, float]) -> str:
    """The first part of the line: the role of each column in use.

    Args:
        columns: the columns in use.
        feedback: what the weights mean.
        event_weights: the weight of each event type that occurs.
    """
    parts = [f"user={columns.user_id}", f"item={columns.item_id}"]
    if columns.event is not None:
        ordered = sorted(event_weights.items(), key=lambda one: one[1])
        weights = ", ".join(f"{name} {weight:g}" for name, weight in ordered)
        parts.append(f"event={columns.event} ({weights})")
    elif columns.rating is not None and feedback.kind == "rating":
        parts.append(f"rating={columns.rating}")
    elif columns.rating is not None:
        kind = {"label": "0/1 label", "none": "all equal"}.get(feedback.kind, feedback.kind)
        parts.append(f"weight={columns.rating} ({kind})")
    if columns.timestamp is not None:
        parts.append(f"time={columns.timestamp} (UTC)")
    return one_line("columns: " + " ".join(parts))


def unused_columns(table: pl.DataFrame, rows: int) -> str:
    """The second part of the line: the unused columns, with the values of those that may hold event types.

    Args:
        table: the unused columns, or ``SAMPLE`` rows of them.
        rows: number of rows of the source; shares of a part of them are called so.
    """
    if not table.columns:
        return ""
    first = table.head(SAMPLE)
    shown = [_described(first[name], rows) for name in table.columns[:SHOWN]]
    more = [f"{len(table.columns) - SHOWN} more"] if len(table.columns) > SHOWN else []
    return one_line(" · not used: " + ", ".join([*shown, *more]))


def _described(column: pl.Series, rows: int) -> str:
    name = column.name or "''"
    text = column.dtype in (pl.String, pl.Categorical, pl.Enum)
    if not len(column) and plain(name) in EVENTS:  # from a pipe, whose rows are read once
        return f"{name} (event types? use --event {name})"
    if not (text or (column.dtype.is_integer() and plain(name) in EVENTS)) or not len(column):
        return name
    counts = column.cast(pl.String).drop_nulls().rename("value").value_counts(sort=True, name="n")
    if not 2 <= len(counts) <= FEW or counts["n"].max() == 1:
        return name
    values = [str(value) for value in counts["value"]]
    known = plain(name) in EVENTS or any(plain(value) in USUAL for value in values)
    if not known and all(value.strip().lstrip("+-").replace(".", "", 1).isdigit() for value in values):
        return name  # numbers in a text file
    if not known and all(re.match(r"\d{4}[-/.]\d{1,2}[-/.]\d{1,2}", value) for value in values):
        return name  # days
    listed = ", ".join(
        f"{value[:30]} {share:.0%}".replace("%", " %")
        for value, share in zip(values, counts["n"] / counts["n"].sum(), strict=True)
    )
    part = f" in {len(column):,} sampled rows" if len(column) < rows else ""
    hint = "" if plain(name) in ABOUT else f" — use --event {name}" if known else f" — event types? use --event {name}"
    return f"{name} ({len(values)} values{part}: {listed}{hint})"


def _percent(share: float) -> str:
    return f"{share:.0f}" if share >= 1 else f"{share:.1g}"

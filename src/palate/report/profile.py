"""The plots of the audit: what the data look like before any model sees them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import altair as alt

from palate.report.plots import Figure, diagonal, figure

__all__ = ["profile_figures"]

BAR = "#0072B2"
FLAT = 30  # letters that fit side by side under an axis


def profile_figures(profile: dict[str, Any]) -> Iterator[Figure]:
    """Ratings, ratings per user, popularity and activity over time, as far as the audit has them."""
    if profile["ratings"]:
        rows = [{"x": f"{one['value']:g}", "y": one["rows"]} for one in profile["ratings"]]
        yield _bars("Ratings given", rows, "rating", "rows")
    if profile["ratings_per_user"]:
        rows = [{"x": _range(one["low"], one["high"]), "y": one["users"]} for one in profile["ratings_per_user"]]
        yield _bars("Rows per user", rows, "rows of a user", "users")
    if profile["popularity"]:
        yield _concentration(profile["popularity"])
    if profile["activity"]:
        yield _activity(profile["activity"])


def _bars(title: str, rows: list[dict[str, Any]], x: str, y: str) -> Figure:
    flat = sum(len(row["x"]) for row in rows) <= FLAT
    labels = alt.Axis(labelAngle=0) if flat else alt.Axis(labelAngle=-45, labelOverlap="greedy")
    chart = alt.Chart({"values": rows}).mark_bar(color=BAR)
    chart = chart.encode(
        x=alt.X("x:N", sort=None, title=x, axis=labels), y=alt.Y("y:Q", title=y, axis=alt.Axis(format="~s"))
    )
    return figure(title, chart, "; ".join(f"{row['x']}: {row['y']:,} {y}" for row in rows))


def _concentration(points: list[dict[str, Any]]) -> Figure:
    share = alt.Axis(format=".0%", tickCount=5)
    middle = min(points, key=lambda one: abs(one["items"] - 0.5))
    end = "least" if middle["rows"] <= middle["items"] else "most"
    line = alt.Chart({"values": points}).mark_line(color=BAR)
    line = line.encode(
        x=alt.X("items:Q", title=f"share of the items, {end} popular first", axis=share),
        y=alt.Y("rows:Q", title="share of the rows", axis=share),
    )
    words = f"The {end} popular {middle['items']:.0%} of the items have {middle['rows']:.1%} of the rows"
    return figure("How rows are spread over items", alt.layer(diagonal(0, 1, "items", "rows"), line), words)


def _activity(periods: list[dict[str, Any]]) -> Figure:
    starts = [datetime.fromisoformat(one["start"]) for one in periods]
    length = starts[-1] - starts[-2] if len(starts) > 1 else timedelta(days=1)
    # One more point, where the last period ends: otherwise it would have no width.
    rows = [*periods, {"start": (starts[-1] + length).isoformat(), "rows": periods[-1]["rows"]}]
    chart = alt.Chart({"values": rows}).mark_area(color=BAR, opacity=0.75, interpolate="step-after")
    chart = chart.encode(
        x=alt.X("start:T", title=None, scale=alt.Scale(type="utc"), axis=alt.Axis(tickCount=4, format="%b %Y")),
        y=alt.Y("rows:Q", title="rows", axis=alt.Axis(format="~s")),
    )
    busiest = max(periods, key=lambda one: one["rows"])
    words = (
        f"From {periods[0]['start']} to {periods[-1]['start']}; most rows from {busiest['start']}: {busiest['rows']:,}"
    )
    return figure("Activity over time", chart, words)


def _range(low: float, high: float) -> str:
    return f"{low:,}" if low == high else f"{low:,}–{high:,}"

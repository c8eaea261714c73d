"""The plots of a comparison and of the audit of its data.

A model has the same color and marker in every plot; the page holds the key. Colors: Okabe & Ito 2008, with gray for
black and a darker yellow, so that all eight are visible on white and on black.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import altair as alt

from palate.report.cells import measure, shown
from palate.report.figure import GRAY, AnyChart, Figure, diagonal, figure

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#767676", "#A89600")
STAR = "M0,-1.5L.33,-.46L1.42,-.46L.54,.18L.89,1.22L0,.57L-.89,1.22L-.54,.18L-1.42,-.46L-.33,-.46Z"
CROSSING = "M-1.22,-.68L-.68,-1.22L0,-.54L.68,-1.22L1.22,-.68L.54,0L1.22,.68L.68,1.22L0,.54L-.68,1.22L-1.22,.68L-.54,0Z"
HEXAGON = "M0,-1.1L.96,-.55L.96,.55L0,1.1L-.96,.55L-.96,-.55Z"
PENTAGON = "M0,-1.15L1.09,-.36L.68,.93L-.68,.93L-1.09,-.36Z"
# As many as the models of most comparisons, so that a printed page in gray tells them apart.
SHAPES = (
    ("circle", "●"), ("square", "■"), ("triangle-up", "▲"), ("diamond", "◆"), ("cross", "✚"), ("triangle-down", "▼"),
    ("triangle-right", "▶"), (STAR, "★"), (CROSSING, "✖"), ("triangle-left", "◀"), (HEXAGON, "⬢"), (PENTAGON, "⬟"),
)  # fmt: skip
SMALL = 200  # height, in the units of the width
LETTER = 6.8  # width of a letter in a wide font
LINES = r"split(datum.label, '\n')"  # the labels of an axis in lines; their values are folded
CURVES = {"full": ("NDCG", "HitRate", "Recall", "Precision"), "sampled": ("NDCG", "HitRate")}
BAR = "#0072B2"
FLAT = 30  # letters that fit side by side under an axis
RANKING = {"full": "full ranking", "sampled": "sampled candidates"}


@dataclass(frozen=True)
class Marker:
    """The look of a model in every plot: color, Vega shape, and the character that resembles it."""

    color: str
    shape: str
    symbol: str


def markers(names: Sequence[str]) -> dict[str, Marker]:
    """A marker for each model, different ones for up to 24."""
    return {name: Marker(COLORS[place % len(COLORS)], *SHAPES[place % len(SHAPES)]) for place, name in enumerate(names)}


class Plots:
    """The plots of one comparison.

    Args:
        comparison: as ``palate compare`` writes it.
    """

    def __init__(self, comparison: dict[str, Any]) -> None:
        self.comparison = comparison
        self.models: list[dict[str, Any]] = comparison["models"]
        self.k: int = comparison["k"]
        look = markers([one["name"] for one in self.models])
        # Every plot names all models in the same order: a plot that lacks a model would shift the colors of the others.
        colors, shapes = ([getattr(one, name) for one in look.values()] for name in ("color", "shape"))
        self._color = alt.Color("model:N", legend=None, scale=alt.Scale(domain=list(look), range=colors))
        self._shape = alt.Shape("model:N", legend=None, scale=alt.Scale(domain=list(look), range=shapes))

    def forest(self, ranking: str, metric: str = "NDCG") -> Figure | None:
        """Each model's value of a metric with its interval."""
        rows = self._rows(ranking, metric, self.k)
        if not rows:
            return None
        named = [{**row, "label": fold(row["model"])} for row in rows]
        # The same axis for both rankings, which stand side by side.
        every = [row for one in RANKING for row in self._rows(one, metric, self.k)]
        chart = self._intervals(named, f"{metric}@{self.k}", every)
        title = f"{metric}@{self.k}, {RANKING[ranking]}"
        lines = max(row["label"].count("\n") + 1 for row in named)
        return figure(title, chart, _in_words(rows), height=54 + (12 + 13 * lines) * len(rows))

    def by_fold(self, ranking: str, metric: str = "NDCG") -> Figure | None:
        """Each model's value on each split."""
        found = [(one["name"], measure(one[ranking], metric, self.k)) for one in self.models]
        rows = [
            {"model": name, "x": number, "y": value}
            for name, one in found
            if one is not None
            for number, value in enumerate(one["by_fold"], 1)
        ]
        if not rows:
            return None
        lines = self._lines(rows, "split", f"{metric}@{self.k}", "", zero=False)
        words = "; ".join(f"{row['model']}, split {row['x']}: {shown(row['y'])}" for row in rows)
        return figure(f"{metric}@{self.k} by split, {RANKING[ranking]}", lines, words)

    def curves(self) -> Iterator[Figure]:
        """Each metric against the length of the list, full ranking and sampled candidates in plots of their own."""
        lengths = self.comparison["lengths"]
        x = alt.X(
            # Lengths such as 5, 10, 20 and 50 would crowd at the left of a linear scale.
            "k:Q",
            title="length of the list",
            scale=alt.Scale(type="log", nice=False),
            axis=alt.Axis(values=lengths),
        )
        # From 0, so that a small difference does not look large.
        value = alt.Y("value:Q", title=None, axis=alt.Axis(tickCount=5), scale=alt.Scale(domainMin=0))
        for ranking, metrics in CURVES.items():
            for metric in metrics:
                rows = [{"k": k, **row} for k in lengths for row in self._rows(ranking, metric, k)]
                if not rows:
                    continue
                base = alt.Chart({"values": rows}).encode(x=x, color=self._color)
                band = base.mark_area(opacity=0.13).encode(y=alt.Y("low:Q", title=None), y2="high:Q")
                line = base.mark_line(strokeWidth=1.5).encode(y=value)
                # Shapes also tell models apart in gray.
                point = base.mark_point(filled=True, opacity=1, size=40).encode(self._shape, y=value)
                words = f"At length {lengths[-1]}: {_in_words([row for row in rows if row['k'] == lengths[-1]])}"
                yield figure(f"{metric}, {RANKING[ranking]}", alt.layer(band, line, point), words)

    def segments(self, metric: str = "NDCG") -> Iterator[Figure]:
        """A metric by segment of users and of items."""
        found = [(one["name"], part) for one in self.models for part in one["full"].get("segments", ())]
        every = [_span(one) for _, part in found if (one := measure(part, metric, self.k)) is not None]
        for by in dict.fromkeys(part["by"] for _, part in found):
            size = "users" if by.startswith("user") else "rows"
            rows = [
                {"model": name, "label": f"{fold(part['segment'])}\n{part[size]:,} {size}", **_span(value)}
                for name, part in found
                if part["by"] == by and (value := measure(part, metric, self.k)) is not None
            ]
            if rows:
                chart = self._intervals(rows, f"{metric}@{self.k}", every, offset=True)
                height = 54 + len({row["label"] for row in rows}) * max(48, 12 * len(self.models))
                yield figure(f"{metric}@{self.k} by {by}", chart, _in_words(rows), height=height)

    def exposure(self) -> Figure | None:
        """Concentration of the places in the lists on few items, a Lorenz curve."""
        rows = [
            {"model": one["name"], "x": point["items"], "y": point["lists"]}
            for one in self.models
            for point in one["full"].get("exposure", ())
        ]
        if not rows:
            return None
        lines = self._lines(rows, "share of the catalog", "share of the places", ".0%", points=False)
        ginis = [(one["name"], measure(one["full"], "Gini", self.k)) for one in self.models]
        words = "; ".join(f"{name} {shown(gini['value'], 3)}" for name, gini in ginis if gini is not None)
        title = "Concentration of the lists on few items"
        return figure(title, alt.layer(diagonal(0, 1), lines), f"Lorenz curves; Gini of exposure: {words}")

    def popularity(self) -> Figure | None:
        """The share of the lists' places by popularity of the item, beside its share of the users' histories."""
        found = [(one["name"], part) for one in self.models for part in one["full"].get("popularity", ())]
        if not found:
            return None
        rows = [{"model": name, "x": fold(str(part["bin"]), 9), "y": part["lists"]} for name, part in found]
        # The histories are the same for all models: those of the first are drawn.
        past = [{"x": fold(str(part["bin"]), 9), "y": part["history"]} for name, part in found if name == found[0][0]]
        order = list(dict.fromkeys(row["x"] for row in rows))
        x = alt.X("x:N", sort=order, title=None, axis=alt.Axis(labelAngle=0, labelExpr=LINES))
        y = alt.Y("y:Q", title="share of places", axis=alt.Axis(format=".0%"))
        base = alt.Chart({"values": rows}).encode(x=x, y=y, color=self._color)
        history = alt.Chart({"values": past}).mark_line(stroke=GRAY, strokeDash=[5, 4], strokeWidth=3)
        chart = alt.layer(
            history.encode(x=x, y=y), base.mark_line(strokeWidth=1.5), base.mark_point(filled=True).encode(self._shape)
        )
        words = "; ".join(f"{row['model']}, {row['x']}: {row['y']:.0%}" for row in rows)
        return figure("Places in the lists by popularity of the item (dashed: in the histories)", chart, words)

    def training(self) -> Iterator[Figure]:
        """Mean training loss by epoch, one plot per model, since losses of different models do not compare."""
        for one in self.models:
            rows = [
                {"model": one["name"], "x": point["epoch"], "y": point["loss"]}
                for point in one["curve"]
                if point["loss"] is not None
            ]
            if rows:
                lines = self._lines(rows, "epoch", "", "", zero=False)
                words = f"from {shown(rows[0]['y'])} to {shown(rows[-1]['y'])} in {len(rows)} epochs"
                yield figure(one["name"], lines, f"Training loss {words}", height=SMALL)

    def calibration(self) -> Figure | None:
        """Mean actual rating against predicted rating."""
        rows = [
            {"model": one["name"], "x": point["predicted"], "y": point["actual"]}
            for one in self.models
            if one["ratings"] is not None
            for point in one["ratings"].get("calibration", ())
        ]
        if not rows:
            return None
        values = [row[axis] for row in rows for axis in "xy"]
        lines = self._lines(rows, "predicted rating", "mean actual rating", ".1f", zero=False)
        words = "; ".join(f"{row['model']} predicted {row['x']:.2f}, actual {row['y']:.2f}" for row in rows)
        return figure(
            "Predicted and actual ratings", alt.layer(diagonal(min(values), max(values)), lines), words, height=300
        )

    def _rows(self, ranking: str, metric: str, k: int) -> list[dict[str, Any]]:
        """One row per model that has the measure."""
        found = [(one["name"], measure(one[ranking], metric, k)) for one in self.models]
        return [{"model": name, **_span(value)} for name, value in found if value is not None]

    def _intervals(
        self, rows: list[dict[str, Any]], title: str, every: list[dict[str, Any]], *, offset: bool = False
    ) -> AnyChart:
        """Values with intervals side by side, one line or group of lines per label; the axis holds ``every`` value."""
        labels = list(dict.fromkeys(row["label"] for row in rows))
        # A fixed width for the labels, with room for wide fonts: Vega measures with a font that the reader may lack.
        room = LETTER * max(len(line) for label in labels for line in label.split("\n"))
        axis = alt.Axis(labelExpr=LINES, minExtent=room, maxExtent=room, labelLimit=400, ticks=False, domain=False)
        y = alt.Y("label:N", sort=labels, title=None, axis=axis)
        base = alt.Chart({"values": rows}).encode(y=y, color=self._color)
        if offset:
            base = base.encode(yOffset=alt.YOffset("model:N", sort=[one["name"] for one in self.models]))
        # Not from 0: intervals are to be compared, and would shrink to dots.
        ends = [min(row["low"] for row in every), max(row["high"] for row in every)]
        scale = alt.Scale(zero=False, padding=6, domain=ends) if ends[0] < ends[1] else alt.Scale(zero=False, padding=6)
        x = alt.X("value:Q", title=title, scale=scale, axis=alt.Axis(tickCount=4))
        rule = base.mark_rule(strokeWidth=2).encode(x=alt.X("low:Q", title=title), x2="high:Q")
        return alt.layer(rule, base.mark_point(filled=True, size=55, opacity=1).encode(self._shape, x=x))

    def _lines(
        self, rows: list[dict[str, Any]], x: str, y: str, form: str, *, points: bool = True, zero: bool = True
    ) -> AnyChart:
        axis = alt.Axis(format=form, tickCount=5) if form else alt.Axis(tickCount=5)
        last = max(row["x"] for row in rows)
        # Epochs are whole numbers: Vega would put ticks between them.
        whole = axis if form else alt.Axis(values=list(range(0, int(last) + 1, max(1, int(last) // 5))), format="d")
        base = alt.Chart({"values": rows}).encode(
            x=alt.X("x:Q", title=x, axis=whole, scale=alt.Scale(zero=zero, nice=False)),
            y=alt.Y("y:Q", title=y or None, axis=axis, scale=alt.Scale(zero=zero)),
            color=self._color,
        )
        line = base.mark_line(strokeWidth=1.5)
        return (
            alt.layer(line, base.mark_point(filled=True, opacity=1).encode(self._shape)) if points else alt.layer(line)
        )


def fold(label: str, width: int = 20) -> str:
    """A label in lines, the way ``LINES`` reads it; a long one is cut."""
    return "\n".join(textwrap.wrap(label, width, max_lines=3, placeholder=" …"))


def _span(one: dict[str, Any]) -> dict[str, Any]:
    """The value and its interval; a point where there is no interval."""
    ends = {end: one["value"] if one.get(end) is None else one[end] for end in ("low", "high")}
    return {"value": one["value"], **ends}


def _in_words(rows: Sequence[dict[str, Any]]) -> str:
    return "; ".join(
        " ".join([row["model"], *row.get("label", "").split("\n")]).strip()
        + f" {shown(row['value'])} ({shown(row['low'])} to {shown(row['high'])})"
        for row in rows
    )


def profile_figures(profile: dict[str, Any]) -> Iterator[Figure]:
    """Ratings, ratings per user, popularity and activity over time, as far as the audit has them."""
    if profile["ratings"]:
        rows = [{"x": f"{one['value']:g}", "y": one["rows"]} for one in profile["ratings"]]
        name = profile.get("weights", "rating")
        yield _bars(f"Values of {name}", rows, name, "rows")
    if profile["ratings_per_user"]:
        rows = [
            {
                "x": f"{one['low']:,}" if one["low"] == one["high"] else f"{one['low']:,}–{one['high']:,}",
                "y": one["users"],
            }
            for one in profile["ratings_per_user"]
        ]
        yield _bars("Rows per user", rows, "rows of a user", "users")
    if profile["popularity"]:
        points = profile["popularity"]
        share = alt.Axis(format=".0%", tickCount=5)
        middle = min(points, key=lambda one: abs(one["items"] - 0.5))
        line = alt.Chart({"values": points}).mark_line(color=BAR)
        line = line.encode(
            x=alt.X("items:Q", title="share of the items, least popular first", axis=share),
            y=alt.Y("rows:Q", title="share of the rows", axis=share),
        )
        words = f"The least popular {middle['items']:.0%} of the items have {middle['rows']:.1%} of the rows"
        chart = alt.layer(diagonal(0, 1, "items", "rows"), line)
        yield figure("Concentration of the rows on few items", chart, words)
    if profile["activity"]:
        yield _activity(profile["activity"])


def _bars(title: str, rows: list[dict[str, Any]], x: str, y: str) -> Figure:
    flat = sum(len(row["x"]) for row in rows) <= FLAT
    # Many labels are turned, and thinned out, before they overlap.
    labels = alt.Axis(labelAngle=0) if flat else alt.Axis(labelAngle=-45, labelOverlap="greedy")
    chart = alt.Chart({"values": rows}).mark_bar(color=BAR)
    chart = chart.encode(
        x=alt.X("x:N", sort=None, title=x, axis=labels), y=alt.Y("y:Q", title=y, axis=alt.Axis(format="~s"))
    )
    return figure(title, chart, "; ".join(f"{row['x']}: {row['y']:,} {y}" for row in rows))


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

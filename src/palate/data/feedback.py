"""Feedback: which rows are positive (liked, bought, played) and which are only known to have been seen.

    ratings    positive: a rating at or above a threshold, found from the scale ("auto") or given
    others     positive: a weight above 0; 0 is shown but not chosen, below 0 is returned or disliked

Every row is *seen*, so its item is not recommended again. Only positive rows are learned as positives by ranking
recipes and count as relevant in evaluation. The threshold of "auto" lies three quarters up the scale, which is 4 on a
scale from 1 to 5, 8 from 1 to 10, 3.5 from 0.5 to 4, 75 from 0 to 100, 5 from -10 to 10 and 1 for 0/1 and -1/1.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from palate.errors import DataError

Kind = Literal["rating", "quantity", "event", "label", "none"]
MinRating = float | Literal["auto", "any"]

POSITION = 0.75  # of the threshold between the ends of the scale
SCALES = {5.0: 1.0, 10.0: 1.0, 100.0: 0.0}  # highest and lowest rating of common scales
RARE = 0.1  # of the rows, values far off the scale at most; more of them may be its other half
FEW = 101  # distinct ratings of a scale with steps, at most; above, it is continuous


@dataclass(frozen=True)
class Feedback:
    """The meaning of the weights of a data set.

    Args:
        kind: "rating" on a scale, "quantity" (plays, hours, pieces), "event" (a weight per type of event), "label"
            (0/1) or "none" (the source has no such column, every weight is 1).
        min_rating: rows of this weight or more are positive. None: every rating is positive ("any"); for the other
            kinds, every weight above 0.
        column: name of the column in the source, or None.
        lowest: the low end of a scale that goes below 0, else 0. Weights below it are dislikes, in any kind of data.
    """

    kind: Kind = "none"
    min_rating: float | None = None
    column: str | None = None
    lowest: float = 0.0

    @classmethod
    def of(
        cls, kind: Kind, weights: NDArray[Any], min_rating: MinRating = "auto", column: str | None = None
    ) -> Feedback:
        """The rule for these weights.

        Args:
            kind: kind of the weights.
            weights: (N,) weights of the rows.
            min_rating: "auto" finds the threshold of ratings from their scale; "any" makes every rating positive; a
                number is the threshold itself.
            column: name of the column.

        Raises:
            DataError: ``min_rating`` is no such value, or no row is as high.
        """
        chosen = as_min_rating(min_rating)
        lowest = min(0.0, float(weights.min(initial=0.0))) if kind == "rating" else 0.0
        if chosen == "any" or (chosen == "auto" and kind != "rating"):
            return cls(kind, None, column, lowest)
        if chosen == "auto":
            return cls(kind, threshold(weights), column, lowest)
        highest = weights.max(initial=-np.inf)
        if len(weights) and np.float32(chosen) > highest:
            raise DataError(
                f"min_rating={chosen:g} leaves no positive row (highest value {highest:g}, {len(weights):,} rows): "
                "lower min_rating (--min-rating), or leave it out"
            )
        return cls(kind, float(chosen), column, lowest)

    def positive(self, weights: Any) -> Any:
        """Which weights are positive: an array or tensor of bool in the shape of ``weights``."""
        if self.min_rating is not None:
            return weights >= self.min_rating
        return weights >= self.lowest if self.kind == "rating" else weights > 0

    def disliked(self, weights: Any) -> Any:
        """Which weights are dislikes rather than ratings or counts: those below 0, or below the scale."""
        return weights < self.lowest

    def as_learned(self, weights: NDArray[Any]) -> NDArray[Any]:
        """Weights in which only dislikes are below 0: a positive rating on a scale that goes below 0 is made 1."""
        liked = (weights < 0) & self.positive(weights) if self.kind == "rating" else np.zeros(len(weights), np.bool_)
        return np.where(liked, np.float32(1), weights) if liked.any() else weights

    @property
    def rule(self) -> str:
        """The rule in words: "rating at least 4"."""
        name = "rating" if self.kind == "rating" else "weight"
        if self.min_rating is not None:
            return f"{name} at least {self.min_rating:g}"
        return "any rating" if self.kind == "rating" else "weight above 0"

    def record(self) -> dict[str, Any]:
        """All of it, ready for JSON; ``Feedback(**record)`` is the same."""
        return asdict(self)


NO_WEIGHTS = Feedback()


def far_off(values: NDArray[Any], counts: NDArray[Any]) -> NDArray[np.bool_]:
    """Mask of the values at both ends beyond a gap wider than the range of the values with most of the rows.

    Args:
        values: (V,) distinct values, ascending.
        counts: (V,) rows of each.
    """
    low, high = 0, len(values)
    # Codes may be at both ends (-999 and 99), so the widest gap is cut repeatedly, keeping the side with more rows.
    while high - low > 3:
        gaps = np.diff(values[low:high])
        cut = low + int(np.argmax(gaps)) + 1
        below = counts[low:cut].sum() > counts[cut:high].sum()
        bulk = slice(low, cut) if below else slice(cut, high)
        if gaps.max() <= np.ptp(values[bulk]) or bulk.stop - bulk.start < 3:
            break
        low, high = bulk.start, bulk.stop
    place = np.arange(len(values))
    return (place < low) | (place >= high)


def zero_code(values: NDArray[Any], counts: NDArray[Any]) -> NDArray[np.bool_]:
    """Mask of 0 if it is the most frequent rating or not on the scale of the others: a code for "not rated"."""
    above = values[values > 0]
    if 0 not in values or len(above) < 3:
        return np.zeros(len(values), np.bool_)
    steps = np.diff(above.astype(np.float64)) / np.diff(above).min()
    if len(values) > FEW or not np.allclose(steps, np.round(steps), atol=0.01):
        return np.zeros(len(values), np.bool_)  # a continuous scale: 0 is a value like any other
    # On a scale of half stars the lowest rating is one step above 0, so a 0 would be on the scale.
    uneven = not np.isclose(above[0], np.diff(above).min())
    return np.asarray((values == 0) & (uneven or counts[values == 0][0] == counts.max()))


def codes(values: NDArray[Any], counts: NDArray[Any]) -> NDArray[np.bool_]:
    """Mask of the rare values that are no part of the scale: a 99 or a mistyped 55 among ratings from 1 to 5."""
    far = far_off(values, counts)
    return far if far.any() and counts[far].sum() <= RARE * counts.sum() else np.zeros(len(values), np.bool_)


def as_min_rating(value: object) -> MinRating:
    """ "auto", "any" or a finite number, also written as text.

    Raises:
        DataError: it is none of these.
    """
    if isinstance(value, str) and value in ("auto", "any"):
        return value  # type: ignore[return-value]
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        number = np.nan
    if isinstance(value, bool) or not np.isfinite(number):
        raise DataError(f"min_rating={value!r}: must be auto, any or a number (--min-rating)")
    return number


def threshold(ratings: NDArray[Any]) -> float | None:
    """The lowest positive rating of the scale of these ratings; None where all are equal and tell of no scale.

    The scale reaches from the lowest to the highest rating. Ratings that end at 5, 10 or 100 are taken as a scale from
    1, 1 or 0, because the low end may be missing. The threshold is rounded up to a step of the scale, at most 1.
    """
    counted = pl.Series("value", ratings).value_counts().sort("value")  # first, since there may be many rows
    distinct, counts = counted["value"].to_numpy().astype(np.float64), counted["count"].to_numpy()
    known = np.isfinite(distinct)
    values = np.unique(np.round(distinct[known & ~codes(distinct, counts)], 4))
    if not len(values) or (len(values) == 1 and values[0] not in SCALES):
        return None
    # -1 or 0 alone below a half or one is a code for "not rated", or rare enough not to be the end of the scale.
    low = values[1] if len(values) >= 4 and values[0] in (-1, 0) and values[1] >= 0.5 else values[0]
    high = values[-1]
    low = min(low, SCALES.get(high, low))
    point = low + POSITION * (high - low)
    if len(values) > FEW:
        return float(point)
    step = np.diff(values).min(initial=1.0)
    return round(float(low + np.ceil(round((point - low) / step, 6)) * step), 6)

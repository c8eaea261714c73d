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
    distinct = pl.Series(ratings).unique().to_numpy().astype(np.float64)  # first, since there may be many rows
    values = np.unique(np.round(distinct[np.isfinite(distinct)], 4))
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

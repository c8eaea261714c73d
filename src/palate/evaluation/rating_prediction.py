"""Evaluation of predicted ratings: MSE, RMSE and MAE with intervals, known and cold rows apart.

    report = evaluate_ratings(model, split)
    report.value("RMSE"), report.cold.rows

Intervals are over rows, because a rating error belongs to a row and not to the list of a user: percentile bootstrap of
the mean squared error, whose root is the interval of the RMSE, and of the mean absolute error.

Shape legend: N test rows, B users of a chunk, C candidates (one per row of a chunk: 1).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from palate.base import PredictsRatings, Query, device_of
from palate.data.splits.split import Split
from palate.errors import EvaluationError, ModelError
from palate.evaluation.checks import check_model
from palate.evaluation.intervals import intervals
from palate.evaluation.tables import Plain, Tabular, plain

CHUNK_ROWS = 1 << 14
CALIBRATION_BINS = 10
METRICS = ("MSE", "RMSE", "MAE")

Fallback = Literal["item mean", "user mean", "mean"]
FALLBACKS: tuple[Fallback, ...] = ("item mean", "user mean", "mean")


@dataclass(frozen=True)
class RatingMeasure(Plain):
    """One error with its 95 % interval over rows (NaN where there are fewer than two)."""

    metric: str
    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Slice(Plain):
    """The errors on some of the test rows; no measures where there are no rows."""

    rows: int
    measures: tuple[RatingMeasure, ...]

    def value(self, metric: str) -> float:
        """The value of one error; NaN where there are no rows.

        Raises:
            EvaluationError: there is no such metric.
        """
        if metric not in METRICS:
            raise EvaluationError(f"{metric} is not measured for ratings: there are {', '.join(METRICS)}")
        return next((one.value for one in self.measures if one.metric == metric), float("nan"))


@dataclass(frozen=True, repr=False)
class RatingsReport(Tabular):
    """Errors of predicted ratings of one model on one split, and everything needed to know what they mean.

    Args:
        model: name of the model.
        data: name of the data set.
        protocol: how the rows were split, in words.
        all: all test rows, cold ones predicted by the fallback.
        known: rows whose user and item have training rows, predicted by the model.
        cold: rows of a user or an item unknown to training, predicted by the fallback.
        fallback: the predictions of cold rows, in words.
        fingerprints: of "train" and "split".
        seconds: time for predicting.
        predicted: (N,) predictions in the order of the test rows.
        calibration: (mean prediction, mean rating, rows) of the known rows in tenths by prediction, lowest first;
            where predictions are calibrated the two means are equal.
    """

    model: str
    data: str
    protocol: str
    all: Slice
    known: Slice
    cold: Slice
    fallback: str
    fingerprints: dict[str, str]
    seconds: float
    predicted: NDArray[np.float64] = field(repr=False)
    calibration: tuple[tuple[float, float, int], ...] = field(default=(), repr=False)

    def value(self, metric: str) -> float:
        """The error over all rows."""
        return self.all.value(metric)

    def measure(self, metric: str) -> RatingMeasure:
        """The error over all rows with its interval.

        Raises:
            EvaluationError: there is no such metric.
        """
        self.all.value(metric)
        return next(one for one in self.all.measures if one.metric == metric)

    def rows(self) -> list[dict[str, Any]]:
        """One row per error over all test rows that keeps its meaning outside of this report, as in a bundle."""
        facts = {"k": None, "rows": self.all.rows, "protocol": self.protocol}
        return [{"model": self.model, **row, **facts} for row in plain(self.all.measures)]

    def __repr__(self) -> str:
        numbers = ", ".join(
            f"{one.metric} {one.value:.4f} ({one.low:.4f} to {one.high:.4f})" for one in self.all.measures
        )
        return f"<RatingsReport of {self.model} on {self.data}: {self.all.rows:,} rows\n  {numbers}\n  {self.protocol}>"

    def to_dict(self) -> dict[str, Any]:
        """Everything but the predictions, ready for JSON."""
        names = ("model", "data", "protocol", "fallback", "fingerprints", "seconds", "all", "known", "cold")
        return {
            **{name: plain(getattr(self, name)) for name in names},
            "calibration": [dict(zip(("predicted", "actual", "rows"), one, strict=True)) for one in self.calibration],
        }


def evaluate_ratings(
    model: PredictsRatings,
    split: Split,
    *,
    name: str | None = None,
    fallback: tuple[Fallback, ...] = FALLBACKS,
    allow_trained_rows: bool = False,
    resamples: int = 1_000,
) -> RatingsReport:
    """Measure how far the model's ratings are from those of the test rows.

    Args:
        model: predicts by the row numbers of the split.
        split: made with ``cold="keep"`` if rows of unknown users and items shall count.
        name: for the report. Default: the class of the model.
        fallback: prediction of a cold row, the first that the training rows have: the mean of its item, of its user,
            or of all rows (always last). Default: in this order.
        allow_trained_rows: measure even if the model was trained on test rows. Default: False.
        resamples: number of bootstrap resamples; 0 gives no intervals. Default: 1,000.

    Raises:
        LeakError: the model was trained on test rows.
        EvaluationError: no test rows, or the data are not ratings.
        ModelError: the model predicts no ratings, or NaN.
    """
    check_model(model, split, allow_trained_rows)
    if not split.train.explicit:
        raise EvaluationError(f"{split.train.name} has no ratings to predict: use evaluate, which measures lists")
    if unknown := set(fallback) - set(FALLBACKS):
        raise EvaluationError(f"fallback={sorted(unknown)}: choose from {', '.join(FALLBACKS)}")
    if not isinstance(model, PredictsRatings):
        raise ModelError(f"{type(model).__name__} predicts no ratings: use MF, SVDpp, BMF or the means")
    begin = time.perf_counter()
    train, test = split.train.interactions, split.test.interactions
    seen_user = np.bincount(train.user, minlength=split.train.n_users) > 0
    seen_item = np.bincount(train.item, minlength=split.train.n_items) > 0
    # A row of a user or an item without training rows is no test of the model: the fallback predicts it.
    known = seen_user[test.user] & seen_item[test.item]
    predicted = _means(split, fallback)
    predicted[known] = _predicted(model, split, np.flatnonzero(known))
    seconds = time.perf_counter() - begin
    error = predicted - test.weight
    return RatingsReport(
        model=name or type(model).__name__,
        data=split.test.name,
        protocol=split.how,
        all=_slice(error, resamples),
        known=_slice(error[known], resamples),
        cold=_slice(error[~known], resamples),
        fallback=", else ".join(dict.fromkeys((*fallback, "mean"))),
        fingerprints={"train": split.train.fingerprint.digest, "split": split.fingerprint},
        seconds=seconds,
        predicted=predicted,
        calibration=_calibration(predicted[known], test.weight[known]),
    )


def rating_validation_callback(validation: Split) -> Callable[[Any], float]:
    """A validation callback for ``TrainOptions``: minus the MSE on the test rows of ``validation``."""
    return lambda model: -evaluate_ratings(model, validation, resamples=0).value("MSE")


def _predicted(model: PredictsRatings, split: Split, rows: NDArray[np.int64]) -> NDArray[np.float64]:
    """The model's ratings of some test rows, user by user in chunks, so that a history is folded in at most twice."""
    test = split.test.interactions
    order = rows[np.argsort(test.user[rows], kind="stable")]
    device = device_of(model)
    result = np.empty(len(test))
    for first in range(0, len(order), CHUNK_ROWS):
        part = order[first : first + CHUNK_ROWS]
        users, row = np.unique(test.user[part], return_inverse=True)
        place = np.arange(len(part)) - np.searchsorted(row, row)  # rows are grouped by user
        items = np.zeros((len(users), place.max() + 1), np.int64)
        items[row, place] = test.item[part]
        query = Query.of(users, split.train.history.select(users), every_event=True)
        with torch.inference_mode():
            ratings = model.predict(query.to(device), torch.from_numpy(items).to(device)).double().cpu().numpy()
        result[part] = ratings[row, place]
    chosen = result[rows]
    if np.isnan(chosen).any():
        raise ModelError(f"the model gave NaN for {int(np.isnan(chosen).sum())} ratings: it did not train well")
    return chosen


def _means(split: Split, fallback: tuple[Fallback, ...]) -> NDArray[np.float64]:
    """The fallback's prediction of every test row, (N,)."""
    train, test = split.train.interactions, split.test.interactions
    result = np.full(len(test), np.nan)
    for kind in fallback:
        if kind == "mean":  # every row has it: nothing behind it could be asked
            break
        by = "item" if kind == "item mean" else "user"
        group, n = getattr(train, by), getattr(split.train, f"n_{by}s")
        count = np.bincount(group, minlength=n)
        mean = np.bincount(group, train.weight, minlength=n) / np.maximum(count, 1)
        # A group without training rows stays NaN, for the next fallback to fill.
        result = np.where(np.isnan(result), np.where(count > 0, mean, np.nan)[getattr(test, by)], result)
    return np.where(np.isnan(result), train.weight.mean(dtype=np.float64), result)


def _slice(error: NDArray[np.float64], resamples: int) -> Slice:
    if not len(error):
        return Slice(0, ())
    # Both columns share each resample, so that one pass draws for both.
    each = np.column_stack([np.square(error), np.abs(error)])
    bounds = intervals(each, resamples=resamples) if resamples else np.full((2, 2), np.nan)
    square, absolute = np.column_stack([[column.mean() for column in each.T], bounds])
    # The root is monotone: the ends of the interval of the MSE give those of the RMSE.
    numbers = zip(METRICS, (square, np.sqrt(square), absolute), strict=True)
    return Slice(len(error), tuple(RatingMeasure(metric, *triple.tolist()) for metric, triple in numbers))


def _calibration(predicted: NDArray[np.float64], actual: NDArray[np.float32]) -> tuple[tuple[float, float, int], ...]:
    """Bins of about equal size by prediction; equal predictions share one."""
    if not len(predicted):
        return ()
    # Equal predictions give equal edges, and become one bin.
    edges = np.unique(np.quantile(predicted, np.arange(1, CALIBRATION_BINS) / CALIBRATION_BINS))
    place = np.searchsorted(edges, predicted)
    rows = np.bincount(place)
    means = (np.bincount(place, values)[rows > 0] / rows[rows > 0] for values in (predicted, actual))
    return tuple(zip(*(column.tolist() for column in (*means, rows[rows > 0])), strict=True))

"""One fit and what is measured of it: the step that comparing, tuning baselines and reproducing have in common."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from palate.base import PredictsRatings, Recipe, Trainable, TrainOptions
from palate.bounds import Count, Seed, check_fields
from palate.data.dataset import Dataset
from palate.data.splits.split import Split
from palate.errors import EvaluationError
from palate.evaluation.collapse import collapse
from palate.evaluation.evaluate import evaluate, validation_callback
from palate.evaluation.rating_prediction import RatingsReport, evaluate_ratings
from palate.evaluation.report import Report
from palate.experiment.validation import validation_split
from palate.progress import Progress, ProgressEvent

RANKINGS = ("full", "sampled")
LENGTHS = (1, 5, 10, 20, 50)
ROW_RESAMPLES = 1_000  # of rows, which are many more than users: enough for three digits


@dataclass(frozen=True)
class CompareOptions:
    """The protocol of a comparison, the same for all models.

    Args:
        k: list length of the metric that decides.
        lengths: other list lengths to measure.
        seeds: each model is fitted once with each.
        patience: of recipes trained by gradient descent, epochs without a better NDCG@k on validation rows before
            training stops. None trains for all epochs.
        refit: with ``patience``, fit again on all training rows for the best number of epochs; False keeps the fit
            that the validation rows are missing from.
        resamples: of intervals and tests.
        memory: bound of the evaluation beside model and data, such as "512MB"; None for its default.
        device, precision, threads: as in ``palate.TrainOptions``.
    """

    k: Count = 10
    lengths: tuple[Count, ...] = LENGTHS
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1)] = (0,)
    patience: Count | None = None
    refit: bool = True
    resamples: Count = 10_000
    memory: str | None = None
    device: Any = "auto"
    precision: Any = "32-true"
    threads: int | None = None

    def __post_init__(self) -> None:
        check_fields(self, "options of a comparison", EvaluationError)
        if len(set(self.seeds)) < len(self.seeds):
            raise EvaluationError(f"seeds={list(self.seeds)}: give each once")
        object.__setattr__(self, "lengths", tuple(sorted({*self.lengths, self.k})))

    def training(self, seed: int, progress: Progress) -> TrainOptions:
        """The training options of one fit."""
        return TrainOptions(seed, self.device, self.precision, self.threads, progress)


@dataclass(frozen=True)
class Fitted:
    """A fitted model with its measurements.

    Args:
        model: None if it stayed in another process.
        seconds: of training.
        memory: peak of the process at the end of training, in MB; None where the system does not tell.
        curve: epoch and mean training loss of recipes that report them.
        reports: by ranking, "full" and "sampled".
        ratings: errors of predicted ratings, where the data are ratings and the model predicts them.
        findings: signs that the model has collapsed, in sentences (see ``collapse``).
        stopped: the outcome of early stopping in words.
    """

    model: Any = field(repr=False)
    seconds: float
    memory: float | None
    curve: list[dict[str, float]]
    reports: dict[str, Report]
    ratings: RatingsReport | None = None
    findings: tuple[str, ...] = ()
    stopped: str | None = None


def fit_timed(recipe: Recipe[Any], train: Dataset, options: TrainOptions, **more: Any) -> tuple[Any, float]:
    """The fitted model and the seconds that training took; ``more`` is passed to the recipe."""
    begin = time.perf_counter()
    model = recipe.fit(train, options, **more)
    return model, time.perf_counter() - begin


@dataclass(frozen=True)
class Stopped:
    """The outcome of early stopping.

    Args:
        model: fitted on all rows for ``epochs`` epochs, or, without a refit, the best epoch on a part of the rows.
        validation: the split of the training rows that the epochs were measured on.
        epochs: the best number of them; None where the recipe does not tell its value after each epoch.
        value: NDCG@k on the validation rows after these.
        refitted: whether the model is fitted on all rows.
    """

    model: Any
    validation: Split
    epochs: int | None
    value: float | None
    refitted: bool

    @property
    def words(self) -> str:
        """What was done, in one line."""
        rows = f"{len(self.validation.test):,} validation rows ({self.validation.how})"
        if self.epochs is None:
            return f"early stopping has no effect: this recipe is not measured epoch by epoch ({rows} not used)"
        found = f"early stopping: epoch {self.epochs} is the best on {rows}, value {self.value:.4f}"
        return f"{found}; " + (
            f"fitted again on all rows with epochs={self.epochs}" if self.refitted else "these rows are not trained on"
        )


def fit_until_worse(
    recipe: Recipe[Any],
    rows: Dataset | Split,
    options: TrainOptions,
    patience: int,
    k: int = 10,
    *,
    refit: bool = True,
) -> Stopped:
    """Early stopping: fit on a part of the training rows until NDCG@k on the rest stops getting better.

    Args:
        recipe: one that calls the validation callback after each epoch.
        rows: training rows, or a split, whose training rows are split again as its test rows were held out.
        options: seed, device and the like; the second fit has the folder "all-rows" in that of the first.
        patience: epochs without a better value before training stops.
        k: list length.
        refit: fit again on all training rows for the best number of epochs. False keeps the best epoch of the first
            fit, which the validation rows are missing from. Recipes without such a number are fitted on all rows. With
            the validation rows of a split nothing is left to fit again on: the best epoch is kept.
    """
    inner = validation_split(rows, seed=options.seed)
    train = rows if isinstance(rows, Dataset) else rows.train
    refit = refit and inner.train is not train  # validation rows that were given are no training rows
    recipe = recipe.for_data(train)
    measure, values = validation_callback(inner, k=k), list[float]()

    def watched(model: Any) -> float:
        values.append(measure(model))
        return values[-1]

    model = recipe.fit(inner.train, replace(options, validation_callback=watched, patience=patience))
    best = int(np.argmax(values)) + 1 if values else None
    # The n-th value is that of a fit with epochs=n, but for descent, which measures every fiftieth iteration.
    by_epoch = hasattr(recipe, "epochs") and getattr(recipe, "optimizer", None) != "descent"
    counted = best is not None and by_epoch
    if not refit or not (counted or best is None):
        return Stopped(model, inner, best, max(values, default=None), False)
    again = replace(options, folder=None if options.folder is None else options.folder / "all-rows")
    chosen = replace(recipe, epochs=best) if counted else recipe  # type: ignore[call-arg]
    return Stopped(chosen.fit(train, again), inner, best, max(values, default=None), True)


def fit_and_measure(
    recipe: Recipe[Any],
    split: Split,
    options: TrainOptions,
    *,
    k: int | Sequence[int] = 10,
    stop: tuple[int, int] | None = None,
    refit: bool = True,
    rankings: Sequence[str] = RANKINGS,
    name: str | None = None,
    resamples: int = 1_000,
    memory: str | None = None,
    details: bool = False,
) -> Fitted:
    """Fit a recipe on the training rows of a split and measure it on the test rows.

    Args:
        recipe: what is fitted.
        split: training rows, test rows and, for sampled metrics, candidates.
        options: seed, device and the like.
        k: list lengths.
        stop: patience and list length of early stopping, for recipes trained by gradient descent.
        refit: fit again on all rows after early stopping.
        rankings: which to measure; "sampled" only where the split has candidates.
        name: of the model in the reports; the name of the recipe otherwise.
        resamples: of intervals by bootstrap.
        memory: bound of the evaluation, such as "512MB".
        details: also keep the training loss of each epoch, and measure predicted ratings.
    """
    curve: list[dict[str, float]] = []

    def progress(event: ProgressEvent) -> None:
        if event.done is not None and "loss" in event.values:
            curve.append({"epoch": event.done, **event.values})
        options.progress(event)

    # Only where it is wanted: for some recipes the training loss is one more pass over all rows.
    heard = replace(options, progress=progress) if details else options
    begin, stopped = time.perf_counter(), None
    if stop is not None and by_gradient_descent(recipe):
        outcome = fit_until_worse(recipe, split, heard, *stop, refit=refit)
        model, stopped = outcome.model, outcome.words
    else:
        model = recipe.fit(split.train, heard)
    seconds, peak = time.perf_counter() - begin, _peak_mb()
    listed = {"full": None, "sampled": split.candidates}
    common: dict[str, Any] = {"k": k, "name": name or recipe.name, "resamples": resamples, "memory": memory}
    reports = {
        ranking: evaluate(model, split, candidates=listed[ranking], **common)
        for ranking in rankings
        if ranking == "full" or split.candidates is not None
    }
    ratings = None
    if details and split.test.explicit and isinstance(model, PredictsRatings):
        ratings = evaluate_ratings(model, split, name=name or recipe.name, resamples=min(resamples, ROW_RESAMPLES))
    findings = tuple(collapse(model, split.train, split, k=10))
    return Fitted(model, seconds, peak, curve, reports, ratings, findings, stopped)


def by_gradient_descent(recipe: Recipe[Any]) -> bool:
    """Whether the trainer fits it, epoch by epoch."""
    return isinstance(recipe, Trainable)


def _peak_mb() -> float | None:
    """Most memory this process held so far, in MB, by the count of the kernel; None where it keeps none."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return None
    # Not ru_maxrss: that includes the memory of the parent before the fork.
    line = next((line for line in status.splitlines() if line.startswith("VmHWM:")), None)
    return None if line is None else int(line.split()[1]) / 1024

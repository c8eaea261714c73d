"""One fit and what is measured of it: the step that comparing, tuning baselines and reproducing have in common."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from palate.base import PredictsRatings, Recipe, Trainable, TrainOptions
from palate.bounds import Count, Seed, check_fields
from palate.data.dataset import Dataset
from palate.data.splits.split import Split
from palate.errors import EvaluationError
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
            training stops; those rows are then taken out of their training. None trains on all training rows for all
            epochs.
        resamples: of intervals and tests.
        memory: bound of the evaluation beside model and data, such as "512MB"; None for its default.
        device, precision, threads: as in ``palate.TrainOptions``.
    """

    k: Count = 10
    lengths: tuple[Count, ...] = LENGTHS
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1)] = (0,)
    patience: Count | None = None
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
    """

    model: Any = field(repr=False)
    seconds: float
    memory: float | None
    curve: list[dict[str, float]]
    reports: dict[str, Report]
    ratings: RatingsReport | None = None


def fit_timed(recipe: Recipe[Any], train: Dataset, options: TrainOptions, **more: Any) -> tuple[Any, float]:
    """The fitted model and the seconds that training took; ``more`` is passed to the recipe."""
    begin = time.perf_counter()
    model = recipe.fit(train, options, **more)
    return model, time.perf_counter() - begin


def fit_until_worse(
    recipe: Recipe[Any], rows: Dataset | Split, options: TrainOptions, patience: int, k: int = 10
) -> tuple[Any, Split]:
    """Early stopping: fit on a part of the training rows until NDCG@k on the rest stops getting better.

    Args:
        recipe: one that calls the validation callback after each epoch.
        rows: training rows, or a split, whose training rows are split again as its test rows were held out.
        options: seed, device and the like.
        patience: epochs without a better value before training stops; the best epoch is kept.
        k: list length.

    Returns:
        The model and the validation split.
    """
    inner = validation_split(rows, seed=options.seed)
    watched = replace(options, validation_callback=validation_callback(inner, k=k), patience=patience)
    return recipe.fit(inner.train, watched), inner


def fit_and_measure(
    recipe: Recipe[Any],
    split: Split,
    options: TrainOptions,
    *,
    k: int | Sequence[int] = 10,
    stop: tuple[int, int] | None = None,
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
        rankings: which to measure; "sampled" only where the split has candidates.
        name: of the model in the reports; the name of the recipe otherwise.
        resamples: of the bootstrap intervals.
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
    begin = time.perf_counter()
    if stop is not None and by_gradient_descent(recipe):
        model, _ = fit_until_worse(recipe, split, heard, *stop)
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
    return Fitted(model, seconds, peak, curve, reports, ratings)


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

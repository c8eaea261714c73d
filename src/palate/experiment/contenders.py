"""Several recipes fitted one after the other in this process, and the choice among them on validation rows."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from palate.base import Recipe, TrainOptions
from palate.data.dataset import Dataset
from palate.data.splits.split import Candidates, Split
from palate.evaluation.comparability import check_comparable
from palate.evaluation.evaluate import Report, evaluate
from palate.experiment.validation import validation_split
from palate.models import make_recipe

__all__ = ["Contender", "choose", "compare", "quick_recipes"]

Log = Callable[[str], None]
QUICK_EASE_ITEMS = 5_000  # beyond, its closed form takes more than seconds


@dataclass(frozen=True)
class Contender:
    """One fitted recipe with its report and the seconds its training took."""

    recipe: Recipe[Any]
    model: Any
    report: Report
    seconds: float


def compare(
    split: Split,
    recipes: Sequence[Recipe[Any]],
    run: TrainOptions,
    *,
    k: int = 10,
    candidates: Candidates | None = None,
    log: Log = lambda line: None,
) -> list[Contender]:
    """Fit every recipe on the training rows and measure it on the test rows against the same candidates."""
    contenders = []
    for recipe in recipes:
        log(f"training {recipe.name}")
        begin = time.perf_counter()
        model = recipe.fit(split.train, run)
        seconds = time.perf_counter() - begin
        report = evaluate(model, split, k=k, candidates=candidates, name=recipe.name)
        contenders.append(Contender(recipe, model, report, seconds))
    check_comparable([one.report for one in contenders])
    return contenders


def choose(
    train: Dataset, recipes: Sequence[Recipe[Any]], run: TrainOptions, *, k: int = 10, log: Log = lambda line: None
) -> tuple[Recipe[Any], dict[str, float]]:
    """The recipe with the best NDCG@k on validation rows held out of ``train``, and every recipe's value there."""
    inner = validation_split(train)
    values = {one.recipe.name: one.report.value("NDCG", k) for one in compare(inner, recipes, run, k=k, log=log)}
    best = max(recipes, key=lambda recipe: values[recipe.name])
    return best, values


def quick_recipes(dataset: Dataset) -> list[Recipe[Any]]:
    """Recipes that fit in seconds on this data: baselines, linear models and one network."""
    names = ["popularity", "item-knn", "neumf"]
    if dataset.interactions.time is not None:
        names.insert(1, "recent-popularity")
    if dataset.n_items <= QUICK_EASE_ITEMS:
        names.insert(-1, "ease")
    return [make_recipe(name, fast=True) for name in names]

"""Several recipes on one split: the choice made on validation rows, the table on test rows, the same for all."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from palate.data.dataset import Dataset
from palate.data.split import Candidates, Split, at_random, by_time, leave_one_out
from palate.errors import DataError
from palate.evaluate import Report, evaluate
from palate.models import make_recipe
from palate.protocols import Recipe, Run

__all__ = ["Contender", "choose", "compare", "hold_out", "quick_recipes", "validation_split"]

Log = Callable[[str], None]
MEASURED_SHARE = 0.1  # of the users a time split must leave to measure, or each user's latest row is held out
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
    run: Run,
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
    return contenders


def choose(
    train: Dataset, recipes: Sequence[Recipe[Any]], run: Run, *, k: int = 10, log: Log = lambda line: None
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


def hold_out(dataset: Dataset, share: float = 0.2, seed: int = 0) -> Split:
    """Held-out rows in the way the data allow: by time, or at random where there is none.

    By time is the latest share of all rows, or each user's latest row where the former would leave less than a tenth of
    the users to measure. Users and items that are new in the held-out rows are dropped from them and counted.
    """
    return _hold_out(dataset, share, seed, "drop")


def validation_split(train: Dataset, share: float = 0.2, seed: int = 0) -> Split:
    """As ``hold_out``, to choose among models, but with the id maps of ``train``: models fit other splits of it."""
    split = _hold_out(train, share, seed, "keep")
    known, held = split.train.interactions, split.test.interactions
    user_known = np.bincount(known.user, minlength=train.n_users) > 0
    item_known = np.bincount(known.item, minlength=train.n_items) > 0
    warm = user_known[held.user] & item_known[held.item]
    return replace(split, test=split.test.with_rows(held.take(warm)), how=f"{split.how}; of these only known ones")


def _hold_out(dataset: Dataset, share: float, seed: int, cold: Literal["drop", "keep"]) -> Split:
    try:
        if dataset.interactions.time is None:
            return at_random(dataset, share=share, seed=seed, cold=cold)
        measured = _measured_users(dataset, share)
        if measured >= MEASURED_SHARE * dataset.n_users:
            return by_time(dataset, rows=share, cold=cold)
        split = leave_one_out(dataset, cold=cold)
    except DataError as error:
        raise DataError(
            f"{dataset} is too little to hold rows out and measure ({error}): give more rows, or train on all of them "
            "(palate train popularity DATA --split none)"
        ) from None
    return replace(
        split, how=f"{split.how} (a global time split leaves {measured} of {dataset.n_users:,} users to measure)"
    )


def _measured_users(dataset: Dataset, share: float) -> int:
    """Users that a global time split leaves with both training and test rows."""
    try:
        return len(by_time(dataset, rows=share, cold="drop").test_users)
    except DataError:  # every later row belongs to somebody new, as in a log of first visits
        return 0

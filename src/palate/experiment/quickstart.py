"""From rows to a fitted recipe without a choice to make: hold rows out, try recipes, measure, fit the best on all rows.

    found = quickstart(dataset, minutes=3)
    found.recipe, found.sentences

A recipe that fails at any step is reported and the next best one takes its place; popularity is the last resort.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np

from palate.base import Recipe, TrainOptions
from palate.data.dataset import Dataset, Note
from palate.data.splits.split import Split
from palate.errors import DataError, PalateError, RecipeError
from palate.evaluation.collapse import collapse
from palate.evaluation.evaluate import validation_callback
from palate.experiment.baselines import Entry
from palate.experiment.compare import compare
from palate.experiment.fitting import CompareOptions
from palate.experiment.quickstart_plan import MEASURED_USERS, plan_quickstart
from palate.experiment.results import Comparison
from palate.experiment.summary import POPULARITY, Wording, summarize
from palate.experiment.validation import hold_out, validation_split
from palate.models.popularity import Popularity
from palate.progress import Progress, ProgressEvent, silent

RESAMPLES = 1_000
TEST_USERS = 20_000


@dataclass(frozen=True)
class Quickstart:
    """The result of ``quickstart``.

    Args:
        recipe: the chosen recipe.
        model: fitted on all rows.
        split: training and test rows; None where the rows are too few to hold some out.
        validation: NDCG@k on validation rows by recipe; empty where there was nothing to choose by.
        found: the comparison on test rows; None without test rows.
        left_out: a sentence for each recipe that was not tried.
        failed: the reason of each recipe that could not be fitted, by its name.
        sentences: the result in words.
    """

    recipe: Recipe[Any]
    model: Any = field(repr=False)
    split: Split | None
    validation: dict[str, float]
    found: Comparison | None
    left_out: tuple[str, ...]
    failed: dict[str, str]
    sentences: list[str]


def quickstart(
    dataset: Dataset,
    *,
    minutes: float = 3.0,
    k: int = 10,
    options: TrainOptions = TrainOptions(),
    words: Wording = Wording(),
    progress: Progress = silent,
) -> Quickstart:
    """Choose a recipe on validation rows, measure it beside popularity on test rows, and fit it on all rows.

    Args:
        dataset: all rows.
        minutes: time budget; see ``plan_quickstart``.
        k: list length.
        options: seed, device and the like.
        words: for the sentences.
        progress: called with events of the fits, and with lines about what is done.

    Raises:
        RecipeError: not even popularity could be fitted.
    """
    plan = plan_quickstart(dataset, minutes)
    try:
        split = sampled_users(hold_out(dataset, seed=options.seed), TEST_USERS, options.seed)
    except DataError:
        sentences = [
            f"Nothing could be measured: {dataset} are too few to hold some out.",
            "The bundle lists the most popular items.",
        ]
        return Quickstart(Popularity(), Popularity().fit(dataset, options), None, {}, None, (), {}, sentences)
    progress(ProgressEvent("quickstart", message=split.how))
    for line in split.notes:
        progress(ProgressEvent("quickstart", message=f"  {line}"))
    failed: dict[str, str] = {}
    validation = rank_on_validation(plan.recipes, split, options, failed, k=k, progress=progress)
    by_name = {recipe.name: recipe for recipe in plan.recipes}
    order = [by_name[name] for name in sorted(validation, key=lambda name: -validation[name])] or [Popularity()]
    settings = CompareOptions(
        k, seeds=(options.seed,), resamples=RESAMPLES, device=options.device, threads=options.threads
    )

    def measured(recipes: Sequence[Recipe[Any]]) -> Comparison:
        entries = [Entry(one.name, one, "baseline" if one.name == POPULARITY else "model") for one in recipes]
        result = compare(split, entries, options=settings, progress=progress)
        failed.update({one["name"]: one["why"] for one in result.failed})
        return result

    found = measured(plan.measurable(order))
    for recipe in (*order, Popularity()):
        if recipe.name not in failed and recipe.name not in [one.name for one in found.outcomes]:
            found = measured([recipe, Popularity()])
        if recipe.name in failed:
            continue
        progress(ProgressEvent("quickstart", message=f"fitting {recipe.name} on all rows"))
        model = _attempt(partial(recipe.fit, dataset, replace(options, progress=progress)), recipe.name, failed)
        if model is not None:
            sentences = [*summarize(found, recipe.name, words), *collapse(model, dataset, k=k, seed=options.seed)]
            return Quickstart(recipe, model, split, validation, found, plan.left_out, failed, sentences)
    raise RecipeError(f"no recipe could be fitted: {'; '.join(f'{name}: {why}' for name, why in failed.items())}")


def rank_on_validation(
    recipes: Sequence[Recipe[Any]],
    rows: Dataset | Split,
    options: TrainOptions,
    failed: dict[str, str],
    *,
    k: int = 10,
    progress: Progress = silent,
) -> dict[str, float]:
    """NDCG@k of each recipe on validation rows out of training rows.

    Args:
        recipes: those to fit.
        rows: training rows, or a split, whose test rows play no part.
        options: seed, device and the like.
        failed: gets the reason of each recipe that could not be fitted, by its name.
        k: list length.
        progress: called before each fit and with its events.

    Returns:
        The values by name; empty where the training rows are too few to hold some out.
    """
    try:
        inner = sampled_users(validation_split(rows, seed=options.seed), MEASURED_USERS, options.seed)
    except DataError:
        return {}
    if not len(inner.test):
        return {}
    measure, values = validation_callback(inner, k=k), {}
    for number, recipe in enumerate(recipes):
        progress(ProgressEvent("try recipes on validation rows", number, len(recipes), "recipe", recipe.name))
        value = _attempt(lambda one=recipe: measure(one.fit(inner.train, options)), recipe.name, failed)  # type: ignore[misc]
        if value is not None:
            values[recipe.name] = value
    return values


def sampled_users(split: Split, users: int, seed: int) -> Split:
    """The split with the test rows of at most so many users, drawn at random: scoring every user costs the most."""
    tested = split.test_users
    if len(tested) <= users:
        return split
    kept = np.zeros(split.train.n_users, bool)
    kept[np.random.default_rng(seed).choice(tested, users, replace=False)] = True
    rows = split.test.interactions
    text = f"measured on {users:,} of {len(tested):,} test users, drawn at random; test rows of the others left out"
    note = Note(text, int((~kept[rows.user]).sum()), "dropped")
    return replace(split, test=split.test.with_rows(rows.take(kept[rows.user])), notes=(*split.notes, note))


def _attempt(job: Callable[[], Any], name: str, failed: dict[str, str]) -> Any:
    """What a fit returns, or None after an error, whose reason is then in ``failed``."""
    try:
        return job()
    except (PalateError, MemoryError, RuntimeError, np.linalg.LinAlgError) as error:  # torch raises RuntimeError
        failed[name] = str(error) or type(error).__name__
        return None

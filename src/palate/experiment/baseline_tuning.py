"""The choice among the settings of a baseline, by NDCG on validation rows; test rows play no part."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from typing import Any

from palate.base import Recipe, TrainOptions
from palate.data.splits.split import Split
from palate.errors import PalateError, RecipeError
from palate.evaluation.evaluate import validation_callback
from palate.experiment.validation import validation_split
from palate.progress import silent

__all__ = ["tune"]


def tune(
    split: Split,
    grid: Sequence[Recipe[Any]],
    run: TrainOptions,
    *,
    k: int = 10,
    progress: Callable[[int], None] = lambda done: None,
) -> tuple[Recipe[Any], str]:
    """The setting with the best NDCG@k on rows held out of the training rows, and the choice in words.

    Args:
        split: its training rows give validation rows in the way its test rows were held out (``validation_split``).
        grid: settings of one recipe. One that cannot be fitted is passed over, and the words say so.
        run: how to fit.
        k: list length.
        progress: called with the number of settings that are done.

    Raises:
        RecipeError: no setting could be fitted.
    """
    inner = validation_split(split)
    measure = validation_callback(inner, k=k)
    plain = replace(run, validation_callback=None, folder=None, logger="none", progress=silent)
    values: dict[int, float] = {}
    reasons = []
    for number, recipe in enumerate(grid):
        try:
            values[number] = measure(recipe.fit(inner.train, plain))
        except PalateError as error:
            reasons.append(str(error))
        progress(number + 1)
    if not values:
        raise RecipeError(f"none of {len(grid)} settings of {grid[0].name} could be fitted: {reasons[0]}")
    best = max(values, key=lambda number: values[number])
    words = (
        f"{_fields(grid[best], grid)}: best NDCG@{k} ({values[best]:.4f}) of {len(grid)} settings on validation rows, "
        f"{inner.how}"
    )
    return grid[best], words + (f"; {len(reasons)} settings could not be fitted: {reasons[0]}" if reasons else "")


def _fields(chosen: Recipe[Any], grid: Sequence[Recipe[Any]]) -> str:
    """The fields in which the settings differ, as the chosen one has them."""
    every: list[dict[str, Any]] = [asdict(one) for one in grid]
    mine: dict[str, Any] = asdict(chosen)
    differ = [name for name in mine if len({str(fields[name]) for fields in every}) > 1]
    return ", ".join(f"{name}={mine[name]:g}" for name in differ)

"""The result of a study: its trials, the best of them, and the importance of the fields."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from palate.base import Recipe
from palate.experiment.search_space import Range
from palate.experiment.task import Task
from palate.models import make_recipe
from palate.models.popularity import Popularity


@dataclass(frozen=True)
class Trial:
    """One finished trial.

    Args:
        number: in the journal, from 0.
        state: "complete", "pruned" (stopped early) or "failed" (the settings make no sense).
        value: of the metric; the last one measured where pruned, None where failed.
        fields: of the recipe, all of them.
        values: of the searched fields, by path; empty where the preset lies outside the space.
        seconds: duration.
        preset: True for the preset itself.
        error: the reason of a failure.
    """

    number: int
    state: str
    value: float | None
    fields: dict[str, Any]
    values: dict[str, Any]
    seconds: float
    preset: bool
    error: str | None


@dataclass(frozen=True)
class Tuned:
    """The result of a study. Its values are of validation rows, and the best of many is optimistic.

    Args:
        task: recipe, space, rows and metric.
        trials: the finished ones, by number.
        importance: share of each searched field in how good a trial is (PED-ANOVA, Watanabe et al. 2023); empty while
            there are too few trials.
        folder: with the journal and the best recipe.
    """

    task: Task
    trials: tuple[Trial, ...]
    importance: dict[str, float]
    folder: Path

    @property
    def best(self) -> Trial:
        """The best complete trial, the first among equals; never worse than the preset, which is one of them."""
        complete = [trial for trial in self.trials if trial.state == "complete" and trial.value is not None]
        sign = 1 if self.task.metric.higher_is_better else -1
        return max(complete, key=lambda trial: (sign * (trial.value or 0.0), -trial.number))

    @property
    def preset(self) -> Trial:
        """The trial of the preset."""
        return next(trial for trial in self.trials if trial.preset and trial.state == "complete")

    @property
    def recipe(self) -> Recipe[Any]:
        """The best recipe."""
        return make_recipe(self.task.preset.name, self.best.fields)

    @cached_property
    def findings(self) -> list[str]:
        """Sentences on a result that should not be taken as it stands: at a bound of the space, or below popularity."""
        found = []
        for path, value in self.best.values.items():
            one = self.task.space[path]
            if isinstance(one, Range) and one.at_bound(value):
                found.append(
                    f"The best {path}, {value:.4g}, is at a bound of its range ({one}): search a wider one "
                    f"(--search {path}=low:high)."
                )
        metric, best = self.task.metric, self.best.value
        if metric.k and best is not None:
            popular = self.task.measure(Popularity())
            if best < popular:
                found.append(
                    f"The best {metric} on validation rows, {best:.4f}, is below that of popularity ({popular:.4f}): "
                    "take another recipe."
                )
        return found

    def to_dict(self) -> dict[str, Any]:
        """Everything, ready for JSON."""
        task = self.task
        return {
            "recipe": task.preset.name,
            "metric": str(task.metric),
            "validation": [part.how for part in task.parts],
            "candidates": task.ranked_among(),
            "space": {path: str(dimension) for path, dimension in task.space.items()},
            "best": vars(self.best),
            "preset": vars(self.preset),
            "importance": self.importance,
            "findings": self.findings,
            "trials": [vars(trial) for trial in self.trials],
            "folder": str(self.folder),
        }

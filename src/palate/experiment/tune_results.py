"""The result of a study: its trials, the best of them, and the importance of the fields."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from palate.base import Recipe
from palate.experiment.task import Task
from palate.models import make_recipe


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
            "trials": [vars(trial) for trial in self.trials],
            "folder": str(self.folder),
        }

"""One trial: a recipe from the space, fitted on one part of the training rows and measured on the other."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from palate.data.split import Candidates, Split
from palate.errors import EvaluationError
from palate.evaluate import watch
from palate.evaluate_ratings import evaluate_ratings
from palate.metrics import METRICS
from palate.models.blend import Blend
from palate.protocols import Recipe, Run
from palate.tune.spaces import Choice, Range, Space, plain, put, take

if TYPE_CHECKING:
    from optuna import Trial

__all__ = ["Metric", "Task"]

ERRORS = ("RMSE", "MSE", "MAE")


@dataclass(frozen=True)
class Metric:
    """What is made better: a metric of lists at one length, or an error of predicted ratings (k is 0)."""

    name: str
    k: int

    @classmethod
    def of(cls, text: str) -> Metric:
        """From "NDCG@10", "Recall@50", "RMSE".

        Raises:
            EvaluationError: there is no such metric.
        """
        name, _, k = text.partition("@")
        if name in ERRORS and not k:
            return cls(name, 0)
        if name in METRICS and k.isdecimal() and int(k):
            return cls(name, int(k))
        known = ", ".join([*(f"{one}@10" for one in METRICS), *ERRORS])
        raise EvaluationError(f"metric {text!r} is not known: choose one like {known}")

    @property
    def higher_is_better(self) -> bool:
        """False for errors."""
        return self.k > 0

    def __str__(self) -> str:
        return f"{self.name}@{self.k}" if self.k else self.name


@dataclass(frozen=True)
class Task:
    """All that a trial needs: it is plain data, so worker processes get a copy of it.

    Args:
        preset: the recipe whose other fields stay as they are; it is the first trial.
        space: the fields that are searched.
        split: both sides come from training rows: fitted on ``train``, measured on ``test``.
        metric: what is made better.
        candidates: sampled negatives for the measured users; None ranks the whole catalogue.
        run: how to fit; every trial has the same seed.
        prune: give up on trials that do worse than the median after as many epochs.
    """

    preset: Recipe[Any]
    space: Space
    split: Split
    metric: Metric
    candidates: Candidates | None = None
    run: Run = Run()
    prune: bool = True
    _members: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)

    def about(self) -> dict[str, Any]:
        """What makes it this study and no other; a journal of something else is refused."""
        train = self.split.train
        drawn = self.candidates.fingerprint(train.users, train.items) if self.candidates else None
        return {
            "recipe": self.preset.name,
            "fields": plain(self.preset),
            "space": {path: str(dimension) for path, dimension in self.space.items()},
            "metric": str(self.metric),
            "rows": [train.fingerprint.digest, self.split.fingerprint],
            "candidates": drawn,
            "seed": self.run.seed,
        }

    def preset_values(self) -> dict[str, Any] | None:
        """The preset as a point of the space, in the sampler's terms; None where it lies outside."""
        fields = plain(self.preset)
        values = {path: take(fields, path, self.preset.name) for path in self.space}
        if not all(self.space[path].holds(value) for path, value in values.items()):
            return None
        return {path: json.dumps(v) if isinstance(self.space[path], Choice) else v for path, v in values.items()}

    def suggest(self, trial: Trial) -> dict[str, Any]:
        """Values for the searched fields."""
        return {path: _suggested(trial, path, dimension) for path, dimension in self.space.items()}

    def recipe(self, values: dict[str, Any]) -> Recipe[Any]:
        """The preset with these values."""
        return put(self.preset, values)

    def measure(self, recipe: Recipe[Any], after_epoch: Callable[[int, float], None] | None = None) -> float:
        """Fit and measure; ``after_epoch`` is told the value of each epoch where the recipe has any."""
        run = self.run
        if self.prune and after_epoch is not None and hasattr(recipe, "epochs"):
            run = replace(run, watch=_Epochs(self.value, after_epoch))
        return self.value(self._fitted(recipe, run))

    @cached_property
    def value(self) -> Callable[[Any], float]:
        """The metric of a model on the measured side."""
        if self.metric.k:
            return watch(self.split, self.metric.name, self.metric.k, self.candidates)
        return lambda model: evaluate_ratings(model, self.split, resamples=0).value(self.metric.name)

    def _fitted(self, recipe: Recipe[Any], run: Run) -> Any:
        if not isinstance(recipe, Blend):
            return recipe.fit(self.split.train, run)
        # Members that are as they were in the last trial are not fitted again: mostly only the weights change.
        keys = [json.dumps(table) for table in recipe.members]
        fitted = {}
        for key, member in zip(keys, recipe.recipes, strict=True):
            known = key in self._members
            fitted[key] = self._members[key] if known else member.fit(self.split.train, run)
        self._members.clear()
        self._members.update(fitted)
        return recipe.around([fitted[key] for key in keys], self.split.train)


class _Epochs:
    """A ``Run.watch`` that tells what each epoch is worth, and makes the last one the one that is kept.

    How many epochs to train is a field like any other: a trial's value is that of the recipe as it stands.
    """

    def __init__(self, value: Callable[[Any], float], tell: Callable[[int, float], None]) -> None:
        self._value, self._tell, self._epoch = value, tell, 0

    def __call__(self, model: Any) -> float:
        self._epoch += 1
        self._tell(self._epoch, self._value(model))
        return float(self._epoch)


def _suggested(trial: Trial, path: str, dimension: Range | Choice) -> Any:
    if isinstance(dimension, Choice):
        return json.loads(trial.suggest_categorical(path, dimension.options))
    if dimension.whole:
        return trial.suggest_int(path, int(dimension.low), int(dimension.high), log=dimension.log)
    return trial.suggest_float(path, dimension.low, dimension.high, log=dimension.log)

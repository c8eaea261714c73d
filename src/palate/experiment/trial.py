"""One trial: a recipe from the space, fitted on one side of each validation part and measured on the other."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from palate.base import Recipe, TrainOptions
from palate.data.splits.split import Split
from palate.errors import EvaluationError
from palate.evaluation.evaluate import evaluate, validation_callback
from palate.evaluation.metrics import METRICS
from palate.evaluation.rating_prediction import evaluate_ratings
from palate.experiment.search_space import Choice, Range, Space, plain, put, take
from palate.models.ensemble import Ensemble

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
        parts: splits of training rows: fitted on ``train``, measured on ``test``, among the candidates of the split
            where it lists some. The value is the mean over the parts.
        metric: what is made better.
        run: how to fit; every trial has the same seed.
        prune: give up on trials that do worse than the median after as many epochs, or parts if there are several.
        keep_seen: leave items in the full ranking that the user has in training.
    """

    preset: Recipe[Any]
    space: Space
    parts: tuple[Split, ...]
    metric: Metric
    run: TrainOptions = TrainOptions()
    prune: bool = True
    keep_seen: bool = False
    _members: dict[int, dict[str, Any]] = field(default_factory=dict, repr=False, compare=False)

    def about(self) -> dict[str, Any]:
        """What makes it this study and no other; a journal of something else is refused."""
        return {
            "recipe": self.preset.name,
            "fields": plain(self.preset),
            "space": {path: str(dimension) for path, dimension in self.space.items()},
            "metric": str(self.metric),
            "rows": [part.fingerprint for part in self.parts],
            "candidates": self.ranked_among(),
            "seed": self.run.seed,
        }

    def ranked_among(self) -> list[str]:
        """The candidates of each part, in words, with the fingerprint of those that are listed."""
        whole = f"all items, seen items {'left in' if self.keep_seen else 'removed'}"
        return [
            f"{one.candidates.how} ({one.candidates.fingerprint(one.train.users, one.train.items)})"
            if one.candidates
            else whole
            for one in self.parts
        ]

    def preset_values(self) -> dict[str, Any] | None:
        """The preset as a point of the space, in the sampler's terms; None where it lies outside."""
        fields = plain(self.preset)
        values = {path: take(fields, path, self.preset.name) for path in self.space}
        if not all(self.space[path].holds(value) for path, value in values.items()):
            return None
        dimensions = self.space.items()
        return {
            path: one.text_of(values[path]) if isinstance(one, Choice) else values[path] for path, one in dimensions
        }

    def suggest(self, trial: Trial) -> dict[str, Any]:
        """Values for the searched fields."""
        return {path: _suggested(trial, path, dimension) for path, dimension in self.space.items()}

    def recipe(self, values: dict[str, Any]) -> Recipe[Any]:
        """The preset with these values."""
        return put(self.preset, values)

    def measure(self, recipe: Recipe[Any], tell: Callable[[int, float], None] | None = None) -> float:
        """Fit and measure; ``tell`` hears the value after each epoch, or after each but the last of several parts."""
        if len(self.parts) == 1:
            run = self.run
            if self.prune and tell is not None and hasattr(recipe, "epochs"):
                run = replace(run, validation_callback=_Epochs(self.values[0], tell))
            return self.values[0](self._fitted(recipe, 0, run))
        total = 0.0
        for number, value in enumerate(self.values):
            total += value(self._fitted(recipe, number, self.run))
            if self.prune and tell is not None and number + 1 < len(self.parts):
                tell(number + 1, total / (number + 1))
        return total / len(self.parts)

    @cached_property
    def values(self) -> tuple[Callable[[Any], float], ...]:
        """For each part, what gives the metric of a model on its measured side."""
        return tuple(map(self._value, self.parts))

    def _value(self, part: Split) -> Callable[[Any], float]:
        name, k = self.metric.name, self.metric.k
        if not k:
            return lambda model: evaluate_ratings(model, part, resamples=0).value(name)
        if self.keep_seen and part.candidates is None:
            return lambda model: evaluate(model, part, k=k, exclude_seen=False, resamples=0).value(name, k)
        return validation_callback(part, name, k, part.candidates)

    def _fitted(self, recipe: Recipe[Any], number: int, run: TrainOptions) -> Any:
        train = self.parts[number].train
        if not isinstance(recipe, Ensemble):
            return recipe.fit(train, run)
        # Members that are as they were in the last trial are not fitted again: mostly only the weights change.
        before = self._members.get(number, {})
        keys = [json.dumps(table) for table in recipe.members]
        fitted = {}
        for key, member in zip(keys, recipe.recipes, strict=True):
            fitted[key] = before[key] if key in before else member.fit(train, run)
        self._members[number] = fitted
        return recipe.around([fitted[key] for key in keys], train)


class _Epochs:
    """A validation callback that reports the metric of each epoch and keeps the last epoch.

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

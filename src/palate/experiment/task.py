"""The task of a study: the fields to search, and the value of a recipe on validation rows."""

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
from palate.experiment.search_space import Choice, Space, plain, put, take
from palate.models.ensemble import Ensemble

if TYPE_CHECKING:
    import optuna

ERRORS = ("RMSE", "MSE", "MAE")


@dataclass(frozen=True)
class Metric:
    """The metric to optimize: one of lists at one length, or an error of predicted ratings (k is 0)."""

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
    """All that a trial needs, as plain data, of which each worker process gets a copy.

    Args:
        preset: the recipe whose other fields stay as they are; it is the first trial.
        space: the fields to search.
        parts: splits of training rows: fitted on ``train``, measured on ``test``, among the candidates of the split
            where it lists some. The value is the mean over the parts.
        metric: the metric to optimize.
        options: of training; every trial has the same seed.
        prune: stop trials that are worse than the median after as many epochs, or parts if there are several.
        exclude_seen: take items of the user's training rows out of the full ranking.
    """

    preset: Recipe[Any]
    space: Space
    parts: tuple[Split, ...]
    metric: Metric
    options: TrainOptions = TrainOptions()
    prune: bool = True
    exclude_seen: bool = True
    _members: dict[int, dict[str, Any]] = field(default_factory=dict, repr=False, compare=False)

    def __post_init__(self) -> None:
        # With values in the fields that it leaves to the data, the preset is a point of the space.
        if self.parts:
            object.__setattr__(self, "preset", self.preset.for_data(self.parts[0].train))

    def about(self) -> dict[str, Any]:
        """The identity of the study; a journal of another one is refused."""
        return {
            "recipe": self.preset.name,
            "fields": plain(self.preset),
            "space": {path: str(dimension) for path, dimension in self.space.items()},
            "metric": str(self.metric),
            "rows": [part.fingerprint for part in self.parts],
            "candidates": self.ranked_among(),
            "seed": self.options.seed,
        }

    def ranked_among(self) -> list[str]:
        """The candidates of each part, in words, with the fingerprint of those that are listed."""
        whole = f"all items, seen items {'removed' if self.exclude_seen else 'left in'}"
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

    def suggest(self, trial: optuna.Trial) -> dict[str, Any]:
        """Values for the searched fields."""
        values: dict[str, Any] = {}
        for path, one in self.space.items():
            if isinstance(one, Choice):
                values[path] = json.loads(trial.suggest_categorical(path, one.options))
            elif one.whole:
                values[path] = trial.suggest_int(path, int(one.low), int(one.high), log=one.log)
            else:
                values[path] = trial.suggest_float(path, one.low, one.high, log=one.log)
        return values

    def recipe(self, values: dict[str, Any]) -> Recipe[Any]:
        """The preset with these values."""
        return put(self.preset, values)

    def measure(self, recipe: Recipe[Any], report: Callable[[int, float], None] | None = None) -> float:
        """Fit and measure; ``report`` gets the value after each epoch, or after each but the last of several parts."""
        if len(self.parts) == 1:
            options = self.options
            if self.prune and report is not None and hasattr(recipe, "epochs"):
                options = replace(options, validation_callback=_Epochs(self.values[0], report))
            return self.values[0](self._fitted(recipe, 0, options))
        total = 0.0
        for number, value in enumerate(self.values):
            total += value(self._fitted(recipe, number, self.options))
            if self.prune and report is not None and number + 1 < len(self.parts):
                report(number + 1, total / (number + 1))
        return total / len(self.parts)

    @cached_property
    def values(self) -> tuple[Callable[[Any], float], ...]:
        """For each part, the function that measures a model on its test side."""
        return tuple(map(self._value, self.parts))

    def _value(self, part: Split) -> Callable[[Any], float]:
        name, k = self.metric.name, self.metric.k
        if not k:
            return lambda model: evaluate_ratings(model, part, resamples=0).value(name)
        if not self.exclude_seen and part.candidates is None:
            return lambda model: evaluate(model, part, k=k, exclude_seen=False, resamples=0).value(name, k)
        return validation_callback(part, name, k, part.candidates)

    def _fitted(self, recipe: Recipe[Any], number: int, options: TrainOptions) -> Any:
        train = self.parts[number].train
        if not isinstance(recipe, Ensemble):
            return recipe.fit(train, options)
        # Members that are as they were in the last trial are not fitted again: mostly only the weights change.
        before = self._members.get(number, {})
        keys = [json.dumps(table) for table in recipe.members]
        fitted = {}
        for key, member in zip(keys, recipe.recipes, strict=True):
            fitted[key] = before[key] if key in before else member.fit(train, options)
        self._members[number] = fitted
        return recipe.around([fitted[key] for key in keys], train)


class _Epochs:
    """A validation callback that reports the metric of each epoch and keeps the last epoch.

    How many epochs to train is a field like any other: a trial's value is that of the recipe as it stands.
    """

    def __init__(self, value: Callable[[Any], float], report: Callable[[int, float], None]) -> None:
        self._value, self._report, self._epoch = value, report, 0

    def __call__(self, model: Any) -> float:
        self._epoch += 1
        self._report(self._epoch, self._value(model))
        return float(self._epoch)

"""Tuning: the fields of a recipe that do best on validation rows, found by Optuna (extra ``tune``)."""

from __future__ import annotations

from palate.tune.objective import Metric, Task
from palate.tune.parts import validation_parts
from palate.tune.recipe_file import recipe_toml
from palate.tune.result import Trial, Tuned
from palate.tune.spaces import SPACES, default_space, parse_space
from palate.tune.study import tune

__all__ = [
    "SPACES",
    "Metric",
    "Task",
    "Trial",
    "Tuned",
    "default_space",
    "parse_space",
    "recipe_toml",
    "tune",
    "validation_parts",
]

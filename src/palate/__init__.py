"""Palate: honest, evaluated, personal recommendations from a log of who touched what.

    import palate
    train = palate.from_frame(log)                       # any dataframe with user and item columns
    model = palate.MLP.fast().fit(train)
    palate.Recommender.of(model, train).recommend(["ann"], k=5)

Names are imported when they are first used, so that `import palate` stays light.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from palate.base import Query, TrainOptions
    from palate.bundle import Bundle
    from palate.data.dataset import Dataset, Interactions
    from palate.data.frame import from_frame, to_frame
    from palate.data.readers import read_interactions
    from palate.data.splits.split import Candidates, Split, at_random, by_time, leave_one_out
    from palate.datasets.registry import load
    from palate.errors import PalateError
    from palate.evaluation.evaluate import Report, evaluate, validation_callback
    from palate.experiment import compare
    from palate.models import RECIPES, make_recipe
    from palate.models.neumf import GMF, MLP, NeuMF
    from palate.models.popularity import Popularity
    from palate.recommend import Recommender
    from palate.recommend.cold_start import ColdStart
    from palate.rules import Rules
    from palate.training.negative_sampling import draw_candidates

_WHERE = {
    "Bundle": "bundle",
    "Candidates": "data.splits.split",
    "ColdStart": "recommend.cold_start",
    "Dataset": "data.dataset",
    "GMF": "models.neumf",
    "Interactions": "data.dataset",
    "MLP": "models.neumf",
    "NeuMF": "models.neumf",
    "PalateError": "errors",
    "Popularity": "models.popularity",
    "Query": "base",
    "RECIPES": "models",
    "Recommender": "recommend",
    "Report": "evaluation.report",
    "Rules": "rules",
    "TrainOptions": "base",
    "Split": "data.splits.split",
    "at_random": "data.splits.split",
    "by_time": "data.splits.split",
    "compare": "experiment",
    "draw_candidates": "training.negative_sampling",
    "evaluate": "evaluation.evaluate",
    "from_frame": "data.frame",
    "leave_one_out": "data.splits.split",
    "load": "datasets.registry",
    "make_recipe": "models",
    "read_interactions": "data.readers",
    "to_frame": "data.frame",
    "validation_callback": "evaluation.evaluate",
}

__all__ = [
    "GMF",
    "MLP",
    "RECIPES",
    "Bundle",
    "Candidates",
    "ColdStart",
    "Dataset",
    "Interactions",
    "NeuMF",
    "PalateError",
    "Popularity",
    "Query",
    "Recommender",
    "Report",
    "Rules",
    "Split",
    "TrainOptions",
    "at_random",
    "by_time",
    "compare",
    "draw_candidates",
    "evaluate",
    "from_frame",
    "leave_one_out",
    "load",
    "make_recipe",
    "read_interactions",
    "to_frame",
    "validation_callback",
]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'palate' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"palate.{_WHERE[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])

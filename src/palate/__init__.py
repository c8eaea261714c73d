"""Palate: honest, evaluated, personal recommendations from a log of who touched what.

    import palate
    train = palate.from_frame(log)                       # any dataframe with user and item columns
    model = palate.MLP.fast().fit(train)
    palate.Recommender.of(model, train).recommend(["ann"], k=5)

Names are imported when they are first used, so that `import palate` stays light.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from palate.bundle import Bundle
    from palate.compare import compare
    from palate.data.dataset import Dataset, Interactions
    from palate.data.frame import from_frame, to_frame
    from palate.data.readers import read_interactions
    from palate.data.registry import load
    from palate.data.split import Candidates, Split, at_random, by_time, leave_one_out
    from palate.errors import PalateError
    from palate.evaluate import Report, evaluate, watch
    from palate.models import RECIPES, make_recipe
    from palate.models.neumf import GMF, MLP, NeuMF
    from palate.models.popularity import Popularity
    from palate.pipeline import Recommender
    from palate.pipeline.cold import ColdStart
    from palate.protocols import Query, Run
    from palate.rules import Rules
    from palate.sampling import draw_candidates

_WHERE = {
    "Bundle": "bundle",
    "Candidates": "data.split",
    "ColdStart": "pipeline.cold",
    "Dataset": "data.dataset",
    "GMF": "models.neumf",
    "Interactions": "data.dataset",
    "MLP": "models.neumf",
    "NeuMF": "models.neumf",
    "PalateError": "errors",
    "Popularity": "models.popularity",
    "Query": "protocols",
    "RECIPES": "models",
    "Recommender": "pipeline",
    "Report": "evaluate",
    "Rules": "rules",
    "Run": "protocols",
    "Split": "data.split",
    "at_random": "data.split",
    "by_time": "data.split",
    "compare": "compare",
    "draw_candidates": "sampling",
    "evaluate": "evaluate",
    "from_frame": "data.frame",
    "leave_one_out": "data.split",
    "load": "data.registry",
    "make_recipe": "models",
    "read_interactions": "data.readers",
    "to_frame": "data.frame",
    "watch": "evaluate",
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
    "Run",
    "Split",
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
    "watch",
]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'palate' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"palate.{_WHERE[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])


class _Palate(ModuleType):
    """Importing the module ``palate.evaluate`` must not put it in the place of the function of that name."""

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in _WHERE and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Palate

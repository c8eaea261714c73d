"""Palate: evaluated, personal recommendations from a log of interactions.

    import palate
    train = palate.from_frame(log)                       # any dataframe with user and item columns
    model = palate.MLP.fast().fit(train)
    palate.Recommender.of(model, train).recommend(["ann"], k=5)

Every public name is here; docs/api.md lists them. A name is imported when it is first used, so that ``import palate``
loads neither torch nor polars. The library logs to the logger "palate", which is silent unless a handler is added.
"""

from __future__ import annotations

import importlib
import logging
import warnings
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from palate.base import Query, TrainOptions
    from palate.bundle import Bundle
    from palate.data.audit import audit
    from palate.data.dataset import Dataset, Interactions
    from palate.data.feedback import Feedback
    from palate.data.frame import from_frame, to_frame
    from palate.data.matrix import from_csr, to_csr, to_rectools
    from palate.data.prepare import prepare
    from palate.data.readers import read_interactions
    from palate.data.splits.split import Candidates, Split
    from palate.data.splits.strategies import at_random, by_time, leave_one_out
    from palate.data.text_vectors import text_vectors
    from palate.datasets.registry import load
    from palate.errors import PalateError
    from palate.evaluation.evaluate import evaluate, evaluate_lists, validation_callback
    from palate.evaluation.rating_prediction import RatingsReport, evaluate_ratings
    from palate.evaluation.report import Report
    from palate.experiment.compare import compare
    from palate.experiment.fitting import CompareOptions
    from palate.experiment.tune import tune
    from palate.export import export_onnx, export_vectors
    from palate.models import (
        BMF,
        BPR,
        EASE,
        EDLAE,
        GFCF,
        GMF,
        IALS,
        MF,
        MLP,
        RECIPES,
        WALS,
        BidirectionalSASRec,
        Ensemble,
        FeatureIALS,
        ItemKNN,
        LogisticMF,
        MeanRating,
        NeuMF,
        Newest,
        Popularity,
        RecentEDLAE,
        RecentPopularity,
        SASRec,
        SparseEASE,
        SVDpp,
        TwoStage,
        TwoTower,
        UserItemMeans,
        make_recipe,
    )
    from palate.progress import Progress, ProgressEvent
    from palate.recommend import Recommender
    from palate.recommend.cold_start import ColdStart
    from palate.recommend.onboarding import onboarding_items
    from palate.rules import Rules
    from palate.training.negative_sampling import draw_candidates

    __version__: str

# Module of each name; a test holds this, the imports above, ``__all__`` and docs/api.md together.
_NAMES = {
    "base": ("Query", "TrainOptions"),
    "bundle": ("Bundle",),
    "data.audit": ("audit",),
    "data.dataset": ("Dataset", "Interactions"),
    "data.feedback": ("Feedback",),
    "data.frame": ("from_frame", "to_frame"),
    "data.matrix": ("from_csr", "to_csr", "to_rectools"),
    "data.prepare": ("prepare",),
    "data.readers": ("read_interactions",),
    "data.splits.split": ("Candidates", "Split"),
    "data.splits.strategies": ("at_random", "by_time", "leave_one_out"),
    "data.text_vectors": ("text_vectors",),
    "datasets.registry": ("load",),
    "errors": ("PalateError",),
    "evaluation.evaluate": ("evaluate", "evaluate_lists", "validation_callback"),
    "evaluation.rating_prediction": ("RatingsReport", "evaluate_ratings"),
    "evaluation.report": ("Report",),
    "experiment.compare": ("compare",),
    "experiment.fitting": ("CompareOptions",),
    "experiment.tune": ("tune",),
    "export": ("export_onnx", "export_vectors"),
    "models": (
        "RECIPES",
        "make_recipe",
        "BMF",
        "BPR",
        "EASE",
        "EDLAE",
        "GFCF",
        "GMF",
        "IALS",
        "MF",
        "MLP",
        "WALS",
        "BidirectionalSASRec",
        "Ensemble",
        "FeatureIALS",
        "ItemKNN",
        "LogisticMF",
        "MeanRating",
        "NeuMF",
        "Newest",
        "Popularity",
        "RecentEDLAE",
        "RecentPopularity",
        "SASRec",
        "SVDpp",
        "SparseEASE",
        "TwoStage",
        "TwoTower",
        "UserItemMeans",
    ),
    "progress": ("Progress", "ProgressEvent"),
    "recommend": ("Recommender",),
    "recommend.cold_start": ("ColdStart",),
    "recommend.onboarding": ("onboarding_items",),
    "rules": ("Rules",),
    "training.negative_sampling": ("draw_candidates",),
}
_MODULE = {name: module for module, names in _NAMES.items() for name in names}

__all__ = [
    "BMF",
    "BPR",
    "EASE",
    "EDLAE",
    "GFCF",
    "GMF",
    "IALS",
    "MF",
    "MLP",
    "RECIPES",
    "WALS",
    "BidirectionalSASRec",
    "Bundle",
    "Candidates",
    "ColdStart",
    "CompareOptions",
    "Dataset",
    "Ensemble",
    "FeatureIALS",
    "Feedback",
    "Interactions",
    "ItemKNN",
    "LogisticMF",
    "MeanRating",
    "NeuMF",
    "Newest",
    "PalateError",
    "Popularity",
    "Progress",
    "ProgressEvent",
    "Query",
    "RatingsReport",
    "RecentEDLAE",
    "RecentPopularity",
    "Recommender",
    "Report",
    "Rules",
    "SASRec",
    "SVDpp",
    "SparseEASE",
    "Split",
    "TrainOptions",
    "TwoStage",
    "TwoTower",
    "UserItemMeans",
    "__version__",
    "at_random",
    "audit",
    "by_time",
    "compare",
    "draw_candidates",
    "evaluate",
    "evaluate_lists",
    "evaluate_ratings",
    "export_onnx",
    "export_vectors",
    "from_csr",
    "from_frame",
    "leave_one_out",
    "load",
    "make_recipe",
    "onboarding_items",
    "prepare",
    "read_interactions",
    "text_vectors",
    "to_csr",
    "to_frame",
    "to_rectools",
    "tune",
    "validation_callback",
]

logging.getLogger("palate").addHandler(logging.NullHandler())


# Names of scripts written before the layout of today; they answer with a warning.
_RENAMED = {"Run": "TrainOptions", "watch": "validation_callback"}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        value: Any = _version()
    elif name in _MODULE:
        value = getattr(importlib.import_module(f"palate.{_MODULE[name]}"), name)
    elif name in _RENAMED:
        warnings.warn(f"palate.{name} is now palate.{_RENAMED[name]}", DeprecationWarning, stacklevel=2)
        return __getattr__(_RENAMED[name])
    else:
        raise AttributeError(f"module 'palate' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _version() -> str:
    # Imported here: importlib.metadata takes longer to load than the rest of this module.
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("palate")
    except PackageNotFoundError:  # a source tree on PYTHONPATH, without an installation
        return "0+unknown"

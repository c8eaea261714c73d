"""Rating prediction on MovieLens 100K: RMSE over the official folds u1 to u5.

The test rows of fold k are the k-th 20,000 rows of u.data, so the folds are taken from there. Every rating is predicted
exactly once, and RMSE is over all 100,000 (the mean of the five folds' RMSE is lower by less than 0.0001).

Reference points, on random folds: Surprise (https://surpriselib.com) reports 0.934 for SVD and 0.919 for SVD++. All
settings were chosen on validation rows: 20 % of the training rows of folds 1, 3 and 5 (BMF) or 1 (the others).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from palate.data.dataset import Dataset
from palate.data.splits.split import Split
from palate.datasets.registry import load
from palate.errors import DataError
from palate.models.bmf import BMF
from palate.models.means import MeanRating, UserItemMeans
from palate.models.mf import MF
from palate.models.svdpp import SVDpp
from palate.reproduce.measured import Planned
from palate.reproduce.rows import Options, Row, published
from palate.reproduce.system_c import measured

SYSTEM = "ml-100k-rmse"
PROTOCOL = "official folds u1 to u5 pooled; cold rows by item, user or overall mean"
FOLD_ROWS = 20_000
# Digest of the official u1.test; rows in another order than u.data would give other folds.
FIRST_FOLD = "0b55f65c89b5cd1ed9266e99fe9fd7ab"
# Every field is named, so that new defaults change nothing.
BEST = BMF(dim=16, sweeps=300, burn_in=100, draws=50, link=1.0, feedback=True, features=1.0)
BIASED = MF(
    dim=16, biases=True, optimizer="adam", epochs=30, batch_size=512, learning_rate=0.002, regularization=0.15
)  # fmt: skip
FEEDBACK = SVDpp(dim=16, epochs=12, batch_size=512, learning_rate=0.002, regularization=0.2)
PLAN = (
    Planned("trivial", MeanRating(), "mean rating"),
    Planned("trivial", UserItemMeans(), "user and item means"),
    Planned("best", BIASED, "MF with biases, Adam"),
    Planned("best", FEEDBACK, "SVD++"),
    Planned("best", BEST, "Bayesian MF with feedback and features"),
)


def folds(data: Dataset) -> list[Split]:
    """The five official splits.

    Raises:
        DataError: the rows are not in the order of u.data, so the folds would be others.
    """
    number = np.arange(len(data)) // FOLD_ROWS
    splits = [
        Split(
            data.with_rows(data.interactions.take(number != fold)),
            data.with_rows(data.interactions.take(number == fold)),
            f"official fold u{fold + 1}; test rows of users or items unknown to train kept",
        )
        for fold in range(5)
    ]
    if splits[0].test.fingerprint.digest != FIRST_FOLD:
        raise DataError(
            f"this copy of ml-100k is not in the order of u.data (first fold: {splits[0].test.fingerprint}, "
            f"not {FIRST_FOLD[:12]}): use the official archive, whose order makes the folds"
        )
    return splits


def run(options: Options) -> Iterator[Row]:
    """Reference, trivial and best rows."""
    for label, figure in (("SVD, Surprise", 0.934), ("SVD++, Surprise", 0.919)):
        yield from published(SYSTEM, "ml-100k", "five random folds", label, [("RMSE", None, figure)])
    splits = folds(load("ml-100k", min_rating="any", progress=options.training.progress))
    for one in PLAN:
        if one.role in options.roles:
            yield from measured(one, splits, None, options, system=SYSTEM, dataset="ml-100k", protocol=PROTOCOL)

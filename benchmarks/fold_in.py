"""Fold-in: users held out of training and folded in from their history, against the same users trained.

    python benchmarks/fold_in.py [RECIPE ...] [--data ml-1m] [--share 0.1] [--groups 1] [--implicit] [--full]
        [--validation]

Full ranking, latest row of each user held out, seen items removed. Each recipe (all of them where none is named; fast
presets unless --full) is trained on everybody, and without a tenth of the users. These users are then asked for by
history alone. --groups repeats the latter with other users, each user in one group at most: a small data set needs all
of its users for a ratio that means something. --implicit drops the ratings, without which a model of ratings cannot
know what people touch. --validation holds out the row before the latest instead, and the latest is not used at all:
hyperparameters are chosen by that.

Printed per recipe: NDCG@10 of both, their ratio and its 95 % bootstrap interval over users; the milliseconds from a
history to scores of the whole catalog: median of single calls, and per user in one call for all; for models of
ratings the RMSE of the held-out rows, where they have ratings.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import bootstrap
from torch import Tensor, nn

from palate.base import Model, Query, TrainOptions
from palate.data.feedback import NO_WEIGHTS
from palate.data.splits.split import Split
from palate.data.splits.strategies import leave_one_out
from palate.datasets.registry import load
from palate.errors import PalateError
from palate.evaluation.evaluate import evaluate
from palate.models import RECIPES

SINGLE_CALLS = 30
RESAMPLES = 2_000


class AsStrangers(nn.Module):
    """A model that is told nobody's row number, only histories."""

    trained_on = None

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def score(self, query: Query, items: Tensor | None = None) -> Tensor:
        return self.model.score(replace(query, user=torch.full_like(query.user, -1)), items)

    def can_personalize(self, query: Query) -> Tensor:
        return self.model.can_personalize(replace(query, user=torch.full_like(query.user, -1)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipes", nargs="*", help=f"of {', '.join(RECIPES)}")
    parser.add_argument("--data", default="ml-1m")
    parser.add_argument("--test-size", type=float, default=0.1, help="of the users, held out of training")
    parser.add_argument("--groups", type=int, default=1, help="of so many users, held out in turn")
    parser.add_argument("--implicit", action="store_true", help="drop the ratings")
    parser.add_argument("--validation", action="store_true", help="hold out the row before the latest")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--full", action="store_true", help="the recipes' defaults instead of their fast presets")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    data = load(args.data, min_rating="any")
    if args.implicit:
        ones = np.ones_like(data.interactions.weight)
        data = replace(data.with_rows(replace(data.interactions, weight=ones)), feedback=NO_WEIGHTS)
    split = leave_one_out(data)
    if args.validation:
        split = leave_one_out(split.train)
    users = np.random.default_rng(args.seed).permutation(np.unique(split.test.interactions.user))
    size = max(1, int(args.test_size * len(users)))
    groups = [np.sort(users[k * size : (k + 1) * size]) for k in range(min(args.groups, len(users) // size))]
    shared = {
        "data": args.data,
        "implicit": args.implicit,
        "full": args.full,
        "validation": args.validation,
        "users": size * len(groups),
    }
    rows = []
    print(
        f"{'recipe':17} {'trained':>8} {'folded':>8} {'ratio':>6} {'low':>6} {'high':>6} {'ms one':>8} {'ms batch':>8}"
        "  RMSE trained, folded"
    )
    for name in args.recipes or list(RECIPES):
        recipe = RECIPES[name]() if args.full else RECIPES[name].fast()
        try:
            row = compare(recipe, split, groups, TrainOptions(seed=args.seed))
        except PalateError as error:
            print(f"{name:17} {error}")
            continue
        rows.append({**shared, **row})
        line = "{recipe:17} {trained:8.4f} {folded:8.4f} {ratio:6.3f} {low:6.3f} {high:6.3f}".format(**row)
        line += "{ms_one:9.2f} {ms_batch:8.3f}".format(**row)
        print(line + ("  {:.4f}, {:.4f}".format(*row["rmse"]) if row["rmse"] else ""), flush=True)
    if args.json:
        args.json.write_text(json.dumps(rows, indent=2))


def compare(recipe: Any, split: Split, groups: list[NDArray[np.int32]], run: TrainOptions) -> dict[str, Any]:
    """One line of the table: means over all users of the groups."""
    rows, test = split.train.interactions, split.test.interactions
    model = recipe.fit(split.train, run)
    ndcgs: list[list[NDArray[np.float64]]] = []
    errors: list[list[float]] = []
    for held in groups:
        without = split.train.with_rows(rows.take(~np.isin(rows.user, held)))
        asked = replace(split, test=split.test.with_rows(test.take(np.isin(test.user, held))))
        stranger = AsStrangers(recipe.fit(without, run)).eval()
        both: tuple[Any, ...] = (model, stranger)
        ndcgs.append([evaluate(one, asked, k=10, resamples=0).per_user["NDCG@10"] for one in both])
        errors.append([squared_error(one, asked) for one in both])
    trained_U, folded_U = np.concatenate(ndcgs, axis=1)
    error, error_folded = np.mean(errors, axis=0)
    one, batch = timings(stranger, split, held)
    low, high = interval(trained_U, folded_U)
    return {
        "recipe": recipe.name,
        "trained": float(trained_U.mean()),
        "folded": float(folded_U.mean()),
        "ratio": ratio(trained_U, folded_U),
        "low": low,
        "high": high,
        "rmse": None if np.isnan(error) else [error**0.5, error_folded**0.5],
        "ms_one": one,
        "ms_batch": batch,
    }


def ratio(trained_U: NDArray[np.float64], folded_U: NDArray[np.float64]) -> float:
    """What is kept: mean NDCG folded in, relative to the mean trained; NaN where the latter is 0."""
    return float(folded_U.mean() / trained_U.mean()) if trained_U.any() else float("nan")


def interval(trained_U: NDArray[np.float64], folded_U: NDArray[np.float64]) -> tuple[float, float]:
    """95 % bootstrap interval of the ratio over users; it says nothing about other seeds of the fits."""
    if not (trained_U.any() and folded_U.any()):
        return float("nan"), float("nan")

    def kept(trained: NDArray[np.float64], folded: NDArray[np.float64], axis: int = -1) -> Any:
        return folded.mean(axis) / trained.mean(axis)

    drawn = bootstrap((trained_U, folded_U), kept, paired=True, method="percentile", n_resamples=RESAMPLES, rng=0)
    return float(drawn.confidence_interval.low), float(drawn.confidence_interval.high)


def squared_error(model: Any, split: Split) -> float:
    """Mean squared error of the ratings of the test rows, NaN where there are none."""
    predict = getattr(getattr(model, "model", model), "predict", None)
    if predict is None or not split.train.explicit:
        return float("nan")
    test = split.test.interactions
    users = np.full_like(test.user, -1) if isinstance(model, AsStrangers) else test.user
    with torch.inference_mode():
        query = Query.of(users, split.train.history.select(test.user))
        rating = predict(query, torch.from_numpy(test.item.astype(np.int64))[:, None])[:, 0].numpy()
    return float(np.square(rating - test.weight).mean())


def timings(model: Model, split: Split, users: NDArray[np.int32]) -> tuple[float, float]:
    """Milliseconds from a history to scores of the whole catalog: (median of single calls, per user in one call)."""

    def milliseconds(some: NDArray[np.int32]) -> float:
        query = Query.of(some, split.train.history.select(some))
        begin = time.perf_counter()
        with torch.inference_mode():
            model.score(query)
        return 1000 * (time.perf_counter() - begin)

    singles = [milliseconds(users[place : place + 1]) for place in range(min(SINGLE_CALLS, len(users)))]
    return median(singles), milliseconds(users) / len(users)


if __name__ == "__main__":
    main()

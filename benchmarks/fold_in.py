"""Fold-in: users held out of training and folded in from their history, against the same users trained.

    python benchmarks/fold_in.py [RECIPE ...] [--data ml-1m] [--share 0.1] [--seed 0] [--full] [--json FILE]

Full ranking, latest row of each user held out, seen items removed. Each recipe (all of them where
none is named; fast presets unless --full) is trained twice: on everybody, and without a tenth of the users. These users
are then asked for by history alone. Printed per recipe: NDCG@10 of both, their ratio, and the milliseconds per fold-in:
median of single calls, and per user in one call for all.
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
from torch import Tensor, nn

from palate.data.registry import load
from palate.data.split import Split, leave_one_out
from palate.errors import PalateError
from palate.evaluate import evaluate
from palate.models import RECIPES
from palate.protocols import Model, Query, Run

SINGLE_CALLS = 30


class AsStrangers(nn.Module):
    """A model that is told nobody's row number, only histories."""

    trained_on = None

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def score(self, query: Query, items: Tensor | None = None) -> Tensor:
        return self.model.score(replace(query, user=torch.full_like(query.user, -1)), items)

    def knows(self, query: Query) -> Tensor:
        return self.model.knows(replace(query, user=torch.full_like(query.user, -1)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipes", nargs="*", help=f"of {', '.join(RECIPES)}")
    parser.add_argument("--data", default="ml-1m")
    parser.add_argument("--share", type=float, default=0.1, help="of the users, held out of training")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--full", action="store_true", help="the recipes' defaults instead of their fast presets")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    split = leave_one_out(load(args.data, progress=False))
    held = np.random.default_rng(args.seed).permutation(np.unique(split.test.interactions.user))
    held = np.sort(held[: max(1, int(args.share * len(held)))])
    rows = []
    print(f"{'recipe':16} {'trained':>8} {'folded':>8} {'ratio':>6} {'ms one':>8} {'ms batch':>8}")
    for name in args.recipes or list(RECIPES):
        recipe = RECIPES[name]() if args.full else RECIPES[name].fast()
        try:
            rows.append({"data": args.data, "users": len(held), **compare(recipe, split, held, Run(seed=args.seed))})
        except PalateError as error:
            print(f"{name:16} {error}")
            continue
        print("{recipe:16} {trained:8.4f} {folded:8.4f} {ratio:6.3f} {ms_one:8.2f} {ms_batch:8.3f}".format(**rows[-1]))
    if args.json:
        args.json.write_text(json.dumps(rows, indent=2))


def compare(recipe: Any, split: Split, held: NDArray[np.int32], run: Run) -> dict[str, Any]:
    """One line of the table."""
    rows = split.train.interactions
    without = split.train.with_rows(rows.take(~np.isin(rows.user, held)))
    asked = split.test.with_rows(split.test.interactions.take(np.isin(split.test.interactions.user, held)))
    held_split = replace(split, test=asked)
    stranger = AsStrangers(recipe.fit(without, run)).eval()
    trained = evaluate(recipe.fit(split.train, run), held_split, k=10).measure("NDCG", 10).value
    folded = evaluate(stranger, held_split, k=10).measure("NDCG", 10).value
    one, batch = timings(stranger, split, held)
    return {
        "recipe": recipe.name,
        "trained": trained,
        "folded": folded,
        "ratio": folded / trained if trained else float("nan"),
        "ms_one": one,
        "ms_batch": batch,
    }


def timings(model: Model, split: Split, users: NDArray[np.int32]) -> tuple[float, float]:
    """Milliseconds from a history to scores of the whole catalogue: (median of single calls, per user in one call)."""

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

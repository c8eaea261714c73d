"""Quantities as confidence against plain rows: NDCG@10 on play hours (Steam) and listening counts (Last.fm).

    python benchmarks/weights.py --recipe ials --steam game_play.dat.gz --lastfm user_artists.dat.gz [--json FILE]

The files are of the Steam-200k set and of HetRec 2011. Random fifths of the rows are held out: first as test rows,
then of the rest as validation rows. Each side (weighting "log" and "none") gets the settings that are best for it on
validation rows of two cuts. The test rows are looked at once, at the end, with the same rows and users for both sides.
"""

from __future__ import annotations

import argparse
import json
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from palate.base import Recipe
from palate.data.dataset import Dataset
from palate.data.readers import read_interactions
from palate.data.splits.split import Split
from palate.data.splits.strategies import at_random
from palate.evaluation.evaluate import evaluate
from palate.evaluation.report import Report
from palate.evaluation.significance import paired
from palate.models import make_recipe
from palate.models.confidence import Weighting

GRIDS: dict[str, dict[str, tuple[float, ...]]] = {
    "ials": {"unobserved_weight": (0.03, 0.3), "regularization": (0.007, 0.03, 0.1), "epochs": (3,)},
    "item-knn": {"neighbors": (50, 200), "shrinkage": (0, 10, 100)},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", choices=GRIDS, default="ials")
    parser.add_argument("--steam", type=Path)
    parser.add_argument("--lastfm", type=Path)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    found = [compare(read_interactions(path), args.recipe) for path in (args.steam, args.lastfm) if path is not None]
    if args.json:
        args.json.write_text(json.dumps(found, indent=2))


def compare(data: Dataset, name: str) -> dict[str, Any]:
    """Settings by validation rows, then both sides on the test rows."""
    print(data, data.columns, sep="\n", flush=True)
    test = at_random(data, test_size=0.2, seed=0)
    cuts = [at_random(test.train, test_size=0.2, seed=seed) for seed in (1, 2)]
    sides: tuple[Weighting, Weighting] = ("log", "none")
    best = [
        max((validate(recipe, cuts), number, recipe) for number, recipe in enumerate(grid(name, side)))
        for side in sides
    ]
    log, none = (measure(recipe, test) for _, _, recipe in best)
    difference = paired(log.per_user["NDCG@10"], none.per_user["NDCG@10"])
    row = {
        "data": data.name,
        "users": log.users,
        "validation": {side: round(value, 4) for side, (value, _, _) in zip(sides, best, strict=True)},
        "settings": {side: str(recipe) for side, (_, _, recipe) in zip(sides, best, strict=True)},
        "test": {"log": log.value("NDCG", 10), "none": none.value("NDCG", 10)},
        "difference": difference.difference,
        "interval": [difference.low, difference.high],
        "p": difference.p,
    }
    print(json.dumps(row, indent=2), flush=True)
    return row


def grid(name: str, weighting: Weighting) -> list[Recipe[Any]]:
    """The settings tried."""
    return [
        make_recipe(name, {**dict(zip(GRIDS[name], values, strict=True)), "weighting": weighting})
        for values in product(*GRIDS[name].values())
    ]


def validate(recipe: Recipe[Any], cuts: list[Split]) -> float:
    """Mean NDCG@10 over the cuts."""
    value = float(np.mean([measure(recipe, cut).value("NDCG", 10) for cut in cuts]))
    print(f"  {value:.4f} {recipe}", flush=True)
    return value


def measure(recipe: Recipe[Any], split: Split) -> Report:
    """The report of a fit."""
    return evaluate(recipe.fit(split.train), split, k=10)


if __name__ == "__main__":
    main()

"""The study behind the defaults of iALS: NDCG@10 on validation rows over strength of unobserved cells and ridge.

    python benchmarks/ials_defaults.py --data FOLDER [--sets steam music ...] [--json FILE]

FOLDER holds the data sets in the layout of the registry. A fifth of the rows is set aside as test rows and never read;
a fifth of the rest is held out as validation rows. The grid is in terms that are free of the size of the data:

    c = a / density             unobserved weight per user over observed weight per user, a I / n
    f = l (1 + c) / (n^-1/2 + m^-1/2)    ridge of a row of mean weight over the noise of the matrix

where n and m are the mean events per user and per item. A matrix of random ones has singular values up to about
sqrt(n) + sqrt(m), and the ridges of both sides shrink singular values by their geometric mean l (1 + c) sqrt(n m):
f is the shrinkage in units of that noise.

Generated worlds (``tests/worlds.py``) add catalogs that are wider, sparser and flatter than the sets at hand.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from palate.data.dataset import Dataset
from palate.data.readers import read_interactions
from palate.data.splits.split import Split
from palate.data.splits.strategies import at_random
from palate.datasets.registry import load
from palate.evaluation.evaluate import evaluate
from palate.models.ials import IALS
from palate.models.popularity import Popularity

sys.path.append(str(Path(__file__).parent.parent / "tests"))
from worlds import World

C = (3.0, 10.0, 30.0)
F = (0.25, 0.5, 0.7, 1.0, 2.0)


def sources(folder: Path) -> dict[str, Callable[[], Dataset]]:
    """Data sets by name; what is large is read as a part of its users."""
    return {
        "ml-100k": lambda: load("ml-100k"),
        "ml-1m/3": lambda: some_users(load("ml-1m"), 2_000),
        "ml-1m/20": lambda: some_rows(load("ml-1m"), 0.05),
        "steam": lambda: read_interactions(folder / "steam" / "game_play.dat.gz"),
        "lastfm": lambda: read_interactions(folder / "lastfm-2k" / "user_artists.dat.gz"),
        "music": lambda: read_interactions(
            folder / "amazon-music" / "rating.txt.gz", names=["user", "item", "rating", "time"]
        ),
        "filmtrust": lambda: read_interactions(
            folder / "filmtrust" / "ratings_0.txt", names=["user", "item", "rating"]
        ),
        "beauty/3": lambda: some_users(
            read_interactions(folder / "amazon-sequences" / "beauty.txt.gz", layout="lines"), 7_000
        ),
        "no taste": lambda: World(1_500, 1_000, 15, 0.5, 5, 0.0, 20, 0.8).dataset(),
        "checkins": lambda: World(4_000, 12_000, 27, 0.9, 8, 0.6, 20, 0.8).dataset(),
        "wide": lambda: World(1_500, 6_000, 20, 0.5, 5, 0.4, 20, 0.8).dataset(),
        "short": lambda: World(4_000, 1_000, 5, 0.3, 3, 0.6, 20, 0.8).dataset(),
        "weak": lambda: World(3_000, 2_000, 20, 0.5, 5, 0.15, 20, 0.8).dataset(),
        "dense": lambda: World(500, 300, 60, 0.5, 5, 0.4, 20, 0.5).dataset(),
    }


def some_users(data: Dataset, count: int) -> Dataset:
    """The rows of the first users."""
    return compact(data, data.interactions.user < count)


def some_rows(data: Dataset, share: float) -> Dataset:
    """A random share of the rows."""
    return compact(data, np.random.default_rng(0).random(len(data)) < share)


def compact(data: Dataset, kept: Any) -> Dataset:
    """Some rows, with the users and items that are left."""
    return at_random(data.with_rows(data.interactions.take(np.flatnonzero(kept))), test_size=1e-9, cold="drop").train


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--sets", nargs="+")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    found = []
    for name, read in sources(args.data).items():
        if args.sets and name not in args.sets:
            continue
        found.append(study(name, read(), args.epochs, args.dim))
        if args.json:
            args.json.write_text(json.dumps(found, indent=1))


def study(name: str, data: Dataset, epochs: int, dim: int) -> dict[str, Any]:
    """The table of one data set."""
    cut = at_random(at_random(data, test_size=0.2, seed=0).train, test_size=0.2, seed=1)
    train = cut.train.positives()
    users, items = (len(np.unique(part)) for part in (train.interactions.user, train.interactions.item))
    density = len(train) / users / items
    row: dict[str, Any] = {
        "data": name, "users": users, "items": items, "events": len(train), "per_user": len(train) / users,
        "per_item": len(train) / items, "density": density, "popularity": value(Popularity(), cut),
    }  # fmt: skip
    print(row, flush=True)
    auto = value(IALS(epochs=epochs, dim=dim), cut)
    old = value(IALS(epochs=epochs, dim=dim, unobserved_weight=0.3, regularization=0.007), cut)
    table = {}
    begin = time.process_time()
    noise = (len(train) / users) ** -0.5 + (len(train) / items) ** -0.5
    for c, f in product(C, F):
        recipe = IALS(epochs=epochs, dim=dim, unobserved_weight=c * density, regularization=f * noise / (1 + c))
        table[f"{c:g},{f:g}"] = value(recipe, cut)
    seconds = time.process_time() - begin
    print("      " + "".join(f"  f={f:<5g}" for f in F))
    for c in C:
        print(f"c={c:<4g}" + "".join(f"  {table[f'{c:g},{f:g}']:.4f} " for f in F))
    best = max(table, key=lambda key: table[key])
    print(
        f"default {auto:.4f}; a=0.3, l=0.007 {old:.4f}; best {table[best]:.4f} at c,f={best}; {seconds:.0f} CPU s",
        flush=True,
    )
    return row | {"default": auto, "constants": old, "table": table, "best": best}


def value(recipe: Any, cut: Split) -> float:
    """NDCG@10 on the held-out rows."""
    return float(evaluate(recipe.fit(cut.train), cut, k=10, resamples=0).value("NDCG", 10))


if __name__ == "__main__":
    main()

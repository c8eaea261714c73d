"""Settings of system E on two sets of five cuts inside its training rows: those of its table, and those of its studies.

    python benchmarks/cuts_of_e.py [--include-seen | --hits] [--seed 0]

Printed, for each set of cuts and for both, and each setting: NDCG@10, HitRate@10 and Coverage@10 over all (cut, user),
and the paired difference of the first two from the first setting with a 95 % interval (bootstrap over users). --hits
holds the row "hits" and what it is made of against recent blend alone. No test row is read.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np

from palate.base import Recipe, TrainOptions
from palate.data.dataset import Dataset
from palate.data.splits.split import Split
from palate.datasets.registry import load
from palate.evaluation.evaluate import evaluate
from palate.evaluation.intervals import clustered
from palate.experiment import validation_parts
from palate.models.edlae import RecentEDLAE
from palate.models.ensemble import Ensemble
from palate.models.registry import as_table
from palate.reproduce.system_e import HITS, OURS, TWO_STAGES, earlier, split

# The first of each is what the others are held against.
SETTINGS: dict[str, dict[str, Recipe[Any]]] = {
    "removed": {
        "shipped": OURS[True][""],
        "study of NDCG@10": RecentEDLAE(
            rating_floor=2, keep=0.722, regularization=330, half_life=6.95, since=0.77, mix=0.469, damping=1.027
        ),
    },
    "kept": {
        "before the study": RecentEDLAE(rating_floor=2, keep=0.8, regularization=200),
        "shipped, from the study": OURS[False][""],
    },
    "hits": {
        "recent blend": OURS[True][""],
        "two stages, end to end, no scorer": replace(TWO_STAGES, scorers=(), slices=5, slice_step=None),
        "with scorer": replace(TWO_STAGES, slices=5, slice_step=None),
        "with scorer and overlap": TWO_STAGES,
        "and recent blend: shipped, hits": OURS[True][HITS],
        "the same, wider and slower as in the study": Ensemble(
            members=(as_table(replace(TWO_STAGES, n_candidates=190, learning_rate=0.025)), as_table(OURS[True][""])),
            weights=(1, 0.3),
        ),
    },
}


@cache
def fitted(part: Split, recipe: Recipe[Any], seed: int) -> Any:
    """A model of the part's training rows; a blend takes members that are fitted already."""
    if isinstance(recipe, Ensemble):
        return recipe.around([fitted(part, one, seed) for one in recipe.recipes], part.train)
    return recipe.fit(part.train, TrainOptions(seed=seed))


def measured(
    train: Dataset, parts: list[Split], recipe: Recipe[Any], exclude_seen: bool, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Users (N,) as rows of ``train``, and NDCG, HitRate and the cut's Coverage of each, (3, N)."""
    users, values = [], []
    for part in parts:
        report = evaluate(fitted(part, recipe, seed), part, k=10, exclude_seen=exclude_seen, resamples=0)
        users.append(train.users.rows(part.train.users.external(report.user_rows)))
        coverage = np.full(len(report.user_rows), report.value("Coverage", 10))
        values.append(np.stack([report.per_user["NDCG@10"], report.per_user["HitRate@10"], coverage]))
    return np.concatenate(users), np.concatenate(values, axis=1)


def show(where: str, name: str, user_N: np.ndarray, value_MN: np.ndarray, first_MN: np.ndarray) -> None:
    """One line: the means, and the differences from the first setting."""
    means = " ".join(f"{mean:.4f}" for mean in value_MN.mean(1))
    apart = "; ".join(
        "{:+.4f} ({:+.4f} to {:+.4f})".format(*clustered(value_MN[row] - first_MN[row], user_N)) for row in (0, 1)
    )
    print(f"{where} cuts, {len(user_N)} (cut, user), {name}: {means}; {apart}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--include-seen", action="store_true")
    which.add_argument("--hits", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    settings = SETTINGS["kept" if args.include_seen else "hits" if args.hits else "removed"]
    train = split(load("ml-100k", min_rating="any")).train
    cuts = {
        "the table's": list(earlier(train)),
        "the studies'": [part.relevant(4) for part in validation_parts(train, "time", 5)],
    }
    first: list[np.ndarray] = []
    for name, recipe in settings.items():
        found = [measured(train, parts, recipe, not args.include_seen, args.seed) for parts in cuts.values()]
        first = first or [value_MN for _, value_MN in found]
        for where, (user_N, value_MN), first_MN in zip(cuts, found, first, strict=True):
            show(where, name, user_N, value_MN, first_MN)
        users, values = zip(*found, strict=True)
        show("all", name, np.concatenate(users), np.concatenate(values, axis=1), np.concatenate(first, axis=1))


if __name__ == "__main__":
    main()

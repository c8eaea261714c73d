"""Settings of system E on two sets of five cuts inside its training rows: those of its table, and those of its studies.

    python benchmarks/cuts_of_e.py [--keep-seen]

Printed, for each set of cuts and each setting: NDCG@10, HitRate@10 and Coverage@10 over all (cut, user), and the paired
difference of the first two from the first setting with a 95 % interval (bootstrap over users). No test row is read.
"""

from __future__ import annotations

import argparse

import numpy as np

from palate.data.dataset import Dataset
from palate.data.registry import load
from palate.data.split import Split
from palate.evaluate import evaluate
from palate.models.held_out import RecentBlend
from palate.reproduce.intervals import clustered
from palate.reproduce.system_e import OURS, earlier, split
from palate.tune import validation_parts

# By whether seen items stay in the lists; the first of each is what the others are held against.
SETTINGS = {
    False: {
        "shipped": OURS[True][""],
        "shipped, hits": OURS[True][", hits"],
        "study of NDCG@10": RecentBlend(
            rating_floor=2, keep=0.722, regularization=330, half_life=6.95, since=0.77, mix=0.469, damping=1.027
        ),
    },
    True: {
        "before the study": RecentBlend(rating_floor=2, keep=0.8, regularization=200),
        "shipped, from the study": OURS[False][""],
    },
}


def measured(train: Dataset, parts: list[Split], recipe: RecentBlend, keep_seen: bool) -> tuple[np.ndarray, np.ndarray]:
    """Users (N,) as rows of ``train``, and NDCG, HitRate and the cut's Coverage of each, (3, N)."""
    users, values = [], []
    for part in parts:
        report = evaluate(recipe.fit(part.train), part, k=10, remove_seen=not keep_seen, resamples=0)
        users.append(train.users.rows(part.train.users.external(report.user_rows)))
        coverage = np.full(len(report.user_rows), report.value("Coverage", 10))
        values.append(np.stack([report.per_user["NDCG@10"], report.per_user["HitRate@10"], coverage]))
    return np.concatenate(users), np.concatenate(values, axis=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keep-seen", action="store_true")
    keep_seen = parser.parse_args().keep_seen
    train = split(load("ml-100k")).train
    cuts = {
        "the table's": list(earlier(train)),
        "the studies'": [part.relevant(4) for part in validation_parts(train, "time", 5)],
    }
    for where, parts in cuts.items():
        first: np.ndarray | None = None
        for name, recipe in SETTINGS[keep_seen].items():
            user_N, value_MN = measured(train, parts, recipe, keep_seen)
            first = value_MN if first is None else first
            means = " ".join(f"{mean:.4f}" for mean in value_MN.mean(1))
            apart = "; ".join(
                "{:+.4f} ({:+.4f} to {:+.4f})".format(*clustered(value_MN[row] - first[row], user_N)) for row in (0, 1)
            )
            print(f"{where} cuts, {len(user_N)} (cut, user), {name}: {means}; {apart}")


if __name__ == "__main__":
    main()

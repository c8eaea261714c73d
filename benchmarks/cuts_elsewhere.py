"""System E's protocol on data sets that its settings never saw: many cuts of ml-1m and ml-latest-small.

    python benchmarks/cuts_elsewhere.py [--data ml-1m ml-latest-small] [--cuts 6]

The recipe is that of E's table with seen items removed, frozen at commit a2f1d18, before this script was first run.
Users with 20 rows; training rows up to a cut, test rows the tenth of all time-sorted rows behind it, relevant from
rating 4, seen items removed. Printed, over all (cut, user): NDCG@10 and HitRate@10 of recent popularity and of recent
blend, and the paired difference, each with a 95 % interval over users.
"""

from __future__ import annotations

import argparse
import time

import numpy as np

from palate.base import TrainOptions
from palate.data.preprocessing import min_interactions
from palate.data.splits.strategies import by_time
from palate.datasets.registry import load
from palate.evaluation.evaluate import evaluate
from palate.evaluation.intervals import clustered
from palate.reproduce.system_e import OURS, RECENT, SEED

RECIPES = {"recent popularity": RECENT, "recent blend": OURS[True][""]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", default=["ml-1m", "ml-latest-small"])
    parser.add_argument("--cuts", type=int, default=6)
    args = parser.parse_args()
    for name in args.data:
        data = min_interactions(load(name, min_rating="any"), user=20)
        order = np.argsort(data.interactions.time, kind="stable")
        users: list[np.ndarray] = []
        values: dict[str, list[np.ndarray]] = {model: [] for model in RECIPES}
        for start in np.linspace(0.9, 0.9 - 0.1 * (args.cuts - 1), args.cuts):
            kept = np.sort(order[: round(len(order) * (start + 0.1))])
            part = by_time(data.with_rows(data.interactions.take(kept)), test_size=0.1 / (start + 0.1), cold="drop")
            part = part.relevant(4)
            begin = time.process_time()
            for model, recipe in RECIPES.items():
                fitted = recipe.fit(part.train, TrainOptions(seed=SEED, threads=1))
                report = evaluate(fitted, part, k=10, resamples=0)
                values[model].append(np.stack([report.per_user["NDCG@10"], report.per_user["HitRate@10"]]))
            users.append(data.users.rows(part.train.users.external(report.user_rows)))
            print(f"{name}, cut at {start:.1f}: {report.users} users, {time.process_time() - begin:.0f} s", flush=True)
        user_N = np.concatenate(users)
        found = {model: np.concatenate(parts, axis=1) for model, parts in values.items()}
        found["difference"] = found["recent blend"] - found["recent popularity"]
        for model, value_MN in found.items():
            shown = [
                "{:.4f} ({:.4f} to {:.4f})".format(*clustered(value_N, user_N)) for value_N in value_MN
            ]  # fmt: skip
            print(
                f"| {name}, {args.cuts} cuts | {model} | {' | '.join(shown)} | {len(np.unique(user_N)):,} |", flush=True
            )


if __name__ == "__main__":
    main()

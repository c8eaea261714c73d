"""Two stages on a split by time: recall ceiling, quality and time of each stage, and the lift of the ranker.

    python benchmarks/two_stage.py [--data ml-1m] [--test-size 0.1] [--validate] [--closed] [--ranker cross]
        [--candidates 150]

Full ranking, seen items removed, users known to the training rows. --validate measures on the last --test-size of the
training rows and leaves the test rows alone: that is where the settings below come from. --closed leaves out the two
retrievers that are trained by gradients. --set changes a field of the recipe, as in --set learning_rate=0.02.

    python benchmarks/two_stage.py --system-e

compares with recent blend under system E's protocol, on the five earlier cuts inside its training rows; the whole of
its row "hits" is in cuts_of_e.py.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from pathlib import Path
from typing import Any

import torch

from palate.base import TrainOptions
from palate.data.splits.strategies import by_time
from palate.datasets.registry import load
from palate.evaluation.intervals import clustered
from palate.evaluation.two_stage import evaluate_stages
from palate.models import make_recipe
from palate.reproduce import system_e
from palate.reproduce.rows import Options

CLOSED: list[Any] = [
    "popularity",
    "recent-popularity",
    "newest",
    {"recipe": "ials", "unobserved_weight": 0.3, "regularization": 0.007, "half_life_events": 30, "floor": 0.2},
    {"recipe": "ease", "regularization": 1000},
    "recent-edlae",
]
TRAINED = [
    {"recipe": "two-tower", "epochs": 2, "learning_rate": 0.01},
    {"recipe": "sasrec", "dim": 32, "n_layers": 1, "hidden": 64, "epochs": 3},
]


def earlier_cuts(wishes: dict[str, Any]) -> None:
    """NDCG@10 and HitRate@10 over all (cut, user) of two stages, and their lift over recent blend."""
    train = system_e.split(load("ml-100k", min_rating="any")).train
    recipes = (system_e.OURS[True][""], dataclasses.replace(system_e.TWO_STAGES, **wishes))
    cuts = list(system_e.earlier(train))
    (people, blend), (_, ours) = (system_e.over(cuts, train, one, Options()) for one in recipes)
    for metric, before, after in zip(("NDCG@10", "HitRate@10"), blend, ours, strict=True):
        lift, low, high = clustered(after - before, people)
        print(f"{metric}: recent blend {before.mean():.4f}, two stages {after.mean():.4f}, {lift:+.4f} ", end="")
        print(f"({low:+.4f} to {high:+.4f})")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="ml-1m")
    parser.add_argument("--test-size", type=float, default=0.1, help="of the rows, held out for the test")
    parser.add_argument("--validate", action="store_true", help="measure inside the training rows")
    parser.add_argument("--closed", action="store_true", help="only retrievers in closed form")
    parser.add_argument("--ranker", default="trees")
    parser.add_argument("--candidates", type=int, default=150)
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE")
    parser.add_argument("--json", type=Path, help="write the numbers there too")
    parser.add_argument("--system-e", action="store_true", help="the earlier cuts of system E instead")
    args = parser.parse_args()
    torch.set_num_threads(1)
    wishes = {name: json.loads(value) for name, value in (one.split("=", 1) for one in args.set)}
    if args.system_e:
        earlier_cuts(wishes)
        return
    split = by_time(load(args.data, min_rating="any"), test_size=args.test_size)
    if args.validate:
        split = by_time(split.train, test_size=args.test_size)
    fields = {
        "members": CLOSED if args.closed else CLOSED + TRAINED,
        "ranker": args.ranker,
        "n_candidates": args.candidates,
        **wishes,
    }
    begin = time.perf_counter()
    model = make_recipe("two-stage", fields).fit(split.train, TrainOptions(seed=0))
    fitted = time.perf_counter() - begin
    stages = evaluate_stages(model, split, k=10)
    print(stages)
    print(f"\nfitted in {fitted:.0f} s, measured in {time.perf_counter() - begin - fitted:.0f} s")
    if args.json:
        args.json.write_text(json.dumps(stages.to_dict(), indent=1))


if __name__ == "__main__":
    main()

"""Onboarding: NDCG@10 after five answers, for users who were not in training, against popularity.

    python benchmarks/onboarding.py [RECIPE ...] [--data ml-100k] [--test-size 0.1] [--validate] [--json FILE]

A tenth of the users is held out. Each is asked about items until five answers are there or 30 questions were asked;
users know the items of their history. The model, fitted on the other users (fast presets unless --full), gets the
answers alone; the rest of the history is relevant, and popularity is measured for the same users and candidates. Four
strategies: see ``palate.evaluation.onboarding``.

--validate compares the strategies with each other: a quarter of each user's rows is hidden from the questions and
is relevant under every strategy. The users of the table above are left out of this one altogether, because the
criterion and its settings were chosen on it.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from palate.base import TrainOptions
from palate.datasets.registry import load
from palate.evaluation.onboarding import evaluate_onboarding, held_out_users
from palate.models import RECIPES

HIDDEN = 0.25


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipes", nargs="*", default=["ials", "ease", "two-tower"])
    parser.add_argument("--data", default="ml-100k")
    parser.add_argument("--test-size", type=float, default=0.1, help="of the users, held out of training")
    parser.add_argument("--answers", type=int, default=5)
    parser.add_argument("--questions", type=int, default=30)
    parser.add_argument("--validate", action="store_true", help="compare strategies on other users")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--full", action="store_true", help="the recipes' defaults instead of their fast presets")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    data, options = load(args.data, min_rating="any"), TrainOptions(seed=args.seed)
    if args.validate:
        rows = data.interactions
        tested = held_out_users(data, args.test_size, args.seed)
        data, options = data.with_rows(rows.take(~np.isin(rows.user, tested))), TrainOptions(seed=args.seed + 1)
    results: list[dict[str, object]] = []
    for name in args.recipes:
        report = evaluate_onboarding(
            RECIPES[name]() if args.full else RECIPES[name].fast(),
            data,
            answers=args.answers,
            questions=args.questions,
            test_size=args.test_size,
            hidden_size=HIDDEN if args.validate else 0.0,
            options=options,
        )
        if not results:
            print(report.how, *report.notes, sep="\n")
            print(f"{'recipe':12} {'strategy':10} questions answers  NDCG@10  popular  difference")
        for one in report.results:
            means = f"{one.questions:9.1f} {one.answers:7.2f} {one.ndcg:8.4f} {one.popularity:8.4f}"
            test = f"{one.difference:+.4f} [{one.low:+.4f}, {one.high:+.4f}]  p {one.p:.4f}"
            print(f"{name:12} {one.strategy:10} {means}  {test}", flush=True)
            results.append({"recipe": name, "data": args.data, "how": report.how, **asdict(one)})
    if args.json:
        args.json.write_text(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()

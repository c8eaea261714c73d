"""Do reasons hold? The items that support a recommendation are taken out of the history, and so are as many others.

    python benchmarks/reasons.py [RECIPE ...] [--data ml-100k] [--users 25] [--items 3] [--top 3] [--full] [--epochs N]
        [--json FILE]

Each personal recipe (all of them where none is named; fast presets unless --full) is trained on all but the latest row
of each user. For some random users the best unseen items are explained. Printed per recipe: how the reasons were
computed; how much the score falls, on the mean over users and items, when the named items are taken out of the history
and when as many random others are, in standard deviations of the user's scores of the catalog; in how many of the
cases named ones count more; p of a paired t-test over users; and milliseconds of one core per explained item, which do
not depend on how long was trained: --epochs 1 is enough for them.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats
from torch import Tensor

from palate.base import Query, TrainOptions
from palate.data.dataset import Dataset, History
from palate.data.splits.strategies import leave_one_out
from palate.datasets.registry import load
from palate.errors import PalateError
from palate.models import RECIPES
from palate.recommend.attribution import Explainer, method

DRAWS = 5  # of random others


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipes", nargs="*", help=f"of {', '.join(RECIPES)}")
    parser.add_argument("--data", default="ml-100k")
    parser.add_argument("--users", type=int, default=25)
    parser.add_argument("--items", type=int, default=3, help="explained for each user")
    parser.add_argument("--top", type=int, default=3, help="items of the history named for each")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--full", action="store_true", help="the recipes' defaults instead of their fast presets")
    parser.add_argument("--epochs", type=int, help="of recipes that have epochs")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    train = leave_one_out(load(args.data, min_rating="any")).train
    many = np.flatnonzero(train.history.counts >= 3 * args.top)
    users = np.sort(np.random.default_rng(args.seed).choice(many, min(args.users, len(many)), replace=False))
    print(f"{'recipe':17} {'method':14} {'named':>7} {'random':>7} {'named >':>8} {'p':>9} {'ms/item':>8}")
    rows = []
    for name in args.recipes or list(RECIPES):
        recipe = RECIPES[name]() if args.full else RECIPES[name].fast()
        if args.epochs is not None and hasattr(recipe, "epochs"):
            recipe = replace(recipe, epochs=args.epochs)
        try:
            model = recipe.fit(train, TrainOptions(seed=args.seed)).eval()
        except PalateError as error:
            print(f"{name:17} {error}")
            continue
        if not bool(model.can_personalize(Query.of(users, train.history.select(users))).all()):
            print(f"{name:17} not personal")
            continue
        rows.append({"recipe": name, **measured(model, train, users, args)})
        line = "{recipe:17} {method:14} {named:7.3f} {random:7.3f} {more:8.2f} {p:9.1g} {ms:8.2f}"
        print(line.format(**rows[-1]), flush=True)
    if args.json:
        args.json.write_text(json.dumps(rows, indent=2))


def measured(model: Any, train: Dataset, users: NDArray[np.int64], args: argparse.Namespace) -> dict[str, Any]:
    """One line of the table."""
    history = train.history.select(users)
    query = Query.of(np.full(len(users), -1), history)
    owner_H = np.repeat(np.arange(len(users)), history.counts)
    with torch.inference_mode():
        score_BI = model.score(query).float().clone()
        spread_B = score_BI.std(1).numpy()
        score_BI[owner_H, history.items] = -torch.inf
        item = score_BI.topk(args.items).indices.numpy().reshape(-1)
    who = np.repeat(np.arange(len(users)), args.items)
    explainer = Explainer(model, train.items, train.history, train.titles)
    explainer.because(query, who[:1], item[:1], np.ones(len(users), bool), args.top)  # what is computed once
    begin = time.process_time()
    because = explainer.because(query, who, item, np.ones(len(users), bool), args.top)["because"].to_list()
    seconds = time.process_time() - begin
    named = [train.items.rows([one["item_id"] for one in reasons]) for reasons in because]
    rng = np.random.default_rng(args.seed)
    others = [_others(history.of(user), out, rng) for user, out in zip(who, named, strict=True)]
    drop = _drops(model, history, who, item, named) / spread_B[who]
    chance = (
        np.mean([_drops(model, history, who, item, [draw[k] for draw in others]) for k in range(DRAWS)], axis=0)
        / spread_B[who]
    )
    by_user = (drop - chance).reshape(len(users), -1).mean(1)
    return {
        "method": method(model),
        "named": float(drop.mean()),
        "random": float(chance.mean()),
        "more": float((drop > chance).mean()),
        "p": float(stats.ttest_1samp(by_user, 0, alternative="greater").pvalue),
        "ms": 1000 * seconds / len(who),
        "users": len(users),
    }


def _others(history: NDArray[np.int32], named: NDArray[np.int32], rng: np.random.Generator) -> list[Any]:
    """As many random items of a history, none of them named, a few times."""
    rest = np.setdiff1d(history, named)
    return [rng.choice(rest, min(len(named), len(rest)), replace=False) for _ in range(DRAWS)]


def _drops(model: Any, history: History, who: Any, item: NDArray[np.int64], out: list[Any]) -> NDArray[np.float64]:
    """How much the score of each row's item falls when the items ``out`` leave the history of its user."""
    whole = history.select(who)
    owner = np.repeat(np.arange(len(who)), whole.counts)
    pairs = np.concatenate([row * 10**9 + np.asarray(items, np.int64) for row, items in enumerate(out)])
    kept = ~np.isin(owner * 10**9 + whole.items, pairs)
    offsets = np.concatenate([[0], np.bincount(owner[kept], minlength=len(who)).cumsum()])
    times = None if whole.times is None else whole.times[kept]
    less = History(offsets, whole.items[kept], whole.weights[kept], times)
    asked = torch.from_numpy(item.astype(np.int64))[:, None]

    def score(some: History) -> Tensor:
        return model.score(Query.of(np.full(len(some), -1), some), asked).float()[:, 0]

    with torch.inference_mode():
        return (score(whole) - score(less)).double().numpy()


if __name__ == "__main__":
    main()

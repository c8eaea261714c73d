"""iALS against implicit's ALS (conjugate gradient, its default): CPU seconds to the same loss, or validation NDCG@10.

    python benchmarks/ials.py [--data ml-1m check-ins] [--until ndcg loss] [--rounds 3] [--dims 64 128] [--json FILE]

Needs implicit (``pip install implicit``), which Palate itself does not. One thread each; set OMP_NUM_THREADS=1.

Both minimize the same objective. implicit's is

    sum_S c (1 - s)^2 + sum_{not S} s^2 + r (|P|^2 + |Q|^2)          s = p_u.q_i

which with k = c / (c - 1) is (c - 1) k^2 times ours at s / k, unobserved weight 1 / (c - 1), regularization r / c and
exponent 0. The weights are those that our recipe chooses by the data, the regularization a half, once and twice of it.

Data: ncf-ml-1m, and generated check-ins of 10,000 users and 14,000 items, most with few events. A tenth of the rows is
held out; NDCG@10 is that of 500 users, seen items removed.

loss    implicit runs its default of 15 sweeps; ours runs until its loss is at most the one that implicit ends with
ndcg    implicit runs 15 sweeps; both are timed until their NDCG is for the first time 99.5 % of the one it ends with

Set-up counts, measuring does not. Start values are each one's own; rounds alternate; medians. Seconds per sweep too.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from scipy import sparse

from palate.data.splits.split import Split
from palate.data.splits.strategies import at_random
from palate.datasets.registry import load_split
from palate.models.ials import IALS, Alternation

sys.path.append(str(Path(__file__).parent.parent / "tests"))
from worlds import World

ITERATIONS = 15  # implicit's default
LIMIT = 60  # epochs after which ours is given up
SOURCES = {
    "ml-1m": lambda: load_split("ncf-ml-1m").train,
    "check-ins": lambda: World(10_000, 14_000, 27, 0.9, 8, 0.6, 20, 0.8).dataset(),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", choices=list(SOURCES), default=list(SOURCES))
    parser.add_argument("--until", nargs="+", choices=["ndcg", "loss"], default=["ndcg"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dims", type=int, nargs="+", default=[64, 128])
    parser.add_argument("--strengths", type=float, nargs="+", default=[0.5, 1.0, 2.0], help="of regularization")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    rows = []
    for name in args.data:
        split = at_random(SOURCES[name](), test_size=0.1)
        for until, dim, strength in product(args.until, args.dims, args.strengths):
            recipe = IALS(dim=dim, exponent=0.0).for_data(split.train)
            recipe = replace(recipe, regularization=strength * recipe.strengths[1])
            rows.append(
                {"data": name, "until": until, "strength": strength, **compare(recipe, split, until, args.rounds)}
            )
            print(rows[-1], flush=True)
    if args.json:
        args.json.write_text(json.dumps(rows, indent=2))


def compare(recipe: IALS, split: Split, until: str, rounds: int) -> dict[str, Any]:
    """Medians over alternating rounds."""
    value = ndcg(split) if until == "ndcg" else lambda state: -state.loss()
    ours, theirs = [], []
    for seed in range(rounds):
        curve = implicit_curve(recipe, split, seed, value)
        target = 0.995 * curve[-1][1] if until == "ndcg" else curve[-1][1]
        reached = next(n for n, (_, found) in enumerate(curve) if found >= target)
        theirs.append((curve[reached][0], reached + 1, curve[-1][0] / ITERATIONS, curve[-1][1]))
        ours.append(our_run(recipe, split, seed, value, target))
    mine, other = (np.median(runs, axis=0).round(4).tolist() for runs in (ours, theirs))
    return {
        "dim": recipe.dim,
        **{
            f"palate_{name}": found for name, found in zip(("seconds", "epochs", "per_epoch", until), mine, strict=True)
        },
        **{
            f"implicit_{name}": found
            for name, found in zip(("seconds", "sweeps", "per_sweep", until), other, strict=True)
        },
        "ratio": round(median(a[0] / b[0] for a, b in zip(ours, theirs, strict=True)), 2),
    }


def our_run(
    recipe: IALS, split: Split, seed: int, value: Callable[[Alternation], float], target: float
) -> tuple[float, int, float, float]:
    """Seconds and epochs until our value is at least ``target``, seconds per epoch, and the value."""
    begin = time.process_time()
    state = Alternation(recipe, split.train, seed)
    state.solve_users()
    seconds = start = time.process_time() - begin
    for epoch in range(LIMIT):
        found = value(state)
        if found >= target:
            return seconds, epoch, (seconds - start) / max(1, epoch), found
        begin = time.process_time()
        state.epoch()
        seconds += time.process_time() - begin
    raise SystemExit(f"{recipe} did not reach {target} in {LIMIT} epochs")


def implicit_curve(
    recipe: IALS, split: Split, seed: int, value: Callable[[Alternation], float]
) -> list[tuple[float, float]]:
    """(seconds so far, value) after each of its sweeps."""
    try:
        from implicit.cpu.als import AlternatingLeastSquares
    except ModuleNotFoundError as error:
        raise SystemExit("this benchmark compares with implicit: pip install implicit") from error
    train = split.train
    rows, confidence = train.interactions, 1 + 1 / recipe.strengths[0]
    state, curve, measuring = Alternation(recipe, train, seed), [], 0.0

    def note(*_: Any) -> None:
        nonlocal measuring
        now = time.process_time()
        scale = np.sqrt((confidence - 1) / confidence).astype(np.float32)
        state.user_UD, state.item_ID = model.user_factors * scale, model.item_factors * scale
        curve.append((now - begin - measuring, value(state)))
        measuring += time.process_time() - now

    begin = time.process_time()
    shape = (train.n_users, train.n_items)
    matrix = sparse.csr_matrix((np.ones(len(rows), np.float32), (rows.user, rows.item)), shape)
    model = AlternatingLeastSquares(
        factors=recipe.dim,
        alpha=confidence,
        regularization=recipe.strengths[1] * confidence,
        iterations=ITERATIONS,
        num_threads=1,
        random_state=seed,
    )
    model.fit(matrix, show_progress=False, callback=note)
    return curve


def ndcg(split: Split, users: int = 500, k: int = 10) -> Callable[[Alternation], float]:
    """A function that gives the mean NDCG@k of some test users."""
    shape = (split.train.n_users, split.train.n_items)
    seen, held = (
        sparse.csr_array((np.ones(len(rows), np.float32), (rows.user, rows.item)), shape=shape)
        for rows in (split.train.interactions, split.test.interactions)
    )
    some = np.random.default_rng(0).permutation(np.flatnonzero(np.diff(held.indptr)))[:users]
    seen_BI, relevant_BI = seen[some].toarray() > 0, held[some].toarray() > 0
    discount_k = 1 / np.log2(np.arange(2, k + 2))
    ideal_B = discount_k.cumsum()[np.minimum(relevant_BI.sum(1), k) - 1]

    def value(state: Alternation) -> float:
        score_BI = np.where(seen_BI, -np.inf, state.user_UD[some] @ state.item_ID.T)
        best_Bk = np.argpartition(-score_BI, k, axis=1)[:, :k]
        best_Bk = np.take_along_axis(best_Bk, np.argsort(-np.take_along_axis(score_BI, best_Bk, 1), axis=1), 1)
        return float((np.take_along_axis(relevant_BI, best_Bk, 1) @ discount_k / ideal_B).mean())

    return value


if __name__ == "__main__":
    main()

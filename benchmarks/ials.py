"""iALS against implicit's ALS (conjugate gradient, its default) on ncf-ml-1m: CPU seconds to the same training loss.

    python benchmarks/ials.py [--rounds 3] [--dims 64 192] [--json FILE]

Needs implicit (``pip install implicit``), which Palate itself does not. One thread each; set OMP_NUM_THREADS=1.

Both minimize the same objective. implicit's is

    sum_S c (1 - s)^2 + sum_{not S} s^2 + r (|P|^2 + |Q|^2)          s = p_u.q_i

which with k = c / (c - 1) is (c - 1) k^2 times ours at s / k, unobserved weight 1 / (c - 1), regularization r / c and
exponent 0. implicit runs its default number of iterations; the loss it ends with is the target. Ours runs until it is
there. Start values are each one's own; computing the loss is not timed; rounds alternate; medians.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from scipy import sparse

from palate.data.dataset import Dataset
from palate.datasets.registry import load_split
from palate.models.ials import IALS, Alternation

ITERATIONS = 15  # implicit's default
LIMIT = 60  # epochs after which ours is given up


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dims", type=int, nargs="+", default=[64, 192])
    parser.add_argument("--unobserved", type=float, default=0.3, help="our unobserved weight, 1 / (c - 1)")
    parser.add_argument("--regularization", type=float, nargs="+", default=[9.0, 0.01], help="ours, r / c")
    parser.add_argument("--block", type=int, default=64, help="coordinates per block where D is larger")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    train = load_split("ncf-ml-1m").train
    rows = []
    for dim in args.dims:
        for regularization in args.regularization:
            block = args.block if dim > args.block else None
            recipe = IALS(
                dim=dim, unobserved_weight=args.unobserved, regularization=regularization, exponent=0.0, block=block
            )
            rows.append(compare(recipe, train, args.rounds))
            print(rows[-1], flush=True)
    if args.json:
        args.json.write_text(json.dumps(rows, indent=2))


def compare(recipe: IALS, train: Dataset, rounds: int) -> dict[str, Any]:
    """Medians over alternating rounds."""
    ours, theirs = [], []
    for seed in range(rounds):
        target, seconds = implicit_run(recipe, train, seed)
        theirs.append((seconds, ITERATIONS))
        ours.append(our_run(recipe, train, seed, target))
    mine, other = (median(seconds for seconds, _ in runs) for runs in (ours, theirs))
    return {
        "dim": recipe.dim,
        "block": recipe.block,
        "unobserved_weight": recipe.unobserved_weight,
        "regularization": recipe.regularization,
        "palate_seconds": round(mine, 2),
        "palate_epochs": median(epochs for _, epochs in ours),
        "implicit_seconds": round(other, 2),
        "implicit_epochs": ITERATIONS,
        "ratio": round(mine / other, 2),
    }


def our_run(recipe: IALS, train: Dataset, seed: int, target: float) -> tuple[float, int]:
    """Seconds and epochs until our loss is at most ``target``."""
    begin = time.process_time()
    state = Alternation(recipe, train, seed)
    state.solve_users()
    seconds = time.process_time() - begin
    for epoch in range(1, LIMIT + 1):
        begin = time.process_time()
        state.epoch()
        seconds += time.process_time() - begin
        if state.loss() <= target:
            return seconds, epoch
    raise SystemExit(f"{recipe} did not reach a loss of {target} in {LIMIT} epochs")


def implicit_run(recipe: IALS, train: Dataset, seed: int) -> tuple[float, float]:
    """(our loss of its vectors, seconds) after its default iterations."""
    try:
        from implicit.als import AlternatingLeastSquares
    except ModuleNotFoundError as error:
        raise SystemExit("this benchmark compares with implicit: pip install implicit") from error
    confidence = 1 + 1 / recipe.unobserved_weight
    rows = train.interactions
    begin = time.process_time()
    matrix = sparse.csr_matrix((np.ones(len(rows), np.float32), (rows.user, rows.item)), (train.n_users, train.n_items))
    model = AlternatingLeastSquares(
        factors=recipe.dim,
        alpha=confidence,
        regularization=recipe.regularization * confidence,
        iterations=ITERATIONS,
        num_threads=1,
        random_state=seed,
    )
    model.fit(matrix, show_progress=False)
    seconds = time.process_time() - begin
    state = Alternation(recipe, train, seed)
    scale = np.sqrt((confidence - 1) / confidence).astype(np.float32)
    state.user_UD, state.item_ID = model.user_factors * scale, model.item_factors * scale
    return state.loss(), seconds


if __name__ == "__main__":
    main()

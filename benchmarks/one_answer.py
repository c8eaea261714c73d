"""Milliseconds of one answer: Recommender, the integer door, the bare arithmetic and, if installed, implicit.

    OMP_NUM_THREADS=1 python benchmarks/one_answer.py [--items 27000] [--dim 64] [--users 10000 1000000] [--calls 200]

Everything runs in one process on one thread, alternating call by call, in three rounds, so that other load on the
machine hits all alike. The bare path is the least that any answer costs: a matrix-vector product, the seen items
masked, the ten best sorted, on the same arrays, in NumPy and in torch. Printed, for random vectors and 20 seen items
per user: the median over all calls of wall-clock time and of the CPU time of the thread, which other load lengthens
less, and the ratio of the latter to that of the bare path in torch, the library of the models.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import polars as pl
import torch
from scipy import sparse

from palate.base import DataSpec
from palate.data.dataset import History
from palate.data.ids import IdMap
from palate.models.ials import IALS
from palate.recommend import Recommender
from palate.recommend.top_n import RecommendOptions, recommend

SEEN, K, ROUNDS = 20, 10, 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=27_000)
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--users", type=int, nargs="+", default=[10_000, 1_000_000])
    parser.add_argument("--history", type=int, default=50, help="events of a posted history")
    parser.add_argument("--calls", type=int, default=200, help="of each path in each round")
    args = parser.parse_args()
    torch.set_num_threads(1)
    for users in args.users:
        paths = ways(users, args)
        taken: dict[str, list[tuple[float, float]]] = {name: [] for name in paths}
        rng = np.random.default_rng(1)
        for path in paths.values():
            path(0)
        for _ in range(ROUNDS):
            for user in rng.integers(0, users, args.calls).tolist():
                for name, path in paths.items():
                    wall, cpu = time.perf_counter(), time.thread_time()
                    path(user)
                    taken[name].append((time.perf_counter() - wall, time.thread_time() - cpu))
        medians = {name: 1000 * np.median(times, axis=0) for name, times in taken.items()}
        print(f"{users:,} users, {args.items:,} items x {args.dim}")
        for name, (wall, cpu) in medians.items():
            ratio = cpu / medians["bare torch"][1]
            print(f"  {name:30} median {wall:7.3f} ms, CPU {cpu:7.3f} ms, {ratio:6.2f} x bare torch")


def ways(users: int, args: argparse.Namespace) -> dict[str, Callable[[int], Any]]:
    """Name of each path -> the answer to one user row."""
    rng = np.random.default_rng(0)
    seen = rng.integers(0, args.items, users * SEEN).astype(np.int32)
    offsets = np.arange(users + 1) * SEEN
    history = History(offsets, seen, np.ones(len(seen), np.float32), np.arange(len(seen), dtype=np.float64))
    model = IALS(dim=args.dim, unobserved_weight=0.3, regularization=0.007).build(DataSpec(users, args.items))
    with torch.no_grad():
        for table in (model.user_table, model.item_table):
            table.weight.copy_(torch.from_numpy(rng.standard_normal(table.weight.shape, dtype=np.float32)))
    recommender = Recommender(
        model=model,
        users=IdMap(pl.Series("id", [f"user-{n:07}" for n in range(users)])),
        items=IdMap(pl.Series("id", [f"item-{n:05}" for n in range(args.items)])),
        seen=history,
        popularity=np.bincount(seen, minlength=args.items).astype(np.float32),
        name="random",
    )
    user_UD, item_ID = model.user_table.weight.detach(), model.item_table.weight.detach()
    user_n, item_n = user_UD.numpy(), item_ID.numpy()
    options = RecommendOptions(K)
    posted = {"someone new": [f"item-{n:05}" for n in rng.integers(0, args.items, args.history)]}

    def bare_numpy(user: int) -> Any:
        score_I = item_n @ user_n[user]
        score_I[seen[offsets[user] : offsets[user + 1]]] = -np.inf
        best = np.argpartition(score_I, -K)[-K:]
        return best[np.argsort(-score_I[best])]

    def bare_torch(user: int) -> Any:
        with torch.inference_mode():
            score_I = torch.mv(item_ID, user_UD[user])
            score_I[torch.from_numpy(seen[offsets[user] : offsets[user + 1]]).long()] = -torch.inf
            return torch.topk(score_I, K)

    paths: dict[str, Callable[[int], Any]] = {
        "bare NumPy": bare_numpy,
        "bare torch": bare_torch,
        "integers (top_n.recommend)": lambda user: recommend(recommender, np.array([user]), options),
        "Recommender.recommend": lambda user: recommender.recommend([f"user-{user:07}"], K),
        f"posted history of {args.history}": lambda user: recommender.recommend(["someone new"], K, histories=posted),
    }
    try:
        from implicit.cpu.als import AlternatingLeastSquares
    except ImportError:
        return paths
    als = AlternatingLeastSquares(factors=args.dim, num_threads=1)
    als.user_factors, als.item_factors = user_n, item_n
    rows = sparse.csr_matrix((history.weights, seen, offsets), shape=(users, args.items))
    return {**paths, "implicit.recommend": lambda user: als.recommend(user, rows[user], N=K)}


if __name__ == "__main__":
    main()

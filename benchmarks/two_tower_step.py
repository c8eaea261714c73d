"""Two-tower in-batch steps, whole tensors against a per-sample DataLoader: rows per second.

    python benchmarks/two_tower_step.py [--rounds 3] [--steps 100] [--batch 1024] [--workers 0 2] [--json FILE]

Same model (ids alone, width 32, tables of MovieLens 1M size), same loss, same fused Adam, same plain loop; only the
source of the batches differs. "tensors" is what the recipe trains from; "samples" is a Dataset that returns one
(user, item, log share) at a time behind a shuffling DataLoader, at its best number of workers. The rows are random: the
cost does not depend on them. Rounds alternate; medians. Set OMP_NUM_THREADS=1.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from statistics import median

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from palate.data.dataset import Dataset, Interactions
from palate.data.ids import IdMap
from palate.models.two_tower import TwoTower
from palate.protocols import Batch, Sizes

USERS, ITEMS, ROWS = 6_040, 3_706, 1_000_209


class Samples(TorchDataset[tuple[int, int, float]]):
    """One row at a time, as tutorials feed it."""

    def __init__(self, train: Dataset) -> None:
        rows = train.interactions
        self.user, self.item = rows.user.tolist(), rows.item.tolist()
        share = np.bincount(rows.item, minlength=train.n_items) / len(rows)
        self.log_q = np.log(np.maximum(share, 1e-12)).tolist()

    def __len__(self) -> int:
        return len(self.user)

    def __getitem__(self, row: int) -> tuple[int, int, float]:
        return self.user[row], self.item[row], self.log_q[self.item[row]]


def random_rows() -> Dataset:
    rng = np.random.default_rng(0)
    user = rng.integers(0, USERS, ROWS, dtype=np.int32)
    item = (ITEMS * rng.random(ROWS) ** 2).astype(np.int32)
    rows = Interactions(user, item, np.ones(ROWS, np.float32))
    return Dataset("random", IdMap.of(np.arange(USERS)), IdMap.of(np.arange(ITEMS)), rows)


def rows_per_second(recipe: TwoTower, batches: Iterable[tuple[Tensor, Tensor, Tensor]], steps: int) -> float:
    torch.manual_seed(0)
    module = recipe.build(Sizes(USERS, ITEMS))
    (optimizer,) = recipe.optimizers(module)
    rows, begin = 0, time.perf_counter()
    for user, item, log_q in islice(batches, steps):
        optimizer.zero_grad()
        recipe.loss(module, Batch(user, item, log_q.float())).backward()
        optimizer.step()
        rows += len(user)
    return rows / (time.perf_counter() - begin)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--batch", type=int, default=TwoTower().batch_size)
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 2])
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    recipe, train = TwoTower(batch_size=args.batch), random_rows()
    samples = Samples(train)
    ways: dict[str, list[float]] = {"tensors": [], **{f"samples, {workers} workers": [] for workers in args.workers}}
    for round_number in range(args.rounds):
        ways["tensors"].append(rows_per_second(recipe, recipe.batches(train, 0, round_number), args.steps))
        for workers in args.workers:
            loader = DataLoader(samples, args.batch, shuffle=True, num_workers=workers)
            ways[f"samples, {workers} workers"].append(rows_per_second(recipe, loader, args.steps))
    found = {way: round(median(rates)) for way, rates in ways.items()}
    best = max(rate for way, rate in found.items() if way != "tensors")
    row = {"batch": args.batch, "rows_per_second": found, "ratio": round(found["tensors"] / best, 2)}
    print(row)
    if args.json:
        args.json.write_text(json.dumps([row], indent=2))


if __name__ == "__main__":
    main()

"""Two-tower in-batch steps, whole tensors against a per-sample DataLoader: rows per second over an epoch.

    python benchmarks/two_tower_step.py [--rounds 3] [--rows 100000] [--workers 0 2] [--json FILE]

Four steps: the recipe's own (in-batch softmax, width 32), the same in small batches, and those of system D (batch 8192,
Adagrad, no corrections) and E (width 16, batch 1024, 10 drawn negatives per positive). Same model (ids alone, tables of
MovieLens 100K size), same loss, same optimizer, same plain loop; only the source of the batches differs. "tensors" is
what the recipe trains from; "samples" is a Dataset over tensors that returns one row at a time (and draws its
negatives) behind a shuffling DataLoader, at its best number of workers. The rows are random: the cost does not depend
on them. A row is a positive. Rounds alternate; medians. Set OMP_NUM_THREADS=1.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from palate.base import Batch, DataSpec
from palate.data.dataset import Dataset, Interactions
from palate.data.ids import IdMap
from palate.models.two_tower import TwoTower

USERS, ITEMS = 943, 1_682
STEPS = {
    "default": TwoTower(),
    "small batches": TwoTower(batch_size=256),
    "system D": TwoTower(log_q=False, mask_hits=False, batch_size=8192, optimizer="adagrad", learning_rate=0.1),
    "system E": TwoTower(dim=16, objective="bce", negatives=10, negatives_from="all", batch_size=1024),
}


class Samples(TorchDataset[tuple[Tensor, Tensor, Tensor]]):
    """One row at a time, as tutorials feed it."""

    def __init__(self, train: Dataset, negatives: int) -> None:
        self.negatives = negatives
        self.target = torch.zeros(1 + negatives)
        self.target[0] = 1
        rows = train.interactions
        share = np.bincount(rows.item, minlength=train.n_items) / len(rows)
        self.user, self.item = torch.from_numpy(rows.user).long(), torch.from_numpy(rows.item).long()
        self.log_q = torch.from_numpy(np.log(np.maximum(share, 1e-12)[rows.item]).astype(np.float32))

    def __len__(self) -> int:
        return len(self.user)

    def __getitem__(self, row: int) -> tuple[Tensor, Tensor, Tensor]:
        if not self.negatives:
            return self.user[row], self.item[row], self.log_q[row]
        drawn = torch.randint(0, ITEMS, (self.negatives,))
        return self.user[row], torch.cat([self.item[row : row + 1], drawn]), self.target


def random_rows(n: int) -> Dataset:
    rng = np.random.default_rng(0)
    user = rng.integers(0, USERS, n, dtype=np.int32)
    item = (ITEMS * rng.random(n) ** 2).astype(np.int32)
    rows = Interactions(user, item, np.ones(n, np.float32))
    return Dataset("random", IdMap.of(np.arange(USERS)), IdMap.of(np.arange(ITEMS)), rows)


def rows_per_second(recipe: TwoTower, batches: Iterable[tuple[Tensor, Tensor, Tensor]]) -> float:
    torch.manual_seed(0)
    module = recipe.build(DataSpec(USERS, ITEMS))
    (optimizer,) = recipe.optimizers(module)
    rows, begin = 0, time.perf_counter()
    for user, item, log_q in batches:
        optimizer.zero_grad()
        recipe.loss(module, Batch(user, item, log_q)).backward()
        optimizer.step()
        rows += len(user)
    return rows / (time.perf_counter() - begin)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 2])
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    train = random_rows(args.rows)
    found = [{"step": name, **compare(recipe, train, args.rounds, args.workers)} for name, recipe in STEPS.items()]
    print(*found, sep="\n")
    if args.json:
        args.json.write_text(json.dumps(found, indent=2))


def compare(recipe: TwoTower, train: Dataset, rounds: int, workers: list[int]) -> dict[str, Any]:
    samples = Samples(train, 0 if recipe.objective == "softmax" else recipe.negatives)
    ways: dict[str, list[float]] = {"tensors": [], **{f"samples, {count} workers": [] for count in workers}}
    for number in range(rounds):
        ways["tensors"].append(rows_per_second(recipe, recipe.batches(train, 0, number)))
        for count in workers:
            loader = DataLoader(samples, recipe.batch_size, shuffle=True, num_workers=count)
            ways[f"samples, {count} workers"].append(rows_per_second(recipe, loader))
    medians = {way: round(median(rates)) for way, rates in ways.items()}
    best = max(rate for way, rate in medians.items() if way != "tensors")
    ratio = round(medians["tensors"] / best, 2)
    return {"objective": recipe.objective, "batch": recipe.batch_size, "rows_per_second": medians, "ratio": ratio}


if __name__ == "__main__":
    main()

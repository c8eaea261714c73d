"""Training rows per second of NeuMF on MovieLens 1M: Palate against the tutorial way, same model, same optimizer.

    python benchmarks/train_throughput.py            # a table
    python benchmarks/train_throughput.py --json     # the same as JSON

A row is one positive or one negative. The tutorial way is a Dataset that returns one (user, item, label) at a time
and a DataLoader with batches of 512 in a plain training loop, with the worker count that is fastest here (0, 1 and 2
are tried). Palate trains through its Lightning adapter, at the same 512 rows a batch and at the fast preset's size.
Rounds alternate between all ways; the medians and their ratios are printed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from dataclasses import replace

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from palate.base import DataSpec, TrainOptions
from palate.data.dataset import Dataset as Rows
from palate.data.dataset import Interactions
from palate.data.ids import IdMap
from palate.datasets.registry import load_split
from palate.errors import SourceError
from palate.models.neumf import NeuMF

NEGATIVES = 4
TUTORIAL_BATCH = 512


def ml_1m() -> Rows:
    try:
        return load_split("ncf-ml-1m").train
    except SourceError:
        rng = np.random.default_rng(0)
        users = np.sort(rng.integers(0, 6040, 994_169)).astype(np.int32)
        items = (rng.zipf(1.3, 994_169) % 3706).astype(np.int32)
        rows = Interactions(users, items, np.ones(len(users), np.float32))
        return Rows("synthetic of the size of ml-1m", IdMap.of(np.arange(6040)), IdMap.of(np.arange(3706)), rows)


class OneAtATime(Dataset[tuple[int, int, float]]):
    """The tutorial's Dataset: rows made beforehand with a Python loop, returned one by one."""

    def __init__(self, train: Rows, positives: int) -> None:
        rng = np.random.default_rng(0)
        seen = {u: set(train.history.of(u).tolist()) for u in range(train.n_users)}
        self.rows: list[tuple[int, int, float]] = []
        for index in rng.permutation(len(train))[:positives]:
            user, item = int(train.interactions.user[index]), int(train.interactions.item[index])
            self.rows.append((user, item, 1.0))
            for _ in range(NEGATIVES):
                negative = int(rng.integers(train.n_items))
                while negative in seen[user]:
                    negative = int(rng.integers(train.n_items))
                self.rows.append((user, negative, 0.0))

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[int, int, float]:
        return self.rows[index]


def tutorial(train: Rows, recipe: NeuMF, positives: int, workers: int) -> float:
    module = recipe.build(DataSpec(train.n_users, train.n_items))
    (optimizer,) = recipe.optimizers(module)
    begin = time.perf_counter()
    data = OneAtATime(train, positives)
    loader = DataLoader(data, TUTORIAL_BATCH, shuffle=True, num_workers=workers)
    for user, item, label in loader:
        score = module.pairs(module.user_table(user), module.item_table(item)[:, None])[:, 0]
        loss = torch.nn.functional.binary_cross_entropy_with_logits(score, label.float())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return len(data) / (time.perf_counter() - begin)


def palate(train: Rows, recipe: NeuMF) -> float:
    ends: list[float] = []
    recipe.fit(
        train,
        TrainOptions(threads=torch.get_num_threads(), on_epoch=lambda epoch, loss: ends.append(time.perf_counter())),
    )
    # From the end of the first epoch to the end of the second: one whole epoch, its negatives drawn within.
    return len(train) * (1 + NEGATIVES) / (ends[1] - ends[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--positives", type=int, default=40_000, help="for the tutorial way, which is slow")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    train = ml_1m()
    part = train.with_rows(train.interactions.take(np.random.default_rng(0).permutation(len(train))[:200_000]))
    same = NeuMF(epochs=2, batch_size=TUTORIAL_BATCH)
    fast = replace(NeuMF(), epochs=2, batch_size=8192)
    ways = {
        f"tutorial, {workers} workers": lambda w=workers: tutorial(train, same, options.positives, w)
        for workers in (0, 1, 2)
    }
    ways["palate, batch 512"] = lambda: palate(part, same)
    ways["palate, batch 8192"] = lambda: palate(train, fast)
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(options.rounds):
        for name, way in ways.items():
            rates[name].append(way())
    median = {name: statistics.median(values) for name, values in rates.items()}
    best = max(value for name, value in median.items() if name.startswith("tutorial"))
    rows = [
        {"way": name, "rows_per_second": round(value), "ratio": round(value / best, 2)}
        for name, value in median.items()
    ]
    if options.json:
        print(json.dumps({"data": train.name, "rounds": options.rounds, "rows": rows}, indent=2))
        return
    print(f"NeuMF on {train.name}, 1 thread, median of {options.rounds}; ratio to the best tutorial worker count")
    for row in rows:
        print(f"{row['way']:24} {row['rows_per_second']:>10,} rows/s   {row['ratio']:>6.2f}x")


if __name__ == "__main__":
    main()

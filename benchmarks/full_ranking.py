"""Full ranking of MovieLens 1M with all metrics and intervals, against scoring and plain top-k alone.

    python benchmarks/full_ranking.py [--rounds 5] [--json]

6,040 users times 3,706 items, random vectors of width 64, lists of 10 and 20. "limit" multiplies the vectors and takes
torch.topk; "evaluate" also removes seen items, ranks every relevant item exactly, breaks ties, and computes eight
metrics with bootstrap intervals. One thread; rounds alternate; medians.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time

import torch
from torch import Tensor, nn

from palate.base import Query
from palate.data.splits.split import Split
from palate.datasets.registry import load_split
from palate.evaluation.evaluate import evaluate


class Dot(nn.Module):
    trained_on = None

    def __init__(self, users: int, items: int, width: int = 64) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.users, self.items = nn.Parameter(torch.randn(users, width)), nn.Parameter(torch.randn(items, width))

    def score(self, query: Query, items: Tensor | None = None) -> Tensor:
        return self.users[query.user] @ self.items.T

    def can_personalize(self, query: Query) -> Tensor:
        return query.user >= 0


@torch.inference_mode()
def limit(model: Dot, split: Split) -> None:
    for users in torch.from_numpy(split.test_users).long().split(2048):
        (model.users[users] @ model.items.T).topk(20)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    split = load_split("ncf-ml-1m")
    model = Dot(split.train.n_users, split.train.n_items)
    ways = {"limit": lambda: limit(model, split), "evaluate": lambda: evaluate(model, split, k=(10, 20))}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(options.rounds + 1):
        for name, way in ways.items():
            begin = time.perf_counter()
            way()
            seconds[name].append(time.perf_counter() - begin)
    median = {name: round(statistics.median(values[1:]), 3) for name, values in seconds.items()}
    median["ratio"] = round(median["evaluate"] / median["limit"], 2)
    print(json.dumps(median, indent=2) if options.json else median)


if __name__ == "__main__":
    main()

"""Time of twelve metrics for all MovieLens 1M users over the full catalog, beyond scoring.

    python benchmarks/metrics.py [--rounds 5] [--k 10] [--json]

6,040 users times 3,706 items: random vectors of width 64, and popularity, whose scores tie. The model is timed inside
``evaluate``; what is left is finding the relevant items, removing seen items, lists under the tie rule, ranks, and
HitRate, NDCG, Recall, Precision, MRR, MAP, Novelty, Popularity, Diversity, Calibration, Coverage and Gini, by segment
too, without the bootstrap. "read" is a limit: one pass over the scores that adds them up. "topk" is torch.topk alone.
One thread; rounds alternate; medians.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from typing import Any

import torch
from torch import Tensor, nn

from palate.base import Query
from palate.data.splits.split import Split
from palate.datasets.registry import load_split
from palate.evaluation.evaluate import evaluate


class Timed(nn.Module):
    """A model that adds up the seconds it takes to score."""

    trained_on = None

    def __init__(self) -> None:
        super().__init__()
        self.seconds = 0.0

    def score(self, query: Query, items: Tensor | None = None) -> Tensor:
        begin = time.perf_counter()
        scores = self.scores(query)
        self.seconds += time.perf_counter() - begin
        return scores

    def scores(self, query: Query) -> Tensor:
        raise NotImplementedError

    def can_personalize(self, query: Query) -> Tensor:
        return query.user >= 0


class Dot(Timed):
    def __init__(self, users: int, items: int, width: int = 64) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.users, self.items = nn.Parameter(torch.randn(users, width)), nn.Parameter(torch.randn(items, width))

    def scores(self, query: Query) -> Tensor:
        return self.users[query.user] @ self.items.T


class Counts(Timed):
    def __init__(self, split: Split) -> None:
        super().__init__()
        rows = torch.tensor(split.train.interactions.item)
        self.register_buffer("counts", torch.bincount(rows, minlength=split.train.n_items).float())

    def scores(self, query: Query) -> Tensor:
        return self.counts.expand(len(query), -1)


def beyond(model: Timed, split: Split, k: int) -> dict[str, float]:
    model.seconds = 0.0
    report = evaluate(model, split, k=k, resamples=0)
    if len(report.measures) != 12:
        raise SystemExit(f"{len(report.measures)} metrics, not 12: {', '.join(map(str, report.measures))}")
    return {"scoring": model.seconds, "beyond": report.seconds - model.seconds}


@torch.inference_mode()
def limits(model: Dot, split: Split, k: int) -> dict[str, float]:
    seconds = {"read": 0.0, "topk": 0.0}
    for users in torch.from_numpy(split.test_users).long().split(4096):
        scores_BI = model.scores(Query.of(users))
        for name, way in (("read", scores_BI.sum), ("topk", lambda scores_BI=scores_BI: scores_BI.topk(k))):
            begin = time.perf_counter()
            way()
            seconds[name] += time.perf_counter() - begin
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--k", type=int, default=10)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    split = load_split("ncf-ml-1m")
    dot, counts = Dot(split.train.n_users, split.train.n_items), Counts(split)
    rounds: list[dict[str, float]] = []
    for _ in range(options.rounds + 1):
        ways: dict[str, Any] = {
            "vectors": beyond(dot, split, options.k),
            "popularity": beyond(counts, split, options.k),
        }
        ways["limit"] = limits(dot, split, options.k)
        rounds.append({f"{way}: {what}": x for way, found in ways.items() for what, x in found.items()})
    median = {name: statistics.median(one[name] for one in rounds[1:]) for name in rounds[0]}
    median["vectors: beyond / scoring"] = median["vectors: beyond"] / median["vectors: scoring"]
    median["vectors: beyond / read"] = median["vectors: beyond"] / median["limit: read"]
    median["vectors: beyond / topk"] = median["vectors: beyond"] / median["limit: topk"]
    rounded = {name: round(value, 4) for name, value in median.items()}
    print(json.dumps(rounded, indent=2) if options.json else "\n".join(f"{n:28}{v:9.4f}" for n, v in rounded.items()))


if __name__ == "__main__":
    main()

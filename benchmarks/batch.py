"""Lists of all users of ml-1m: as a dataframe and to one Parquet file, without rules, with a cap, and with diversity.

    OMP_NUM_THREADS=1 python benchmarks/batch.py [--data ml-1m] [--rounds 5]

iALS (fast preset) is fitted once. Printed: median seconds of ten items for each user, by wall clock and by CPU of the
process, as a frame (``recommend``) and as a file (``recommend_all``), which is durable and resumable, and their ratio.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from statistics import median

import torch

from palate.datasets.registry import load
from palate.models.ials import IALS
from palate.recommend import Recommender
from palate.rules import Rules

RULES = {
    "no rules": None,
    "at most 3 of a genre": Rules.of({"caps": {"genres": 3}}),
    "no horror, at most 3 of a genre, diversity 0.3": Rules.of(
        {"deny": {"genres": ["Horror"]}, "caps": {"genres": 3}, "diversity": 0.3}
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="ml-1m")
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    train = load(asked.data, min_rating="any")
    recommender = Recommender.of(IALS.fast().fit(train), train)
    users = recommender.users.ids
    taken: dict[str, list[tuple[float, float, float, float]]] = {name: [] for name in RULES}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(asked.rounds):
            for name, rules in RULES.items():
                times = [(time.perf_counter(), time.process_time())]
                rows = len(recommender.recommend(users, 10, rules=rules))
                times.append((time.perf_counter(), time.process_time()))
                written = recommender.recommend_all(Path(folder) / "all.parquet", 10, rules=rules)
                times.append((time.perf_counter(), time.process_time()))
                assert rows == written
                (w0, c0), (w1, c1), (w2, c2) = times
                taken[name].append((w1 - w0, c1 - c0, w2 - w1, c2 - c1))
    for name, runs in taken.items():
        wall, cpu, wall_file, cpu_file = (median(column) for column in zip(*runs, strict=True))
        line = f"frame {wall:6.2f} s (CPU {cpu:.2f}), file {wall_file:6.2f} s (CPU {cpu_file:.2f})"
        print(f"{name:50} {line}: {wall_file / wall:.2f} times, by CPU {cpu_file / cpu:.2f}")


if __name__ == "__main__":
    main()

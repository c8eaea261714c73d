"""Lists of all users of ml-1m to one Parquet file: plain, with a cap, and with caps, a ban and diversity.

    OMP_NUM_THREADS=1 python benchmarks/batch.py [--data ml-1m] [--rounds 5]

iALS (fast preset) is fitted once. Printed: median seconds of ``recommend_all`` of ten items each, by wall and by CPU of
the process, and the rows written.
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
    train = load(asked.data, progress=False)
    recommender = Recommender.of(IALS.fast().fit(train), train)
    taken: dict[str, list[tuple[float, float, int]]] = {name: [] for name in RULES}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(asked.rounds):
            for name, rules in RULES.items():
                wall, cpu = time.perf_counter(), time.process_time()
                rows = recommender.recommend_all(Path(folder) / "all.parquet", 10, rules=rules)
                taken[name].append((time.perf_counter() - wall, time.process_time() - cpu, rows))
    for name, runs in taken.items():
        middle = [median(column) for column in zip(*runs, strict=True)]
        print("{:50} {:6.2f} s, CPU {:6.2f} s, {:,.0f} rows".format(name, *middle), f"of {train.n_users:,} users")


if __name__ == "__main__":
    main()

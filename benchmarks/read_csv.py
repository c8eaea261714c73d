"""How long a CSV file takes from disk to a validated, encoded Dataset, against plain ``pl.read_csv``.

    python benchmarks/read_csv.py [--rows 1000000] [--runs 5] [--json]

The file has four columns: text user ids (6,000), text item ids (4,000), ratings and seconds. Both ways read it in
turn in the same process, so that a busy machine slows both down; the ratio of the medians is the figure to watch.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("POLARS_MAX_THREADS", "1")

import numpy as np
import polars as pl
from rich.console import Console
from rich.table import Table

from palate.data.readers import read_interactions


def write_csv(path: Path, rows: int, users: int = 6_000, items: int = 4_000, seed: int = 0) -> None:
    rng = np.random.default_rng(seed)
    user, item = rng.integers(users, size=rows), rng.zipf(1.3, size=rows) % items
    pl.DataFrame(
        {
            "user_id": pl.Series(user).cast(pl.String).str.zfill(5).str.replace("^", "user-"),
            "item_id": pl.Series(item).cast(pl.String).str.zfill(5).str.replace("^", "item-"),
            "rating": rng.integers(1, 6, size=rows),
            "timestamp": rng.integers(1_000_000_000, 1_600_000_000, size=rows),
        }
    ).write_csv(path)


def seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def measure(rows: int, runs: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "interactions.csv"
        write_csv(path, rows)
        plain, palate, features = [], [], []
        for _ in range(runs):
            plain.append(seconds(lambda: pl.read_csv(path)))
            palate.append(seconds(lambda: read_interactions(path)))
            features.append(seconds(lambda: read_interactions(path, duplicates="keep")))
        size = path.stat().st_size
    medians = [statistics.median(times) for times in (plain, palate, features)]
    return {
        "rows": rows,
        "runs": runs,
        "bytes": size,
        "threads": pl.thread_pool_size(),
        "polars_s": medians[0],
        "palate_s": medians[1],
        "palate_keep_s": medians[2],
        "ratio": medians[1] / medians[0],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    args = parser.parse_args()
    result = measure(args.rows, args.runs)
    if args.json:
        print(json.dumps(result))
        return
    table = Table(title=f"{args.rows:,} rows, {result['bytes'] / 1e6:.0f} MB, {result['threads']} polars thread(s)")
    for column in ("way", "median of runs, s", "against pl.read_csv"):
        table.add_column(column, justify="left" if column == "way" else "right")
    ways = (
        ("pl.read_csv", "polars_s"),
        ("read_interactions", "palate_s"),
        ("the same, duplicates kept", "palate_keep_s"),
    )
    for way, key in ways:
        table.add_row(way, f"{result[key]:.3f}", f"{result[key] / result['polars_s']:.2f}")
    Console().print(table)


if __name__ == "__main__":
    main()

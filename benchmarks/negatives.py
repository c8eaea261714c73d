"""How many negatives a second one core draws at MovieLens 1M size, against the limit and the naive loop.

    python benchmarks/negatives.py [--n 4] [--runs 7] [--json]

Rows: the training rows of ncf-ml-1m where PALATE_DATA has them (6,040 users, 3,706 items, 994,169 rows), else a
synthetic log of that size with Zipf popularity. Every row's user gets n negatives, in training order and shuffled.

The ways take turns in the same process, so that a busy machine slows all of them down; medians are shown:

    limit    ``rng.integers``: as many random numbers, nothing checked
    table    ``NegativeSampler.draw`` as it is
    search   ``NegativeSampler.draw`` without its bit table, as it works for catalogs that are too large for one
    naive    one row after the other, ``while item in seen``, on a sample of the rows
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("POLARS_MAX_THREADS", "1")

import numpy as np
import polars as pl
from rich.console import Console
from rich.table import Table

from palate.data.dataset import Interactions
from palate.data.ids import IdMap
from palate.training.negative_sampling import NegativeSampler, epoch_rng

USERS, ITEMS, ROWS = 6_040, 3_706, 994_169
NAIVE_ROWS = 20_000


def log() -> tuple[str, Interactions, int]:
    """(what it is, rows in training order, size of the catalog)."""
    folder = Path(os.environ.get("PALATE_DATA") or "nowhere") / "ncf-ml-1m"
    for path in folder.glob("ml-1m.train.rating*"):
        raw = pl.read_csv(path, separator="\t", has_header=False)
        pair = [IdMap.of(raw[:, column]).rows(raw[:, column]) for column in (0, 1)]
        return "ncf-ml-1m", Interactions(pair[0], pair[1], np.ones(len(raw), np.float32)), int(pair[1].max()) + 1
    rng = np.random.default_rng(0)
    popularity = 1 / np.arange(1, ITEMS + 1)
    user = np.sort(rng.integers(0, USERS, ROWS, dtype=np.int32))
    item = rng.choice(ITEMS, ROWS, p=popularity / popularity.sum()).astype(np.int32)
    return "synthetic Zipf log", Interactions(user, item, np.ones(ROWS, np.float32)), ITEMS


def naive(seen: list[set[int]], users: list[int], n: int, n_items: int) -> list[list[int]]:
    rng = np.random.default_rng(0)
    drawn = []
    for user in users:
        row = []
        for _ in range(n):
            item = int(rng.integers(n_items))
            while item in seen[user]:
                item = int(rng.integers(n_items))
            row.append(item)
        drawn.append(row)
    return drawn


def rate(call: Callable[[], object], draws: int) -> float:
    start = time.perf_counter()
    call()
    return draws / (time.perf_counter() - start)


def measure(n: int, runs: int) -> dict[str, object]:
    what, rows, n_items = log()
    history = rows.history(int(rows.user.max()) + 1)
    start = time.perf_counter()
    table = NegativeSampler(history, n_items)
    build = time.perf_counter() - start
    search = NegativeSampler(history, n_items, table_bytes=0)
    result: dict[str, object] = {
        "data": what,
        "rows": len(rows),
        "users": len(history),
        "items": n_items,
        "n": n,
        "runs": runs,
        "build_s": build,
    }
    seen = [set(history.of(user).tolist()) for user in range(len(history))]
    orders = {"training order": rows.user, "shuffled": np.random.default_rng(0).permutation(rows.user)}
    for order, users in orders.items():
        rates: dict[str, list[float]] = {"limit": [], "table": [], "search": [], "naive": []}
        part = users[:: max(1, len(users) // NAIVE_ROWS)].tolist()
        for run in range(runs):
            rng = epoch_rng(0, run)
            limit = partial(rng.integers, 0, n_items, (len(users), n), dtype=np.int32)
            rates["limit"].append(rate(limit, len(users) * n))
            rates["table"].append(rate(partial(table.draw, users, n, rng), len(users) * n))
            rates["search"].append(rate(partial(search.draw, users, n, rng), len(users) * n))
            rates["naive"].append(rate(partial(naive, seen, part, n, n_items), len(part) * n))
        result[order] = {way: statistics.median(values) for way, values in rates.items()}
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=4, help="negatives per row")
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    args = parser.parse_args()
    result = measure(args.n, args.runs)
    if args.json:
        print(json.dumps(result))
        return
    title = (
        f"{result['data']}: {result['rows']:,} rows, {args.n} negatives each; set up once in {result['build_s']:.2f} s"
    )
    shown = Table(title=title)
    for column in ("way", "training order, million/s", "shuffled, million/s"):
        shown.add_column(column, justify="left" if column == "way" else "right")
    for way in ("limit", "table", "search", "naive"):
        shown.add_row(way, *(f"{result[order][way] / 1e6:.2f}" for order in ("training order", "shuffled")))
    Console().print(shown)


if __name__ == "__main__":
    main()

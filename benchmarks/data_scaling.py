"""Time of the data stage by number of rows: reading, history, splits, fingerprint, k-core.

    python benchmarks/data_scaling.py            # 0.2 to 8 million rows, three rounds, about five minutes on two cores

Prints a table of seconds (median of the rounds, CPU time of all threads, which other load on the machine changes least)
and the exponent of time over rows, fitted on the logarithms.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl

import palate
from palate.data.dataset import Dataset, Interactions
from palate.data.ids import IdMap
from palate.data.preprocessing import min_interactions
from palate.data.readers import read_interactions

MILLIONS = (0.2, 0.5, 1, 2, 4, 8)


def make_log(n: int) -> pl.DataFrame:
    """A log of n rows, 100 per user and 400 per item on average, with skewed activity and times in whole seconds."""
    rng = np.random.default_rng(0)
    users, items = n // 100, n // 400
    return pl.DataFrame(
        {
            "user_id": (users * rng.random(n) ** 2).astype(np.int64) * 7 + 10_000_000,
            "item_id": (items * rng.random(n) ** 3).astype(np.int64) * 3 + 1,
            "rating": rng.integers(1, 6, n),
            "timestamp": rng.integers(1_500_000_000, 1_600_000_000, n),
        }
    )


def copied(data: Dataset) -> Dataset:
    """The same data set without anything cached."""
    rows = data.interactions
    again = Interactions(rows.user, rows.item, rows.weight, rows.time)
    return Dataset(data.name, IdMap(data.users.ids), IdMap(data.items.ids), again, data.feedback)


def steps(path: Path) -> dict[str, Callable[[], object]]:
    """The steps on one log; each starts from the rows as read."""
    data = read_interactions(path)
    return {
        "read CSV": lambda: read_interactions(path),
        "history": lambda: copied(data).history,
        "leave_one_out": lambda: palate.leave_one_out(copied(data)),
        "by_time": lambda: palate.by_time(copied(data), test_size=0.2),
        "fingerprint": lambda: copied(data).fingerprint,
        "k-core of 20": lambda: min_interactions(copied(data), user=20, item=20, repeat=True),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=float, nargs="+", default=MILLIONS, help="millions of rows")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    seconds: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for millions in options.rows:
            path = Path(folder, "log.csv")
            make_log(round(millions * 1e6)).write_csv(path)
            for name, step in steps(path).items():
                rounds = []
                for _ in range(options.rounds):
                    begin = time.process_time()
                    step()
                    rounds.append(time.process_time() - begin)
                seconds.setdefault(name, []).append(float(np.median(rounds)))
    print(f"| CPU seconds at millions of rows | {' | '.join(f'{one:g}' for one in options.rows)} | exponent |")
    print(f"|---|{'---:|' * (len(options.rows) + 1)}")
    for name, times in seconds.items():
        exponent = np.polyfit(np.log(options.rows), np.log(times), 1)[0] if len(times) > 1 else float("nan")
        print(f"| {name} | {' | '.join(f'{one:.3f}' for one in times)} | {exponent:.2f} |")


if __name__ == "__main__":
    main()

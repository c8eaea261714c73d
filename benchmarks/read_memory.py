"""Peak memory of read_interactions above the interpreter, in bytes per row, for CSV and Parquet of several kinds.

python benchmarks/read_memory.py --rows 10000000

Each file is made once and read in a process of its own. The peak is that of the whole process (VmHWM of Linux, since
ru_maxrss of a child begins at the size of its parent) minus that of a process that has read a small file of the same
kind.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import polars as pl

from palate.data.readers import read_interactions

KINDS = ("integers", "texts")
SMALL = 10_000
PART = 1_000_000
TARGETS = {"csv": 60, "parquet": 45}


def make(path: Path, kind: str, rows: int) -> None:
    """A log of ``rows`` rows: a user per 100 rows, a long tail of items, ratings in half steps, seconds."""
    rng = np.random.default_rng(0)
    frames = []
    for first in range(0, rows, PART):
        n = min(PART, rows - first)
        frame = pl.DataFrame(
            {
                "user_id": rng.integers(max(rows // 100, 9), size=n),
                "item_id": (rng.zipf(1.3, size=n) % max(rows // 500, 9)).astype(np.int64),
                "rating": rng.integers(1, 11, size=n) / 2,
                "timestamp": rng.integers(1_200_000_000, 1_700_000_000, size=n),
            }
        )
        if kind == "texts":
            frame = frame.with_columns(
                pl.format("customer-{}", "user_id").alias("user_id"), pl.format("SKU{}", "item_id").alias("item_id")
            )
        if path.suffix == ".csv":
            with path.open("ab") as file:
                frame.write_csv(file, include_header=first == 0)
        else:
            frames.append(frame)
    if frames:
        pl.concat(frames).write_parquet(path, row_group_size=PART)


def read(path: str) -> None:
    """Read one file and print the peak of this process in bytes, and the seconds of CPU."""
    start = time.process_time()
    dataset = read_interactions(path)
    status = Path("/proc/self/status").read_text()
    peak = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) * 1024
    print(peak, round(time.process_time() - start, 2), len(dataset), dataset.n_users, dataset.n_items)


def peak_of(path: Path) -> tuple[int, float, str]:
    """Peak in bytes, CPU seconds and size of the data set, in a process of its own."""
    made = subprocess.run([sys.executable, __file__, "--read", str(path)], capture_output=True, text=True, check=True)
    peak, seconds, *size = made.stdout.split()
    return int(peak), float(seconds), " ".join(size)


def main() -> None:
    """Print one line per kind of file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--read")
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    if options.read:
        read(options.read)
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        for form, target in TARGETS.items():
            for kind in KINDS:
                large, small = folder / f"{kind}-{options.rows}.{form}", folder / f"{kind}-{SMALL}.{form}"
                for path, rows in ((large, options.rows), (small, SMALL)):
                    if not path.exists():
                        make(path, kind, rows)
                (peak, seconds, size), (base, _, _) = peak_of(large), peak_of(small)
                per_row = (peak - base) / options.rows
                print(
                    f"{form} {kind}: {per_row:.0f} bytes a row (at most {target}), {seconds} CPU s; {size}", flush=True
                )


if __name__ == "__main__":
    main()

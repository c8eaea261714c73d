"""CPU seconds from an empty process to a result: one list, the help, the import of the library.

    OMP_NUM_THREADS=1 python benchmarks/cold_start.py [--users 5000] [--items 5000] [--rounds 3]

Every line is a process of its own, and the lines alternate round by round, so that other load hits all alike. It prints
the median of user plus system seconds, and its ratio to ``import torch``, the part that `palate recommend` leaves out
for trained users of dot-product bundles. The lists with reasons come from the same bundle through torch.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import polars as pl

import palate

FIRST_USE = (
    "import palate; rows = palate.read_interactions({log!r}); split = palate.leave_one_out(rows); palate.audit(rows)"
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=5_000)
    parser.add_argument("--items", type=int, default=5_000)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        bundle, log = Path(folder) / "bundle", Path(folder) / "log.csv"
        save(bundle, log, args.users, args.items)
        command = [sys.executable, "-m", "palate"]
        lines = {
            "import torch": [sys.executable, "-c", "import torch"],
            "import palate": [sys.executable, "-c", "import palate"],
            "palate --help": [*command, "--help"],
            "palate recommend": [*command, "recommend", str(bundle), "1", "2"],
            "palate recommend --why": [*command, "recommend", str(bundle), "1", "2", "--why"],
            "read, split and audit a log": [sys.executable, "-c", FIRST_USE.format(log=str(log))],
        }
        taken: dict[str, list[float]] = {name: [] for name in lines}
        for _ in range(args.rounds):
            for name, line in lines.items():
                before = cpu_of_children()
                subprocess.run(line, check=True, capture_output=True)
                taken[name].append(cpu_of_children() - before)
    base = np.median(taken["import torch"])
    print(f"{args.users:,} users, {args.items:,} items, median of {args.rounds} rounds")
    for name, seconds in taken.items():
        print(f"  {name:30} {np.median(seconds):6.2f} CPU seconds, {np.median(seconds) / base:5.2f} x import torch")


def save(bundle: Path, log: Path, users: int, items: int) -> None:
    """Write a log of 20 clicks per user, and the bundle of a short iALS fit."""
    rng = np.random.default_rng(1)
    user, item = np.repeat(np.arange(users), 20), (rng.random(20 * users) ** 2 * items).astype(int)
    frame = pl.DataFrame(
        {"user_id": user, "item_id": item, "timestamp": rng.integers(10**9, 1_700_000_000, 20 * users)}
    )
    frame.write_csv(log)
    train, recipe = palate.from_frame(frame), palate.IALS(dim=64, epochs=1)
    palate.Bundle.of(recipe, recipe.fit(train), train).save(bundle)


def cpu_of_children() -> float:
    """User and system seconds of all processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()

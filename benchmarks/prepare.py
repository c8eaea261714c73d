"""Seconds and peak memory of `palate.prepare` and of a store that is opened, beside the plain reader.

python benchmarks/prepare.py --millions 1 3 10 --rounds 3

Logs are generated (`palate data synth`), as Parquet and as CSV with texts as ids. Each run is a process of its own; the
ways alternate. Memory is sampled every 10 ms: anonymous memory (what the system cannot take back), less that before the
call, and the peak of resident memory, mapped files included.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import polars as pl

from palate.data.prepare import prepare
from palate.data.readers import read_interactions
from palate.datasets.synth import synthesize

WAYS = ("read", "prepare", "open")


def status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) * 1024


def measure(way: str, log: str, store: str) -> dict[str, float]:
    """One way in this process."""
    stop, before, highest = threading.Event(), status("RssAnon"), [0]

    def watch() -> None:
        while not stop.wait(0.01):
            highest[0] = max(highest[0], status("RssAnon"))

    threading.Thread(target=watch, daemon=True).start()
    wall, cpu = time.perf_counter(), time.process_time()
    made = prepare(log, store) if way == "prepare" else read_interactions(store if way == "open" else log)
    result = {"seconds": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
    stop.set()
    return {**result, "anonymous": highest[0] - before, "resident": status("VmHWM"), "rows": len(made)}


def main() -> None:
    """Print a table of medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--millions", type=float, nargs="+", default=[1, 3, 10])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--run", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        print(json.dumps(measure(*options.run)))
        return
    print("| rows | log | way | CPU s | s | anonymous MB | resident MB |\n|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for millions in options.millions:
            log = Path(folder) / "log.parquet"
            synthesize(log, scale=millions)
            text = pl.scan_parquet(log).with_columns(pl.format("user-{}", "user_id").alias("user_id"))
            text.sink_csv(log.with_suffix(".csv"))
            for path in (log, log.with_suffix(".csv")):
                runs: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
                for way in WAYS * options.rounds:
                    command = [sys.executable, __file__, "--run", way, str(path), str(Path(folder) / "store")]
                    runs[way].append(json.loads(subprocess.run(command, capture_output=True, check=True).stdout))
                for way, results in runs.items():
                    median = {name: statistics.median(one[name] for one in results) for name in results[0]}
                    print(
                        f"| {median['rows']:,.0f} | {path.suffix[1:]} | {way} | {median['cpu']:.1f} | "
                        f"{median['seconds']:.1f} | {median['anonymous'] / 1e6:.0f} | {median['resident'] / 1e6:.0f} |",
                        flush=True,
                    )


if __name__ == "__main__":
    main()

"""Seconds and peak memory of every stage, from a generated log to lists of all users, at growing numbers of rows.

    python benchmarks/scale.py --millions 1 3 10 --recipes ials neumf --out scale.jsonl
    python benchmarks/scale.py --table scale.jsonl       the table and the exponents again

Each size is a process of its own, each stage follows the one before: the log is generated (`palate data synth`),
prepared into a row store, opened, split by time, recipes are fitted for one epoch (ials: three sweeps), evaluated on at
most 100,000 test users and asked for lists of 10 for all users (neumf is only fitted). Memory is anonymous memory of
the whole process, which the system cannot take back, sampled every 20 ms in each stage; so it includes what earlier
stages still hold, such as the rows. Seconds are CPU seconds of all threads; ``OMP_NUM_THREADS`` sets their number. The
exponent is the slope of a line through the logarithms of rows and seconds.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from palate.base import TrainOptions
from palate.data.prepare import prepare
from palate.data.readers import read_interactions
from palate.data.splits.strategies import by_time
from palate.datasets.synth import synthesize
from palate.evaluation.evaluate import evaluate
from palate.models import make_recipe
from palate.recommend.recommender import Recommender
from prepare import status

ONE_EPOCH = {
    "ials": {"epochs": 3, "dim": 64},
    "two-tower": {"epochs": 1, "dim": 64, "optimizer": "sparse_adam"},
    "neumf": {"epochs": 1},
    "sasrec": {"epochs": 1, "max_seq_len": 50, "objective": "sampled-softmax"},
}
TEST_USERS = 100_000
PAIRS = ("neumf",)  # scored pair by pair: ranking whole catalogs for all users is not what they are for


def run(millions: float, recipes: list[str], scratch: Path) -> None:
    """All stages in this process, a line of JSON for each."""
    rows = 0

    @contextlib.contextmanager
    def stage(name: str) -> Iterator[None]:
        gc.collect()
        stop, highest = threading.Event(), [status("RssAnon")]

        def watch() -> None:
            while not stop.wait(0.02):
                highest[0] = max(highest[0], status("RssAnon"))

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        wall, cpu = time.perf_counter(), time.process_time()
        yield
        took = {"seconds": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
        stop.set()
        watcher.join()
        took = {one: round(value, 3) for one, value in took.items()}
        line = {"millions": millions, "rows": rows, "stage": name, **took, "anonymous": highest[0]}
        print(json.dumps(line), flush=True)

    log, store = scratch / "log.parquet", scratch / "store"
    rows = round(millions * 1e6)
    with stage("synth"):
        synthesize(log, scale=millions)
    with stage("prepare"):
        rows = len(prepare(log, store))
    with stage("open"):
        data = read_interactions(store)
    with stage("split by time"):
        split = by_time(data, cold="drop")
    del data
    held = split.test.interactions
    users = np.unique(held.user)[:TEST_USERS]
    kept = replace(split, test=split.test.with_rows(held.take(np.isin(held.user, users))))
    for name in recipes:
        recipe = make_recipe(name, ONE_EPOCH.get(name, {}), fast=True)
        with stage(f"fit {name}"):
            model = recipe.fit(split.train, TrainOptions())
        if name in PAIRS:
            continue
        with stage(f"evaluate {name}"):
            evaluate(model, kept)
        with stage(f"lists {name}"):
            Recommender.of(model, split.train).recommend_all(scratch / "lists.parquet")
        del model
    sizes = {"users": split.train.n_users, "items": split.train.n_items, "test_users": len(users)}
    print(json.dumps({"millions": millions, "rows": rows, **sizes}))


def table(lines: list[str]) -> str:
    """The table of stages, rows and exponents in Markdown."""
    found = [json.loads(line) for line in lines]
    rows = {one["millions"]: one["rows"] for one in found if one.get("stage") == "prepare"}
    head = "| stage | " + " | ".join(f"{rows[size] / 1e6:.1f} million" for size in sorted(rows)) + " | exponent |"
    text = [head, "|---" * (len(rows) + 2) + "|"]
    for name in dict.fromkeys(one["stage"] for one in found if "stage" in one):
        of = {one["millions"]: one for one in found if one.get("stage") == name}
        cells = [
            f"{of[size]['cpu']:.1f} s, {of[size]['anonymous'] / 1e9:.2f} GB" if size in of else ""
            for size in sorted(rows)
        ]
        long = [size for size in of if size in rows and of[size]["cpu"] >= 0.5]
        slope = np.polyfit(*np.log([[rows[size], of[size]["cpu"]] for size in long]).T, 1)[0] if len(long) > 1 else None
        text.append(f"| {name} | {' | '.join(cells)} | {'' if slope is None else f'{slope:.2f}'} |")
    return "\n".join(text)


def main() -> None:
    """Run the sizes, smallest first, and print the table after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--millions", type=float, nargs="+", default=[1, 3, 10])
    parser.add_argument("--recipes", nargs="*", default=["popularity", "ials"])
    parser.add_argument("--out", type=Path, default=Path("scale.jsonl"))
    parser.add_argument("--table", type=Path)
    parser.add_argument("--run", type=float, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.table:
        print(table(options.table.read_text().splitlines()))
        return
    if options.run:
        with tempfile.TemporaryDirectory() as scratch:
            run(options.run, options.recipes, Path(scratch))
        return
    for millions in options.millions:
        command = [sys.executable, __file__, "--run", str(millions), "--recipes", *options.recipes]
        with options.out.open("a") as stream:
            subprocess.run(command, stdout=stream, check=True)
        print(table(options.out.read_text().splitlines()), flush=True)


if __name__ == "__main__":
    main()

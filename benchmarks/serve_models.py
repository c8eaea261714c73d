"""A real server with other models, rules with reasons, and a full store: latency at a steady rate, and the start.

    python benchmarks/serve_models.py [--items 27000] [--rate 50] [--seconds 5] [--stored 1000000]

plain        ials (64 dimensions), k = 10
rules        the same, with denied items, at most two items per category, and three reasons per row (``explain``)
sasrec       the published width and depth, one epoch
two-stage    ials and popularity as retrievers, trees as the ranker
stored       plain, with events in the store when the server starts

All are fitted on one generated log. Each is a server process of its own; all stay up and take turns, three rounds, so
that other load hits all of them alike. Medians of the rounds; CPU is that of the server per request.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import random
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
from sqlalchemy import insert

from palate.base import Recipe
from palate.bundle import Bundle
from palate.data.dataset import Dataset
from palate.data.frame import from_frame
from palate.models.ials import IALS
from palate.models.sasrec import SASRec
from palate.models.two_stage import TwoStage
from palate.serve import tables
from palate.serve.store import Store
from serve import K, Process, get, post, steady

USERS, EVENTS, ROUNDS = 3_000, 50, 3


def make_log(items: int) -> Dataset:
    """Events of users with a taste for neighboring items, and one event of every item; a category per item."""
    rng = np.random.default_rng(0)
    taste = rng.integers(0, items, (USERS, 1))
    item = (taste + rng.normal(0, items / 40, (USERS, EVENTS)).astype(np.int64)) % items
    user = np.concatenate([np.repeat(np.arange(USERS), EVENTS), rng.integers(0, USERS, items)])
    time = np.concatenate([np.tile(np.arange(EVENTS), USERS), rng.integers(0, EVENTS, items)])
    frame = pl.DataFrame({
        "user_id": user, "item_id": np.concatenate([item.ravel(), np.arange(items)]), "timestamp": 1.7e9 + 3600.0 * time
    })  # fmt: skip
    features = pl.DataFrame({"item_id": np.arange(items), "category": [f"c{n % 50}" for n in range(items)]})
    return from_frame(frame, duplicates="last", item_features=features)


def fill(path: Path, events: int, items: int) -> None:
    """A store with so many clicks of known users."""
    store, rng = Store(f"sqlite:///{path}"), np.random.default_rng(1)
    for start in range(0, events, 50_000):
        count = min(50_000, events - start)
        pairs = zip(rng.integers(0, USERS, count).tolist(), rng.integers(0, items, count).tolist(), strict=True)
        rows = [
            {"event_id": f"e{n}", "user_id": str(user), "item_id": str(item), "type": "click", "time": 1.75e9 + n,
             "received": 1.75e9 + n, "undone": False}
            for n, (user, item) in enumerate(pairs, start)
        ]  # fmt: skip
        with store.engine.begin() as connection:
            connection.execute(insert(tables.events), rows)
    store.engine.dispose()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=27_000)
    parser.add_argument("--rate", type=float, default=50)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--stored", type=int, default=1_000_000)
    asked = parser.parse_args()
    rng = random.Random(0)
    log = make_log(asked.items)
    retrievers = ("popularity", {"recipe": "ials", "dim": 64, "epochs": 1})
    recipes: dict[str, Recipe] = {
        "plain": IALS(dim=64, epochs=2),
        "sasrec": SASRec(epochs=1, objective="sampled-softmax"),
        "two-stage": TwoStage(members=retrievers, users=500, rounds=100),
    }
    rules = {"deny": {"item_id": list(range(100))}, "caps": {"category": 2}}

    def plain() -> bytes:
        return get(f"/v1/recommend?user_id={rng.randrange(USERS)}&k={K}")

    def with_rules() -> bytes:
        body = {"user_id": str(rng.randrange(USERS)), "k": K, "rules": rules, "explain": True}
        return post("/v1/recommend", body)

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        print(f"load of the machine: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores; {log}", flush=True)
        for label, recipe in recipes.items():
            Bundle.of(recipe, recipe.fit(log), log).save(folder / label)
        fill(folder / "stored.db", asked.stored, asked.items)

        def serve(label: str, bundle: str) -> Process:
            store = f"sqlite:///{folder / label}.db"
            command = [sys.executable, "-m", "palate", "serve", str(folder / bundle), "--port", "0", "--store", store]
            one = Process(*command, folder=folder)
            print(
                f"{label}: start to ready {one.start:.1f} s, {one.cpu():.1f} s CPU, {one.memory():.0f} MB", flush=True
            )
            return one

        cases: dict[str, tuple[Process, Callable[[], bytes]]] = {
            "plain": ((first := serve("plain", "plain")), plain),
            "rules": (first, with_rules),
            "sasrec": (serve("sasrec", "sasrec"), plain),
            "two-stage": (serve("two-stage", "two-stage"), plain),
            "stored": (serve("stored", "plain"), plain),
        }
        # Whatever this process collects would be counted as latency of the server.
        gc.freeze()
        gc.disable()
        found: dict[str, list[tuple[float, float, float]]] = {label: [] for label in cases}
        for turn in range(ROUNDS + 1):
            for label, (one, make) in cases.items():
                cpu = one.cpu()
                times = asyncio.run(steady(one.port, asked.rate, asked.seconds if turn else 1.0, make))
                spent = (one.cpu() - cpu) / len(times)
                if turn:  # the first one only warms up
                    found[label].append((*np.quantile(times, (0.5, 0.99)), spent))
        print(f"\n{asked.rate:g} requests a second, milliseconds:  p50   p99   CPU")
        for label, rounds in found.items():
            middle = 1000 * np.median(rounds, axis=0)
            print(f"{label:>12}: {middle[0]:6.1f} {middle[1]:6.1f} {middle[2]:6.2f}")
        for one in {id(one): one for one, _ in cases.values()}.values():
            one.stop()


if __name__ == "__main__":
    main()

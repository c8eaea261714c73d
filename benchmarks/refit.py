"""The worth of a refit: a bundle of the first rows of a data set, and the later ones as stored events of a server.

    python benchmarks/refit.py popularity ials ease [--data ml-100k] [--events 0.4]

The old bundle folds the events in as live ones; the comparison is that of ``palate refit``.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np

from palate.base import TrainOptions
from palate.bundle import Bundle
from palate.data.dataset import Dataset
from palate.datasets import registry
from palate.models import make_recipe
from palate.serve import tables
from palate.serve.refit import Log, Refit, rows_of_bundle
from palate.serve.refit_check import compare
from palate.serve.settings import EVENTS
from palate.serve.store import Store


def fill(store: Store, data: Dataset, order: np.ndarray) -> None:
    """Store rows as ratings, or as likes where they are none."""
    rows = data.interactions.take(order)
    assert rows.time is not None
    kind = "rating" if data.explicit else "like"
    users, items = data.users.external(rows.user).to_list(), data.items.external(rows.item).to_list()
    columns = zip(users, items, rows.weight.tolist(), rows.time.tolist(), strict=True)
    events = [
        {"event_id": str(place), "user_id": str(user), "item_id": str(item), "type": kind, "value": weight,
         "time": moment, "received": moment, "undone": False}
        for place, (user, item, weight, moment) in enumerate(columns)
    ]  # fmt: skip
    with store.engine.begin() as connection:
        connection.execute(tables.events.insert(), events)


def main() -> None:
    """One line per recipe."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("recipes", nargs="+")
    parser.add_argument("--data", default="ml-100k")
    parser.add_argument("--events", type=float, default=0.4, help="share of the rows, the latest, that are events")
    given = parser.parse_args()
    data = registry.load(given.data)
    assert data.interactions.time is not None
    order = np.argsort(data.interactions.time, kind="stable")
    cut = int((1 - given.events) * len(order))
    first = data.with_rows(data.interactions.take(np.sort(order[:cut]))).compact()
    options = TrainOptions(threads=1, device="cpu")
    with tempfile.TemporaryDirectory() as folder:
        store = Store(f"sqlite:///{folder}/events.db")
        fill(store, data, order[cut:])
        log = store.read_now(Log.read)
        store.engine.dispose()
        for name in given.recipes:
            recipe = make_recipe(name, {}, fast=True)
            path = Bundle.of(recipe, recipe.fit(first, options), first).save(Path(folder) / name)
            old = Bundle.load(path)
            begin = time.process_time()
            found, _ = compare(Refit(old, path, rows_of_bundle(old), log, EVENTS, options))
            seconds = time.process_time() - begin
            print(f"{name} ({seconds:.1f} s): {found.sentence} Unlisted: {found.unlisted:,}.", flush=True)


if __name__ == "__main__":
    main()

"""Time and memory of training on a log, from runs on its first rows.

Runs in processes of their own give costs of each stage. A straight line through the two largest and a power law
through them bound the cost of all rows: most costs grow slower than the line, since a longer log repeats its items, and
faster than the power law, which spreads the fixed cost of a start over the growth.
"""

from __future__ import annotations

import contextlib
import io
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from math import log
from pathlib import Path
from typing import Any, NamedTuple

from palate.data.dataset import Dataset
from palate.errors import DataError
from palate.parallel import pool

SIZES = (50_000, 200_000)  # rows of the runs
LONG = 800_000  # and of a third one for logs at least twice as long: matrices of items have filled up by then
GROUP = 1000  # users whose lists are made at a time


class Cost(NamedTuple):
    """One stage of a run: CPU seconds, and bytes of memory at its highest, above those before the run."""

    seconds: float
    memory: int


class Run(NamedTuple):
    """The stages of a run on so many rows, and its users, training users and items."""

    rows: int
    users: int
    items: int
    stages: dict[str, Cost]


class Estimate(NamedTuple):
    """The least and the most that each stage is expected to cost on all rows.

    Args:
        rows, users, items: of the whole log; users and items are estimates.
        measured: rows of the runs.
        low, high: by stage.
    """

    rows: int
    users: int
    items: int
    measured: tuple[int, ...]
    low: dict[str, Cost]
    high: dict[str, Cost]


def estimate_costs(data: str, read: Callable[[str], Dataset], recipe: Any, k: int = 10, seed: int = 0) -> Estimate:
    """Estimate the cost of reading, splitting, training, evaluating, and lists for all users.

    Args:
        data: a log: text, Parquet files or a row store.
        read: reads the rows of a file like it. It must be picklable.
        recipe: what would be trained.
        k: list length.
        seed: of all randomness.

    Raises:
        DataError: the rows cannot be counted, or not be read.
    """
    n_rows = count_rows(data)
    runs: list[Run] = []
    with tempfile.TemporaryDirectory() as folder:
        for size in sorted({min(size, n_rows) for size in SIZES} | ({LONG} if n_rows >= 2 * LONG else set())):
            sample = write_head(data, size, Path(folder))
            # In a process of its own: memory that a run has freed stays with its process.
            with pool(1) as processes:
                runs.append(processes.submit(run_stages, partial(read, str(sample)), recipe, k, seed).result())
    found = extrapolate(runs[max(0, len(runs) - 2)], runs[-1], n_rows)
    return found._replace(measured=tuple(run.rows for run in runs))


def count_rows(data: str) -> int:
    """The rows of a log: those of the metadata of Parquet files and stores, else by the lines of its first part.

    Raises:
        DataError: it is neither a store, nor Parquet, nor text with a row in each line.
    """
    import pyarrow.parquet as pq

    from palate.data.readers.arrow import PARQUET
    from palate.data.readers.sources import opened, places
    from palate.data.row_store import MANIFEST, is_store
    from palate.storage import read_json

    if is_store(data):
        return int(read_json(Path(data) / MANIFEST)["fingerprint"]["rows"])
    total = 0.0
    for place in places(data):
        with opened(place) as file:
            if file.head.startswith(PARQUET):
                total += pq.read_metadata(place).num_rows
                continue
            if b"\0" in file.head[:4096] or file.size is None:
                raise DataError(f"{data} is no text file, Parquet file or row store: palate prepare {data} --out STORE")
            lines = 0
            for chunk in file.chunks(1 << 20):
                lines += chunk.count(b"\n")
                if lines > SIZES[0]:
                    break
            total += max(lines, 1) * max(1.0, file.size / max(file.file.tell(), 1))
    return round(total)


def write_head(data: str, n_rows: int, folder: Path) -> Path:
    """The first rows as a file of their own, in a format that is read in the same way."""
    import polars as pl

    from palate.data.readers import read_interactions
    from palate.data.readers.arrow import PARQUET
    from palate.data.readers.sources import opened, places
    from palate.data.row_store import is_store

    if is_store(data):
        read_interactions(data).to_polars().lazy().head(n_rows).sink_parquet(folder / "head.parquet")
        return folder / "head.parquet"
    with opened(places(data)[0]) as file:
        if file.head.startswith(PARQUET):
            pl.scan_parquet(places(data)[0]).head(n_rows).sink_parquet(folder / "head.parquet")
            return folder / "head.parquet"
        path, lines = folder / "head.txt", 0
        with path.open("wb") as head:
            for chunk in file.chunks(1 << 20):
                kept = b"".join(chunk.splitlines(keepends=True)[: n_rows + 1 - lines])
                lines += kept.count(b"\n")
                head.write(kept)
                if lines > n_rows:
                    break
    return path


def run_stages(read: Callable[[], Dataset], recipe: Any, k: int, seed: int) -> Run:
    """Read, split, train, evaluate, and make a list for every user."""
    from palate.base import TrainOptions
    from palate.evaluation.evaluate import evaluate
    from palate.experiment.validation import hold_out
    from palate.recommend import Recommender

    stages: dict[str, Cost] = {}
    before = _memory()

    @contextlib.contextmanager
    def stage(name: str) -> Iterator[None]:
        over, highest, start = threading.Event(), [_memory()], time.process_time()

        def watch() -> None:
            while not over.wait(0.005):
                highest[0] = max(highest[0], _memory())

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        yield
        over.set()
        watcher.join()
        stages[name] = Cost(time.process_time() - start, max(0, max(highest[0], _memory()) - before))

    with contextlib.redirect_stderr(io.StringIO()):
        with stage("read"):
            dataset = read()
        with stage("split"):
            rows = hold_out(dataset, seed=seed)
        with stage("train"):
            model = recipe.for_data(rows.train).fit(rows.train, TrainOptions(seed=seed))
        with stage("evaluate"):
            evaluate(model, rows, k=k)
        with stage("lists"):
            recommender = Recommender.of(model, rows.train)
            users = rows.train.users.ids
            for first in range(0, len(users), GROUP):
                recommender.recommend(users[first : first + GROUP].to_list(), k=k)
    return Run(len(dataset), dataset.n_users, dataset.n_items, stages)


def extrapolate(small: Run, large: Run, n_rows: int) -> Estimate:
    """The costs of ``n_rows`` rows by the straight line and by the power law through two runs."""
    ratio = n_rows / large.rows
    # Users grow with the rows; items by the power law of the two runs, since a longer log repeats its items.
    users, items = round(large.users * ratio), large.items
    if ratio > 1 and small.rows < large.rows:
        growth = log(large.items / small.items) / log(large.rows / small.rows)
        items = round(large.items * ratio ** min(1.0, max(0.0, growth)))
    by_rows = (small.rows, large.rows, n_rows)
    by_cells = (small.users * small.items, large.users * large.items, users * items)
    low, high = dict[str, Cost](), dict[str, Cost]()
    for name, cost in large.stages.items():
        before, x = small.stages[name], by_cells if name in ("evaluate", "lists") else by_rows
        seconds = _bounds(before.seconds, cost.seconds, x)
        # A list is a few numbers, whatever the catalog: memory goes by rows.
        memory = _bounds(before.memory, cost.memory, by_rows)
        low[name], high[name] = (Cost(seconds[end], round(memory[end])) for end in (0, 1))
    return Estimate(n_rows, users, items, tuple(dict.fromkeys((small.rows, large.rows))), low, high)


def _bounds(first: float, second: float, x: tuple[float, float, float]) -> list[float]:
    """Line and power law at x[2], the lower one first; never below the second run."""
    if not first < second or not x[0] < x[1] < x[2]:
        return [second * max(1.0, x[2] / x[1])] * 2 if x[0] == x[1] else [second, second]
    line = second + (second - first) / (x[1] - x[0]) * (x[2] - x[1])
    law = second * (x[2] / x[1]) ** (log(second / first) / log(x[1] / x[0])) if first > 0 else line
    return sorted([line, law])


def _memory() -> int:
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0  # only Linux says it at any moment

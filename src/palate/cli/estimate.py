"""`palate estimate`: time and memory of training on a log, from a quick run on its first rows."""

from __future__ import annotations

import contextlib
import io
import os
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from math import log
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer

from palate.cli import options
from palate.cli.console import console, print_json, table
from palate.errors import DataError

SIZES = (50_000, 200_000)  # rows of the two runs
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


@options.reads_rows
def estimate(
    data: options.Data,
    recipe: Annotated[str, typer.Option("--recipe", help="The recipe that would be trained.")],
    set_: Annotated[list[str] | None, typer.Option("--set", help="A hyperparameter, as of palate train.")] = None,
    reading: options.Reading = options.Reading(),
    k: options.K = 10,
    seed: options.Seed = 0,
    json: options.Json = False,
) -> None:
    """Estimate CPU seconds and memory of reading, splitting, training, evaluating and lists for all users.

    The first rows of the log are run in two sizes, and the costs go on from there in a straight line: by rows, or by
    users x items for evaluation and lists.

    Example: palate estimate clicks.csv --recipe ials
    """
    from palate.cli.train import recipe_and_fields
    from palate.models import make_recipe
    from palate.parallel import pool

    name, fields = recipe_and_fields(recipe, None, set_ or [])
    chosen = make_recipe(str(name), fields, fast=True)
    source = reading.of(data)
    n_rows = count_rows(data)
    runs: list[Run] = []
    with tempfile.TemporaryDirectory() as folder:
        for size in sorted({min(size, n_rows) for size in SIZES}):
            sample = write_head(data, size, Path(folder))
            # In a process of its own: memory that a run has freed stays with its process.
            with pool(1) as processes:
                runs.append(processes.submit(run_stages, replace(source, data=str(sample)), chosen, k, seed).result())
    found = extrapolate(runs[0], runs[-1], n_rows)
    if json:
        stages = {stage: cost._asdict() for stage, cost in found.stages.items()}
        print_json({"data": data, "recipe": name, "rows": n_rows, "users": found.users, "items": found.items,
                    "measured_rows": [run.rows for run in runs], "stages": stages})  # fmt: skip
        return
    shown = [[stage, f"{cost.seconds:,.1f}", f"{cost.memory / 1e6:,.0f}"] for stage, cost in found.stages.items()]
    title = f"{name} on about {n_rows:,} rows, {found.users:,} users, {found.items:,} items"
    table(title, ["stage", "CPU s", "memory MB"], shown)
    words = f"From runs on {' and '.join(f'{run.rows:,}' for run in runs)} rows on this machine, idle or not."
    console().print(words, markup=False, soft_wrap=True)


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


def run_stages(source: options.Source, recipe: Any, k: int, seed: int) -> Run:
    """Read, split, train, evaluate, and make a list for every user."""
    from palate.base import TrainOptions
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
            dataset = source.dataset()
        with stage("split"):
            rows = options.default_split(dataset, 0.2, seed)
        with stage("train"):
            model = recipe.for_data(rows.train).fit(rows.train, TrainOptions(seed=seed))
        with stage("evaluate"):
            options.measure(model, rows, k, recipe.name)
        with stage("lists"):
            recommender = Recommender.of(model, rows.train)
            users = rows.train.users.ids
            for first in range(0, len(users), GROUP):
                recommender.recommend(users[first : first + GROUP].to_list(), k=k)
    return Run(len(dataset), dataset.n_users, dataset.n_items, stages)


def extrapolate(small: Run, large: Run, n_rows: int) -> Run:
    """The costs of ``n_rows`` rows on the straight line through two runs; at least those of the larger one."""
    ratio = n_rows / large.rows
    # Users grow with the rows; items by the power law of the two runs, since a longer log repeats its items.
    growth = 1.0
    if small.rows < large.rows:
        growth = min(1.0, max(0.0, log(large.items / small.items) / log(large.rows / small.rows)))
    users, items = round(large.users * ratio), round(large.items * max(ratio, 1.0) ** growth)

    def line(first: float, second: float, x: tuple[float, float, float]) -> float:
        slope = (second - first) / (x[1] - x[0]) if x[1] > x[0] else second / x[1]
        return max(second + max(slope, 0.0) * (x[2] - x[1]), 0.0)

    by_rows = (small.rows, large.rows, n_rows)
    by_cells = (small.users * small.items, large.users * large.items, users * items)
    stages = {}
    for name, cost in large.stages.items():
        before, x = small.stages[name], by_cells if name in ("evaluate", "lists") else by_rows
        # A list is a few numbers, whatever the catalog: memory goes by rows.
        stages[name] = Cost(line(before.seconds, cost.seconds, x), round(line(before.memory, cost.memory, by_rows)))
    return Run(n_rows, users, items, stages)


def _memory() -> int:
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0  # only Linux says it at any moment

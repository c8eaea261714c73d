"""The published tables, one per file: data, protocol, recipe, published value."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import cast

from palate.experiment.worker import side_by_side
from palate.progress import Progress, ProgressEvent, silent
from palate.reproduce.rows import Options, Row

__all__ = ["SYSTEMS", "run", "run_side_by_side"]

SYSTEMS = {
    "A": "system_a",
    "B": "system_b",
    "C": "system_c",
    "D": "system_d",
    "E": "system_e",
    "ml-100k-rmse": "ml_100k_rmse",
    "ml-1m-next": "ml_1m_next",
    "ncf-ml-1m": "ncf_ml_1m",
    "beyond": "beyond",
}
LONGEST_FIRST = ("beyond", "ncf-ml-1m", "ml-1m-next", "D", "C", "ml-100k-rmse", "A", "B", "E")


def run(system: str, options: Options) -> Iterator[Row]:
    """The rows of one system, as they are computed."""
    module = importlib.import_module(f"palate.reproduce.{SYSTEMS[system]}")
    return cast(Callable[[Options], Iterator[Row]], module.run)(options)


def run_side_by_side(systems: Sequence[str], options: Options, workers: int) -> Iterator[tuple[str, list[Row]]]:
    """The rows of each system as it ends: ``workers`` at a time, each in a process of its own with one thread."""
    progress = options.training.progress
    # A progress function belongs to this process: the events of the others come back to it.
    sent = replace(options, training=replace(options.training, progress=silent))
    todo = sorted(systems, key=LONGEST_FIRST.index)
    yield from side_by_side(partial(_rows, sent), todo, workers, progress=progress)


def _rows(options: Options, system: str, progress: Progress) -> list[Row]:
    """The rows of one system, a job of a worker."""

    def named(event: ProgressEvent) -> None:
        progress(replace(event, stage=f"{system}: {event.stage}"))

    return list(run(system, replace(options, training=replace(options.training, progress=named))))

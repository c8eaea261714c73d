"""The published tables, one per file: data, protocol, recipe, published value."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from typing import cast

from palate.errors import PalateError
from palate.parallel import pool
from palate.progress import silent
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
}
LONGEST_FIRST = ("ncf-ml-1m", "ml-1m-next", "D", "C", "ml-100k-rmse", "A", "B", "E")


def run(system: str, options: Options) -> Iterator[Row]:
    """The rows of one system, as they are computed."""
    module = importlib.import_module(f"palate.reproduce.{SYSTEMS[system]}")
    return cast(Callable[[Options], Iterator[Row]], module.run)(options)


def run_side_by_side(systems: Sequence[str], options: Options, workers: int) -> Iterator[tuple[str, list[Row]]]:
    """The rows of each system as it ends: ``workers`` at a time, each in a process of its own with one thread.

    ``options.log`` must be a function of a module, since it is called in those processes.

    Raises:
        PalateError: a process died.
    """
    with pool(workers) as processes:
        todo = sorted(systems, key=LONGEST_FIRST.index)
        running = {
            processes.submit(
                _rows, one, replace(options, progress=False, run=replace(options.run, progress=silent))
            ): one
            for one in todo
        }
        for future in as_completed(running):
            try:
                yield running[future], future.result()
            except BrokenProcessPool:
                raise PalateError(
                    f"a process died while {workers} systems ran, perhaps for lack of memory: run fewer at a time, "
                    "as with --workers 1"
                ) from None


def _rows(system: str, options: Options) -> list[Row]:
    """The rows of one system; lines about it begin with its name."""
    return list(run(system, replace(options, log=lambda line: options.log(f"{system}: {line}"))))
